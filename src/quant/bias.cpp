// Bias correction: the mean error of every linear's result, found on rows and folded into its bias.
//
// The quantized graph runs step by step beside the float one on one batch. Behind each linear the difference of the
// column means, E[y float] - E[y quantized] over the tokens, is added to the result before the next step runs, so every
// linear is corrected for what those before it leave over.
#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "core/threads.h"
#include "plan/executor.h"
#include "plan/lower.h"
#include "quant/calibration_state.h"
#include "quant/quantize.h"

namespace octet {

namespace {

constexpr int64_t kMostTokens = 8192;  // in one batch, since a correction must be known before the next step

bool is_on(const Graph& graph, ValueId value) {
  const int64_t maker = graph.producer(value);
  if (maker < 0) return false;
  const Node& node = graph.node(static_cast<size_t>(maker));
  return node.op == Op::fake_quant && node.text("state", "on") == "on";
}

/// A linear whose operands are quantized, both of them.
bool is_quantized(const Graph& graph, const Node& node) {
  return node.op == Op::linear && is_on(graph, node.input(0)) && is_on(graph, node.input(1));
}

std::vector<double> column_means(const float* values, int64_t elements, int64_t width) {
  std::vector<double> sums(static_cast<size_t>(width));
  for (int64_t i = 0; i < elements; ++i) sums[static_cast<size_t>(i % width)] += values[i];
  for (double& sum : sums) sum /= static_cast<double>(std::max<int64_t>(elements / width, 1));
  return sums;
}

}  // namespace

void apply_biases(Graph& graph, const std::map<std::string, Tensor>& biases) {
  for (const auto& [name, correction] : biases) {
    const int64_t found = graph.find_node(name);
    const Node* node = found < 0 ? nullptr : &graph.node(static_cast<size_t>(found));
    const int64_t width = node == nullptr || node->op != Op::linear ? 0 : graph.value(node->output).type.shape.back();
    if (width != correction.elements())
      fail(
          ErrorCode::invalid_argument,
          {.what = "the calibration corrects a bias that the model has not", .where = name, .hint = "calibrate again"});
    if (!is_quantized(graph, *node)) continue;  // left in float since: nothing is wrong with it
    std::vector<float> values = correction.to_f32();
    const ValueId bias = node->input(2);
    if (bias == kNone) {
      graph.set_input(static_cast<size_t>(found), 2, graph.add_parameter(name + ".bias_correction", correction));
      continue;
    }
    const std::vector<float> own = graph.parameter(bias).to_f32();
    for (size_t i = 0; i < values.size(); ++i) values[i] += own[i];
    graph.set_parameter(bias, Tensor::from(std::span<const float>(values), {width}));
  }
}

Calibration correct_graph_biases(const Graph& graph, const Calibration& calibration,
                                 std::span<const CalibrationRow> rows, std::vector<CorrectedBias>* list, int threads,
                                 const Progress& progress) {
  std::vector<int32_t> ids, offsets{0}, types;
  for (const CalibrationRow& row : rows) {
    if (!ids.empty() && static_cast<int64_t>(ids.size() + row.ids.size()) > kMostTokens) break;
    ids.insert(ids.end(), row.ids.begin(), row.ids.end());
    if (row.type_ids.empty()) types.resize(ids.size(), 0);
    else types.insert(types.end(), row.type_ids.begin(), row.type_ids.end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  if (ids.empty()) fail(ErrorCode::invalid_argument, {.what = "cannot correct biases without rows"});
  Graph quantized = graph;
  quantize_graph(quantized, {.calibration = &calibration, .model_hash = calibration.model_hash(), .biases = false});

  const Target target = host_target();
  auto pool = std::make_shared<ThreadPool>(threads);
  auto program = [&](const Graph& from) {
    return std::make_shared<const Program>(lower(from, {.target = target, .fuse = false}));
  };
  const BatchView batch{.ids = ids, .offsets = offsets, .type_ids = types};
  std::map<std::string, std::vector<double>> wanted;  // by linear: its float column means
  for (const Node& node : quantized.nodes())
    if (is_quantized(quantized, node))
      wanted[node.name].resize(static_cast<size_t>(quantized.value(node.output).type.shape.back()));
  auto each_linear = [&](Executor& executor, const char* stage, const auto& see) {
    executor.bind(batch);
    const std::vector<Step>& steps = executor.program().steps;
    for (size_t s = 0; s < steps.size(); ++s) {
      if (progress) progress(stage, static_cast<int64_t>(s), static_cast<int64_t>(steps.size()));
      executor.run_step(s);
      auto found = wanted.find(steps[s].name);
      if (found == wanted.end()) continue;
      const int32_t out = steps[s].outputs[0].buffer;
      see(found->first, found->second, static_cast<float*>(executor.data(out)), executor.elements(out));
    }
  };
  Executor real(program(graph), pool, target);
  each_linear(real, "means in float", [](const std::string&, std::vector<double>& mean, float* values, int64_t count) {
    mean = column_means(values, count, static_cast<int64_t>(mean.size()));
  });
  auto made = std::make_shared<Calibration::State>(calibration.state());
  made->biases.clear();
  Executor rounded(program(quantized), pool, target);
  each_linear(rounded, "bias correction",
              [&](const std::string& name, std::vector<double>& mean, float* values, int64_t count) {
                const auto width = static_cast<int64_t>(mean.size());
                const std::vector<double> now = column_means(values, count, width);
                std::vector<float> correction(mean.size());
                CorrectedBias entry{.node = name};
                for (size_t c = 0; c < mean.size(); ++c) {
                  correction[c] = static_cast<float>(mean[c] - now[c]);
                  entry.size += static_cast<double>(correction[c]) * correction[c];
                }
                entry.size = std::sqrt(entry.size / static_cast<double>(width));
                for (int64_t i = 0; i < count; ++i) values[i] += correction[static_cast<size_t>(i % width)];
                made->biases[name] = Tensor::from(std::span<const float>(correction), {width});
                if (list != nullptr) list->push_back(entry);
              });
  return Calibration(std::move(made));
}

}  // namespace octet
