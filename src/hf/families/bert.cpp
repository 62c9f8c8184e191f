// BERT (MiniLM included): positions from 0; the pooler stands before the sequence classifier.
#include "hf/families/family.h"

namespace octet::hf {

namespace {

void build(Builder& b) {
  ValueId x = b.bert_encoder(b.bert_embeddings(0, -1));
  if (b.head != Head::sequence_classification) return b.common_head(x);
  ValueId pooled = b.first_token_dense(b.prefix + "pooler.dense", x);
  b.graph.set_output("logits", b.linear("classifier", pooled, b.config.hidden_size, b.config.num_labels));
  for (const char* other : {"cls.", "qa_outputs."}) b.weights.allow_unused(other);
}

int64_t max_tokens(const ModelConfig& config) { return config.max_positions; }

}  // namespace

const Family kBert{"bert", "bert.", "Bert", build, max_tokens};

}  // namespace octet::hf
