// What a model family provides, and the pieces that builders share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "hf/config.h"
#include "hf/weights.h"

namespace octet::hf {

/// Appends nodes whose parameters carry the checkpoint's own names and whose names are the module paths.
class Builder {
 public:
  /// `prefix` is what the checkpoint puts before the encoder's names ("bert." or nothing).
  Builder(Graph& graph, Weights& weights, const ModelConfig& config, std::string prefix, Head head)
      : graph(graph), weights(weights), config(config), prefix(std::move(prefix)), head(head) {}

  Graph& graph;
  Weights& weights;
  const ModelConfig& config;
  const std::string prefix;
  const Head head;
  EncoderInputs inputs;

  ValueId parameter(const std::string& name, Shape shape);
  /// `path`.weight [wide out, wide in] and `path`.bias.
  ValueId linear(const std::string& path, ValueId x, int64_t in, int64_t out);
  ValueId layer_norm(const std::string& path, ValueId x);
  ValueId embedding(const std::string& path, ValueId indices, int64_t rows);
  /// config.hidden_act.
  ValueId activation(const std::string& path, ValueId x);

  /// Words + types + positions -> LayerNorm. `start` and `padding_id` as in Op::positions.
  ValueId bert_embeddings(int64_t start, int64_t padding_id);
  /// The encoder layers of BERT and its descendants: post-LayerNorm, [tokens, hidden] -> the same.
  ValueId bert_encoder(ValueId x);
  /// Token 0 -> `path` -> tanh.
  ValueId first_token_dense(const std::string& path, ValueId x);
  /// The heads that all families have alike: token classification, question answering, embedding, encoder.
  void common_head(ValueId x);
};

struct Family {
  std::string_view model_type;
  std::string_view prefix;      ///< of the encoder's names in checkpoints that have heads
  std::string_view class_stem;  ///< "Bert" of BertForSequenceClassification
  void (*build)(Builder&);
  int64_t (*max_tokens)(const ModelConfig&);
};

extern const Family kBert, kRoberta;
/// All of them; a new family is a file beside bert.cpp and a line here.
const std::vector<const Family*>& families();

}  // namespace octet::hf
