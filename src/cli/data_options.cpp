// Reading the data that a verb was given.
#include "cli/data_options.h"

#include <fmt/format.h>

namespace octet::cli {

CLI::Option* add_data_options(CLI::App* verb, DataOptions* options) {
  CLI::Option* data = verb->add_option("--data", options->path, "TSV, CSV or JSON lines file with named columns");
  verb->add_option(
      "--text", options->text,
      "Column of the text: name or number from 1 (default: sentence, sentence1, premise, text, question ...)");
  verb->add_option("--pair", options->pair,
                   "Column of the second text (default: sentence2, hypothesis ...; '-': none)");
  verb->add_option("--label", options->label, "Column of the label (default: label, gold_label, score ...; '-': none)");
  return data;
}

Dataset load_data(const DataOptions& options, int64_t limit) {
  return Dataset::load(options.path,
                       {.text = options.text, .pair = options.pair, .label = options.label, .limit = limit});
}

void note_truncated(const Console& console, int64_t truncated, int64_t texts, int64_t length) {
  if (truncated > 0)
    console.note(fmt::format("{} of {} texts were longer than {} tokens and were cut", format_count(truncated),
                             format_count(texts), length));
}

}  // namespace octet::cli
