// MPNet: RoBERTa's positions, no types, and one table of relative positions that all layers add to their scores.
#include "core/error.h"
#include "hf/families/family.h"

namespace octet::hf {

namespace {

// transformers fixes these, whatever config.json says.
constexpr int64_t kPadding = 1, kBuckets = 32, kMaxDistance = 128;

int64_t max_tokens(const ModelConfig& config) { return config.max_positions - kPadding - 1; }

void build(Builder& b) {
  if (b.config.relative_buckets < kBuckets)
    fail(ErrorCode::unsupported,
         {.what = "cannot build this table of relative positions",
          .expected = "expected relative_attention_num_buckets of at least " + std::to_string(kBuckets) + ", got " +
                      std::to_string(b.config.relative_buckets)});
  ValueId x = b.bert_embeddings(kPadding + 1, kPadding, false);
  const std::string path = b.prefix + "encoder.relative_attention_bias";
  ValueId table = b.parameter(path + ".weight", {b.config.relative_buckets, b.config.num_heads});
  ValueId bias = b.graph.add(Op::relative_bias, path, {table},
                             {{"length", max_tokens(b.config)}, {"buckets", kBuckets}, {"max_distance", kMaxDistance}});
  x = b.bert_encoder(x,
                     {.self = "attention.attn.",
                      .query = "q",
                      .key = "k",
                      .value = "v",
                      .dense = "attention.attn.o",
                      .add = "attention.add",
                      .norm = "attention.LayerNorm"},
                     bias);
  if (b.head != Head::sequence_classification) return b.common_head(x);
  ValueId first = b.first_token_dense("classifier.dense", x);
  b.graph.set_output("logits", b.linear("classifier.out_proj", first, b.config.hidden_size, b.config.num_labels));
  b.weights.allow_unused(b.prefix + "pooler.");
  for (const char* other : {"lm_head.", "qa_outputs."}) b.weights.allow_unused(other);
}

}  // namespace

const Family kMpnet{"mpnet", "mpnet.", "MPNet", build, max_tokens};

}  // namespace octet::hf
