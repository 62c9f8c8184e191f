// Calibration search: methods and numbers of samples, all from one pass of statistics, judged on the engine.
#include <octet/sweep.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "api/state.h"
#include "api/sweep_rows.h"
#include "core/error.h"
#include "quant/calibration_state.h"
#include "quant/quantize.h"

namespace octet {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Outputs of a plan against the float model's on some rows.
class Nearness {
 public:
  Nearness(const Model& model, std::vector<Encoding> rows, int threads) : rows_(std::move(rows)), threads_(threads) {
    reference_ = outputs(compile(model, {.precision = Precision::fp32}));
    int64_t vectors = 0;
    for (const Encoding& row : rows_) vectors += answers_per_token(model.info().task) ? row.size() : 1;
    width_ = static_cast<int64_t>(reference_.size()) / std::max<int64_t>(vectors, 1);
  }
  /// Relative error and mean cosine.
  std::pair<double, double> of(const Plan& plan) const {
    const std::vector<float> values = outputs(plan);
    double noise = 0, energy = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double d = static_cast<double>(values[i]) - reference_[i];
      noise += d * d, energy += static_cast<double>(reference_[i]) * reference_[i];
    }
    return {energy > 0 ? std::sqrt(noise / energy) : 0, agreement(values, reference_, width_).mean_cosine};
  }

 private:
  std::vector<float> outputs(const Plan& plan) const {
    Session session(plan, {.threads = threads_});
    return run_all(session, rows_);
  }
  std::vector<Encoding> rows_;
  int threads_;
  std::vector<float> reference_;
  int64_t width_ = 1;
};

}  // namespace

Calibration search_ranges(const Model& model, std::span<const Encoding> rows, const RangeSearchOptions& options,
                          RangeSearchResult* result, const Progress& progress) {
  const auto begin = Clock::now();
  std::vector<int64_t> samples = options.samples;
  std::sort(samples.begin(), samples.end());
  const auto total = static_cast<int64_t>(rows.size());
  if (options.methods.empty() || samples.empty() || samples.front() < 1 || options.judge_rows < 1)
    fail(ErrorCode::invalid_argument, {.what = "cannot search ranges without methods, samples and rows to judge on"});
  for (const std::string& method : options.methods) method_of(options.calibrate, method);  // says which are unknown
  const int64_t judges = std::min(options.judge_rows, total / 4);
  if (judges < 1)
    fail(ErrorCode::invalid_argument, {.what = "cannot search ranges on " + std::to_string(total) + " rows",
                                       .expected = "expected at least 4: for statistics, to judge on, and held out"});
  // A fixed shuffle: every number of samples is spread over the data.
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937(11));
  auto take = [&](int64_t from, int64_t count) {
    std::vector<Encoding> taken;
    for (int64_t i = from; i < from + count; ++i) taken.push_back(rows[order[static_cast<size_t>(i)]]);
    return taken;
  };
  const int threads = options.calibrate.threads;
  const std::vector<Encoding> seen = take(0, judges);
  const Nearness judge(model, seen, threads), held_out(model, take(judges, judges), threads);
  RangeSearchResult r{.judge_rows = judges, .held_out_rows = judges};

  std::vector<Calibration> snapshots;
  std::vector<int64_t> counts;
  for (int64_t wanted : samples) {
    const int64_t have = counts.empty() ? 0 : counts.back(), most = std::min(wanted, total - 2 * judges);
    if (most <= have) break;
    CalibrateOptions how = options.calibrate;
    how.samples = most - have, how.method = options.methods.front(), how.bias_rows = 0;
    const std::vector<Encoding> part = take(2 * judges + have, most - have);
    Calibration more = calibrate(model, part, how, progress);
    if (!snapshots.empty()) {
      Calibration merged = Calibration::merge(snapshots.back(), more);
      auto state = std::make_shared<Calibration::State>(merged.state());
      state->options.samples = most;
      more = Calibration(std::move(state));
    }
    snapshots.push_back(more);
    counts.push_back(most);
  }
  r.calibration_rows = counts.back();
  r.pass_seconds = seconds_since(begin);

  struct Best {
    size_t snapshot = 0;
    std::string method;
    double error = INFINITY;
  } best;
  const auto trials = static_cast<int64_t>(snapshots.size() * options.methods.size());
  for (size_t s = 0; s < snapshots.size(); ++s)
    for (const std::string& method : options.methods) {
      if (progress) progress("ranges", static_cast<int64_t>(r.trials.size()), trials);
      const auto [error, cosine] = judge.of(compile(model, {.calibration = snapshots[s], .method = method}));
      r.trials.push_back({method, counts[s], error, cosine});
      if (error < best.error) best = {s, method, error};
    }
  auto with_method = [&](const Calibration& from, const std::string& method) {
    auto state = std::make_shared<Calibration::State>(from.state());
    state->options.method = method;
    Graph placed = model.state().graph;
    place_quantizers(placed, state->options);
    const auto how = choose_ranges(placed, state->statistics, method_of(*state, ""));
    state->ranges = stored_ranges(placed, how);
    return Calibration(std::move(state));
  };
  Calibration chosen = with_method(snapshots[best.snapshot], best.method);
  std::vector<std::string> ordered{best.method};
  for (const std::string& method : options.methods)
    if (method != best.method) ordered.push_back(method);
  std::vector<CalibrationRow> views;
  for (const Encoding& row : seen) views.push_back({row.ids, row.type_ids});
  std::vector<ChosenMethod> mixture;
  const Calibration mixed = choose_methods(model.state().graph, chosen, views, ordered, &mixture, threads, progress);
  for (const ChosenMethod& m : mixture) ++r.per_tensor[m.method];
  const auto [error, cosine] = judge.of(compile(model, {.calibration = mixed}));
  r.trials.push_back({"per tensor", counts[best.snapshot], error, cosine});
  const bool better = error < best.error;
  if (better) chosen = mixed;
  for (RangeTrial& trial : r.trials)
    trial.chosen =
        better ? trial.method == "per tensor" : trial.method == best.method && trial.samples == counts[best.snapshot];
  std::tie(r.held_out_error, r.held_out_cosine) = held_out.of(compile(model, {.calibration = chosen}));
  r.first_held_out_error =
      held_out.of(compile(model, {.calibration = snapshots.back(), .method = options.methods.front()})).first;
  r.seconds = seconds_since(begin);
  if (result != nullptr) *result = std::move(r);
  return chosen;
}

}  // namespace octet
