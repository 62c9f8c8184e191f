// Finds linears, attentions and residual adds in a graph and puts quantizers on their edges.
#include "quant/placement.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "graph/passes.h"
#include "quant/ranges.h"
#include "quant/structure.h"

namespace octet {

namespace {

struct Named {
  Placement placement;
  std::string_view name;
};
constexpr Named kPlacements[] = {{Placement::qdqbert, "qdqbert"},
                                 {Placement::linear_only, "linear-only"},
                                 {Placement::residual_float, "residual-float"},
                                 {Placement::residual_channel, "residual-channel"}};

/// One placement at work.
class Placer {
 public:
  Placer(Graph& graph, const PlacementOptions& options, bool dynamic)
      : graph_(graph), options_(options), dynamic_(dynamic) {
    reference_ = options.placement == Placement::qdqbert && !dynamic;
    balance_ = options.balance && !reference_ && !dynamic;
    activation_ = parse_quant_spec(options.activations, false);
    weight_ = parse_quant_spec(options.weights, !reference_);
    if (activation_.is_unsigned || weight_.is_unsigned)
      fail(ErrorCode::invalid_argument,
           {.what = "activations and weights need a signed type",
            .expected = "expected s2..s8, got " + options.activations + " and " + options.weights});
  }

  void run() {
    if (std::vector<std::string> present = quantizer_names(graph_); !present.empty())
      fail(ErrorCode::invalid_argument,
           {.what = "cannot place quantizers: the graph holds some already", .where = present.front()});
    const Structure structure = find_structure(graph_);
    const bool products = dynamic_ || options_.placement != Placement::linear_only;
    const bool residuals =
        !dynamic_ && (options_.placement == Placement::qdqbert || options_.placement == Placement::residual_channel);
    if (!options_.float_embeddings && !reference_)
      for (const std::string& node : structure.embeddings) embedding(node);
    for (const LinearSite& site : structure.linears)
      if (site.where == Where::encoder || (site.where == Where::pooler ? options_.pooler : options_.heads))
        linear(site.node);
    if (products)
      for (const AttentionSite& site : structure.attentions) attention(site);
    if (residuals)
      for (const ResidualSite& site : structure.residuals) residual(site);
  }

 private:
  int64_t channel_axis() const { return balance_ ? 1 : -1; }

  /// Puts a quantizer on input `input` of node `node`, which reads it instead of the value itself.
  ValueId put(const std::string& node, size_t input, const std::string& name, Attributes attributes) {
    ValueId value = graph_.node(static_cast<size_t>(graph_.find_node(node))).input(input);
    ValueId made = graph_.insert(Op::fake_quant, name, {value}, std::move(attributes));
    graph_.set_input(static_cast<size_t>(graph_.find_node(node)), input, made);
    return made;
  }

  void embedding(const std::string& node) {
    QuantSpec spec = weight_;
    spec.bits = 8;
    put(node, 0, node + "._weight_quantizer", quantizer_attributes(spec, 0));
  }

  void linear(const std::string& node) {
    put(node, 0, node + "._input_quantizer",
        dynamic_ ? token_range() : quantizer_attributes(activation_, channel_axis()));
    put(node, 1, node + "._weight_quantizer", quantizer_attributes(weight_, 0));
  }

  /// docs/numerics.md: dynamic ranges are narrow.
  Attributes token_range() const { return quantizer_attributes({8, false, true}, -1, "token"); }

  void attention(const AttentionSite& site) {
    const Attributes operand = dynamic_ ? token_range() : quantizer_attributes(activation_, channel_axis());
    put(site.scores, 0, site.prefix + "matmul_q_input_quantizer", operand);
    put(site.scores, 1, site.prefix + "matmul_k_input_quantizer", operand);
    std::string type = !options_.probabilities.empty() ? options_.probabilities
                       : reference_                    ? options_.activations
                                                       : "u8";
    QuantSpec spec = parse_quant_spec(type, false);
    const std::string name = site.prefix + "matmul_a_input_quantizer";
    ValueId made = put(site.context, 0, name, quantizer_attributes(spec, -1));
    if (spec.is_unsigned || dynamic_) {
      // Probabilities fill [0, 1], whatever the data.
      ValueId scale = graph_.add_parameter(name + ".scale", Tensor::scalar(1.0f / static_cast<float>(spec.bound())));
      graph_.set_input(static_cast<size_t>(graph_.producer(made)), 1, scale);
    }
    put(site.context, 1, site.prefix + "matmul_v_input_quantizer",
        dynamic_ ? quantizer_attributes({8, false, true}, -1, "row_channel") : operand);
  }

  void residual(const ResidualSite& site) {
    // Elementwise edges: a scale a channel is free, whether or not the inputs of linears are balanced.
    const Attributes operand = quantizer_attributes(activation_, reference_ ? -1 : 1);
    put(site.add, site.local, site.prefix + "add_local_input_quantizer", operand);
    put(site.add, 1 - site.local, site.prefix + "add_residual_input_quantizer", operand);
  }

  Graph& graph_;
  const PlacementOptions& options_;
  bool dynamic_ = false, reference_ = false, balance_ = false;
  QuantSpec activation_, weight_;
};

/// Greedy with one point to return to: the last star.
bool fits(std::string_view name, std::string_view pattern) noexcept {
  size_t n = 0, p = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++n, ++p;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

template <typename Edit>
int64_t for_each_match(Graph& graph, std::string_view pattern, Edit edit) {
  int64_t found = 0;
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    Node& node = graph.node(i);
    if (node.op != Op::fake_quant || !name_matches(node.name, pattern)) continue;
    edit(node);
    ++found;
  }
  if (found == 0)
    fail(ErrorCode::not_found, {.what = "no quantizer matches '" + std::string(pattern) + "'",
                                .where = "graph " + graph.name,
                                .hint = nearest_names(pattern, quantizer_names(graph))});
  return found;
}

}  // namespace

std::string_view name(Placement placement) noexcept { return kPlacements[static_cast<size_t>(placement)].name; }

Placement parse_placement(std::string_view text) {
  std::string known;
  for (const Named& entry : kPlacements) {
    if (entry.name == text) return entry.placement;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fail(ErrorCode::invalid_argument,
       {.what = "there is no placement '" + std::string(text) + "'", .expected = "expected one of " + known});
}

Attributes quantizer_attributes(const QuantSpec& spec, int64_t axis, const std::string& dynamic) {
  Attributes attributes{{"type", spec.name()}, {"lo", int64_t{spec.lo()}}, {"hi", int64_t{spec.hi()}}};
  if (axis >= 0) attributes["axis"] = axis;
  if (!dynamic.empty()) attributes["dynamic"] = dynamic;
  return attributes;
}

QuantSpec spec_of(const Node& node) {
  QuantSpec spec = parse_quant_spec(node.text("type", "s8"), false);
  spec.narrow = !spec.is_unsigned && node.integer("lo", spec.lo()) == -spec.bound();
  return spec;
}

void place(Graph& graph, const PlacementOptions& options) { Placer(graph, options, false).run(); }

void place_dynamic(Graph& graph, const PlacementOptions& options) {
  Placer(graph, options, true).run();
  set_weight_ranges(graph, {});
}

std::vector<std::string> quantizer_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes())
    if (node.op == Op::fake_quant) names.push_back(node.name);
  return names;
}

bool name_matches(std::string_view name, std::string_view pattern) noexcept {
  if (pattern.find_first_of("*?") == std::string_view::npos)
    return !pattern.empty() && name.starts_with(pattern) &&
           (name.size() == pattern.size() || pattern.back() == '.' || name[pattern.size()] == '.');
  if (fits(name, pattern)) return true;
  for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
    if (fits(name.substr(dot + 1), pattern)) return true;
  return false;
}

int64_t set_state(Graph& graph, std::string_view pattern, bool on) {
  return for_each_match(graph, pattern,
                        [on](Node& node) { node.attributes["state"] = std::string(on ? "on" : "off"); });
}

int64_t set_type(Graph& graph, std::string_view pattern, const QuantSpec& spec) {
  return for_each_match(graph, pattern, [&spec](Node& node) {
    node.attributes["type"] = spec.name();
    node.attributes["lo"] = int64_t{spec.lo()};
    node.attributes["hi"] = int64_t{spec.hi()};
    node.inputs.resize(1);  // a scale belongs to the type it was chosen for
  });
}

std::vector<std::pair<ValueId, int64_t>> observed_values(const Graph& graph) {
  std::set<ValueId> wanted;
  const Structure structure = find_structure(graph);
  auto input = [&](const std::string& node, size_t index) {
    wanted.insert(graph.node(static_cast<size_t>(graph.find_node(node))).input(index));
  };
  for (const LinearSite& site : structure.linears) input(site.node, 0);
  for (const AttentionSite& site : structure.attentions) {
    input(site.scores, 0);
    input(site.scores, 1);
    input(site.context, 0);
    input(site.context, 1);
  }
  for (const ResidualSite& site : structure.residuals) {
    input(site.add, 0);
    input(site.add, 1);
  }
  std::vector<std::pair<ValueId, int64_t>> list;
  for (ValueId value : wanted) {
    const Shape& shape = graph.value(value).type.shape;
    list.emplace_back(value, shape.size() == 2 ? shape[1] : 1);
  }
  return list;
}

}  // namespace octet
