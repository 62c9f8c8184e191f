// The strength of channel balancing, edge by edge: every candidate is applied to all edges at once, and each edge is
// judged by its own product alone.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "core/error.h"
#include "quant/calibration_state.h"
#include "quant/quantize.h"
#include "quant/switched.h"

namespace octet {

namespace {

constexpr std::array<double, 8> kLinear{0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0};
constexpr std::array<double, 8> kScores{0.3, 0.4, 0.45, 0.5, 0.5, 0.55, 0.6, 0.7};
constexpr int64_t kBatchTokens = 1024;

struct Edge {
  std::vector<std::string> names;       // quantizers that take the strength; a scores node has itself
  std::map<std::string, double> error;  // by product: noise over signal
  double sum() const {
    double all = 0;
    for (const auto& [node, value] : error) all += value;
    return all;
  }
};

/// By edge: an input quantizer's name, or the name of the scores.
std::map<std::string, Edge> measure(const Graph& graph, std::span<const CalibrationRow> rows, int threads) {
  SwitchedGraph switched(graph, threads, true);
  std::map<std::string, std::pair<double, double>> sums;
  std::map<std::string, std::vector<std::string>> operands;
  std::vector<int32_t> ids, offsets{0}, types;
  auto flush = [&] {
    if (offsets.size() < 2) return;
    switched.bind({.ids = ids, .offsets = offsets, .type_ids = types});
    switched.run_base(false);
    for (const SwitchedGraph::LocalError& e : switched.local_errors()) {
      sums[e.node].first += e.noise, sums[e.node].second += e.signal;
      operands[e.node] = e.quantizers;
    }
    ids.clear(), types.clear(), offsets.assign(1, 0);
  };
  for (const CalibrationRow& row : rows) {
    if (!ids.empty() && static_cast<int64_t>(ids.size() + row.ids.size()) > kBatchTokens) flush();
    ids.insert(ids.end(), row.ids.begin(), row.ids.end());
    if (row.type_ids.empty()) types.resize(ids.size(), 0);
    else types.insert(types.end(), row.type_ids.begin(), row.type_ids.end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  flush();
  std::map<std::string, Edge> edges;
  for (const auto& [node, sum] : sums) {
    const bool scores = operands[node].size() == 2;
    Edge& edge = edges[scores ? node : operands[node].front()];
    edge.error[node] = sum.second > 0 ? sum.first / sum.second : 0;
    if (scores) edge.names = {node};
    else
      for (const SwitchedQuantizer& q : switched.quantizers())
        if (q.name == operands[node].front()) edge.names = q.names;
  }
  return edges;
}

}  // namespace

Calibration balance_graph(const Graph& graph, const Calibration& calibration, std::span<const CalibrationRow> rows,
                          std::vector<BalancedEdge>* list, int threads, const Progress& progress) {
  const Calibration::State& state = calibration.state();
  if (!placement_of(state.options).balance)
    fail(ErrorCode::invalid_argument, {.what = "cannot balance the channels of this calibration",
                                       .expected = "its placement or its options give inputs of linears one scale",
                                       .hint = "calibrate with --placement residual-channel"});
  if (rows.empty()) fail(ErrorCode::invalid_argument, {.what = "cannot balance channels without rows"});
  Graph placed = graph;
  place_quantizers(placed, state.options);
  const MethodOptions own = method_of(state, "");
  Graph start = placed;
  if (state.ranges.empty()) choose_ranges(start, state.statistics, own);
  else apply_ranges(start, state.ranges, own);
  const auto before = measure(start, rows, threads);
  struct Best {
    double strength = -1, error = 0;
    std::vector<std::string> names;
  };
  std::map<std::string, Best> best;  // by product's first name, since the edge's own name follows from sharing
  auto key = [](const Edge& edge) { return edge.error.begin()->first; };
  for (size_t k = 0; k < kLinear.size(); ++k) {
    if (progress) progress("balance", static_cast<int64_t>(k), static_cast<int64_t>(kLinear.size()));
    MethodOptions options = own;
    options.strength = kLinear[k];
    for (const Node& node : placed.nodes())
      if (node.op == Op::attention_scores) options.strengths[node.name] = kScores[k];
    Graph trial = placed;
    choose_ranges(trial, state.statistics, options);
    for (const auto& [name, edge] : measure(trial, rows, threads)) {
      Best& b = best[key(edge)];
      const bool scores = edge.names.size() == 1 && edge.names[0] == key(edge);
      if (b.strength < 0 || edge.sum() < b.error) b = {scores ? kScores[k] : kLinear[k], edge.sum(), edge.names};
    }
  }
  MethodOptions options = own;
  for (const auto& [name, b] : best)
    for (const std::string& quantizer : b.names) options.strengths[quantizer] = b.strength;
  Graph final = placed;
  const auto methods = choose_ranges(final, state.statistics, options);
  if (list != nullptr)
    for (const auto& [name, edge] : before)
      if (auto found = best.find(key(edge)); found != best.end())
        list->push_back({key(edge), edge.sum(), found->second.error, found->second.strength});
  auto made = std::make_shared<Calibration::State>(state);
  made->ranges = stored_ranges(final, methods);
  made->biases.clear();  // of other ranges
  return Calibration(std::move(made));
}

Calibration choose_methods(const Graph& graph, const Calibration& calibration, std::span<const CalibrationRow> rows,
                           std::span<const std::string> methods, std::vector<ChosenMethod>* list, int threads,
                           const Progress& progress) {
  if (rows.empty() || methods.empty())
    fail(ErrorCode::invalid_argument, {.what = "cannot choose methods without rows and methods"});
  const Calibration::State& state = calibration.state();
  Graph placed = graph;
  place_quantizers(placed, state.options);
  std::map<std::string, ChosenMethod> best;  // by product
  for (size_t m = 0; m < methods.size(); ++m) {
    if (progress) progress("methods", static_cast<int64_t>(m), static_cast<int64_t>(methods.size()));
    Graph trial = placed;
    choose_ranges(trial, state.statistics, method_of(state.options, methods[m]));
    for (const auto& [name, edge] : measure(trial, rows, threads)) {
      ChosenMethod& b = best[edge.error.begin()->first];
      if (m == 0) b.first_error = edge.sum();
      if (m == 0 || edge.sum() < b.error) b.method = methods[m], b.error = edge.sum(), b.quantizers = edge.names;
    }
  }
  auto made = std::make_shared<Calibration::State>(state);
  made->biases.clear();
  made->methods.clear();
  for (auto& [node, b] : best) {
    b.node = node;
    for (const std::string& name : b.quantizers) made->methods[name] = b.method;
    if (list != nullptr) list->push_back(b);
  }
  Graph final = placed;
  const auto how = choose_ranges(final, state.statistics, method_of(*made, ""));
  made->ranges = stored_ranges(final, how);
  return Calibration(std::move(made));
}

}  // namespace octet
