// From a graph to a program: regions are formed, quantizers folded, weights quantized, kernels chosen.
#pragma once

#include <map>
#include <string>

#include "core/target.h"
#include "graph/graph.h"
#include "plan/program.h"

namespace octet {

/// What notes of steps begin with whose results are f32 because they overflow in f16.
constexpr const char* kWideNote = "its result in fp32: ";

struct LowerOptions {
  Target target;
  /// Type of everything that is not 8-bit: f32, or f16 / bf16 on CUDA.
  DType float_type = DType::f32;
  /// float_type f16: values that would overflow there (plan/overflow.h), with the largest magnitude seen. They and what
  /// reads them are computed in f32.
  std::map<std::string, double> wide;
  /// false: one step a node, everything in float, fake_quant nodes computed as such (calibration and the simulate
  /// backend).
  bool fuse = true;
  /// Unfused only: products are summed in f64, so that rounding of the float kernels does not move quantizers (the
  /// simulate backend).
  bool exact = false;
  /// Quantizers that are alike become one. Without it (unfused only) each stays a step of its own.
  bool share = true;
};

/// Fails with `unsupported`, listing every node that no kernel accepts, and with `invalid_argument` for a fused program
/// whose quantizers still await calibration.
Program lower(const Graph& graph, const LowerOptions& options);

}  // namespace octet
