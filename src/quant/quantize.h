// The two entries of quantization: taking statistics of a float graph, and turning a float graph into a quantized one.
#pragma once

#include <octet/calibration.h>
#include <octet/progress.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace octet {

/// One row of token ids.
struct CalibrationRow {
  std::span<const int32_t> ids, type_ids;  ///< type_ids may be empty
};

/// Places quantizers in a copy of `graph`, runs it unfused in float over the rows (plan/executor.h with taps), and
/// chooses ranges. `pad_id` serves include_padding. The result does not depend on threads or on how rows are grouped
/// into batches.
Calibration calibrate_graph(const Graph& graph, std::span<const CalibrationRow> rows, const CalibrateOptions& options,
                            const std::string& model_hash, int64_t pad_id, const Progress& progress);

struct QuantizeOptions {
  const Calibration* calibration = nullptr;  ///< null: dynamic ranges
  std::string method;                        ///< chooses again from statistics; empty keeps the calibration's ranges
  bool float_embeddings = false;
  std::string model_hash;  ///< must equal the calibration's (invalid_argument)
};

/// Places quantizers with all ranges set. Returns what was done: "static (residual-channel, auto)", "dynamic".
std::string quantize_graph(Graph& graph, const QuantizeOptions& options);

/// Ranges with the strength of channel balancing chosen edge by edge: the one whose product is nearest to float on
/// `rows`. `edges` gets (node, error before, error after, strength), errors as noise over signal in power.
struct BalancedEdge {
  std::string node;
  double before = 0, after = 0, strength = 0;
};
Calibration balance_graph(const Graph& graph, const Calibration& calibration, std::span<const CalibrationRow> rows,
                          std::vector<BalancedEdge>* edges, int threads, const Progress& progress);

}  // namespace octet
