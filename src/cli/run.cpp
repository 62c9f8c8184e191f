// octet run: the answer to one text, or to every line of standard input.
#include <fmt/format.h>
#include <octet/onnx.h>
#include <octet/session.h>
#include <unistd.h>

#include <iostream>

#include "cli/answer.h"
#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelSource source;
  std::vector<std::string> inputs, pairs;
  int64_t max_length = 0;
  std::string data_set;  ///< of an .onnx file: folder with input_N.pb
  bool truncate = false;
  int threads = 0;
  bool pin = false;
  AnswerOptions answer;
};

// A text that the model cannot take whole is cut only when the user said so.
Encoding encode(const Plan& plan, const std::string& text, const std::optional<std::string>& pair,
                const Options& options) {
  const Tokenizer& tokenizer = plan.tokenizer();
  std::optional<std::string_view> second;
  if (pair) second = *pair;
  int64_t limit = plan.info().max_length;
  EncodeOptions how;
  if (options.max_length > 0) how.max_length = options.max_length;
  else if (options.truncate) how.max_length = limit;
  Encoding encoding = tokenizer.encode(text, second, how);
  if (limit > 0 && encoding.size() > limit)
    refuse(ErrorCode::invalid_argument,
           {.what = fmt::format("the text has {} tokens, too many for the model", format_count(encoding.size())),
            .expected = fmt::format("expected at most {}", limit),
            .where = fmt::format("in {}", options.source.path),
            .hint = fmt::format("--truncate cuts it to {0} tokens, --max-length N (up to {0}) to N", limit)});
  return encoding;
}

// "text<TAB>pair" of a line.
void split_line(const std::string& line, std::string* text, std::optional<std::string>* pair) {
  size_t tab = line.find('\t');
  *text = line.substr(0, tab);
  if (tab != std::string::npos) *pair = line.substr(tab + 1);
}

class Runner {
 public:
  Runner(const Options& options, const Console& console)
      : options_(options),
        console_(console),
        plan_(load_plan(options.source, console)),
        session_(plan_, {.threads = options.threads, .pin = options.pin}) {
    if (plan_.info().max_length > 0 && options.max_length > plan_.info().max_length)
      refuse(ErrorCode::invalid_argument,
             {.what = fmt::format("cannot run texts of {} tokens", options.max_length),
              .expected = fmt::format("the model takes at most {}", plan_.info().max_length),
              .where = fmt::format("in {}", options.source.path)});
  }

  void add(std::string text, std::optional<std::string> pair) {
    Answered one{.text = std::move(text), .pair = std::move(pair)};
    one.encoding = encode(plan_, one.text, one.pair, options_);
    if (one.encoding.size() == 0)
      refuse(ErrorCode::invalid_argument, {.what = "cannot run an empty text",
                                           .expected = "the tokenizer adds no special tokens, so nothing is left"});
    waiting_.push_back(std::move(one));
  }

  /// Runs what waits, in one batch, in order.
  void flush() {
    if (waiting_.empty()) return;
    OwnedBatch batch;
    for (const Answered& one : waiting_) batch.add(one.encoding);
    Output out = session_.run(batch.view());
    bool per_token = out.rows == static_cast<int64_t>(batch.ids.size()) && is_token_task(plan_.info().task);
    for (size_t r = 0; r < waiting_.size(); ++r) {
      int64_t first = per_token ? batch.offsets[r] : static_cast<int64_t>(r),
              count = per_token ? waiting_[r].encoding.size() : 1;
      waiting_[r].width = out.width;
      waiting_[r].values =
          out.values.subspan(static_cast<size_t>(first * out.width), static_cast<size_t>(count * out.width));
      std::string shown;
      Json value = answer(plan_, waiting_[r], options_.answer, &shown);
      console_.say(shown);
      if (console_.json) results_.push_back(std::move(value));
    }
    waiting_.clear();
  }
  size_t waiting() const { return waiting_.size(); }
  Json& results() { return results_; }

 private:
  static bool is_token_task(Task task) {
    return task == Task::encoder || task == Task::token_classification || task == Task::question_answering;
  }

  const Options& options_;
  const Console& console_;
  Plan plan_;
  Session session_;
  std::vector<Answered> waiting_;
  Json results_ = Json::array();
};

void run_lines(Runner& runner) {
  // A person at a terminal wants each answer at once; a file is faster in batches.
  size_t batch = isatty(STDIN_FILENO) ? 1 : 32;
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    std::string text;
    std::optional<std::string> pair;
    split_line(line, &text, &pair);
    try {
      runner.add(std::move(text), std::move(pair));
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}\n  in line {} of standard input", error.what(), number));
    }
    if (runner.waiting() >= batch) runner.flush(), std::fflush(stdout);
  }
  runner.flush();
}

// An ONNX file as it stands, on its own inputs.
void run_data_set(const Options& options, const Console& console) {
  Json results = Json::array();
  for (const OnnxCheck& check : check_onnx(options.source.path, options.data_set)) {
    console.say(fmt::format("{} [{}]{}", check.output, fmt::join(check.shape, ", "),
                            check.compared ? fmt::format("  largest difference {:.3g}", check.max_error) : ""));
    results.push_back({{"output", check.output},
                       {"shape", check.shape},
                       {"max_error", check.compared ? Json(check.max_error) : Json(nullptr)}});
  }
  console.result(results);
}

void run(const Options& options, const Console& console) {
  if (!options.data_set.empty()) return run_data_set(options, console);
  if (!options.pairs.empty() && options.pairs.size() != options.inputs.size())
    refuse(ErrorCode::invalid_argument, {.what = "cannot pair the texts",
                                         .expected = fmt::format("got {} --input and {} --input-pair",
                                                                 options.inputs.size(), options.pairs.size())});
  Runner runner(options, console);
  if (options.inputs.empty()) {
    run_lines(runner);
    console.result(runner.results());
    return;
  }
  for (size_t i = 0; i < options.inputs.size(); ++i)
    runner.add(options.inputs[i], options.pairs.empty() ? std::nullopt : std::optional(options.pairs[i]));
  runner.flush();
  if (options.inputs.size() == 1) console.result(runner.results()[0]);
  else console.result(runner.results());
}

}  // namespace

void add_run(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "run", "The answer to a text, or to every line of standard input (a tab starts the pair)",
               "octet run minilm.octet --input \"a good film\"");
  verb->add_option("model", options->source.path, ".octet file or Hugging Face folder")->required();
  verb->add_option("--input", options->inputs, "Text (a question for question answering); may be repeated")
      ->allow_extra_args(false);
  verb->add_option("--input-pair", options->pairs, "Its second text (the context)")->allow_extra_args(false);
  verb->add_option("--data-set", options->data_set,
                   "Run an .onnx file as it stands on a folder's input_N.pb and compare with its output_N.pb");
  add_compile_options(verb, &options->source);
  verb->add_option("--max-length", options->max_length, "Cut texts to this many tokens")->check(CLI::PositiveNumber);
  verb->add_flag("--truncate", options->truncate, "Cut texts that are too long for the model");
  verb->add_option("--threads", options->threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  verb->add_flag("--pin", options->pin, "Each thread but the first stays on one CPU");
  verb->add_option("--top", options->answer.top, "Labels shown (default: 5)")->check(CLI::PositiveNumber);
  verb->add_option("--max-answer", options->answer.longest, "Most tokens of an answer (default: 15)")
      ->check(CLI::PositiveNumber);
  verb->callback([options, &console] { run(*options, console); });
}

}  // namespace octet::cli
