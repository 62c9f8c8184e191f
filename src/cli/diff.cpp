// octet diff: where two forms of a model first disagree.
#include <octet/diff.h>

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelSource a, b;
  DataOptions data;
  int64_t rows = 32, batch = 8, max_length = 0;
  DiffOptions how;
};

struct Sum {
  int64_t values = 0, elements = 0, max_steps = 0;
  double equal = 0;
};

std::vector<DiffRow> compare(const Options& options, const Console& console) {
  Plan a = load_plan(options.a, console), b = load_plan(options.b, console);
  if (!a.info().hash.empty() && !b.info().hash.empty() && a.info().hash != b.info().hash)
    console.note("the two were made from different models or weights");
  const Plan& reader = a.has_tokenizer() ? a : b;
  EncodedRows encoded = encode_rows(reader, load_data(options.data, options.rows), options.max_length, options.rows);
  auto texts = static_cast<int64_t>(encoded.rows.size());
  note_truncated(console, encoded.truncated, texts,
                 options.max_length > 0 ? options.max_length : reader.info().max_length);
  Progress progress = console.progress();
  std::vector<DiffRow> rows;
  OwnedBatch batch;
  for (int64_t r = 0; r < texts; ++r) {
    batch.add(encoded.rows[static_cast<size_t>(r)]);
    if (batch.rows() < options.batch && r + 1 < texts) continue;
    merge_rows(&rows, diff(a, b, batch.view(), options.how));
    batch.clear();
    if (progress) progress("comparing", r + 1, texts);
  }
  return rows;
}

void diff_verb(const Options& options, const Console& console) {
  std::vector<DiffRow> rows = compare(options, console);
  Json values = Json::array(), classes = Json::object();
  Table table({"", "value", "kernel", "arithmetic", "equal %", "steps", "max diff", "rel. rms", "cosine"},
              {0, 1, 2, 3});
  std::map<std::string, Sum> sums;
  std::string first;
  for (const DiffRow& row : rows) {
    bool marked = first.empty() && !keeps_promise(row);
    if (marked) first = row.value;
    double relative = row.reference_rms > 0 ? row.rms / row.reference_rms : row.rms;
    values.push_back({{"value", row.value},
                      {"step", row.step},
                      {"kernel", row.kernel},
                      {"arithmetic", row.arithmetic},
                      {"elements", row.elements},
                      {"integer", row.integer},
                      {"equal_fraction", row.integer ? Json(row.equal_fraction) : Json(nullptr)},
                      {"max_steps", row.integer ? Json(row.max_steps) : Json(nullptr)},
                      {"max_abs", row.max_abs},
                      {"relative_rms", relative},
                      {"cosine", row.cosine}});
    table.add({marked ? "->" : "", short_sum(row.value), row.kernel, row.arithmetic,
               row.integer ? fmt::format("{:.4f}", 100 * row.equal_fraction) : "",
               row.integer ? std::to_string(row.max_steps) : "", fmt::format("{:.3g}", row.max_abs),
               fmt::format("{:.2e}", relative), fmt::format("{:.6f}", row.cosine)});
    if (!row.integer) continue;
    Sum& sum = sums[row.arithmetic];
    ++sum.values;
    sum.elements += row.elements;
    sum.equal += row.equal_fraction * static_cast<double>(row.elements);
    sum.max_steps = std::max(sum.max_steps, row.max_steps);
  }
  console.say(table.text());
  for (const auto& [arithmetic, sum] : sums) {
    double equal = sum.elements > 0 ? sum.equal / static_cast<double>(sum.elements) : 1;
    classes[arithmetic] = {
        {"values", sum.values}, {"elements", sum.elements}, {"equal_fraction", equal}, {"max_steps", sum.max_steps}};
    console.say(fmt::format("{:<12} {:.4f} % of {} integers equal, at most {} step{} apart", arithmetic, 100 * equal,
                            format_count(sum.elements), sum.max_steps, sum.max_steps == 1 ? "" : "s"));
  }
  console.say(first.empty() ? "no divergence" : fmt::format("first divergence: {}", first));
  console.result({{"teacher_forced", options.how.teacher_forced},
                  {"first_divergence", first.empty() ? Json(nullptr) : Json(first)},
                  {"classes", classes},
                  {"values", values}});
}

}  // namespace

void add_diff(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "diff", "Where two forms of a model first disagree, value by value",
               "octet diff minilm/ minilm.octet --calib-a minilm.calib.safetensors --data dev.tsv --teacher-forced");
  verb->add_option("a", options->a.path, "Folder or .octet file that is taken as right")->required();
  verb->add_option("b", options->b.path, "Folder or .octet file that is judged")->required();
  add_data_options(verb, &options->data)->required();
  verb->add_option("--rows", options->rows, "Rows of the data used (default: 32)")->check(CLI::PositiveNumber);
  verb->add_option("--batch", options->batch, "Rows run at a time (default: 8)")->check(CLI::PositiveNumber);
  verb->add_option("--max-length", options->max_length, "Cut texts to this many tokens (default: the model's most)")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--teacher-forced", options->how.teacher_forced,
                 "Feed every step of B the values of A, so that each is judged alone");
  verb->add_option("--calib-a", options->a.calibration,
                   "A, a folder, is the simulated INT8 graph with this calibration ('none': dynamic ranges)");
  verb->add_option("--calib-b", options->b.calibration,
                   "B, a folder, is INT8 with this calibration ('none': dynamic ranges)");
  verb->add_option("--precision-a", options->a.precision, "Of a folder A without calibration (default: fp32)");
  verb->add_option("--precision-b", options->b.precision, "Of a folder B without calibration (default: fp32)");
  verb->add_option("--backend-a", options->a.backend,
                   "engine or simulate (default: simulate with --calib-a, else engine)");
  verb->add_option("--backend-b", options->b.backend, "engine or simulate (default: engine)");
  verb->add_option("--threads", options->how.threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  verb->callback([options, verb, &console] {
    if (verb->count("--backend-a") == 0 && !options->a.calibration.empty()) options->a.backend = "simulate";
    diff_verb(*options, console);
  });
}

}  // namespace octet::cli
