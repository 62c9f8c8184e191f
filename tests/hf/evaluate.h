// A naive evaluator of float graphs in double precision: the oracle for builders, sharing no code with the engine.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "graph/graph.h"

namespace octet::hf {

/// Outputs by name for one row of ids; every value as a flat list.
inline std::map<std::string, std::vector<double>> evaluate(const Graph& graph, const std::vector<int64_t>& ids,
                                                           const std::vector<int64_t>& type_ids) {
  using Values = std::vector<double>;
  std::map<ValueId, Values> known;
  const int64_t tokens = static_cast<int64_t>(ids.size());
  auto get = [&](ValueId id) -> const Values& {
    auto found = known.find(id);
    if (found != known.end()) return found->second;
    std::vector<float> values = graph.parameter(id).to_f32();
    return known.emplace(id, Values(values.begin(), values.end())).first->second;
  };
  for (ValueId id : graph.inputs()) {
    if (graph.value(id).name == "ids") known[id] = Values(ids.begin(), ids.end());
    if (graph.value(id).name == "type_ids") known[id] = Values(type_ids.begin(), type_ids.end());
    if (graph.value(id).name == "offsets") known[id] = {0.0, static_cast<double>(tokens)};
  }
  for (const Node& node : graph.nodes()) {
    Values out;
    const Values& x = get(node.inputs[0]);
    auto last = [&](ValueId id) { return graph.value(id).type.shape.back(); };
    switch (node.op) {
      case Op::positions: {
        int64_t start = node.integer("start", 0), pad = node.integer("padding_id", -1), at = start;
        for (double id : x)
          out.push_back(pad >= 0 && static_cast<int64_t>(id) == pad ? static_cast<double>(pad)
                                                                    : static_cast<double>(at++));
        break;
      }
      case Op::embedding: {
        int64_t width = last(node.inputs[0]);
        for (double index : get(node.inputs[1]))
          out.insert(out.end(), x.begin() + static_cast<int64_t>(index) * width,
                     x.begin() + (static_cast<int64_t>(index) + 1) * width);
        break;
      }
      case Op::add: {
        const Values& y = get(node.inputs[1]);
        for (size_t i = 0; i < x.size(); ++i) out.push_back(x[i] + y[i]);
        break;
      }
      case Op::layer_norm: {
        const Values &gamma = get(node.inputs[1]), &beta = get(node.inputs[2]);
        size_t width = gamma.size();
        for (size_t row = 0; row < x.size() / width; ++row) {
          double mean = 0, square = 0;
          for (size_t i = 0; i < width; ++i) mean += x[row * width + i] / static_cast<double>(width);
          for (size_t i = 0; i < width; ++i)
            square += std::pow(x[row * width + i] - mean, 2) / static_cast<double>(width);
          for (size_t i = 0; i < width; ++i)
            out.push_back((x[row * width + i] - mean) / std::sqrt(square + node.number("epsilon", 0)) * gamma[i] +
                          beta[i]);
        }
        break;
      }
      case Op::linear: {
        const Values& w = get(node.inputs[1]);
        int64_t k = last(node.inputs[1]), n = graph.value(node.inputs[1]).type.shape[0];
        for (int64_t row = 0; row < static_cast<int64_t>(x.size()) / k; ++row)
          for (int64_t j = 0; j < n; ++j) {
            double sum = node.input(2) == kNone ? 0.0 : get(node.input(2))[static_cast<size_t>(j)];
            for (int64_t i = 0; i < k; ++i)
              sum += x[static_cast<size_t>(row * k + i)] * w[static_cast<size_t>(j * k + i)];
            out.push_back(sum);
          }
        break;
      }
      case Op::gelu:
        for (double v : x)
          out.push_back(node.text("approximate", "none") == "tanh"
                            ? v / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)))
                            : v / 2 * (1 + std::erf(v / std::sqrt(2.0))));
        break;
      case Op::relu:
        for (double v : x) out.push_back(std::max(v, 0.0));
        break;
      case Op::tanh:
        for (double v : x) out.push_back(std::tanh(v));
        break;
      case Op::relative_bias: {
        const int64_t length = node.integer("length", 0), heads = last(node.inputs[0]);
        const double side = static_cast<double>(node.integer("buckets", 0)) / 2, exact = side / 2,
                     most = static_cast<double>(node.integer("max_distance", 0));
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t d = 1 - length; d < length; ++d) {
            double apart = std::abs(static_cast<double>(d)), bucket = apart;
            if (apart >= exact)
              bucket = std::min(
                  side - 1,
                  exact + std::floor(std::log(apart / exact) / std::log(most / exact) * (side - exact) + 1e-9));
            if (d > 0) bucket += side;
            out.push_back(x[static_cast<size_t>(static_cast<int64_t>(bucket) * heads + h)]);
          }
        break;
      }
      case Op::attention_scores: {
        const Values& keys = get(node.inputs[1]);
        int64_t heads = node.integer("heads", 1), width = last(node.inputs[0]), part = width / heads;
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t i = 0; i < tokens; ++i)
            for (int64_t j = 0; j < tokens; ++j) {
              double sum = 0;
              for (int64_t d = 0; d < part; ++d)
                sum += x[static_cast<size_t>(i * width + h * part + d)] *
                       keys[static_cast<size_t>(j * width + h * part + d)];
              const double bias = node.input(3) == kNone ? 0.0 : [&] {
                const Values& all = get(node.inputs[3]);
                const int64_t distances = last(node.inputs[3]);
                return all[static_cast<size_t>(h * distances + distances / 2 + j - i)];
              }();
              out.push_back(sum * node.number("scale", 1) + bias);
            }
        break;
      }
      case Op::softmax:
        for (size_t row = 0; row < x.size(); row += static_cast<size_t>(tokens)) {
          double sum = 0;
          for (size_t i = 0; i < static_cast<size_t>(tokens); ++i) sum += std::exp(x[row + i]);
          for (size_t i = 0; i < static_cast<size_t>(tokens); ++i) out.push_back(std::exp(x[row + i]) / sum);
        }
        break;
      case Op::attention_context: {
        const Values& values = get(node.inputs[1]);
        int64_t heads = node.integer("heads", 1), width = last(node.inputs[1]), part = width / heads;
        out.assign(static_cast<size_t>(tokens * width), 0.0);
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t i = 0; i < tokens; ++i)
            for (int64_t j = 0; j < tokens; ++j)
              for (int64_t d = 0; d < part; ++d)
                out[static_cast<size_t>(i * width + h * part + d)] +=
                    x[static_cast<size_t>((h * tokens + i) * tokens + j)] *
                    values[static_cast<size_t>(j * width + h * part + d)];
        break;
      }
      case Op::select_first: out.assign(x.begin(), x.begin() + last(node.inputs[0])); break;
      case Op::pool_mean:
      case Op::pool_max: {
        auto width = static_cast<size_t>(last(node.inputs[0]));
        for (size_t i = 0; i < width; ++i) {
          double sum = 0, top = x[i];
          for (size_t row = 0; row < x.size(); row += width) {
            sum += x[row + i];
            top = std::max(top, x[row + i]);
          }
          out.push_back(node.op == Op::pool_mean ? sum / static_cast<double>(tokens) : top);
        }
        break;
      }
      case Op::normalize: {
        double square = 0;
        for (double v : x) square += v * v;
        for (double v : x) out.push_back(v / std::max(std::sqrt(square), 1e-12));
        break;
      }
      case Op::fake_quant: out = x; break;
    }
    known[node.output] = std::move(out);
  }
  std::map<std::string, Values> outputs;
  for (const auto& [name, id] : graph.outputs()) outputs[name] = known.at(id);
  return outputs;
}

}  // namespace octet::hf
