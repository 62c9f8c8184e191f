// The graph: edits, types of every operation, text form and verifier.
#include "graph/graph.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "graph/relative_bias.h"

namespace octet {
namespace {

Tensor zeros(Shape shape, DType dtype = DType::f32) {
  std::byte* bytes = nullptr;
  return Tensor::allocate(dtype, std::move(shape), &bytes);
}

/// Every operation once.
Graph every_op() {
  Graph g;
  g.name = "tiny \"quoted\"";
  EncoderInputs in = add_encoder_inputs(g, true);
  ValueId word = g.add_parameter("embeddings.word.weight", zeros({30, 8}));
  ValueId place = g.add_parameter("embeddings.position.weight", zeros({16, 8}));
  ValueId gamma = g.add_parameter("g", zeros({8})), beta = g.add_parameter("b", zeros({8}));
  ValueId weight = g.add_parameter("w", zeros({8, 8})), wide = g.add_parameter("wide", zeros({12, 8}, DType::f16));
  ValueId bias = g.add_parameter("attention bias", zeros({2, 5, 5}));
  ValueId scale = g.add_parameter("scale", zeros({8})),
          column = g.add_parameter("column", Tensor::from(std::vector<float>(8, 1.0f), {8}));
  ValueId zero = g.add_parameter("zero", zeros({8}, DType::s32));
  ValueId x = g.add(Op::embedding, "embeddings.word", {word, in.ids});
  ValueId positions =
      g.add(Op::positions, "positions", {in.ids, in.offsets}, {{"start", int64_t{2}}, {"padding_id", int64_t{1}}});
  ValueId p = g.add(Op::embedding, "embeddings.position", {place, positions});
  x = g.add(Op::add, "sum", {x, p});
  x = g.add(Op::layer_norm, "norm", {x, gamma, beta}, {{"epsilon", 1e-12}});
  x = g.add(Op::fake_quant, "x_quantizer", {x, scale, zero},
            {{"type", "s8"}, {"lo", int64_t{-128}}, {"hi", int64_t{127}}, {"axis", int64_t{1}}});
  ValueId w = g.add(Op::fake_quant, "w_quantizer", {weight, scale, kNone, column},
                    {{"type", "s8"}, {"lo", int64_t{-127}}, {"hi", int64_t{127}}, {"axis", int64_t{0}}});
  ValueId q = g.add(Op::linear, "q", {x, w, gamma});
  ValueId k = g.add(Op::linear, "k", {x, weight, beta});
  ValueId v = g.add(Op::linear, "layer.0/v::out", {x, weight});
  ValueId s = g.add(Op::attention_scores, "scores", {q, k, in.offsets, bias}, {{"heads", int64_t{2}}, {"scale", 0.5}});
  s = g.add(Op::softmax, "softmax", {s});
  ValueId by_distance = g.add(Op::relative_bias, "distances", {g.add_parameter("table", zeros({32, 2}))},
                              {{"length", int64_t{5}}, {"buckets", int64_t{32}}, {"max_distance", int64_t{128}}});
  ValueId r = g.add(Op::attention_scores, "relative scores", {q, k, in.offsets, by_distance},
                    {{"heads", int64_t{2}}, {"scale", 0.5}});
  g.set_output("context",
               g.add(Op::attention_context, "relative context", {r, v, in.offsets}, {{"heads", int64_t{2}}}));
  s = g.add(Op::fake_quant, "p_quantizer", {s},
            {{"type", "u8"}, {"lo", int64_t{0}}, {"hi", int64_t{255}}, {"dynamic", ""}});
  ValueId c = g.add(Op::attention_context, "context", {s, v, in.offsets}, {{"heads", int64_t{2}}});
  c = g.add(Op::gelu, "gelu", {c}, {{"approximate", "tanh"}});
  ValueId y = g.add(Op::linear, "y", {c, wide});
  y = g.add(Op::relu, "relu", {g.add(Op::tanh, "tanh", {y})});
  g.set_output("first", g.add(Op::select_first, "first", {y, in.offsets}));
  g.set_output("max", g.add(Op::pool_max, "max", {y, in.offsets}));
  g.set_output("embedding", g.add(Op::normalize, "normalize", {g.add(Op::pool_mean, "mean", {y, in.offsets})}));
  return g;
}

/// The message of the error that `body` throws.
template <typename Body>
std::string message(ErrorCode code, Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(Graph, TypesOfEveryOperation) {
  Graph g = every_op();
  auto type = [&g](const char* name) { return to_string(g.value(g.find_value(name)).type); };
  EXPECT_EQ(type("positions"), "s32[tokens]");
  EXPECT_EQ(type("embeddings.word"), "f32[tokens, 8]");
  EXPECT_EQ(type("scores"), "f32[2, length, length]");
  EXPECT_EQ(type("distances"), "f32[2, 9]");
  EXPECT_EQ(type("context"), "f32[tokens, 8]");
  EXPECT_EQ(type("y"), "f32[tokens, 12]");
  EXPECT_EQ(type("max"), "f32[rows, 12]");
  verify(g);
}

TEST(Graph, TextRoundTrips) {
  Graph g = every_op();
  std::string text = print(g);
  Graph again = parse_graph(text, g.parameters());
  verify(again);
  EXPECT_EQ(print(again), text);
  EXPECT_NE(text.find("%norm = layer_norm(%sum, @g, @b) {epsilon=1e-12} : f32[tokens, 8]\n"), std::string::npos)
      << text;
  EXPECT_NE(
      text.find(
          "%w_quantizer = fake_quant(@w, @scale, none, @column) {axis=0, hi=127, lo=-127, type=\"s8\"} : f32[8, 8]\n"),
      std::string::npos);
  EXPECT_NE(text.find("%\"layer.0/v::out\""), std::string::npos);
}

TEST(Graph, NumbersKeepTheirKind) {
  Graph g = every_op();
  for (double value : {1.0, 0.1, -3e300, 1.0 / 3.0, 5e-324, 1e22}) {
    g.node(static_cast<size_t>(g.find_node("scores"))).attributes["scale"] = value;
    Graph again = parse_graph(print(g), g.parameters());
    const Attribute& read = again.node(static_cast<size_t>(again.find_node("scores"))).attributes.at("scale");
    ASSERT_TRUE(std::holds_alternative<double>(read)) << value;
    EXPECT_EQ(std::get<double>(read), value);
  }
}

TEST(Graph, TextWithFaultsNamesTheLine) {
  Graph g = every_op();
  std::string text = print(g);
  auto fault = [&](const std::string& from, const std::string& to) {
    std::string broken = text;
    size_t at = broken.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    broken.replace(at, from.size(), to);
    return message(ErrorCode::corrupt, [&] { parse_graph(broken, g.parameters()); });
  };
  EXPECT_NE(fault("graph ", "grape ").find("line 1"), std::string::npos);
  EXPECT_NE(fault("layer_norm(", "layer_form(").find("expected an operation"), std::string::npos);
  EXPECT_NE(fault("@g,", "@gg,").find("there is no parameter gg"), std::string::npos);
  EXPECT_NE(fault("param @wide : f16[12, 8]", "param @wide : f32[12, 8]").find("another type"), std::string::npos);
  EXPECT_NE(fault("param @wide", "param @wid").find("did you mean"), std::string::npos);
  EXPECT_NE(fault("epsilon=1e-12", "epsilon=1e-12, epsilon=1").find("each attribute once"), std::string::npos);
  EXPECT_NE(fault("f32[rows, 12]", "f32[rows, 13]").find("does not follow"), std::string::npos);
  EXPECT_NE(fault("%tanh = ", "%y = ").find("taken"), std::string::npos);
  // Cut anywhere: an error or a shorter graph, never worse.
  for (size_t cut = 0; cut < text.size(); ++cut) {
    try {
      parse_graph(std::string(text.substr(0, cut)), g.parameters());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt);
    }
  }
}

TEST(Graph, MismatchesNameTheNode) {
  Graph g = every_op();
  ValueId x = g.find_value("x_quantizer"), wide = g.find_value("wide"), y = g.find_value("y");
  std::string text = message(ErrorCode::invalid_argument, [&] { g.add(Op::linear, "bad", {y, wide}); });
  EXPECT_NE(text.find("node bad"), std::string::npos) << text;
  EXPECT_NE(text.find("f32[tokens, 12], f16[12, 8]"), std::string::npos) << text;
  message(ErrorCode::invalid_argument, [&] { g.add(Op::add, "bad", {x, y}); });
  message(ErrorCode::invalid_argument, [&] { g.add(Op::add, "bad", {x}); });
  message(ErrorCode::invalid_argument, [&] { g.add(Op::add, "bad", {x, 10000}); });
  message(ErrorCode::invalid_argument, [&] {
    g.add(Op::layer_norm, "bad", {x, g.find_value("g"), g.find_value("b")});
  });
  message(ErrorCode::invalid_argument, [&] { g.add(Op::gelu, "y", {x}); });
  message(ErrorCode::invalid_argument, [&] { g.add(Op::gelu, "bad", {x}, {{"approximate", "erf"}}); });
  for (Attributes attributes :
       {Attributes{{"type", "s9"}, {"lo", int64_t{-128}}, {"hi", int64_t{127}}},
        Attributes{{"type", "u8"}, {"lo", int64_t{-1}}, {"hi", int64_t{255}}},
        Attributes{{"type", "s4"}, {"lo", int64_t{-8}}, {"hi", int64_t{8}}},
        Attributes{{"type", "s8"}, {"lo", int64_t{-128}}, {"hi", int64_t{127}}, {"axis", int64_t{0}}},
        Attributes{{"type", "s8"}, {"lo", int64_t{-128}}, {"hi", int64_t{127}}, {"dynamic", "row"}},
        Attributes{{"type", "s8"}, {"lo", int64_t{-128}}}})
    message(ErrorCode::invalid_argument, [&] { g.add(Op::fake_quant, "bad", {x}, attributes); });
  EXPECT_EQ(g.find_value("bad"), kNone);
}

// The borders that transformers has for MPNet, in f32 steps.
TEST(Graph, RelativeBucketsAreThoseOfT5) {
  const std::vector<int64_t> before{90, 63, 45, 31, 22, 15, 11, 7, 6, 5, 4, 3, 2, 1, 0},
      after{1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
  for (size_t i = 0; i < before.size(); ++i) {
    const auto step = static_cast<int64_t>(i);
    EXPECT_EQ(relative_bucket(-before[i], 32, 128), 14 - step) << before[i];
    EXPECT_EQ(relative_bucket(-before[i] - 1, 32, 128), 15 - step) << before[i];
    EXPECT_EQ(relative_bucket(after[i], 32, 128), 17 + step) << after[i];
    EXPECT_EQ(relative_bucket(after[i] + 1, 32, 128),
              17 + step + (i + 1 < after.size() && after[i + 1] == after[i] + 1))
        << after[i];
  }
  EXPECT_EQ(relative_bucket(100000, 32, 128), 31);
  EXPECT_EQ(relative_bucket(-100000, 32, 128), 15);
}

TEST(Graph, BiasesOfTheWrongShapeAreRefused) {
  Graph g = every_op();
  ValueId table = g.find_value("table"), q = g.find_value("q"), offsets = g.find_value("offsets");
  auto add = [&](int64_t length, int64_t buckets, int64_t most) {
    return message(ErrorCode::invalid_argument, [&] {
      g.add(Op::relative_bias, "bad", {table}, {{"length", length}, {"buckets", buckets}, {"max_distance", most}});
    });
  };
  EXPECT_NE(add(5, 34, 128).find("a row a bucket"), std::string::npos);
  EXPECT_NE(add(0, 32, 128).find("length 1 to"), std::string::npos);
  EXPECT_NE(add(5, 31, 128).find("even number of buckets"), std::string::npos);
  EXPECT_NE(add(5, 32, 8).find("max_distance"), std::string::npos);
  ValueId even = g.add_parameter("even", zeros({2, 8}));
  std::string text = message(ErrorCode::invalid_argument, [&] {
    g.add(Op::attention_scores, "bad", {q, q, offsets, even}, {{"heads", int64_t{2}}, {"scale", 0.5}});
  });
  EXPECT_NE(text.find("[heads, 2 L - 1]"), std::string::npos) << text;
}

TEST(Graph, VerifierListsEverything) {
  Graph g = every_op();
  g.node(static_cast<size_t>(g.find_node("norm"))).attributes["epsilom"] = 1.0;
  g.node(static_cast<size_t>(g.find_node("gelu"))).attributes["approximate"] = "erf";
  g.set_input(static_cast<size_t>(g.find_node("sum")), 0, g.find_value("tanh"));
  g.set_parameter(g.find_value("scale"), Tensor::from(std::vector<float>(8, -1.0f), {8}));
  g.set_output("max", g.find_value("y"));
  std::string text = message(ErrorCode::invalid_argument, [&] { verify(g); });
  for (const char* part : {"no attribute epsilom", "approximate none or tanh", "reads tanh before it is made",
                           "a scale is negative", "two outputs are called max"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
}

TEST(Graph, InsertBypassAndDeadNodes) {
  Graph g = every_op();
  std::string before = print(g);
  ValueId tanh = g.find_value("tanh");
  ValueId q = g.insert(Op::fake_quant, "q_in", {tanh}, {{"type", "s8"}, {"lo", int64_t{-128}}, {"hi", int64_t{127}}});
  g.replace_uses(tanh, q, q);
  EXPECT_EQ(g.find_node("q_in"), g.find_node("tanh") + 1);
  EXPECT_EQ(g.node(static_cast<size_t>(g.find_node("relu"))).inputs[0], q);
  verify(g);
  ValueId w = g.insert(Op::fake_quant, "w_in", {g.find_value("w")},
                       {{"type", "s8"}, {"lo", int64_t{-128}}, {"hi", int64_t{127}}});
  EXPECT_EQ(g.find_node("w_in"), 0);
  EXPECT_EQ(g.users(w).size(), 0u);
  g.bypass(static_cast<size_t>(g.find_node("q_in")));
  EXPECT_EQ(g.find_value("q_in"), kNone);
  verify(g);
  g.remove_dead();
  EXPECT_EQ(print(g), before);
  // Without its users a parameter goes as well.
  g.set_input(static_cast<size_t>(g.find_node("scores")), 3, kNone);
  g.remove_dead();
  EXPECT_EQ(g.parameters().count("attention bias"), 0u);
  verify(g);
}

}  // namespace
}  // namespace octet
