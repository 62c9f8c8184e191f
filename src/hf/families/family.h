// What a model family provides, and the pieces that builders share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "hf/config.h"
#include "hf/weights.h"

namespace octet::hf {

/// What a family calls the parts of a layer's attention, behind "encoder.layer.N.".
struct LayerNames {
  std::string self = "attention.self.";
  std::string query = "query", key = "key", value = "value";  ///< behind `self`
  std::string dense = "attention.output.dense", add = "attention.output.add", norm = "attention.output.LayerNorm";
};

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

  /// Words + types (where the family and its configuration have them) + positions -> LayerNorm. `start` and
  /// `padding_id` as in Op::positions.
  ValueId bert_embeddings(int64_t start, int64_t padding_id, bool typed = true);
  /// The encoder layers of BERT and its descendants: post-LayerNorm, [tokens, hidden] -> the same. `bias` (or none) is
  /// added to the scores of every layer.
  ValueId bert_encoder(ValueId x, const LayerNames& names = {}, ValueId bias = kNone);
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

extern const Family kBert, kRoberta, kMpnet;
/// All of them; a new family is a file beside bert.cpp and a line here.
const std::vector<const Family*>& families();

}  // namespace octet::hf
