// octet explain: every step of a plan, its kernel, and why no better one was taken.
#include <fmt/format.h>
#include <octet/evaluate.h>
#include <octet/health.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/shape.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelSource source;
  std::string shape;
  int repeats = 20;
  int threads = 0;
  DataOptions data;
  int64_t limit = 64;
};

/// The plan's values on data: against float where the folder is there, and how full the integers are.
void explain_data(const Options& options, const Console& console) {
  Plan plan = load_plan(options.source, console);
  if (kind_of(options.source.path) != PathKind::folder)
    refuse(ErrorCode::invalid_argument, {.what = fmt::format("cannot compare {} with float", options.source.path),
                                         .expected = "a compiled plan holds no float weights",
                                         .hint = "pass the Hugging Face folder and the --calib it was compiled with"});
  Plan reference = compile(load_model(options.source.path), {.precision = Precision::fp32});
  Dataset data = load_data(options.data, options.limit);
  EncodedRows encoded = encode_rows(plan, data, options.source.max_length, 0, options.threads);
  constexpr double kLimit = 15;
  HealthReport report = tensor_health(reference, plan, encoded.rows, kLimit, options.threads);
  Table table({"value", "kernel", "dB", "cosine", "saturated %", "zero %"}, {0, 1});
  Json values = Json::array();
  for (const TensorHealth& t : report.tensors) {
    table.add({short_sum(t.value), t.kernel,
               t.compared && std::isfinite(t.sqnr_db) ? fmt::format("{:.1f}", t.sqnr_db) : "-",
               t.compared ? fmt::format("{:.5f}", t.cosine) : "-",
               t.integer ? fmt::format("{:.3f}", 100 * t.saturation) : "-",
               t.integer ? fmt::format("{:.1f}", 100 * t.zeros) : "-"});
    values.push_back({{"value", t.value},
                      {"step", t.step},
                      {"kernel", t.kernel},
                      {"elements", t.elements},
                      {"sqnr_db", t.compared && std::isfinite(t.sqnr_db) ? Json(t.sqnr_db) : Json(nullptr)},
                      {"cosine", t.compared ? Json(t.cosine) : Json(nullptr)},
                      {"saturation", t.integer ? Json(t.saturation) : Json(nullptr)},
                      {"zeros", t.integer ? Json(t.zeros) : Json(nullptr)}});
  }
  console.say(table.text());
  const bool diverges = report.first_diverging >= 0;
  const std::string first = diverges ? report.tensors[static_cast<size_t>(report.first_diverging)].value : "";
  console.say(diverges ? fmt::format("the first value below {:.0f} dB is {}", kLimit, first)
                       : fmt::format("no value is below {:.0f} dB", kLimit));
  console.say(fmt::format("{} texts, {} tokens", format_count(report.texts), format_count(report.tokens)));
  console.result({{"first_diverging", diverges ? Json(first) : Json(nullptr)},
                  {"limit_db", kLimit},
                  {"texts", report.texts},
                  {"tokens", report.tokens},
                  {"values", values}});
}

void explain(const Options& options, const Console& console) {
  Plan plan = load_plan(options.source, console);
  ExplainOptions how{.repeats = options.repeats, .threads = options.threads};
  if (options.shape.empty()) {
    if (int64_t longest = plan.info().max_length; longest > 0) how.length = std::min(how.length, longest);
  } else {
    Shape shape = parse_shape(options.shape);
    how.batch = shape.batch, how.length = shape.seq;
  }
  Explanation e = plan.explain(how);
  Json ops = Json::array();
  Table table({"op", "kernel", "precision", "ms", "%", "MB", "rate", "of floor %"}, {0, 1, 2});
  std::map<std::string, std::vector<std::string>> remarks;  // reasons -> the steps that share them
  for (const ExplainedOp& op : e.ops) {
    ops.push_back({{"name", op.name},
                   {"kind", op.kind},
                   {"kernel", op.kernel},
                   {"precision", op.precision},
                   {"ms", op.ms},
                   {"share", op.share},
                   {"macs", op.macs},
                   {"bytes", op.bytes},
                   {"floor_ms", op.floor_ms},
                   {"refused", op.refused},
                   {"note", op.note}});
    table.add({short_sum(op.name), op.kernel, op.precision, options.repeats > 0 ? fmt::format("{:.3f}", op.ms) : "-",
               options.repeats > 0 ? fmt::format("{:.1f}", 100 * op.share) : "-",
               fmt::format("{:.2f}", static_cast<double>(op.bytes) / 1e6),
               op.ms <= 0    ? "-"
               : op.macs > 0 ? fmt::format("{:.3g} TOPS", 2e-9 * op.macs / op.ms)
                             : fmt::format("{:.3g} GB/s", 1e-6 * static_cast<double>(op.bytes) / op.ms),
               op.ms > 0 && op.floor_ms > 0 ? fmt::format("{:.0f}", 100 * op.floor_ms / op.ms) : "-"});
    std::string reasons = op.note.empty() ? "" : fmt::format("  in float: {}\n", op.note);
    for (const std::string& reason : op.refused) reasons += fmt::format("  {}\n", reason);
    if (!reasons.empty()) remarks[reasons].push_back(short_sum(op.name));
  }
  console.say(fmt::format("{} at {}x{} tokens on {}, ranges {}\n", short_name(options.source.path), e.batch, e.length,
                          e.device, e.ranges));
  console.say(table.text());
  if (options.repeats > 0) console.say(fmt::format("whole pass {:.3f} ms", e.ms));
  console.say(fmt::format("matrix products in INT8: {:.1f} % of the work", 100 * e.int8_work_fraction));
  if (!remarks.empty()) console.say("\nwhy not better");
  for (const auto& [reasons, steps] : remarks)
    console.say(fmt::format("\n{}{}\n{}", steps[0],
                            steps.size() > 1 ? fmt::format(" and {} more", steps.size() - 1) : "",
                            reasons.substr(0, reasons.size() - 1)));
  console.result({{"int8_work_fraction", e.int8_work_fraction},
                  {"device", e.device},
                  {"ranges", e.ranges},
                  {"batch", e.batch},
                  {"seq", e.length},
                  {"ms", e.ms},
                  {"ops", ops}});
}

}  // namespace

void add_explain(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "explain", "Every op of a plan: kernel, precision, bytes, time, and why not a better one",
               "octet explain minilm.octet --shape 8x128");
  verb->add_option("model", options->source.path, ".octet file or Hugging Face folder")->required();
  add_compile_options(verb, &options->source);
  verb->add_option("--shape", options->shape, "Rows x tokens (default: 8x128)")->check(check_shapes);
  verb->add_option("--repeats", options->repeats, "Timed runs; 0 leaves times out (default: 20)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--threads", options->threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  add_data_options(verb, &options->data);
  verb->add_option("--limit", options->limit, "With --data: rows used, from the first on (default: 64)")
      ->check(CLI::PositiveNumber);
  verb->callback([options, &console] {
    if (options->data.path.empty()) explain(*options, console);
    else explain_data(*options, console);
  });
}

}  // namespace octet::cli
