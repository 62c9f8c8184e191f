// Weights as they are after quantization, in f32.
#include "core/int8.h"
#include "graph/passes.h"

namespace octet {

Tensor folded_weight(const Graph& graph, const Node& node) {
  Tensor weight = graph.parameter(node.inputs[0]).as_f32();
  std::span<const float> x = weight.as<float>(), scales = graph.parameter(node.inputs[1]).as<float>();
  std::span<const int32_t> zeros;
  std::span<const float> columns;
  if (node.input(2) != kNone) zeros = graph.parameter(node.inputs[2]).as<int32_t>();
  if (node.input(3) != kNone) columns = graph.parameter(node.inputs[3]).as<float>();
  auto lo = static_cast<int32_t>(node.integer("lo", 0)), hi = static_cast<int32_t>(node.integer("hi", 0));

  // Elements that share a range are `inner` neighbours, then the next range follows.
  int64_t ranges = static_cast<int64_t>(scales.size()), inner = weight.elements();
  int64_t axis = node.integer("axis", -1);
  if (axis >= 0) {
    inner = 1;
    for (size_t i = static_cast<size_t>(axis) + 1; i < weight.shape().size(); ++i) inner *= weight.dim(i);
  }
  int64_t width = weight.shape().empty() ? 1 : weight.shape().back();
  std::byte* bytes = nullptr;
  Tensor made = Tensor::allocate(DType::f32, weight.shape(), &bytes);
  auto* y = reinterpret_cast<float*>(bytes);
  for (int64_t i = 0; i < weight.elements(); ++i) {
    auto range = static_cast<size_t>(i / inner % ranges), at = static_cast<size_t>(i);
    float scale = scales[range];
    int32_t zero = zeros.empty() ? 0 : zeros[range];
    float c = columns.empty() ? 1.0f : columns[static_cast<size_t>(i % width)];
    y[i] = int8::dequantize(int8::quantize(x[at] * c, int8::inverse(scale), zero, lo, hi), scale, zero) / c;
  }
  return made;
}

void fold_weight_quantizers(Graph& graph) {
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& node = graph.node(i);
    if (node.op != Op::fake_quant || node.text("state", "on") == "off") continue;
    if (!graph.is_parameter(node.inputs[0]) || node.input(1) == kNone) continue;
    Tensor folded = folded_weight(graph, node);
    const std::string name = node.name;
    ValueId old = node.output;
    // The weight may have other readers, so the uses move away before the node goes and frees its name.
    ValueId parked = graph.add_parameter(name + " folded", folded);
    graph.replace_uses(old, parked);
    graph.bypass(i);
    graph.replace_uses(parked, graph.add_parameter(name, std::move(folded)));
  }
  graph.remove_dead();
}

}  // namespace octet
