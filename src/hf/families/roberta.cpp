// RoBERTa: positions count the tokens that are not padding, from padding + 1; the classifier is two layers on token 0.
#include "hf/families/family.h"

namespace octet::hf {

namespace {

void build(Builder& b) {
  const int64_t pad = b.config.pad_token_id;
  ValueId x = b.bert_encoder(b.bert_embeddings(pad + 1, pad));
  if (b.head != Head::sequence_classification) return b.common_head(x);
  ValueId first = b.first_token_dense("classifier.dense", x);
  b.graph.set_output("logits", b.linear("classifier.out_proj", first, b.config.hidden_size, b.config.num_labels));
  b.weights.allow_unused(b.prefix + "pooler.");
  for (const char* other : {"lm_head.", "qa_outputs."}) b.weights.allow_unused(other);
}

int64_t max_tokens(const ModelConfig& config) { return config.max_positions - config.pad_token_id - 1; }

}  // namespace

const Family kRoberta{"roberta", "roberta.", "Roberta", build, max_tokens};

}  // namespace octet::hf
