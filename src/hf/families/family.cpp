// The list of families, and the layers and heads they share.
#include "hf/families/family.h"

#include <cmath>

namespace octet::hf {

const std::vector<const Family*>& families() {
  static const std::vector<const Family*> all = {&kBert, &kRoberta, &kMpnet};
  return all;
}

ValueId Builder::parameter(const std::string& name, Shape shape) {
  return graph.add_parameter(name, weights.take(name, shape));
}

ValueId Builder::linear(const std::string& path, ValueId x, int64_t in, int64_t out) {
  ValueId weight = parameter(path + ".weight", {out, in});
  ValueId bias = parameter(path + ".bias", {out});
  return graph.add(Op::linear, path, {x, weight, bias});
}

ValueId Builder::layer_norm(const std::string& path, ValueId x) {
  ValueId gamma = parameter(path + ".weight", {config.hidden_size});
  ValueId beta = parameter(path + ".bias", {config.hidden_size});
  return graph.add(Op::layer_norm, path, {x, gamma, beta}, {{"epsilon", config.layer_norm_eps}});
}

ValueId Builder::embedding(const std::string& path, ValueId indices, int64_t rows) {
  return graph.add(Op::embedding, path, {parameter(path + ".weight", {rows, config.hidden_size}), indices});
}

ValueId Builder::activation(const std::string& path, ValueId x) {
  if (config.hidden_act == "relu") return graph.add(Op::relu, path, {x});
  if (config.hidden_act == "tanh") return graph.add(Op::tanh, path, {x});
  return graph.add(Op::gelu, path, {x},
                   {{"approximate", std::string(config.hidden_act == "gelu_new" ? "tanh" : "none")}});
}

ValueId Builder::bert_embeddings(int64_t start, int64_t padding_id, bool typed) {
  const std::string at = prefix + "embeddings.";
  typed = typed && config.type_vocab_size > 0;
  inputs = add_encoder_inputs(graph, typed);
  ValueId x = embedding(at + "word_embeddings", inputs.ids, config.vocab_size);
  if (typed) {
    ValueId types = embedding(at + "token_type_embeddings", inputs.type_ids, config.type_vocab_size);
    x = graph.add(Op::add, at + "add_types", {x, types});
  }
  ValueId positions = graph.add(Op::positions, at + "positions", {inputs.ids, inputs.offsets},
                                {{"start", start}, {"padding_id", padding_id}});
  ValueId places = embedding(at + "position_embeddings", positions, config.max_positions);
  x = graph.add(Op::add, at + "add_positions", {x, places});
  weights.allow_unused(at + "position_ids");  // buffers that old versions saved
  weights.allow_unused(at + "token_type_ids");
  return layer_norm(at + "LayerNorm", x);
}

ValueId Builder::bert_encoder(ValueId x, const LayerNames& names, ValueId bias) {
  const int64_t hidden = config.hidden_size, heads = config.num_heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(hidden / heads));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string at = prefix + "encoder.layer." + std::to_string(layer) + ".";
    const std::string self = at + names.self;
    ValueId query = linear(self + names.query, x, hidden, hidden);
    ValueId key = linear(self + names.key, x, hidden, hidden);
    ValueId value = linear(self + names.value, x, hidden, hidden);
    std::vector<ValueId> operands{query, key, inputs.offsets};
    if (bias != kNone) operands.push_back(bias);
    ValueId scores = graph.add(Op::attention_scores, self + "scores", operands, {{"heads", heads}, {"scale", scale}});
    ValueId probabilities = graph.add(Op::softmax, self + "softmax", {scores});
    ValueId context =
        graph.add(Op::attention_context, self + "context", {probabilities, value, inputs.offsets}, {{"heads", heads}});
    ValueId attended = linear(at + names.dense, context, hidden, hidden);
    attended = graph.add(Op::add, at + names.add, {attended, x});
    attended = layer_norm(at + names.norm, attended);
    ValueId inner = linear(at + "intermediate.dense", attended, hidden, config.intermediate_size);
    inner = activation(at + "intermediate.activation", inner);
    ValueId outer = linear(at + "output.dense", inner, config.intermediate_size, hidden);
    outer = graph.add(Op::add, at + "output.add", {outer, attended});
    x = layer_norm(at + "output.LayerNorm", outer);
  }
  return x;
}

ValueId Builder::first_token_dense(const std::string& path, ValueId x) {
  ValueId first = graph.add(Op::select_first, path + ".first", {x, inputs.offsets});
  ValueId dense = linear(path, first, config.hidden_size, config.hidden_size);
  return graph.add(Op::tanh, path + ".tanh", {dense});
}

void Builder::common_head(ValueId x) {
  const int64_t hidden = config.hidden_size;
  const std::string pooler = prefix + "pooler.";
  switch (head) {
    case Head::token_classification:
      graph.set_output("logits", linear("classifier", x, hidden, config.num_labels));
      break;
    case Head::question_answering:  // column 0: start, column 1: end
      graph.set_output("logits", linear("qa_outputs", x, hidden, 2));
      break;
    case Head::sentence_embedding: {
      const SentenceConfig sentence = config.sentence.value_or(SentenceConfig{});
      Op op = sentence.pooling == Pooling::cls   ? Op::select_first
              : sentence.pooling == Pooling::max ? Op::pool_max
                                                 : Op::pool_mean;
      ValueId pooled = graph.add(op, "pooling", {x, inputs.offsets});
      if (sentence.normalize) pooled = graph.add(Op::normalize, "normalize", {pooled});
      graph.set_output("embedding", pooled);
      break;
    }
    case Head::encoder:
    case Head::sequence_classification:  // families place this one themselves
      graph.set_output("last_hidden_state", x);
      if (weights.has(pooler + "dense.weight"))
        graph.set_output("pooler_output", first_token_dense(pooler + "dense", x));
      break;
  }
  weights.allow_unused(pooler);
  for (const char* other : {"cls.", "lm_head."}) weights.allow_unused(other);
  if (head == Head::encoder || head == Head::sentence_embedding)
    for (const char* other : {"classifier.", "qa_outputs."}) weights.allow_unused(other);
}

}  // namespace octet::hf
