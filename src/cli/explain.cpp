// octet explain: every step of a plan, its kernel, and why no better one was taken.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

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
};

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
  verb->callback([options, &console] { explain(*options, console); });
}

}  // namespace octet::cli
