// What finetune and qat have in common on the command line.
#pragma once

#include <octet/train.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/console.h"
#include "cli/data_options.h"

namespace octet::cli {

struct TrainArguments {
  std::string model, train, dev, output;
  DataOptions columns;
  TrainOptions options;
  int64_t train_limit = 0, dev_limit = 0;
  std::string labels;
  bool no_group = false, last = false, plain_attention = false;
};

void add_train_options(CLI::App* verb, TrainArguments* arguments);
/// Reads the data, sets what the flags say, and prints a line a report; `work` runs the training.
void train_verb(
    TrainArguments& arguments, const Console& console, const char* verb,
    const std::function<TrainResult(const Dataset& train, const Dataset* dev, const TrainReport& report)>& work);

}  // namespace octet::cli
