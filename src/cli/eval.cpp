// octet eval: the task's metrics on labelled data, and agreement with another model.
#include <fmt/format.h>
#include <octet/evaluate.h>

#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelSource source, other;
  DataOptions data;
  int64_t limit = 0, max_length = 0;
  int threads = 0;
};

// Whether the data can be scored: an embedding model without labelled pairs can still be compared with another.
bool has_answers(const Plan& plan, const Dataset& data) {
  return data.has_label() && (plan.info().task != Task::embedding || data.has_pair()) &&
         plan.info().task != Task::encoder && plan.info().task != Task::question_answering;
}

void eval(const Options& options, const Console& console) {
  Plan plan = load_plan(options.source, console);
  Dataset data = load_data(options.data, options.limit);
  Session session(plan, {.threads = options.threads});
  bool compare = !options.other.path.empty();
  Json result = Json::object();
  std::vector<float> outputs;
  EncodedRows encoded;
  if (compare) encoded = encode_rows(plan, data, options.max_length, options.limit, options.threads);
  int64_t width = 0;
  if (!compare || has_answers(plan, data)) {
    Evaluation e = evaluate(
        session, data,
        {.max_length = options.max_length, .limit = options.limit, .threads = options.threads, .keep_outputs = compare},
        console.progress());
    bool two = plan.info().task == Task::embedding;
    note_truncated(console, e.truncated, e.rows * (two ? 2 : 1),
                   options.max_length > 0 ? options.max_length : plan.info().max_length);
    outputs = std::move(e.outputs);
    width = e.width;
    result = {{"metric", e.metric},
              {"value", e.value},
              {"rows", e.rows},
              {"seconds", e.seconds},
              {"metrics", e.metrics},
              {"truncated", e.truncated},
              {"precision", name(plan.precision())},
              {"backend", options.source.backend}};
    console.say(fmt::format("{} {:.4f}  ({} rows, {:.2f} s, {:.1f} rows/s)", e.metric, e.value, format_count(e.rows),
                            e.seconds, e.seconds > 0 ? static_cast<double>(e.rows) / e.seconds : 0));
    for (const auto& [metric, value] : e.metrics)
      if (metric != e.metric) console.say(fmt::format("  {:<10} {:.4f}", metric, value));
  } else {
    console.note("the data has no labels for this task: comparing outputs only");
    outputs = run_all(session, encoded.rows, 4096, console.progress());
  }
  if (compare) {
    Plan other_plan = load_plan(options.other, console);
    Session other(other_plan, {.threads = options.threads});
    std::vector<float> theirs = run_all(other, encoded.rows, 4096, console.progress());
    if (outputs.size() != theirs.size())
      refuse(ErrorCode::invalid_argument,
             {.what = fmt::format("cannot compare {} with {}", options.source.path, options.other.path),
              .expected = "their outputs have different widths",
              .hint = "compare models of one task"});
    if (width == 0) {
      bool per_token = plan.info().task == Task::encoder || plan.info().task == Task::question_answering ||
                       plan.info().task == Task::token_classification;
      int64_t rows = 0;
      for (const Encoding& row : encoded.rows) rows += per_token ? row.size() : 1;
      width = static_cast<int64_t>(outputs.size()) / std::max<int64_t>(rows, 1);
    }
    Agreement a = agreement(outputs, theirs, width);
    bool labels = plan.info().task == Task::sequence_classification || plan.info().task == Task::token_classification;
    console.say(
        fmt::format("against {}{}{}\n  cosine       {:.6f} (lowest {:.6f})\n  error        {:.3g} of the outputs' "
                    "size, largest {:.3g} of {:.3g}",
                    options.other.path, options.other.backend == "simulate" ? " (simulated)" : "",
                    labels ? fmt::format("\n  equal labels {:.2f} %", 100 * a.equal_labels) : "", a.mean_cosine,
                    a.min_cosine, a.relative_error, a.max_error, a.max_value));
    result["against"] = {{"model", options.other.path},        {"backend", options.other.backend},
                         {"equal_labels", a.equal_labels},     {"mean_cosine", a.mean_cosine},
                         {"min_cosine", a.min_cosine},         {"rms_error", a.rms_error},
                         {"relative_error", a.relative_error}, {"max_error", a.max_error},
                         {"max_value", a.max_value},           {"texts", encoded.rows.size()}};
  }
  console.result(result);
}

}  // namespace

void add_eval(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = add_verb(app, console, "eval",
                            "The task's metrics on labelled data; with --against also the agreement with another model",
                            "octet eval minilm.octet --data stsb_dev.tsv");
  verb->add_option("model", options->source.path, ".octet file or Hugging Face folder")->required();
  add_data_options(verb, &options->data)->required();
  add_compile_options(verb, &options->source);
  verb->add_option("--limit", options->limit, "Rows used, from the first on (default: all)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--max-length", options->max_length, "Cut texts to this many tokens (default: the model's most)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--threads", options->threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  ModelSource& other = options->other;
  CLI::Option* against =
      verb->add_option("--against", other.path, "Another .octet file or folder, to compare outputs with");
  verb->add_option("--against-precision", other.precision, "Precision of a folder given to --against")->needs(against);
  verb->add_option("--against-calib", other.calibration, "Calibration of a folder given to --against")->needs(against);
  verb->add_option("--against-backend", other.backend, "engine or simulate (default: engine)")->needs(against);
  verb->callback([options, &console] { eval(*options, console); });
}

}  // namespace octet::cli
