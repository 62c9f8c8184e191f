// Counting integers at the ends of their range, and values against the float model's.
#include <octet/diff.h>
#include <octet/evaluate.h>
#include <octet/health.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "api/state.h"
#include "core/error.h"

namespace octet {

namespace {

struct Counts {
  int64_t elements = 0, saturated = 0, zeros = 0;
};

template <typename T>
void count(const T* values, int64_t elements, int32_t lo, int32_t hi, int32_t zero, Counts* counts) {
  int64_t saturated = 0, zeros = 0;
  for (int64_t i = 0; i < elements; ++i) {
    const int32_t q = values[i];
    saturated += (q <= lo) | (q >= hi);
    zeros += q == zero;
  }
  counts->elements += elements, counts->saturated += saturated, counts->zeros += zeros;
}

/// A tap that counts static 8-bit outputs by value.
class Counter {
 public:
  explicit Counter(const Program& program) : program_(program) {}

  void see(size_t index, const TapView& view) {
    const Buffer& buffer = *view.buffer;
    if ((buffer.dtype != DType::s8 && buffer.dtype != DType::u8) || buffer.row_scale) return;
    const Step& step = program_.steps[index];
    int32_t lo = buffer.dtype == DType::u8 ? 0 : -128, hi = buffer.dtype == DType::u8 ? 255 : 127;
    for (size_t o = 0; o < step.outputs.size(); ++o)
      if (&program_.buffers[static_cast<size_t>(step.outputs[o].buffer)] == view.buffer) {
        lo = static_cast<int32_t>(program_.number(step, ("lo" + std::to_string(o)).c_str(), lo));
        hi = static_cast<int32_t>(program_.number(step, ("hi" + std::to_string(o)).c_str(), hi));
      }
    Counts& counts = by_value_[buffer.value];
    // An unsigned zero is an end of the range, but nothing was cut off there.
    if (buffer.dtype == DType::u8)
      count(static_cast<const uint8_t*>(view.data), view.elements, -1, hi, buffer.zero_point, &counts);
    else count(static_cast<const int8_t*>(view.data), view.elements, lo, hi, buffer.zero_point, &counts);
  }

  const Counts* find(const std::string& value) const {
    auto found = by_value_.find(value);
    return found == by_value_.end() ? nullptr : &found->second;
  }

 private:
  const Program& program_;
  std::map<std::string, Counts> by_value_;
};

bool is_static_integer(const Buffer& buffer) {
  return (buffer.dtype == DType::s8 || buffer.dtype == DType::u8) && !buffer.row_scale;
}

/// Every output of the plan's steps with what was counted.
std::vector<TensorHealth> listed(const Program& program, const Counter& counter) {
  std::vector<TensorHealth> list;
  for (const Step& step : program.steps)
    for (const Slot& slot : step.outputs) {
      const Buffer& buffer = program.buffers[static_cast<size_t>(slot.buffer)];
      TensorHealth health{.value = buffer.value, .step = step.name, .kernel = step.kernel};
      if (const Counts* counts = counter.find(buffer.value); counts != nullptr && is_static_integer(buffer)) {
        health.integer = true;
        health.elements = counts->elements;
        const auto n = static_cast<double>(std::max<int64_t>(counts->elements, 1));
        health.saturation = static_cast<double>(counts->saturated) / n;
        health.zeros = static_cast<double>(counts->zeros) / n;
      }
      list.push_back(std::move(health));
    }
  return list;
}

}  // namespace

HealthReport tensor_health(const Plan& reference, const Plan& plan, std::span<const Encoding> rows, double limit_db,
                           int threads) {
  if (rows.empty()) fail(ErrorCode::invalid_argument, {.what = "cannot look at a plan without rows"});
  if (plan.precision() != Precision::int8 || plan.state()->target.device != DeviceKind::cpu)
    fail(ErrorCode::invalid_argument, {.what = "cannot look at the ranges of this plan",
                                       .expected = "expected an INT8 plan for a CPU",
                                       .hint = "compile with --precision int8"});
  if (plan.state()->as_is)
    fail(ErrorCode::unsupported, {.what = "cannot look into the values of a file that runs node by node"});
  const Program& program = *plan.state()->program;
  Counter counter(program);
  Executor executor(plan.state()->prepared(), std::make_shared<ThreadPool>(threads));
  std::vector<DiffRow> compared;
  HealthReport report;
  std::vector<int64_t> lengths;
  for (const Encoding& row : rows) lengths.push_back(row.size());
  for (const std::vector<int64_t>& group : plan_batches(lengths, {.max_tokens = 1024})) {
    OwnedBatch batch;
    for (int64_t row : group) batch.add(rows[static_cast<size_t>(row)]);
    const Batch view = batch.view();
    executor.bind({.ids = view.ids, .offsets = view.offsets, .type_ids = view.type_ids});
    executor.run([&](size_t step, const TapView& tap) { counter.see(step, tap); });
    merge_rows(&compared, diff(reference, plan, view, {.threads = threads}));
    report.texts += batch.rows();
    report.tokens += static_cast<int64_t>(batch.ids.size());
  }
  report.tensors = listed(program, counter);
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    TensorHealth& health = report.tensors[i];
    for (const DiffRow& row : compared) {
      if (row.value != health.value || row.step != health.step) continue;
      health.compared = true;
      health.elements = row.elements;
      health.sqnr_db = row.rms > 0 ? 20 * std::log10(row.reference_rms / row.rms) : INFINITY;
      health.cosine = row.cosine;
    }
    if (report.first_diverging < 0 && health.compared && health.sqnr_db < limit_db)
      report.first_diverging = static_cast<int64_t>(i);
  }
  return report;
}

struct ClipMonitor::State {
  Session& session;
  ClipMonitorOptions options;
  Counter counter;
  int64_t batches = 0, looked_at = 0;
};

ClipMonitor::ClipMonitor(Session& session, const ClipMonitorOptions& options) {
  const Plan::State& plan = *session.plan().state();
  const auto& buffers = plan.program->buffers;
  if (plan.target.device != DeviceKind::cpu || std::none_of(buffers.begin(), buffers.end(), is_static_integer))
    fail(ErrorCode::unsupported, {.what = "cannot watch this plan's ranges",
                                  .expected = "expected a CPU plan with static INT8 ranges",
                                  .hint = "compile with a calibration"});
  if (options.every < 1)
    fail(ErrorCode::invalid_argument, {.what = "cannot look at every " + std::to_string(options.every) + "th batch",
                                       .expected = "expected 1 or more"});
  state_ = std::make_unique<State>(State{session, options, Counter(*plan.program)});
}
ClipMonitor::~ClipMonitor() = default;

Output ClipMonitor::run(const Batch& batch) {
  State& s = *state_;
  if (s.batches++ % s.options.every == 0) {
    Executor& executor = *s.session.state().executor;
    executor.bind({.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.type_ids});
    executor.run([&](size_t step, const TapView& view) { s.counter.see(step, view); });
    ++s.looked_at;
  }
  return s.session.run(batch);
}

std::vector<TensorHealth> ClipMonitor::rates() const {
  std::vector<TensorHealth> list = listed(*state_->session.plan().state()->program, state_->counter);
  std::erase_if(list, [](const TensorHealth& health) { return !health.integer; });
  return list;
}

std::vector<TensorHealth> ClipMonitor::clipped() const {
  std::vector<TensorHealth> list = rates();
  std::erase_if(list, [&](const TensorHealth& health) {
    return health.elements < state_->options.least || health.saturation <= state_->options.limit;
  });
  return list;
}

int64_t ClipMonitor::batches() const noexcept { return state_->batches; }
int64_t ClipMonitor::looked_at() const noexcept { return state_->looked_at; }

}  // namespace octet
