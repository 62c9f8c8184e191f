// A small encoder graph with random weights, for tests of passes, plans and quantizers.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace octet::test {

struct TinyEncoder {
  int64_t layers = 2, hidden = 32, heads = 2, intermediate = 64, vocabulary = 50, positions = 40;
  uint32_t seed = 1;
  bool relative = false;  ///< a bias of scores by distance, as MPNet has
  bool first = false;     ///< the first token of a row instead of the mean, as classifiers read

  Graph build() const {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.1f);
    Graph g;
    g.name = "tiny";
    auto parameter = [&](const std::string& name, Shape shape, float mean = 0.0f) {
      std::vector<float> values(static_cast<size_t>(count(shape)));
      for (float& v : values) v = mean + normal(random);
      return g.add_parameter(name, Tensor::from(values, shape));
    };
    auto linear = [&](const std::string& name, ValueId x, int64_t in, int64_t out) {
      return g.add(Op::linear, name, {x, parameter(name + ".weight", {out, in}), parameter(name + ".bias", {out})});
    };
    auto norm = [&](const std::string& name, ValueId x) {
      return g.add(Op::layer_norm, name,
                   {x, parameter(name + ".weight", {hidden}, 1.0f), parameter(name + ".bias", {hidden})},
                   {{"epsilon", 1e-12}});
    };
    EncoderInputs in = add_encoder_inputs(g, true);
    ValueId word =
        g.add(Op::embedding, "embeddings.word", {parameter("embeddings.word.weight", {vocabulary, hidden}), in.ids});
    ValueId type =
        g.add(Op::embedding, "embeddings.type", {parameter("embeddings.type.weight", {2, hidden}), in.type_ids});
    ValueId position = g.add(Op::positions, "embeddings.positions", {in.ids, in.offsets},
                             {{"start", int64_t{0}}, {"padding_id", int64_t{-1}}});
    ValueId place = g.add(Op::embedding, "embeddings.position",
                          {parameter("embeddings.position.weight", {positions, hidden}), position});
    ValueId x = norm("embeddings.LayerNorm",
                     g.add(Op::add, "embeddings.sum2", {g.add(Op::add, "embeddings.sum", {word, type}), place}));
    std::vector<ValueId> bias;
    if (relative)
      bias = {g.add(Op::relative_bias, "encoder.distances", {parameter("encoder.distances.weight", {32, heads})},
                    {{"length", positions}, {"buckets", int64_t{32}}, {"max_distance", int64_t{128}}})};
    for (int64_t l = 0; l < layers; ++l) {
      std::string p = "encoder.layer." + std::to_string(l) + ".";
      ValueId q = linear(p + "attention.self.query", x, hidden, hidden),
              k = linear(p + "attention.self.key", x, hidden, hidden),
              v = linear(p + "attention.self.value", x, hidden, hidden);
      double scale = 1.0 / std::sqrt(static_cast<double>(hidden / heads));
      std::vector<ValueId> operands{q, k, in.offsets};
      operands.insert(operands.end(), bias.begin(), bias.end());
      ValueId s =
          g.add(Op::attention_scores, p + "attention.self.scores", operands, {{"heads", heads}, {"scale", scale}});
      ValueId c =
          g.add(Op::attention_context, p + "attention.self.context",
                {g.add(Op::softmax, p + "attention.self.probabilities", {s}), v, in.offsets}, {{"heads", heads}});
      ValueId o = linear(p + "attention.output.dense", c, hidden, hidden);
      x = norm(p + "attention.output.LayerNorm", g.add(Op::add, p + "attention.output.sum", {o, x}));
      ValueId f = g.add(Op::gelu, p + "intermediate.act", {linear(p + "intermediate.dense", x, hidden, intermediate)},
                        {{"approximate", std::string("none")}});
      x = norm(p + "output.LayerNorm",
               g.add(Op::add, p + "output.sum", {linear(p + "output.dense", f, intermediate, hidden), x}));
    }
    g.set_output("embedding", g.add(Op::normalize, "normalize",
                                    {g.add(first ? Op::select_first : Op::pool_mean, "pool", {x, in.offsets})}));
    return g;
  }
};

/// A ragged batch of random ids.
struct RandomBatch {
  std::vector<int32_t> ids, offsets{0}, types;
  RandomBatch(const std::vector<int>& lengths, int64_t vocabulary, uint32_t seed) {
    std::mt19937 random(seed);
    for (int length : lengths) {
      for (int i = 0; i < length; ++i) {
        ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary)));
        types.push_back(static_cast<int32_t>(random() % 2));
      }
      offsets.push_back(static_cast<int32_t>(ids.size()));
    }
  }
};

}  // namespace octet::test
