// octet eval: the task's metrics on labelled data, and agreement with another model.
#include <fmt/format.h>
#include <octet/evaluate.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/train_library.h"
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
  const Task task = plan.info().task;
  return data.has_label() && task != Task::encoder &&
         (data.has_pair() || (task != Task::embedding && task != Task::question_answering));
}

/// Torch runs the folder's graph: in float, or with the quantizers of a calibration.
TorchRunOptions torch_options(const ModelSource& source, int threads) {
  if (kind_of(source.path) != PathKind::folder)
    refuse(ErrorCode::unsupported,
           {.what = fmt::format("cannot run {} with backend torch", source.path),
            .expected = "expected a Hugging Face folder: a compiled plan holds no float weights"});
  if (source.float_embeddings)
    refuse(ErrorCode::unsupported,
           {.what = "--float-embeddings is for the engine", .hint = "calibrate with --float-embeddings instead"});
  TorchRunOptions torch{.method = source.method, .device = source.device, .threads = threads};
  torch.dynamic = source.calibration == "none" || (source.calibration.empty() && source.precision == "int8");
  if (!torch.dynamic) torch.calibration = source.calibration;
  if (!source.precision.empty() && source.precision != "int8") torch.precision = source.precision;
  return torch;
}

std::vector<float> run_source(const ModelSource& source, const std::vector<Encoding>& rows, int threads,
                              const Console& console) {
  if (source.backend == "torch")
    return train_library().run_torch(source.path, rows, torch_options(source, threads), console.progress());
  Session session(load_plan(source, console), {.threads = threads});
  return run_all(session, rows, 4096, console.progress());
}

void eval_torch(const Options& options, const Console& console) {
  const TorchRunOptions torch = torch_options(options.source, options.threads);
  Model model = load_model(options.source.path);
  Dataset data = load_data(options.data, options.limit);
  EncodedRows encoded = encode_rows(model, data, options.max_length, options.limit, options.threads);
  auto begin = std::chrono::steady_clock::now();
  std::vector<float> outputs = train_library().run_torch(options.source.path, encoded.rows, torch, console.progress());
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Evaluation e = score_outputs(model.info(), data, encoded, std::move(outputs));
  note_truncated(console, e.truncated, static_cast<int64_t>(encoded.rows.size()),
                 options.max_length > 0 ? options.max_length : model.info().max_length);
  console.say(fmt::format("{} {:.4f}  ({} rows, {:.2f} s)", e.metric, e.value, format_count(e.rows), seconds));
  for (const auto& [metric, value] : e.metrics)
    if (metric != e.metric) console.say(fmt::format("  {:<10} {:.4f}", metric, value));
  Json result{{"metric", e.metric},           {"value", e.value},     {"rows", e.rows},
              {"seconds", seconds},           {"metrics", e.metrics}, {"truncated", e.truncated},
              {"precision", torch.precision}, {"backend", "torch"}};
  if (!options.other.path.empty()) {
    std::vector<float> theirs = run_source(options.other, encoded.rows, options.threads, console);
    Agreement a = agreement(e.outputs, theirs, e.width);
    console.say(fmt::format("against {}\n  equal labels {:.2f} %, cosine {:.6f}, largest error {:.3g} of {:.3g}",
                            options.other.path, 100 * a.equal_labels, a.mean_cosine, a.max_error, a.max_value));
    result["against"] = {{"model", options.other.path},    {"backend", options.other.backend},
                         {"equal_labels", a.equal_labels}, {"mean_cosine", a.mean_cosine},
                         {"max_error", a.max_error},       {"max_value", a.max_value}};
  }
  console.result(result);
}

void eval(const Options& options, const Console& console) {
  if (options.source.backend == "torch") return eval_torch(options, console);
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
    std::vector<float> theirs = run_source(options.other, encoded.rows, options.threads, console);
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
  verb->add_option("--against-backend", other.backend, "engine, simulate or torch (default: engine)")->needs(against);
  verb->callback([options, &console] { eval(*options, console); });
}

}  // namespace octet::cli
