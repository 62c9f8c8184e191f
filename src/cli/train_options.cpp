// Options, progress line and result of the training verbs.
#include "cli/train_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/model_source.h"

namespace octet::cli {

using Json = nlohmann::ordered_json;

void add_train_options(CLI::App* verb, TrainArguments* a) {
  TrainOptions& o = a->options;
  verb->add_option("model", a->model, "Hugging Face folder")->required();
  verb->add_option("--train", a->train, "Training data: TSV, CSV or JSON lines with named columns")->required();
  verb->add_option("--dev", a->dev, "Evaluated on the way; the best state is kept");
  verb->add_option("--text", a->columns.text, "Column of the text (default: sentence, sentence1, premise, text ...)");
  verb->add_option("--pair", a->columns.pair,
                   "Column of the second text (default: sentence2, hypothesis ...; '-': none)");
  verb->add_option("--label", a->columns.label, "Column of the label (default: label, gold_label, score ...)");
  verb->add_option("-o,--output", a->output, "The folder to write")->required();
  verb->add_option("--new-head", o.new_labels, "labels=N: a fresh classification head; labels=1 for numbers")
      ->transform([](std::string text) { return text.starts_with("labels=") ? text.substr(7) : text; })
      ->check(CLI::PositiveNumber);
  verb->add_option("--labels", a->labels, "Names of a fresh head's labels, separated by commas, or their number");
  verb->add_option("--epochs", o.epochs, "Default: 1")->check(CLI::PositiveNumber);
  verb->add_option("--max-steps", o.max_steps, "Optimizer steps instead of epochs")->check(CLI::PositiveNumber);
  verb->add_option("--batch", o.batch, "Rows of a forward pass (default: 32)")->check(CLI::PositiveNumber);
  verb->add_option("--accumulate", o.accumulate, "Passes of an optimizer step (default: 1)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--max-length", o.max_length, "Cut texts to this many tokens (default: the model's most)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--lr", o.learning_rate, fmt::format("Learning rate (default: {:g})", o.learning_rate))
      ->check(CLI::PositiveNumber);
  verb->add_option("--weight-decay", o.weight_decay, "Default: 0.01")->check(CLI::NonNegativeNumber);
  verb->add_option("--beta1", o.beta1, "Default: 0.9");
  verb->add_option("--beta2", o.beta2, "Default: 0.999");
  verb->add_option("--epsilon", o.epsilon, "Default: 1e-8")->check(CLI::PositiveNumber);
  verb->add_option("--clip", o.clip_norm, "Largest norm of all gradients; 0: none (default: 1)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--schedule", o.schedule, fmt::format("linear, cosine or constant (default: {})", o.schedule))
      ->check(CLI::IsMember({"linear", "cosine", "constant"}));
  verb->add_option("--warmup", o.warmup, "Steps of rising rate; below 1: share of all steps (default: 0)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--final-rate", o.final_rate, "Where cosine ends, as a share of --lr")->check(CLI::Range(0.0, 1.0));
  verb->add_option("--precision", o.precision, "fp32, fp16, bf16 or fp64 (default: fp32)")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16", "fp64"}));
  verb->add_option("--device", o.device, "auto, cpu or cuda (default: auto)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  verb->add_option("--seed", o.seed, "Same seed, same bits on the same machine (default: 42)");
  verb->add_option("--threads", o.threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  verb->add_option("--eval-every", o.evaluate_every, "Steps between evaluations (default: an epoch)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--checkpoint-every", o.checkpoint_every, "Steps between checkpoints (default: as --eval-every)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--log-every", o.log_every, "Steps between lines of metrics.jsonl (default: 10)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--dropout", o.dropout, "All dropout probabilities (default: config.json's)")
      ->check(CLI::Range(0.0, 0.99));
  verb->add_flag("--no-group-by-length", a->no_group, "Batches of rows of any lengths");
  verb->add_flag("--plain-attention", a->plain_attention, "Attention step by step, as with quantizers (GPU, 16 bits)");
  verb->add_flag("--keep-last", a->last, "The result is the last state, not the best one");
  verb->add_option("--processes", o.processes, "Commands that train together, each with its own --process (default: 1)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--process", o.process, "This command's number; 0 writes the output")->check(CLI::NonNegativeNumber);
  verb->add_option("--meeting", o.meeting, "ADDRESS:PORT of process 0, where the others find it");
  verb->add_flag("--resume", o.resume, "Go on from the checkpoint in the output folder, if there is one");
  verb->add_option("--train-limit", a->train_limit, "Rows of the training data used, from the first")
      ->check(CLI::PositiveNumber);
  verb->add_option("--dev-limit", a->dev_limit, "Rows of the dev data used, from the first")
      ->check(CLI::PositiveNumber);
}

namespace {

std::string clock(double seconds) {
  auto whole = static_cast<int64_t>(seconds + 0.5);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

void train_verb(TrainArguments& a, const Console& console, const char* verb,
                const std::function<TrainResult(const Dataset&, const Dataset*, const TrainReport&)>& work) {
  if (kind_of(a.model) != PathKind::folder) load_model(a.model);  // says what to pass instead
  if (!a.labels.empty()) {
    if (a.labels.find_first_not_of("0123456789") == std::string::npos) {
      a.options.new_labels = std::stoll(a.labels.substr(0, 9));
    } else {
      for (size_t begin = 0; begin <= a.labels.size();) {
        size_t end = std::min(a.labels.find(',', begin), a.labels.size());
        a.options.labels.push_back(a.labels.substr(begin, end - begin));
        begin = end + 1;
      }
      if (a.options.new_labels == 0) a.options.new_labels = static_cast<int64_t>(a.options.labels.size());
    }
  }
  a.options.group_by_length = !a.no_group;
  a.options.restore_best = !a.last;
  a.options.fused_attention = !a.plain_attention;
  a.columns.path = a.train;
  Dataset train = load_data(a.columns, a.train_limit);
  std::optional<Dataset> dev;
  if (!a.dev.empty()) {
    // The dev file may name its columns otherwise: what is not there is looked for by default names.
    a.columns.path = a.dev;
    dev = load_data(a.columns, a.dev_limit);
  }
  const bool terminal = isatty(STDERR_FILENO) != 0;
  TrainReport report = [&](const TrainStep& s) {
    std::string line = fmt::format("step {}/{}  loss {:.4f}  lr {:.3g}  {:.0f} rows/s  {} left", s.step, s.steps,
                                   s.loss, s.learning_rate, s.rows_per_s, clock(s.seconds_left));
    if (terminal) std::fprintf(stderr, "\r%s\x1b[K", line.c_str());
    if (s.evaluated) {
      if (terminal) std::fputs("\r\x1b[K", stderr);
      console.note(fmt::format("{}  {} {:.4f}  dev loss {:.4f}", line, s.metric, s.value, s.dev_loss));
    }
    std::fflush(stderr);
  };
  TrainResult r = work(train, dev ? &*dev : nullptr, report);
  if (terminal) std::fputs("\r\x1b[K", stderr);
  if (a.options.process > 0) return;  // process 0 says what there is to say
  if (a.options.max_length > 0) note_truncated(console, r.truncated, train.rows(), a.options.max_length);
  else if (r.truncated > 0)
    console.note(fmt::format("{} of {} texts were longer than the model's most and were cut", format_count(r.truncated),
                             format_count(train.rows())));
  console.say(fmt::format("{}: {} steps on {}{}, loss {:.4f} -> {:.4f}, {:.1f} s, {:.0f} rows/s, {:.0f} tokens/s",
                          a.output, format_count(r.steps), r.device,
                          r.resumed_from > 0 ? fmt::format(" (resumed from step {})", r.resumed_from) : "",
                          r.first_loss, r.last_loss, r.seconds, r.rows_per_s, r.tokens_per_s));
  if (a.options.processes > 1)
    console.say(fmt::format("{} processes, sums through {}", a.options.processes, r.transport));
  if (dev) console.say(fmt::format("{} {:.4f} at step {}", r.metric, r.value, r.best_step));
  console.result({{"verb", verb},
                  {"path", a.output},
                  {"device", r.device},
                  {"processes", a.options.processes},
                  {"transport", r.transport},
                  {"precision", a.options.precision},
                  {"steps", r.steps},
                  {"skipped", r.skipped},
                  {"resumed_from", r.resumed_from},
                  {"first_loss", r.first_loss},
                  {"last_loss", r.last_loss},
                  {"seconds", r.seconds},
                  {"rows_per_s", r.rows_per_s},
                  {"tokens_per_s", r.tokens_per_s},
                  {"metric", r.metric},
                  {"value", r.value},
                  {"best_step", r.best_step},
                  {"metrics", r.metrics},
                  {"truncated", r.truncated}});
}

}  // namespace octet::cli
