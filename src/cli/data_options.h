// The --data file and its columns.
#pragma once

#include <octet/dataset.h>
#include <octet/evaluate.h>

#include <CLI/CLI.hpp>
#include <string>

#include "cli/console.h"

namespace octet::cli {

struct DataOptions {
  std::string path, text, pair, label;
};

/// --data, --text, --pair and --label.
CLI::Option* add_data_options(CLI::App* verb, DataOptions* options);
/// The first `limit` rows, or all for 0.
Dataset load_data(const DataOptions& options, int64_t limit = 0);
/// Says on standard error how many texts were cut, if any.
void note_truncated(const Console& console, int64_t truncated, int64_t texts, int64_t length);

}  // namespace octet::cli
