// Where two forms of one model first disagree, step by step.
#pragma once

#include <octet/session.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace octet {

/// One value that both have.
struct DiffRow {
  std::string value;          ///< name in the graph
  std::string kernel;         ///< of B
  int64_t elements = 0;
  double max_abs = 0;         ///< largest difference, in real units
  double rms = 0;             ///< root mean square of the difference
  double reference_rms = 0;   ///< root mean square of A's values
  bool integer = false;       ///< compared as quantization steps:
  double equal_fraction = 0;  ///< share of equal integers
  int64_t max_steps = 0;      ///< largest difference in steps
  double cosine = 0;
};

struct DiffOptions {
  /// true: every step of B gets A's values as inputs, so that each row judges one step alone; false: both run freely.
  bool teacher_forced = false;
};

/// Compares plans A (usually a simulated one) and B on a batch, in B's order. Throws invalid_argument when no value is common.
std::vector<DiffRow> diff(const Plan& a, const Plan& b, const Batch& batch, const DiffOptions& options = {});

}  // namespace octet
