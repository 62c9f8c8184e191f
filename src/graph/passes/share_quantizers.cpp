// One quantizer for all that quantize a value alike, so that one 8-bit tensor serves all its readers.
#include <cstring>
#include <map>
#include <vector>

#include "graph/passes.h"

namespace octet {

namespace {

/// Attributes with the defaults left out.
Attributes normal_form(const Node& node) {
  Attributes attributes = node.attributes;
  if (node.text("dynamic", "").empty()) attributes.erase("dynamic");
  if (node.text("state", "on") == "on") attributes.erase("state");
  return attributes;
}

bool same_value(const Graph& graph, ValueId a, ValueId b) {
  if (a == b) return true;
  if (a == kNone || b == kNone || !graph.is_parameter(a) || !graph.is_parameter(b)) return false;
  const Tensor &left = graph.parameter(a), &right = graph.parameter(b);
  return left.dtype() == right.dtype() && left.shape() == right.shape() &&
         std::memcmp(left.data(), right.data(), static_cast<size_t>(left.bytes())) == 0;
}

bool alike(const Graph& graph, const Node& a, const Node& b) {
  for (size_t input = 1; input < 4; ++input)
    if (!same_value(graph, a.input(input), b.input(input))) return false;
  return normal_form(a) == normal_form(b);
}

}  // namespace

void share_quantizers(Graph& graph) {
  std::map<ValueId, std::vector<size_t>> kept;  // by the value that is quantized
  std::vector<size_t> spare;
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op != Op::fake_quant) continue;
    std::vector<size_t>& others = kept[node.inputs[0]];
    bool found = false;
    for (size_t other : others) {
      if (!alike(graph, graph.node(other), node)) continue;
      ValueId from = node.output, to = graph.node(other).output;
      graph.replace_uses(from, to);
      spare.push_back(i);
      found = true;
      break;
    }
    if (!found) others.push_back(i);
  }
  for (size_t i = spare.size(); i-- > 0;) graph.bypass(spare[i]);
}

}  // namespace octet
