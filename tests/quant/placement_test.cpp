// Placements put the quantizers they promise, under the names they promise; names, globs and layers address them
// exactly.
#include "quant/placement.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "graph/passes.h"
#include "plan/tiny_encoder.h"
#include "quant/structure.h"

namespace octet {
namespace {

Graph placed(const PlacementOptions& options, int64_t layers = 2) {
  Graph graph = test::TinyEncoder{.layers = layers}.build();
  place(graph, options);
  verify(graph);
  return graph;
}

const Node& find(const Graph& graph, const std::string& name) {
  int64_t index = graph.find_node(name);
  EXPECT_GE(index, 0) << name;
  return graph.node(static_cast<size_t>(index < 0 ? 0 : index));
}

TEST(Placement, QdqbertHasTwentyALayer) {
  Graph graph = placed({.placement = Placement::qdqbert}, 12);
  EXPECT_EQ(quantizer_names(graph).size(), 240u);
  std::set<std::string> wanted, got;
  for (const char* linear : {"attention.self.query", "attention.self.key", "attention.self.value",
                             "attention.output.dense", "intermediate.dense", "output.dense"})
    for (const char* kind : {"_input_quantizer", "_weight_quantizer"})
      wanted.insert(std::string("encoder.layer.11.") + linear + "." + kind);
  for (const char* name :
       {"self.matmul_q", "self.matmul_k", "self.matmul_a", "self.matmul_v", "output.add_local", "output.add_residual"})
    wanted.insert(std::string("encoder.layer.11.attention.") + name + "_input_quantizer");
  for (const char* name : {"output.add_local", "output.add_residual"})
    wanted.insert(std::string("encoder.layer.11.") + name + "_input_quantizer");
  for (const std::string& name : quantizer_names(graph))
    if (name_matches(name, "encoder.layer.11")) got.insert(name);
  EXPECT_EQ(got, wanted);
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::fake_quant) continue;
    EXPECT_EQ(node.text("type", ""), "s8");
    EXPECT_EQ(node.integer("lo", 0), -128);
    EXPECT_EQ(node.integer("axis", -1), graph.is_parameter(node.input(0)) ? 0 : -1);
    EXPECT_TRUE(awaits_calibration(node));
  }
  // The reference's u8 alternative needs no calibration.
  Graph u8 = placed({.placement = Placement::qdqbert, .probabilities = "u8"});
  EXPECT_FALSE(awaits_calibration(find(u8, "encoder.layer.0.attention.self.matmul_a_input_quantizer")));
}

TEST(Placement, OthersAndTheirSwitches) {
  // 6 linears x 2, 4 operands, 4 residual operands a layer; 3 tables.
  EXPECT_EQ(quantizer_names(placed({})).size(), 2u * 20 + 3);
  EXPECT_EQ(quantizer_names(placed({.placement = Placement::residual_float})).size(), 2u * 16 + 3);
  EXPECT_EQ(quantizer_names(placed({.placement = Placement::linear_only})).size(), 2u * 12 + 3);
  EXPECT_EQ(quantizer_names(placed({.float_embeddings = true})).size(), 2u * 20);
  Graph graph = placed({});
  EXPECT_EQ(find(graph, "encoder.layer.1.attention.output.add_local_input_quantizer").integer("axis", -1), 1);
  EXPECT_EQ(find(graph, "encoder.layer.1.attention.self.query._input_quantizer").integer("axis", -1), 1);
  EXPECT_EQ(find(graph, "encoder.layer.1.attention.self.query._weight_quantizer").integer("lo", 0), -127);
  EXPECT_EQ(find(graph, "embeddings.word._weight_quantizer").integer("axis", -1), 0);
  const Node& p = find(graph, "encoder.layer.0.attention.self.matmul_a_input_quantizer");
  EXPECT_EQ(p.text("type", ""), "u8");
  EXPECT_EQ(graph.parameter(p.input(1)).as<float>()[0], 1.0f / 255.0f);
  Graph plain = placed({.balance = false});
  EXPECT_EQ(find(plain, "encoder.layer.1.attention.self.query._input_quantizer").integer("axis", -1), -1);
  EXPECT_EQ(find(plain, "encoder.layer.1.attention.output.add_residual_input_quantizer").integer("axis", -1), 1);
  Graph narrow = placed({.activations = "s6", .weights = "s4", .probabilities = "s8"});
  EXPECT_EQ(find(narrow, "encoder.layer.1.output.dense._input_quantizer").integer("hi", 0), 31);
  EXPECT_EQ(find(narrow, "encoder.layer.1.output.dense._weight_quantizer").integer("lo", 0), -7);
  EXPECT_TRUE(awaits_calibration(find(narrow, "encoder.layer.0.attention.self.matmul_a_input_quantizer")));
  EXPECT_THROW(place(graph, {}), Error);
  EXPECT_THROW(placed({.activations = "u8"}), Error);
  EXPECT_THROW(parse_placement("everything"), Error);
  EXPECT_EQ(parse_placement("residual-float"), Placement::residual_float);
}

TEST(Placement, HeadsAndPoolersAreSwitches) {
  auto build = [] {
    Graph g = test::TinyEncoder{.layers = 1}.build();
    ValueId x = g.find_value("encoder.layer.0.output.LayerNorm"), offsets = g.find_value("offsets");
    ValueId weight = g.add_parameter("pooler.dense.weight", Tensor::from(std::vector<float>(32 * 32, 0.1f), {32, 32}));
    ValueId out = g.add_parameter("classifier.weight", Tensor::from(std::vector<float>(3 * 32, 0.1f), {3, 32}));
    ValueId pooled =
        g.add(Op::tanh, "tanh",
              {g.add(Op::linear, "pooler.dense", {g.add(Op::select_first, "first", {x, offsets}), weight})});
    g.set_output("logits", g.add(Op::linear, "classifier", {pooled, out}));
    return g;
  };
  auto count = [&](PlacementOptions options) {
    Graph g = build();
    place(g, options);
    verify(g);
    return quantizer_names(g).size();
  };
  size_t base = count({});
  EXPECT_EQ(count({.heads = true}), base + 2);
  EXPECT_EQ(count({.pooler = true}), base + 2);
  EXPECT_EQ(count({.heads = true, .pooler = true}), base + 4);
}

TEST(Placement, DynamicNeedsNoCalibration) {
  Graph graph = test::TinyEncoder{}.build();
  place_dynamic(graph, {});
  verify(graph);
  EXPECT_EQ(quantizer_names(graph).size(), 2u * 16 + 3);
  std::map<std::string, int> kinds;
  for (const Node& node : graph.nodes())
    if (node.op == Op::fake_quant) {
      EXPECT_FALSE(awaits_calibration(node)) << node.name;
      ++kinds[node.text("dynamic", "")];
    }
  EXPECT_EQ(kinds["token"], 2 * 8);
  EXPECT_EQ(kinds["row_channel"], 2);
  share_quantizers(graph);
  EXPECT_EQ(graph.users(graph.find_value("embeddings.LayerNorm")).size(),
            2u);  // one quantizer for q, k, v; the residual add
}

TEST(Placement, NamesGlobsAndLayers) {
  struct Case {
    const char *name, *pattern;
    bool fits;
  };
  const Case cases[] = {
      {"encoder.layer.1.output.x", "encoder.layer.1", true},
      {"encoder.layer.10.output.x", "encoder.layer.1", false},
      {"encoder.layer.1.output.x", "encoder.layer.1.", true},
      {"encoder.layer.1.output.x", "encoder.layer.1.*", true},
      {"encoder.layer.10.output.x", "encoder.layer.1.*", false},
      {"encoder.layer.10.output.x", "encoder.layer.1?.*", true},
      {"bert.encoder.layer.1.output.x", "layer.1.*", true},
      {"bert.encoder.layer.10.output.x", "layer.1.*", false},
      {"encoder.layer.1.output.x", "layer.1", false},
      {"encoder.layer.1.output.add_local_input_quantizer", "*add_local*", true},
      {"encoder.layer.1.output.x", "*", true},
      {"a.b", "a.b", true},
      {"a.bc", "a.b", false},
      {"a.b", "", false},
      {"ab", "*a*b*", true},
      {"aab", "*ab", true},
      {"ba", "*ab", false},
  };
  for (const Case& c : cases) EXPECT_EQ(name_matches(c.name, c.pattern), c.fits) << c.name << " " << c.pattern;
}

TEST(Placement, StatesAndTypesByPattern) {
  Graph graph = placed({}, 12);
  EXPECT_EQ(set_state(graph, "encoder.layer.1.*", false), 20);
  EXPECT_EQ(set_state(graph, "encoder.layer.1.output.dense._input_quantizer", true), 1);
  EXPECT_EQ(set_type(graph, "*matmul_a*", parse_quant_spec("s8", false)), 12);
  EXPECT_TRUE(awaits_calibration(find(graph, "encoder.layer.3.attention.self.matmul_a_input_quantizer")));
  verify(graph);
  remove_off_quantizers(graph, true);
  EXPECT_EQ(graph.find_node("encoder.layer.1.output.dense._weight_quantizer"), -1);
  graph = placed({}, 3);
  try {
    set_state(graph, "encoder.layer.2.output.dens._input_quantizer", false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_NE(std::string(error.what()).find("did you mean encoder.layer.2.output.dense._input_quantizer"),
              std::string::npos)
        << error.what();
  }
}

TEST(Placement, ObservedValuesCoverEveryPlacement) {
  Graph graph = test::TinyEncoder{}.build();
  std::set<ValueId> observed;
  for (auto [value, channels] : observed_values(graph)) observed.insert(value);
  for (Placement placement :
       {Placement::qdqbert, Placement::linear_only, Placement::residual_float, Placement::residual_channel}) {
    Graph copy = graph;
    place(copy, {.placement = placement, .heads = true, .pooler = true});
    for (const Node& node : copy.nodes()) {
      if (node.op != Op::fake_quant || copy.is_parameter(node.input(0))) continue;
      EXPECT_TRUE(observed.contains(node.input(0))) << node.name;
    }
  }
}

}  // namespace
}  // namespace octet
