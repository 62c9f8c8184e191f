// Measures what a report shows.
#include <octet/report.h>
#include <octet/system.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "api/report_data.h"
#include "api/state.h"
#include "api/sweep_rows.h"
#include "core/error.h"
#include "core/file.h"
#include "quant/calibration_state.h"

namespace octet {

namespace {

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

ReportForm absent(const std::string& name, const std::string& device, const std::string& precision,
                  const std::string& why) {
  ReportForm form;
  form.name = name, form.device = device, form.precision = precision, form.absent = why;
  return form;
}

void add_absent(ReportData* data) {
  const SystemInfo system = system_info();
  const std::string gpu = !system.cuda_build   ? "this build has no CUDA kernels"
                          : system.gpu.empty() ? system.gpu_reason
                                               : "this report measures the CPU only";
  for (const char* precision : {"fp16", "int8 static", "int8 dynamic"})
    data->forms.push_back(absent("octet", "cuda", precision, gpu));
  const std::string peer = "not run by this command; bench/peers/compare.py times it beside octet in one run";
  for (const char* name : {"PyTorch", "ONNX Runtime", "OpenVINO"})
    data->forms.push_back(absent(name, "cpu", "fp32", peer));
  data->forms.push_back(absent("TensorRT", "cuda", "int8", gpu));
}

void measure_forms(const std::vector<std::pair<std::string, Plan>>& plans, const SweepRows& rows,
                   const ReportOptions& options, const Progress& progress, ReportData* data) {
  const ModelInfo& info = data->info;
  std::vector<Session> sessions;
  sessions.reserve(plans.size());
  std::vector<float> reference;
  int64_t vectors = 0;
  for (const Encoding& text : rows.encoded) vectors += answers_per_token(info.task) ? text.size() : 1;
  for (const auto& [precision, plan] : plans) {
    sessions.emplace_back(plan, SessionOptions{.threads = options.threads});
    ReportForm form;
    form.name = "octet", form.device = "cpu", form.precision = precision;
    std::vector<float> values = run_all(sessions.back(), rows.encoded, 4096, progress);
    const int64_t width = static_cast<int64_t>(values.size()) / std::max<int64_t>(vectors, 1);
    if (reference.empty()) reference = values;
    form.cosine = agreement(values, reference, width).mean_cosine;
    if (rows.expected) {
      Evaluation e;
      score(info, rows.data, rows.encoded, *rows.expected, answers(info, values, width), &e);
      form.metric = e.value;
      data->metric = e.metric;
    }
    form.weight_bytes = plan.weight_bytes();
    form.int8_work_fraction = plan.explain({.repeats = 0}).int8_work_fraction;
    data->forms.push_back(std::move(form));
  }
  std::vector<Session*> pointers;
  for (Session& session : sessions) pointers.push_back(&session);
  int64_t done = 0;
  for (const auto& [batch, length] : options.shapes) {
    if (progress) progress("timing", done++, static_cast<int64_t>(options.shapes.size()));
    if (info.max_length > 0 && length > info.max_length) continue;
    const std::vector<BenchResult> times = bench_interleaved(pointers, batch, length, {.seconds = options.seconds});
    for (size_t i = 0; i < times.size(); ++i) data->forms[i].shapes.push_back(times[i]);
  }
  std::vector<Encoding> some(rows.encoded.begin(),
                             rows.encoded.begin() + std::min<int64_t>(512, static_cast<int64_t>(rows.encoded.size())));
  const std::vector<BenchResult> real = bench_rows_interleaved(
      pointers, std::vector<std::vector<Encoding>>(pointers.size(), some), 32, {.seconds = options.seconds});
  for (size_t i = 0; i < real.size(); ++i) data->forms[i].real = real[i];
}

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
  std::vector<std::pair<std::string, Plan>> plans{{"fp32", compile(model, {.precision = Precision::fp32})},
                                                  {"int8 static", compile(model, {.calibration = calibration})},
                                                  {"int8 dynamic", compile(model, {})}};
  measure_forms(plans, rows, options, progress, &r);
  add_ops(plans[1].second, options, &r);
  add_absent(&r);
  if (options.sensitivity_rows > 0) {
    const SweepRows some = sweep_rows(model, rows.data, spread_rows(rows.count(), options.sensitivity_rows),
                                      options.max_length, options.threads);
    r.layers = sensitivity(model, calibration, some, {.unit = "layer", .threads = options.threads}, progress);
  }
  add_histograms(calibration, &r);
  return {report_html(r), report_markdown(r), report_json(r)};
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
