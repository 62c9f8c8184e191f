// Measures what a report shows.
#include <octet/report.h>
#include <octet/system.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <random>

#include "api/report_data.h"
#include "api/state.h"
#include "api/sweep_rows.h"
#include "bench/statistics.h"
#include "core/error.h"
#include "core/file.h"
#include "quant/calibration_state.h"

namespace octet {

namespace {

using Clock = std::chrono::steady_clock;

/// GB/s of copying memory that no cache holds, reads and writes counted.
double copy_rate() {
  constexpr size_t kBytes = size_t{64} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    auto begin = std::chrono::steady_clock::now();
    std::memcpy(to.data(), from.data(), kBytes);
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, 2.0 * static_cast<double>(kBytes) / seconds / 1e9);
    from[static_cast<size_t>(i)] = to[kBytes / 2];
  }
  return best;
}

/// One row of the report and the calls that measure it.
struct Runner {
  ReportForm form;
  std::optional<Session> session;
  const ReportPeer* peer = nullptr;

  /// Milliseconds of one call.
  double call(const std::vector<Encoding>& rows, const OwnedBatch& batch) {
    if (peer != nullptr) return peer->run(rows).ms;
    const auto begin = Clock::now();
    session->run(batch.view());
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  }
};

/// A batch twice: as peers and as sessions take it.
struct Input {
  std::vector<Encoding> rows;
  OwnedBatch batch;

  void add(Encoding row) {
    batch.add(row);
    rows.push_back(std::move(row));
  }
};

Input random_input(const ModelInfo& info, int64_t batch, int64_t length, uint32_t seed) {
  std::mt19937 random(seed);
  const auto vocabulary = static_cast<int32_t>(std::max<int64_t>(info.vocabulary, 1));
  const int32_t first = vocabulary > 2000 ? 1000 : vocabulary > 10 ? 5 : 0;  // no special tokens, as octet bench
  std::uniform_int_distribution<int32_t> id(first, vocabulary - 1);
  Input input;
  for (int64_t r = 0; r < batch; ++r) {
    Encoding row;
    for (int64_t t = 0; t < length; ++t) row.ids.push_back(id(random));
    row.type_ids.assign(row.ids.size(), 0);
    input.add(std::move(row));
  }
  return input;
}

class Measurement {
 public:
  Measurement(const SweepRows& rows, const ReportOptions& options, const Progress& progress, ReportData* data)
      : rows_(rows), options_(options), progress_(progress), data_(data) {
    for (const Encoding& text : rows.encoded) vectors_ += answers_per_token(data->info.task) ? text.size() : 1;
  }

  void add(const Plan& plan, const std::string& device, const std::string& precision) {
    Runner& runner = fresh("octet", device, precision);
    attempt(runner, [&] {
      runner.session.emplace(plan, SessionOptions{.threads = options_.threads});
      judge(runner, run_all(*runner.session, rows_.encoded, 4096, progress_));
      runner.form.weight_bytes = plan.weight_bytes();
      runner.form.int8_work_fraction = plan.explain({.repeats = 0}).int8_work_fraction;
    });
  }

  void add_absent(const std::string& name, const std::string& device, const std::string& precision,
                  const std::string& why) {
    fresh(name, device, precision).form.absent = why;
  }

  void add(const ReportPeer& peer) {
    Runner& runner = fresh(peer.name, peer.device, peer.precision);
    runner.peer = &peer;
    runner.form.absent = peer.absent;
    if (peer.absent.empty() && !peer.run) runner.form.absent = "there is nothing to run";
    if (runner.form.absent.empty())
      attempt(runner, [&] {
        judge(runner, answers_of(peer));
        runner.form.weight_bytes = peer.model_bytes;
      });
  }

  /// Times all runners that are left in turns.
  void time() {
    int64_t done = 0;
    for (const auto& [batch, length] : options_.shapes) {
      if (progress_) progress_("timing", done++, static_cast<int64_t>(options_.shapes.size()) + 1);
      if (data_->info.max_length > 0 && length > data_->info.max_length) continue;
      std::vector<Input> inputs;
      for (uint32_t i = 0; i < 8; ++i) inputs.push_back(random_input(data_->info, batch, length, i + 1));
      turns(inputs, batch, length, [](ReportForm& form, BenchResult result, double) { form.shapes.push_back(result); });
    }
    std::vector<Input> real;
    const size_t most = std::min<size_t>(512, rows_.encoded.size());
    int64_t tokens = 0;
    for (size_t r = 0; r < most; ++r) {
      if (r % kRealBatch == 0) real.emplace_back();
      real.back().add(rows_.encoded[r]);
      tokens += rows_.encoded[r].size();
    }
    const double rows_a_call = static_cast<double>(most) / static_cast<double>(real.size());
    turns(real, std::min<int64_t>(kRealBatch, static_cast<int64_t>(most)), tokens / static_cast<int64_t>(most),
          [&](ReportForm& form, BenchResult result, double mean) {
            result.rows_per_s = mean > 0 ? rows_a_call / mean * 1e3 : 0;
            form.real = result;
          });
    for (Runner& runner : runners_)
      attempt(runner, [&] {
        if (runner.peer != nullptr) runner.form.memory_bytes = runner.peer->memory ? runner.peer->memory() : 0;
        else if (runner.session)
          if (const auto& executor = runner.session->state().executor)
            runner.form.memory_bytes = runner.form.weight_bytes + executor->arena_bytes();
      });
  }

  std::vector<ReportForm> forms() const {
    std::vector<ReportForm> list;
    for (const Runner& runner : runners_) list.push_back(runner.form);
    return list;
  }

 private:
  static constexpr size_t kRealBatch = 32, kFewest = 10;

  Runner& fresh(const std::string& name, const std::string& device, const std::string& precision) {
    Runner& runner = runners_.emplace_back();
    runner.form.name = name, runner.form.device = device, runner.form.precision = precision;
    return runner;
  }

  /// What fails makes its row one without numbers.
  template <typename Work>
  void attempt(Runner& runner, const Work& work) {
    if (!runner.form.absent.empty()) return;
    try {
      work();
    } catch (const std::exception& error) {
      const std::string text = error.what();
      ReportForm empty;
      empty.name = runner.form.name, empty.device = runner.form.device, empty.precision = runner.form.precision;
      empty.absent = "failed: " + text;
      for (char& c : empty.absent)
        if (c == '\n') c = ' ';
      runner.form = std::move(empty);
      runner.session.reset();
    }
  }

  void judge(Runner& runner, const std::vector<float>& values) {
    const int64_t width =
        static_cast<int64_t>(reference_.empty() ? values.size() : reference_.size()) / std::max<int64_t>(vectors_, 1);
    if (reference_.empty()) reference_ = values;
    if (values.size() != reference_.size())
      fail(ErrorCode::invalid_argument,
           {.what = "it answered with " + std::to_string(values.size()) + " numbers",
            .expected = "expected " + std::to_string(reference_.size()) + ", as many as octet gives"});
    for (float value : values)
      if (!std::isfinite(value)) fail(ErrorCode::invalid_argument, {.what = "its answers hold NaN or infinity"});
    runner.form.cosine = agreement(values, reference_, width).mean_cosine;
    if (!rows_.expected) return;
    Evaluation e;
    score(data_->info, rows_.data, rows_.encoded, *rows_.expected, answers(data_->info, values, width), &e);
    runner.form.metric = e.value;
    data_->metric = e.metric;
  }

  /// All rows through a peer, sorted by length so that it pads little.
  std::vector<float> answers_of(const ReportPeer& peer) {
    const std::vector<Encoding>& rows = rows_.encoded;
    std::vector<size_t> order(rows.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows[a].size() < rows[b].size(); });
    std::vector<std::vector<float>> parts(rows.size());
    const size_t each = static_cast<size_t>(std::max<int64_t>(peer.accuracy_batch, 1));
    for (size_t begin = 0; begin < order.size(); begin += each) {
      if (progress_)
        progress_(peer.name + " " + peer.precision, static_cast<int64_t>(begin), static_cast<int64_t>(order.size()));
      std::vector<Encoding> batch;
      int64_t vectors = 0;
      const size_t end = std::min(begin + each, order.size());
      for (size_t i = begin; i < end; ++i) batch.push_back(rows[order[i]]), vectors += vectors_in(rows[order[i]]);
      const std::vector<float> values = peer.run(batch).values;
      const size_t width = values.size() / static_cast<size_t>(vectors);
      if (width == 0 || values.size() % static_cast<size_t>(vectors) != 0)
        fail(ErrorCode::invalid_argument,
             {.what = "it answered with " + std::to_string(values.size()) + " numbers",
              .expected = "expected the same number for each of " + std::to_string(vectors) + " answers"});
      auto at = values.begin();
      for (size_t i = begin; i < end; ++i) {
        const auto count = static_cast<int64_t>(width) * vectors_in(rows[order[i]]);
        parts[order[i]].assign(at, at + count);
        at += count;
      }
    }
    std::vector<float> all;
    for (const std::vector<float>& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
  int64_t vectors_in(const Encoding& row) const { return answers_per_token(data_->info.task) ? row.size() : 1; }

  /// Every runner once a turn, until each had its seconds. One that is much slower than the others leaves when it had
  /// four times its share.
  template <typename Keep>
  void turns(const std::vector<Input>& inputs, int64_t batch, int64_t length, const Keep& keep) {
    std::vector<std::vector<double>> samples(runners_.size());
    std::vector<double> spent(runners_.size());
    const double share = options_.seconds * 1e3;
    auto call = [&](Runner& runner, size_t i) {
      const Input& input = inputs[i % inputs.size()];
      return runner.call(input.rows, input.batch);
    };
    for (Runner& runner : runners_)
      attempt(runner, [&] {
        const size_t calls = runner.form.device == "cpu" ? 3 : 30;
        double warm = 0;
        for (size_t i = 0; i < calls && warm < share; ++i) warm += call(runner, i);
      });
    bool more = true;
    for (size_t i = 0; more; ++i) {
      more = false;
      for (size_t r = 0; r < runners_.size(); ++r) {
        Runner& runner = runners_[r];
        const bool enough = spent[r] >= share && i >= std::max(kFewest, inputs.size());
        const bool far_too_slow = spent[r] >= 4 * share && samples[r].size() >= 3;
        if (!runner.form.absent.empty() || enough || far_too_slow) continue;
        more = true;
        attempt(runner, [&] {
          samples[r].push_back(call(runner, i));
          spent[r] += samples[r].back();
        });
      }
    }
    for (size_t r = 0; r < runners_.size(); ++r) {
      ReportForm& form = runners_[r].form;
      if (!form.absent.empty()) continue;
      const bench::Summary s = bench::summarize(samples[r]);
      keep(form,
           {.model = data_->info.source,
            .backend = form.name,
            .precision = form.precision,
            .device = form.device,
            .batch = batch,
            .seq = length,
            .median_ms = s.median,
            .mean_ms = s.mean,
            .sd_ms = s.sd,
            .min_ms = s.min,
            .max_ms = s.max,
            .p95_ms = s.p95,
            .p99_ms = s.p99,
            .rows_per_s = s.median > 0 ? static_cast<double>(batch) / s.median * 1e3 : 0,
            .runs = s.count},
           s.mean);
    }
  }

  const SweepRows& rows_;
  const ReportOptions& options_;
  const Progress& progress_;
  ReportData* data_;
  std::deque<Runner> runners_;
  std::vector<float> reference_;
  int64_t vectors_ = 0;
};

void add_histograms(const Calibration& calibration, ReportData* data) {
  constexpr size_t kBars = 64, kMost = 12;
  std::vector<std::pair<double, std::string>> order;  // widest distributions first: largest over 99 % range
  std::map<std::string, Calibration::Range> by_tensor;
  for (const Calibration::Range& range : calibration.ranges()) by_tensor.emplace(range.tensor, range);
  for (const auto& [tensor, range] : by_tensor)
    if (const TensorStatistics* seen = calibration.state().statistics.find(tensor);
        seen != nullptr && seen->elements() > 0 && seen->percentile(99) > 0)
      order.emplace_back(-static_cast<double>(seen->amax()) / seen->percentile(99), tensor);
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < std::min(kMost, order.size()); ++i) {
    const TensorStatistics& seen = *calibration.state().statistics.find(order[i].second);
    const Calibration::Range& range = by_tensor.at(order[i].second);
    ReportHistogram h{
        .tensor = order[i].second, .quantizer = range.quantizer, .range = range.hi, .largest = seen.amax()};
    const size_t each = (seen.bins().size() + kBars - 1) / kBars;
    h.bin_width = seen.bin_width() * static_cast<double>(each);
    h.counts.resize((seen.bins().size() + each - 1) / each);
    for (size_t b = 0; b < seen.bins().size(); ++b) h.counts[b / each] += static_cast<double>(seen.bins()[b]);
    data->histograms.push_back(std::move(h));
  }
}

void add_ops(const Plan& plan, const ReportOptions& options, ReportData* data) {
  int64_t length = 64;
  if (data->info.max_length > 0) length = std::min(length, data->info.max_length);
  const Explanation e = plan.explain({.batch = 8, .length = length, .repeats = 20, .threads = options.threads});
  data->op_batch = e.batch, data->op_length = e.length;
  data->copy_gb_per_s = copy_rate();
  for (const ExplainedOp& op : e.ops)
    if (op.kind == "gemm" && op.ms > 0) data->best_gmacs = std::max(data->best_gmacs, op.macs / op.ms / 1e6);
  for (const ExplainedOp& op : e.ops) {
    const double products = data->best_gmacs > 0 ? op.macs / data->best_gmacs / 1e6 : 0;
    const double traffic = static_cast<double>(op.bytes) / data->copy_gb_per_s / 1e6;
    data->ops.push_back({op.name, op.kind, op.precision, op.ms, std::max(products, traffic)});
  }
}

}  // namespace

Report report(const Model& model, const Calibration& calibration, const Dataset& data, const ReportOptions& options,
              const Progress& progress) {
  if (options.shapes.empty()) fail(ErrorCode::invalid_argument, {.what = "cannot report without a shape to time"});
  ReportData r;
  r.info = model.info();
  const SystemInfo system = system_info();
  r.cpu = system.cpu, r.target = system.target, r.version = system.version;
  r.threads = options.threads > 0 ? options.threads : system.cpus;
  r.data = data.source();
  r.placement = calibration.options().placement, r.method = calibration.options().method;
  const SweepRows rows =
      sweep_rows(model, data, spread_rows(data.rows(), options.limit), options.max_length, options.threads);
  r.rows = rows.count();
  r.metric_reason = rows.reason;
  for (const Encoding& text : rows.encoded) r.tokens += text.size();
  const Plan plan = compile(model, {.calibration = calibration});
  Measurement measurement(rows, options, progress, &r);
  measurement.add(compile(model, {.precision = Precision::fp32}), "cpu", "fp32");
  measurement.add(plan, "cpu", "int8 static");
  measurement.add(compile(model, {}), "cpu", "int8 dynamic");
  r.gpu = system.gpu;
  const CompileOptions on_gpu[] = {{.precision = Precision::fp32, .device = "cuda"},
                                   {.precision = Precision::fp16, .device = "cuda"},
                                   {.device = "cuda", .calibration = calibration},
                                   {.device = "cuda"}};
  const char* names[] = {"fp32", "fp16", "int8 static", "int8 dynamic"};
  for (size_t i = 0; i < std::size(on_gpu); ++i) {
    if (!system.cuda_build) measurement.add_absent("octet", "cuda", names[i], "this build has no CUDA kernels");
    else if (system.gpu.empty()) measurement.add_absent("octet", "cuda", names[i], system.gpu_reason);
    else {
      std::optional<Plan> made;
      std::string why;
      try {
        made = compile(model, on_gpu[i]);
      } catch (const Error& error) {
        why = error.what();
      }
      if (made) measurement.add(*made, "cuda", names[i]);
      else measurement.add_absent("octet", "cuda", names[i], why);
    }
  }
  for (const ReportPeer& peer : options.peers) measurement.add(peer);
  measurement.time();
  r.forms = measurement.forms();
  add_ops(plan, options, &r);
  if (options.sensitivity_rows > 0) {
    const SweepRows some = sweep_rows(model, rows.data, spread_rows(rows.count(), options.sensitivity_rows),
                                      options.max_length, options.threads);
    r.layers = sensitivity(model, calibration, some, {.unit = "layer", .threads = options.threads}, progress);
  }
  add_histograms(calibration, &r);
  return {report_html(r), report_markdown(r), report_json(r)};
}

std::vector<ReportKind> kinds_of(const ReportData& data) {
  std::map<std::string, ReportKind> kinds;
  for (const ReportOp& op : data.ops) {
    ReportKind& kind = kinds[op.kind + " " + op.precision];
    kind.name = op.kind + " " + op.precision;
    kind.ms += op.ms, kind.floor_ms += op.floor_ms;
  }
  std::vector<ReportKind> list;
  for (auto& [name, kind] : kinds) list.push_back(std::move(kind));
  std::stable_sort(list.begin(), list.end(), [](const ReportKind& a, const ReportKind& b) { return a.ms > b.ms; });
  return list;
}

std::vector<std::filesystem::path> save_report(const Report& report, const std::filesystem::path& html) {
  std::vector<std::filesystem::path> paths{html, html, html};
  paths[1].replace_extension(".md");
  paths[2].replace_extension(".json");
  if (paths[1] == html || paths[2] == html)
    fail(ErrorCode::invalid_argument, {.what = "cannot write the report to " + html.string(),
                                       .expected = "expected a name that ends in .html",
                                       .hint = "the Markdown and JSON files stand beside it"});
  const std::string* texts[] = {&report.html, &report.markdown, &report.json};
  for (size_t i = 0; i < paths.size(); ++i) {
    FileWriter file(paths[i]);
    file.write(*texts[i]);
    file.commit();
  }
  return paths;
}

}  // namespace octet
