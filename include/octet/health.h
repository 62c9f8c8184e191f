// How well the ranges of an INT8 plan fit what flows through it: on given rows, or watched while a session serves.
#pragma once

#include <octet/session.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace octet {

/// One value of an INT8 plan.
struct TensorHealth {
  std::string value, step, kernel;
  int64_t elements = 0;
  bool integer = false;   ///< 8-bit with a static scale: the rates below mean something
  double saturation = 0;  ///< share of the smallest and the largest integer
  double zeros = 0;       ///< share that is zero
  bool compared = false;  ///< the float plan has the value, too
  double sqnr_db = 0;     ///< against the float model's value, all error up to here included
  double cosine = 0;
};
struct HealthReport {
  std::vector<TensorHealth> tensors;  ///< in the order of the plan
  /// The first value whose signal is less than `limit_db` above its noise; -1: none.
  int64_t first_diverging = -1;
  int64_t texts = 0, tokens = 0;
};
/// Runs both plans of one model over the rows. Throws invalid_argument (no rows, a plan that is not INT8).
HealthReport tensor_health(const Plan& reference, const Plan& plan, std::span<const Encoding> rows,
                           double limit_db = 15, int threads = 0);

struct ClipMonitorOptions {
  int64_t every = 256;    ///< batches of which one is looked at, by running it once more
  double limit = 0.001;   ///< share of saturated values of a tensor above which its range is too small
  int64_t least = 10000;  ///< values seen before a tensor is judged
};
/// Counts saturated integers while a session serves. With the default `every` it costs less than 1 % of the time. For
/// CPU plans with static ranges.
class ClipMonitor {
 public:
  /// Throws unsupported for plans on a GPU and for plans without static 8-bit values.
  explicit ClipMonitor(Session& session, const ClipMonitorOptions& options = {});
  ~ClipMonitor();
  /// Runs the batch as the session does; every so often looks at it first.
  Output run(const Batch& batch);
  /// Saturation by tensor, over what was looked at.
  std::vector<TensorHealth> rates() const;
  /// The tensors whose ranges are too small for what they got: calibrate again when there are any.
  std::vector<TensorHealth> clipped() const;
  int64_t batches() const noexcept;
  int64_t looked_at() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace octet
