// The verifier: every finding of a graph in one error.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "graph/signature.h"

namespace octet {

namespace {

class Verifier {
 public:
  explicit Verifier(const Graph& graph) : graph_(graph) {}

  std::vector<std::string> run() {
    auto count = graph_.values().size();
    ready_.assign(count, 0);
    for (ValueId input : graph_.inputs()) ready_[static_cast<size_t>(input)] = 1;
    for (size_t i = 0; i < count; ++i)
      if (graph_.is_parameter(static_cast<ValueId>(i))) parameter(static_cast<ValueId>(i));
    for (const Node& node : graph_.nodes()) check(node);
    std::set<std::string> names;
    if (graph_.outputs().empty()) found("the graph has no output");
    for (const auto& [output, value] : graph_.outputs()) {
      if (!names.insert(output).second) found("two outputs are called " + output);
      if (value < 0 || static_cast<size_t>(value) >= count || !ready_[static_cast<size_t>(value)])
        found("output " + output + " is a value that nothing makes");
    }
    return std::move(findings_);
  }

 private:
  void found(std::string text) { findings_.push_back(std::move(text)); }

  void parameter(ValueId id) {
    ready_[static_cast<size_t>(id)] = 1;
    const Tensor& tensor = graph_.parameter(id);
    ValueType held{tensor.dtype(), tensor.shape()};
    if (held != graph_.value(id).type)
      found("parameter " + graph_.value(id).name + ": declared " + to_string(graph_.value(id).type) + ", holds " +
            to_string(held));
  }

  void check(const Node& node) {
    if (!names_.insert(node.name).second) found("node " + node.name + ": the name is used twice");
    auto count = static_cast<ValueId>(graph_.values().size());
    for (ValueId input : node.inputs) {
      if (input == kNone) continue;
      if (input < 0 || input >= count)
        found("node " + node.name + ": reads value " + std::to_string(input) + ", which does not exist");
      else if (!ready_[static_cast<size_t>(input)])
        found("node " + node.name + ": reads " + graph_.value(input).name + " before it is made");
    }
    const Signature& takes = signature(node.op);
    for (const auto& [key, value] : node.attributes)
      if (std::none_of(takes.attributes.begin(), takes.attributes.end(),
                       [&key = key](const auto& known) { return known.key == key; }))
        found("node " + node.name + ": " + std::string(takes.name) + " has no attribute " + key);
    if (node.output < 0 || node.output >= count) return found("node " + node.name + ": makes no value");
    try {
      ValueType type = infer_type(graph_, node);
      if (type != graph_.value(node.output).type)
        found("node " + node.name + ": declared " + to_string(graph_.value(node.output).type) + ", makes " +
              to_string(type));
      if (node.op == Op::fake_quant) quantizer(node);
    } catch (const Error& error) {
      std::string text = error.what();
      std::replace(text.begin(), text.end(), '\n', ' ');
      found(std::move(text));
    }
    if (ready_[static_cast<size_t>(node.output)]) found("node " + node.name + ": makes a value that is there already");
    ready_[static_cast<size_t>(node.output)] = 1;
  }

  void quantizer(const Node& node) {
    const char* names[] = {"x", "scale", "zero point", "column scale"};
    for (size_t i = 1; i < node.inputs.size(); ++i)
      if (node.inputs[i] != kNone && !graph_.is_parameter(node.inputs[i]))
        return found("node " + node.name + ": its " + names[i] + " is no parameter");
    if (node.input(1) != kNone)
      for (float scale : graph_.parameter(node.input(1)).as<float>())
        if (!(scale >= 0.0f) || std::isinf(scale))
          return found("node " + node.name + ": a scale is negative or not finite");
    if (node.input(2) != kNone)
      for (int32_t zero : graph_.parameter(node.input(2)).as<int32_t>())
        if (zero < node.integer("lo", 0) || zero > node.integer("hi", 0))
          return found("node " + node.name + ": a zero point is outside lo..hi");
    if (node.input(3) != kNone) {
      if (!graph_.is_parameter(node.input(0))) found("node " + node.name + ": a column scale needs a weight as x");
      for (float scale : graph_.parameter(node.input(3)).as<float>())
        if (!(scale > 0.0f) || std::isinf(scale))
          return found("node " + node.name + ": a column scale is not positive and finite");
    }
  }

  const Graph& graph_;
  std::vector<char> ready_;
  std::set<std::string> names_;
  std::vector<std::string> findings_;
};

}  // namespace

void verify(const Graph& graph) {
  std::vector<std::string> findings = Verifier(graph).run();
  if (findings.empty()) return;
  std::string list;
  for (const std::string& finding : findings) list += (list.empty() ? "" : "\n  ") + finding;
  fail(ErrorCode::invalid_argument, {.what = "graph " + graph.name + " is not valid", .expected = list});
}

}  // namespace octet
