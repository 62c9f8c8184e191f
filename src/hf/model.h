// A Hugging Face folder becomes a graph.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "hf/config.h"

namespace octet::hf {

struct LoadOptions {
  bool check_finite = true;           ///< refuse NaN and infinite weights
  bool allow_unexpected = false;      ///< accept tensors that the model has no place for
  std::optional<Head> head;           ///< instead of what the folder says
  std::optional<int64_t> new_labels;  ///< a fresh sequence-classification head of that many labels, before fine-tuning
};

struct LoadedModel {
  Graph graph;             ///< outputs "logits", "embedding", or "last_hidden_state" and "pooler_output"
  ModelConfig config;      ///< model_type and head filled in
  int64_t max_tokens = 0;  ///< of one row, special tokens included: what the position table can serve
  std::vector<std::filesystem::path> files;  ///< of the weights
  std::vector<std::string> unused;           ///< tensors of the checkpoint that the graph does without
};

/// Reads config.json and the weights of `folder` and builds the graph. Everything missing, mis-shaped or unexpected is
/// in one error. Throws not_found, corrupt, unsupported (with the known families), invalid_argument, io.
LoadedModel load_model(const std::filesystem::path& folder, const LoadOptions& options = {});

/// "bert", "roberta", "mpnet": what load_model knows.
std::vector<std::string> known_families();

}  // namespace octet::hf
