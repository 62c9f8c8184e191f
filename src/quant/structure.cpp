// Recognises an encoder's parts from the operations alone.
#include "quant/structure.h"

#include <algorithm>

namespace octet {

namespace {

/// "a.b.query" -> "a.b.", "query" -> "".
std::string parent(const std::string& name) {
  size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot + 1);
}

}  // namespace

ValueId behind_quantizers(const Graph& graph, ValueId value) {
  for (int64_t node = graph.producer(value); node >= 0 && graph.node(static_cast<size_t>(node)).op == Op::fake_quant;
       node = graph.producer(value))
    value = graph.node(static_cast<size_t>(node)).input(0);
  return value;
}

Structure find_structure(const Graph& graph) {
  Structure found;
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<int64_t> producer(graph.values().size(), -1);
  for (size_t i = 0; i < nodes.size(); ++i) producer[static_cast<size_t>(nodes[i].output)] = static_cast<int64_t>(i);
  auto maker = [&](ValueId value) -> const Node* {
    while (value != kNone) {
      int64_t index = producer[static_cast<size_t>(value)];
      if (index < 0) return nullptr;
      const Node& node = nodes[static_cast<size_t>(index)];
      if (node.op != Op::fake_quant) return &node;
      value = node.input(0);
    }
    return nullptr;
  };
  std::vector<char> encoder(graph.values().size(), 0);  // values that an attention or a residual add depends on

  for (const Node& node : nodes) {
    if (node.op == Op::attention_context) {
      const Node* softmax = maker(node.input(0));
      const Node* scores = softmax != nullptr && softmax->op == Op::softmax ? maker(softmax->input(0)) : nullptr;
      if (scores == nullptr || scores->op != Op::attention_scores) continue;
      const Node* query = maker(scores->input(0));
      found.attentions.push_back(
          {parent(query != nullptr && query->op == Op::linear ? query->name : scores->name), scores->name, node.name});
      encoder[static_cast<size_t>(node.output)] = 1;
    } else if (node.op == Op::add) {
      const Node *a = maker(node.input(0)), *b = maker(node.input(1));
      bool a_linear = a != nullptr && a->op == Op::linear, b_linear = b != nullptr && b->op == Op::linear;
      bool normalized = false;
      for (size_t user : graph.users(node.output)) normalized = normalized || nodes[user].op == Op::layer_norm;
      if ((!a_linear && !b_linear) || !normalized ||
          behind_quantizers(graph, node.input(0)) == behind_quantizers(graph, node.input(1)))
        continue;
      found.residuals.push_back({parent(a_linear ? a->name : b->name), node.name, a_linear ? size_t{0} : size_t{1}});
      encoder[static_cast<size_t>(node.output)] = 1;
    } else if (node.op == Op::embedding && graph.is_parameter(behind_quantizers(graph, node.input(0)))) {
      found.embeddings.push_back(node.name);
    }
  }
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node)
    if (encoder[static_cast<size_t>(node->output)])
      for (ValueId input : node->inputs)
        if (input != kNone) encoder[static_cast<size_t>(input)] = 1;
  for (const Node& node : nodes) {
    if (node.op != Op::linear || !graph.is_parameter(behind_quantizers(graph, node.input(1)))) continue;
    Where where = encoder[static_cast<size_t>(node.output)]       ? Where::encoder
                  : node.name.find("pooler") != std::string::npos ? Where::pooler
                                                                  : Where::head;
    found.linears.push_back({node.name, where});
  }
  return found;
}

}  // namespace octet
