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
  std::string value;   ///< name in the graph
  std::string step;    ///< of B: the graph nodes that it computes
  std::string kernel;  ///< of B
  /// How B's step computes: "integer" (no float arithmetic but scaling and rounding), "epilogue" (integer sums, then
  /// f32), "approximate" (GELU, tanh, exp, or a kernel flagged so), "float", "half" (16-bit floats read or written).
  std::string arithmetic;
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
  /// Values that A does not have are taken from B's own run.
  bool teacher_forced = false;
  int threads = 0;  ///< 0: one per CPU that this process may use
};

/// Compares plans A (usually a simulated one) and B on a batch, in B's order. Throws invalid_argument when no value is
/// common. A plan for a GPU needs that GPU.
std::vector<DiffRow> diff(const Plan& a, const Plan& b, const Batch& batch, const DiffOptions& options = {});

/// Whether the step does what its arithmetic promises (docs/numerics.md): integers equal in all, 99.9 %, 99 % or (half)
/// 98 % of the elements and never more than one step apart; floats within 1e-4 of their root mean square, 16-bit ones
/// within 1e-2. Meant for teacher-forced rows.
bool keeps_promise(const DiffRow& row);

/// Joins the rows of another batch to those of the first ones: sums and maxima over both. Both come from the same plans
/// and options.
void merge_rows(std::vector<DiffRow>* into, const std::vector<DiffRow>& more);

}  // namespace octet
