// The training loop: a graph, encoded rows, and what becomes of the parameters. No torch type stands here.
#pragma once

#include <octet/train.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "graph/graph.h"
#include "train/dropout.h"

namespace octet::train {

enum class Loss : uint8_t {
  classes,  ///< cross entropy of a row's logits
  number,   ///< squared error of a row's only output
  tokens,   ///< cross entropy of a token's logits, mean over labelled tokens
  spans,    ///< mean cross entropy of start and end over a row's tokens
  sets,     ///< several labels a row: mean binary cross entropy of its logits
};

struct Example {
  std::vector<int32_t> ids, type_ids;
  int64_t label = -1;      ///< classes; spans: first token
  int64_t label_end = -1;  ///< spans: last token
  double number = 0;
  std::vector<int64_t> token_labels;  ///< tokens: -100 where there is none
  std::vector<float> label_set;       ///< sets: 0 or 1 for each label
};

struct Setup {
  Graph graph;
  DropoutSites dropout;
  Loss loss = Loss::classes;
  std::vector<Example> train, dev;
  /// Metrics of outputs laid out as run_all gives them.
  std::function<Evaluation(std::vector<float> outputs)> score;
  TrainOptions options;
  bool follow_weights = false, learn_ranges = false;
  std::shared_ptr<const Graph> teacher;
  double distill_logits = 0, distill_hidden = 0, temperature = 1;
  std::filesystem::path checkpoints;            ///< folder; empty: none are written
  std::filesystem::path log;                    ///< metrics.jsonl; empty: none
  std::map<std::string, std::string> settings;  ///< what a resumed run must have alike
};

struct Trained {
  TrainResult result;
  std::map<std::string, Tensor> parameters;  ///< f32
  std::map<std::string, Tensor> scales;      ///< of quantizers, by node name
};

Trained run_training(const Setup& setup, const TrainReport& report);

/// Loss and gradients of all training rows as one batch, without dropout, by parameter name.
struct Gradients {
  double loss = 0;
  std::map<std::string, std::vector<double>> values;
};
Gradients gradients(const Setup& setup);

/// Outputs of rows through the graph.
std::vector<float> run_rows(const Graph& graph, const std::vector<Example>& rows, const TorchRunOptions& options,
                            const Progress& progress);

/// A graph that stays in libtorch: one batch a call.
TorchRunner open_graph(const Graph& graph, const TorchRunOptions& options);

/// Rows of each batch of an epoch: shuffled by (seed, epoch); with `by_length` sorted, longest first, within pools of
/// fifty batches, and the batches shuffled.
std::vector<std::vector<int64_t>> epoch_batches(const std::vector<int64_t>& lengths, int64_t batch, uint64_t seed,
                                                int64_t epoch, bool by_length);

/// The rate at `step` (from 0) of `steps` as a share of the learning rate.
double rate_share(const TrainOptions& options, int64_t step, int64_t steps);

}  // namespace octet::train
