// The search: predicted candidates, compiled, evaluated and timed on the engine, verified on held-out rows.
#include <octet/bench.h>
#include <octet/sweep.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "api/latency_model.h"
#include "api/state.h"
#include "api/sweep_rows.h"
#include "core/error.h"
#include "kernels/device.h"
#include "quant/quantize.h"
#include "quant/search.h"
#include "quant/switched.h"

namespace octet {

namespace {

using Clock = std::chrono::steady_clock;

/// A plan's quality on some rows: the metric, or the mean cosine to float where there are no labels.
struct Quality {
  double value = 0, cosine = 1;
};

class Judge {
 public:
  Judge(const ModelInfo& info, const SweepRows& rows) : info_(info), rows_(rows) {}

  Quality judge(Session& session) {
    std::vector<float> values = run_all(session, rows_.encoded);
    int64_t vectors = 0;
    for (const Encoding& text : rows_.encoded) vectors += answers_per_token(info_.task) ? text.size() : 1;
    const int64_t width = static_cast<int64_t>(values.size()) / std::max<int64_t>(vectors, 1);
    Quality q;
    if (reference_.empty()) reference_ = values;  // the float model comes first
    else q.cosine = agreement(values, reference_, width).mean_cosine;
    q.value = q.cosine;
    if (rows_.expected) {
      Evaluation e;
      score(info_, rows_.data, rows_.encoded, *rows_.expected, answers(info_, values, width), &e);
      q.value = e.value;
      metric_ = e.metric;
    }
    return q;
  }
  const std::string& metric() const { return metric_; }

 private:
  const ModelInfo& info_;
  const SweepRows& rows_;
  std::vector<float> reference_;
  std::string metric_ = "cosine";
};

class Search {
 public:
  Search(const Model& model, const Calibration& calibration, const Dataset& data, const SearchOptions& options,
         const Progress& progress)
      : model_(model),
        calibration_(calibration),
        options_(options),
        progress_(progress),
        card_(options.latency_model.empty() ? nullptr : &find_card(options.latency_model)) {
    if (!(options.min_int8_work >= 0 && options.min_int8_work <= 1))
      fail(ErrorCode::invalid_argument,
           {.what = "cannot keep a share of " + std::to_string(options.min_int8_work) + " of the work in INT8",
            .expected = "expected 0 to 1"});
    if (options.device == "cuda" && !kernels::device::find_device().present)
      fail(ErrorCode::unsupported, {.what = "cannot search for a GPU here",
                                    .expected = kernels::device::find_device().reason,
                                    .hint = "latency of a card that is not here can be modelled: latency_model, or "
                                            "--model-latency h100"});
    const std::vector<int64_t> chosen = spread_rows(data.rows(), options.limit);
    if (chosen.size() < 2)
      fail(ErrorCode::invalid_argument, {.what = "cannot search on " + std::to_string(chosen.size()) + " rows",
                                         .expected = "half of the rows are held out: at least 2"});
    std::vector<int64_t> halves[2];
    for (size_t i = 0; i < chosen.size(); ++i) halves[i % 2].push_back(chosen[i]);
    seen_ = sweep_rows(model, data, halves[0], options.max_length, options.threads);
    held_ = sweep_rows(model, data, halves[1], options.max_length, options.threads);
  }

  SearchResult run() {
    const auto begin = Clock::now();
    if (options_.balance_rows > 0) balance();
    if (options_.bias_rows > 0)
      calibration_ = correct_biases(model_, calibration_, first_texts(options_.bias_rows), progress_, options_.threads);
    result_.sites = site_sensitivity();
    measure_costs();
    measure_candidates();
    verify_and_choose();
    result_.search_rows = seen_->count();
    result_.held_out_rows = held_->count();
    result_.metric_reason = seen_->reason;
    result_.device = card_ ? card_->name : plans_[0].explain({.repeats = 0}).device;
    result_.modelled = card_ != nullptr;
    result_.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    return std::move(result_);
  }

 private:
  void report(const char* stage, int64_t done, int64_t total) const {
    if (progress_) progress_(stage, done, total);
  }

  std::span<const Encoding> first_texts(int64_t rows) const {
    return std::span(seen_->encoded)
        .first(static_cast<size_t>(std::min(rows * seen_->per_row, static_cast<int64_t>(seen_->encoded.size()))));
  }

  void balance() {
    calibration_ = balance_edges(model_, calibration_, first_texts(options_.balance_rows), &result_.strengths,
                                 progress_, options_.threads);
  }

  Sensitivity site_sensitivity() {
    std::vector<int64_t> rows = spread_rows(seen_->count(), options_.sensitivity_rows);
    SweepRows some = sweep_rows(model_, seen_->data, rows, options_.max_length, options_.threads);
    return sensitivity(model_, calibration_, some, {.unit = "site", .all_but = false, .threads = options_.threads},
                       progress_);
  }

  Plan plan_without(const std::vector<std::string>& quantizers) const {
    return compile(model_, {.device = options_.device,
                            .calibration = quantizers.empty() ? calibration_ : without(calibration_, quantizers)});
  }

  /// Time that a site of each kind costs in float: a plan with all of that kind in float, over their number.
  void measure_costs() {
    std::map<std::string, std::vector<size_t>> kinds;
    for (size_t i = 0; i < result_.sites.rows.size(); ++i)
      kinds[without_layer(result_.sites.rows[i].name)].push_back(i);
    std::vector<Plan> plans{plan_without({})};
    for (const auto& [kind, sites] : kinds) {
      report("costs", static_cast<int64_t>(plans.size()) - 1, static_cast<int64_t>(kinds.size()));
      std::vector<std::string> off;
      for (size_t site : sites)
        off.insert(off.end(), result_.sites.rows[site].quantizers.begin(), result_.sites.rows[site].quantizers.end());
      plans.push_back(plan_without(off));
    }
    const std::vector<BenchResult> times = time(plans);
    units_.resize(result_.sites.rows.size());
    base_ms_ = times[0].median_ms;
    size_t at = 1;
    for (const auto& [kind, sites] : kinds) {
      const auto count = static_cast<double>(sites.size());
      const double each = (times[at].median_ms - base_ms_) / count;
      const double work = std::max(0.0, int8_work(plans[0]) - int8_work(plans[at])) / count;
      for (size_t site : sites) units_[site].cost = each, units_[site].work = work;
      ++at;
    }
    for (size_t i = 0; i < units_.size(); ++i) {
      const double e = result_.sites.rows[i].only->relative_error;
      units_[i].noise = e * e;
    }
  }

  double int8_work(const Plan& plan) const {
    return plan.explain({.batch = options_.batch, .length = options_.length, .repeats = 0}).int8_work_fraction;
  }

  std::vector<BenchResult> time(const std::vector<Plan>& plans) const {
    if (card_ != nullptr) {
      std::vector<BenchResult> modelled(plans.size());
      for (size_t i = 0; i < plans.size(); ++i)
        modelled[i].median_ms = modelled[i].min_ms =
            modelled_ms(plans[i].explain({.batch = options_.batch, .length = options_.length, .repeats = 0}), *card_);
      return modelled;
    }
    std::vector<Session> sessions;
    sessions.reserve(plans.size());
    for (const Plan& plan : plans) sessions.emplace_back(plan, SessionOptions{.threads = options_.threads});
    std::vector<Session*> pointers;
    for (Session& session : sessions) pointers.push_back(&session);
    return bench_interleaved(pointers, options_.batch, options_.length, {.seconds = options_.seconds});
  }

  void measure_candidates() {
    const double tolerance = units_.size() <= 16 ? 0.1 : 0.0;
    const double left = int8_work(plan_without({})) - options_.min_int8_work;  // that may still go to float
    const auto sets = front_candidates(units_, tolerance, static_cast<size_t>(std::max(options_.candidates, 2)),
                                       options_.min_int8_work > 0 ? std::max(left, 0.0) : 1);
    plans_.push_back(compile(model_, {.precision = Precision::fp32, .device = options_.device}));
    Judge judge(model_.info(), *seen_);
    {
      Session session(plans_[0], {.threads = options_.threads});
      result_.float_search_value = judge.judge(session).value;
    }
    for (const std::vector<char>& set : sets) {
      report("candidates", static_cast<int64_t>(result_.points.size()), static_cast<int64_t>(sets.size()));
      SearchPoint point;
      point.predicted_ms = base_ms_;
      for (size_t u = 0; u < set.size(); ++u) {
        if (set[u] == 0) continue;
        const SensitivityRow& site = result_.sites.rows[u];
        point.float_sites.push_back(site.name);
        point.float_quantizers.insert(point.float_quantizers.end(), site.quantizers.begin(), site.quantizers.end());
        point.predicted_ms += units_[u].cost;
      }
      plans_.push_back(plan_without(point.float_quantizers));
      Session session(plans_.back(), {.threads = options_.threads});
      point.search_value = judge.judge(session).value;
      point.int8_work_fraction = int8_work(plans_.back());
      point.weight_bytes = plans_.back().weight_bytes();
      result_.points.push_back(std::move(point));
    }
    result_.metric = judge.metric();
    report("timing", 0, 1);
    const std::vector<BenchResult> times = time(plans_);
    result_.float_ms = times[0].median_ms;
    result_.float_sd_ms = times[0].sd_ms;
    for (size_t i = 0; i < result_.points.size(); ++i) {
      result_.points[i].median_ms = times[i + 1].median_ms;
      result_.points[i].sd_ms = times[i + 1].sd_ms;
      result_.points[i].min_ms = times[i + 1].min_ms;
    }
  }

  void verify_and_choose() {
    std::vector<std::pair<double, double>> pairs;
    for (const SearchPoint& point : result_.points)
      pairs.emplace_back(point.median_ms, result_.float_search_value - point.search_value);
    const std::vector<size_t> front = pareto_front(pairs);
    Judge judge(model_.info(), *held_);
    {
      Session session(plans_[0], {.threads = options_.threads});
      result_.float_held_out_value = judge.judge(session).value;
    }
    for (size_t i : front) {
      Session session(plans_[i + 1], {.threads = options_.threads});
      const Quality q = judge.judge(session);
      SearchPoint& point = result_.points[i];
      point.pareto = true;
      point.held_out_value = q.value;
      point.held_out_cosine = q.cosine;
      point.held_out_drop = 100 * (result_.float_held_out_value - q.value);
    }
    choose(front);
    std::stable_sort(result_.points.begin(), result_.points.end(),
                     [](const SearchPoint& a, const SearchPoint& b) { return a.median_ms < b.median_ms; });
  }

  void choose(std::vector<size_t> front) {
    const bool drop = options_.max_drop >= 0, latency = options_.max_latency_ms > 0;
    if (!drop && !latency) {
      result_.reason = "no bound was given: no point is chosen";
      return;
    }
    // Under a bound on the loss the fastest is best; under one on the time alone the most accurate.
    if (!drop) std::reverse(front.begin(), front.end());
    for (size_t i : front) {
      SearchPoint& point = result_.points[i];
      if (latency && point.median_ms > options_.max_latency_ms) continue;
      if (point.int8_work_fraction < options_.min_int8_work - 1e-9) continue;
      if (drop && 100 * (result_.float_search_value - point.search_value) > options_.max_drop) continue;
      if (drop && point.held_out_drop > options_.max_drop) {
        result_.reason += (result_.reason.empty() ? "" : "; ") + std::string("a faster point kept the bound on the ") +
                          "rows searched on, but not on the held-out ones";
        continue;
      }
      point.chosen = result_.found = true;
      result_.calibration =
          point.float_quantizers.empty() ? calibration_ : without(calibration_, point.float_quantizers);
      return;
    }
    result_.reason += (result_.reason.empty() ? "" : "; ") + std::string("no measured plan keeps the bounds");
  }

  const Model& model_;
  Calibration calibration_;
  const SearchOptions& options_;
  const Progress& progress_;
  const Card* card_;  // whose latency is modelled; null: latency is measured
  std::optional<SweepRows> seen_, held_;
  SearchResult result_;
  std::vector<SearchUnit> units_;
  std::vector<Plan> plans_;  // float, then the points
  double base_ms_ = 0;
};

}  // namespace

SearchResult search(const Model& model, const Calibration& calibration, const Dataset& data,
                    const SearchOptions& options, const Progress& progress) {
  return Search(model, calibration, data, options, progress).run();
}

Calibration balance_edges(const Model& model, const Calibration& calibration, std::span<const Encoding> rows,
                          StrengthResult* result, const Progress& progress, int threads) {
  if (calibration.model_hash() != model.info().hash)
    fail(ErrorCode::invalid_argument,
         {.what = "the calibration belongs to another model",
          .expected = "expected hash " + model.info().hash + ", got " + calibration.model_hash(),
          .hint = "calibrate this model"});
  const auto begin = Clock::now();
  std::vector<CalibrationRow> views;
  for (const Encoding& row : rows) views.push_back({row.ids, row.type_ids});
  std::vector<BalancedEdge> edges;
  require_raised(model.state(), "balance");
  Calibration made = balance_graph(model.state().graph, calibration, views, &edges, threads, progress);
  if (result != nullptr) {
    for (const BalancedEdge& edge : edges) result->edges.push_back({edge.node, edge.before, edge.after, edge.strength});
    result->seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return made;
}

Calibration correct_biases(const Model& model, const Calibration& calibration, std::span<const Encoding> rows,
                           const Progress& progress, int threads) {
  if (calibration.model_hash() != model.info().hash)
    fail(ErrorCode::invalid_argument,
         {.what = "the calibration belongs to another model",
          .expected = "expected hash " + model.info().hash + ", got " + calibration.model_hash(),
          .hint = "calibrate this model"});
  std::vector<CalibrationRow> views;
  for (const Encoding& row : rows) views.push_back({row.ids, row.type_ids});
  return correct_graph_biases(model.state().graph, calibration, views, nullptr, threads, progress);
}

}  // namespace octet
