// Switching quantizers, planted outlier channels, balancing edge by edge, and the search against all combinations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "plan/lower.h"
#include "plan/tiny_encoder.h"
#include "quant/calibration_state.h"
#include "quant/quantize.h"
#include "quant/search.h"
#include "quant/switched.h"

namespace octet {
namespace {

const std::vector<int> kLengths = {7, 1, 13, 20, 4, 9, 30, 2, 17, 11, 5, 8};

struct Rows {
  test::RandomBatch batch;
  std::vector<CalibrationRow> rows;
  explicit Rows(uint32_t seed) : batch(kLengths, 50, seed) {
    for (size_t r = 0; r + 1 < batch.offsets.size(); ++r) {
      auto begin = static_cast<size_t>(batch.offsets[r]), size = static_cast<size_t>(batch.offsets[r + 1]) - begin;
      rows.push_back({std::span(batch.ids).subspan(begin, size), std::span(batch.types).subspan(begin, size)});
    }
  }
  BatchView view() const { return {.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.types}; }
};

Calibration calibrated(const Graph& graph, const CalibrateOptions& options = {}) {
  Rows rows(5);
  return calibrate_graph(graph, rows.rows, options, "model", 0, {});
}

Graph quantized(const Graph& graph, const Calibration& calibration) {
  Graph made = graph;
  quantize_graph(made, {.calibration = &calibration, .model_hash = "model"});
  return made;
}

std::vector<float> outputs(const Graph& graph, const Rows& rows) {
  Executor executor(std::make_shared<const Program>(lower(graph, {.target = host_target(), .fuse = false})),
                    std::make_shared<ThreadPool>(1), host_target(), true);
  executor.bind(rows.view());
  executor.run();
  int32_t buffer = executor.program().outputs[0].second;
  const auto* values = static_cast<const float*>(executor.data(buffer));
  return {values, values + executor.elements(buffer)};
}

double noise(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - b[i], 2);
  return sum;
}

/// A run with quantizers flipped is what a graph with just those gives, whatever ran before it.
TEST(Switched, FlippedRunsEqualWholeGraphs) {
  Graph graph = test::TinyEncoder{.relative = true}.build();
  Calibration calibration = calibrated(graph);
  Graph all = quantized(graph, calibration);
  Rows rows(9);
  SwitchedGraph switched(all, 1, false);
  switched.bind(rows.view());
  for (bool base : {false, true}) {
    switched.run_base(base);
    for (size_t q = 0; q < switched.quantizers().size(); q += 3) {
      for (size_t again : {q, switched.quantizers().size() - 1 - q}) {
        switched.run_flipped(std::vector<size_t>{again});
        Graph expected = all;
        for (Node const& node : all.nodes())
          if (node.op == Op::fake_quant) {
            const bool on = (node.name == switched.quantizers()[again].name) != base;
            expected.node(static_cast<size_t>(expected.find_node(node.name))).attributes["state"] =
                std::string(on ? "on" : "off");
          }
        const std::vector<float> want = outputs(expected, rows);
        EXPECT_EQ(noise(switched.output(), want), 0) << switched.quantizers()[again].name << " base " << base;
      }
    }
  }
  EXPECT_LT(switched.computed(), switched.possible());
}

TEST(Switched, SharedQuantizersAreOneSwitch) {
  Graph graph = test::TinyEncoder{}.build();
  Graph all = quantized(graph, calibrated(graph));
  SwitchedGraph one(all, 1, true), each(all, 1, false);
  EXPECT_LT(one.quantizers().size(), each.quantizers().size());
  size_t names = 0;
  for (const SwitchedQuantizer& q : one.quantizers()) names += q.names.size();
  EXPECT_EQ(names, each.quantizers().size());
}

TEST(Switched, LayersInNames) {
  EXPECT_EQ(layer_of("encoder.layer.12.output.dense"), 12);
  EXPECT_EQ(layer_of("embeddings.word"), -1);
  EXPECT_EQ(layer_of("player.3.x"), -1);
  EXPECT_EQ(without_layer("encoder.layer.12.output.dense"), "encoder.layer.*.output.dense");
}

// ---------------------------------------------------------------- planted outliers

void scale_row(Graph& graph, const std::string& name, int64_t row, float factor) {
  ValueId value = graph.find_value(name);
  const Tensor& tensor = graph.parameter(value);
  std::vector<float> values = tensor.to_f32();
  const int64_t width = tensor.shape().size() > 1 ? tensor.dim(1) : 1;
  for (int64_t c = 0; c < width; ++c) values[static_cast<size_t>(row * width + c)] *= factor;
  graph.set_parameter(value, Tensor::from(values, tensor.shape()));
}
void scale_column(Graph& graph, const std::string& name, int64_t column, float factor) {
  ValueId value = graph.find_value(name);
  const Tensor& tensor = graph.parameter(value);
  std::vector<float> values = tensor.to_f32();
  for (int64_t r = 0; r < tensor.dim(0); ++r) values[static_cast<size_t>(r * tensor.dim(1) + column)] *= factor;
  graph.set_parameter(value, Tensor::from(values, tensor.shape()));
}

/// Channels by `factor` and their consumers by its inverse: attention context of layers 1 and 2, q against k of layer
/// 2. In float nothing changes.
Graph planted(Graph graph, float factor) {
  const std::string one = "encoder.layer.1.attention.", two = "encoder.layer.2.attention.";
  for (int64_t channel : {3, 20}) {
    for (const std::string& layer : {one, two}) {
      scale_row(graph, layer + "self.value.weight", channel, factor);
      scale_row(graph, layer + "self.value.bias", channel, factor);
      scale_column(graph, layer + "output.dense.weight", channel, 1 / factor);
    }
    scale_row(graph, two + "self.query.weight", channel, factor);
    scale_row(graph, two + "self.query.bias", channel, factor);
    scale_row(graph, two + "self.key.weight", channel, 1 / factor);
    scale_row(graph, two + "self.key.bias", channel, 1 / factor);
  }
  return graph;
}

class Planted : public testing::TestWithParam<float> {};

TEST_P(Planted, BalancingRecoversAndTheRightLayersAreNamed) {
  const Graph clean = test::TinyEncoder{.layers = 4}.build(), graph = planted(clean, GetParam());
  Rows rows(11);
  const std::vector<float> real = outputs(clean, rows);
  const std::vector<float> same = outputs(graph, rows);
  for (size_t i = 0; i < real.size(); ++i) ASSERT_NEAR(real[i], same[i], 1e-5f);

  // Plain post-training quantization: linears and attention operands, one scale a tensor.
  const CalibrateOptions plain{.placement = "residual-float", .method = "max", .balance = 0};
  const Calibration ranges = calibrated(graph, plain);
  const double healthy = noise(outputs(quantized(clean, calibrated(clean, plain)), rows), real);
  const double failed = noise(outputs(quantized(graph, ranges), rows), real);
  EXPECT_GT(failed, 5 * healthy) << "the plant is too weak to show anything";

  const Calibration start = calibrated(graph, {.placement = "residual-float"});
  std::vector<BalancedEdge> edges;
  const Calibration tuned = balance_graph(graph, start, Rows(13).rows, &edges, 1, {});
  const double balanced = noise(outputs(quantized(graph, tuned), rows), real);
  EXPECT_LE(balanced, healthy + 0.05 * (failed - healthy)) << failed << " " << healthy;
  EXPECT_FALSE(edges.empty());

  // The most harmful sites of the plain plan are the planted ones.
  SwitchedGraph switched(quantized(graph, ranges), 1, false);
  switched.bind(rows.view());
  switched.run_base(false);
  std::map<int64_t, double> harm;
  for (size_t q = 0; q < switched.quantizers().size(); ++q) {
    switched.run_flipped(std::vector<size_t>{q});
    harm[layer_of(switched.quantizers()[q].name)] += noise(switched.output(), real);
  }
  std::vector<std::pair<double, int64_t>> order;
  for (auto [layer, sum] : harm) order.emplace_back(-sum, layer);
  std::sort(order.begin(), order.end());
  EXPECT_EQ(std::min(order[0].second, order[1].second), 1);
  EXPECT_EQ(std::max(order[0].second, order[1].second), 2);
}

INSTANTIATE_TEST_SUITE_P(BothDirections, Planted, testing::Values(50.0f, 1 / 50.0f));

/// Balancing is exact in float: dividing a channel by its scale and multiplying its readers' columns by it.
TEST(Balance, VectorsFoldWithoutChangingFloatOutputs) {
  const Graph graph = planted(test::TinyEncoder{.layers = 4, .relative = true}.build(), 50);
  const Calibration calibration = calibrated(graph);
  const Graph all = quantized(graph, calibration);
  Graph folded = graph;
  int edges = 0;
  for (int64_t l = 0; l < 4; ++l) {
    const std::string p = "encoder.layer." + std::to_string(l) + ".attention.";
    auto scale = [&](const std::string& quantizer) {
      const Node& node = all.node(static_cast<size_t>(all.find_node(quantizer)));
      return all.parameter(node.input(1)).to_f32();
    };
    // The context's vector moves into v; q's and k's into each other (their product is one number a head).
    const std::vector<float> context = scale(p + "output.dense._input_quantizer"),
                             q = scale(p + "self.matmul_q_input_quantizer"),
                             k = scale(p + "self.matmul_k_input_quantizer");
    for (int64_t c = 0; c < 32; ++c) {
      const auto at = static_cast<size_t>(c), first = static_cast<size_t>(c / 16 * 16);
      EXPECT_NEAR(q[at] * k[at] / (q[first] * k[first]), 1, 1e-5);
      scale_row(folded, p + "self.value.weight", c, 1 / context[at]);
      scale_row(folded, p + "self.value.bias", c, 1 / context[at]);
      scale_column(folded, p + "output.dense.weight", c, context[at]);
      const float lean = std::sqrt(q[at] / k[at]);
      for (const char* part : {"weight", "bias"}) {
        scale_row(folded, p + "self.query." + part, c, 1 / lean);
        scale_row(folded, p + "self.key." + part, c, lean);
      }
      ++edges;
    }
  }
  Rows rows(3);
  const std::vector<float> before = outputs(graph, rows), after = outputs(folded, rows);
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 1e-5f);
  EXPECT_EQ(edges, 128);
}

// ---------------------------------------------------------------- bias correction

/// Means of every linear's result over the rows' tokens, by name.
std::map<std::string, std::vector<double>> linear_means(const Graph& graph, const Rows& rows) {
  Executor executor(std::make_shared<const Program>(lower(graph, {.target = host_target(), .fuse = false})),
                    std::make_shared<ThreadPool>(1), host_target(), true);
  executor.bind(rows.view());
  executor.run();
  std::map<std::string, std::vector<double>> means;
  for (const Step& step : executor.program().steps) {
    if (graph.find_node(step.name) < 0) continue;
    const Node& node = graph.node(static_cast<size_t>(graph.find_node(step.name)));
    if (node.op != Op::linear) continue;
    std::vector<double>& mean = means[step.name];
    mean.resize(static_cast<size_t>(graph.value(node.output).type.shape.back()));
    const int32_t out = step.outputs[0].buffer;
    const auto* values = static_cast<const float*>(executor.data(out));
    const int64_t tokens = executor.elements(out) / static_cast<int64_t>(mean.size());
    for (int64_t i = 0; i < executor.elements(out); ++i)
      mean[static_cast<size_t>(i) % mean.size()] += double{values[i]} / static_cast<double>(tokens);
  }
  return means;
}

/// On the rows it was found on, every corrected linear has float's means; a linear left in float keeps its own bias.
TEST(Bias, CorrectedLinearsHaveTheMeansOfFloat) {
  const Graph graph = test::TinyEncoder{.layers = 3}.build();
  Rows rows(21);
  const Calibration plain = calibrated(graph, {.placement = "qdqbert", .activation_type = "s5", .weight_type = "s5"});
  std::vector<CorrectedBias> list;
  const Calibration corrected = correct_graph_biases(graph, plain, rows.rows, &list, 1, {});
  EXPECT_EQ(list.size(), 18u);
  EXPECT_EQ(corrected.corrected_biases(), 18);
  const auto real = linear_means(graph, rows), before = linear_means(quantized(graph, plain), rows),
             after = linear_means(quantized(graph, corrected), rows);
  for (const CorrectedBias& entry : list) {
    EXPECT_GT(entry.size, 0);
    double wrong = 0, left = 0;
    for (size_t c = 0; c < real.at(entry.node).size(); ++c) {
      wrong = std::max(wrong, std::fabs(before.at(entry.node)[c] - real.at(entry.node)[c]));
      left = std::max(left, std::fabs(after.at(entry.node)[c] - real.at(entry.node)[c]));
    }
    EXPECT_LT(left, 1e-5) << entry.node << " was wrong by " << wrong;
  }
  // Kept by the file; ranges chosen again lose it; a linear in float does not take it.
  const auto path = std::filesystem::path(testing::TempDir()) / "octet_bias.safetensors";
  corrected.save(path);
  const Calibration loaded = Calibration::load(path);
  std::filesystem::remove(path);
  EXPECT_EQ(outputs(quantized(graph, loaded), rows), outputs(quantized(graph, corrected), rows));
  EXPECT_EQ(Calibration::merge(loaded, loaded).corrected_biases(), 0);
  Graph again = graph;
  quantize_graph(again, {.calibration = &corrected, .method = "auto", .model_hash = "model"});
  Graph fresh = graph;
  quantize_graph(fresh, {.calibration = &plain, .method = "auto", .model_hash = "model"});
  EXPECT_EQ(outputs(again, rows), outputs(fresh, rows));
  const std::string name = list.front().node;
  auto state = std::make_shared<Calibration::State>(corrected.state());
  for (auto& [quantizer, range] : state->ranges)
    if (quantizer.starts_with(name)) range.attributes["state"] = std::string("off");
  const Graph partly = quantized(graph, Calibration(state));
  const auto bias = [&](const Graph& g) {
    return g.parameter(g.node(static_cast<size_t>(g.find_node(name))).input(2)).to_f32();
  };
  EXPECT_EQ(bias(partly), bias(graph));
  EXPECT_NE(bias(quantized(graph, corrected)), bias(graph));
}

TEST(Bias, RefusesAnotherModelsCorrections) {
  Graph graph = test::TinyEncoder{}.build();
  auto state = std::make_shared<Calibration::State>(calibrated(graph).state());
  state->biases["nowhere"] = Tensor::from(std::vector<float>(32), {32});
  EXPECT_ANY_THROW(quantized(graph, Calibration(state)));
  EXPECT_ANY_THROW(correct_graph_biases(graph, calibrated(graph), {}, nullptr, 1, {}));
}

// ---------------------------------------------------------------- search

TEST(Search, SameParetoSetAsAllCombinations) {
  Graph graph = test::TinyEncoder{.layers = 2}.build();
  SwitchedGraph switched(quantized(graph, calibrated(graph)), 1, false);
  Rows rows(17);
  switched.bind(rows.view());
  switched.run_base(false);
  const std::vector<float> real(switched.output().begin(), switched.output().end());
  std::map<std::string, std::vector<size_t>> sites;
  for (size_t q = 0; q < switched.quantizers().size(); ++q)
    if (switched.quantizers()[q].kind == "linear") sites[switched.quantizers()[q].site].push_back(q);
  ASSERT_EQ(sites.size(), 8u);
  std::vector<SearchUnit> units;
  std::vector<std::vector<size_t>> members;
  std::mt19937 random(7);
  for (const auto& [site, quantizers] : sites) {
    switched.run_flipped(quantizers);
    units.push_back({noise(switched.output(), real), 1.0 + static_cast<double>(random() % 1000) / 500});
    members.push_back(quantizers);
  }
  // The sets of sites in float, and what they cost and lose as measured.
  auto measure = [&](const std::vector<char>& off) {
    std::vector<size_t> on;
    double cost = 0;
    for (size_t u = 0; u < units.size(); ++u) {
      if (off[u] != 0) cost += units[u].cost;
      else on.insert(on.end(), members[u].begin(), members[u].end());
    }
    switched.run_flipped(on);
    return std::pair(cost, noise(switched.output(), real));
  };
  auto front = [&](const std::vector<std::vector<char>>& sets) {
    std::vector<std::pair<double, double>> points;
    for (const auto& set : sets) points.push_back(measure(set));
    std::vector<std::vector<char>> best;
    for (size_t i : pareto_front(points)) best.push_back(sets[i]);
    return best;
  };
  std::vector<std::vector<char>> all;
  for (int bits = 0; bits < 256; ++bits) {
    std::vector<char> off(8);
    for (int u = 0; u < 8; ++u) off[static_cast<size_t>(u)] = static_cast<char>(bits >> u & 1);
    all.push_back(off);
  }
  const auto candidates = front_candidates(units, 0.5, 256);
  EXPECT_LT(candidates.size(), 200u);
  EXPECT_EQ(front(candidates), front(all));
}

TEST(Search, FrontOfPairs) {
  const std::vector<std::pair<double, double>> points{{2, 1}, {1, 3}, {2, 1}, {3, 1}, {1, 2}, {4, 0}};
  EXPECT_EQ(pareto_front(points), (std::vector<size_t>{4, 0, 5}));
  const std::vector<SearchUnit> units{{1, 1}, {4, 1}, {2, -1}};
  const auto sets = front_candidates(units, 0, 3);
  EXPECT_EQ(sets.size(), 3u);  // everything quantized is there although a cheaper set beats it
  EXPECT_EQ(sets.front(), (std::vector<char>{0, 0, 0}));
}

TEST(Search, BoundedWorkFindsTheBestThatFits) {
  std::mt19937 random(3);
  auto draw = [&] { return 1.0 + static_cast<double>(random() % 1000) / 100; };
  for (int round = 0; round < 20; ++round) {
    std::vector<SearchUnit> units;
    for (int u = 0; u < 10; ++u) units.push_back({.noise = draw(), .cost = draw(), .work = 0.1});
    double all = 0;
    for (const SearchUnit& unit : units) all += unit.noise;
    auto noise = [&](const std::vector<char>& off) {
      double left = all;
      for (size_t u = 0; u < units.size(); ++u)
        if (off[u] != 0) left -= units[u].noise;
      return left;
    };
    double best = all;
    for (int bits = 0; bits < 1024; ++bits) {
      std::vector<char> off(10);
      for (int u = 0; u < 10; ++u) off[static_cast<size_t>(u)] = static_cast<char>(bits >> u & 1);
      if (std::count(off.begin(), off.end(), 1) <= 3) best = std::min(best, noise(off));
    }
    double found = all;
    for (const auto& off : front_candidates(units, 0, 1000, 0.3)) {
      EXPECT_LE(std::count(off.begin(), off.end(), 1), 3);
      found = std::min(found, noise(off));
    }
    EXPECT_NEAR(found, best, 1e-9);
  }
}

}  // namespace
}  // namespace octet
