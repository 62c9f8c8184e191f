// Running nodes in order; values are dropped after their last use.
#include "onnx/dense.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"

namespace octet::onnx {

namespace {

constexpr int kMaxDepth = 16;

void collect_missing(const Graph& graph, std::map<std::string, std::vector<std::string>>& missing) {
  for (const Node& node : graph.nodes) {
    if (node.op == "If" && node.domain.empty()) {
      for (const Attribute& a : node.attributes)
        if (a.graph) collect_missing(*a.graph, missing);
    } else if (!can_evaluate(node)) {
      missing[(node.domain.empty() ? "" : node.domain + ".") + node.op].push_back(!node.name.empty() ? node.name
                                                                                  : node.outputs.empty()
                                                                                      ? "?"
                                                                                      : node.outputs[0]);
    }
  }
}

// Names that a graph's branches read from outside.
void collect_reads(const Node& node, std::vector<std::string>& reads) {
  for (const std::string& input : node.inputs) reads.push_back(input);
  for (const Attribute& a : node.attributes)
    if (a.graph) {
      for (const Node& inner : a.graph->nodes) collect_reads(inner, reads);
      for (const ValueInfo& output : a.graph->outputs) reads.push_back(output.name);
    }
}

}  // namespace

std::string missing_operators(const File& file) {
  std::map<std::string, std::vector<std::string>> missing;
  collect_missing(file.graph, missing);
  std::string list;
  for (const auto& [op, nodes] : missing) {
    list += "\n    " + op + " (opset " + std::to_string(file.opset()) + "): ";
    for (size_t i = 0; i < nodes.size() && i < 8; ++i) list += (i ? ", " : "") + nodes[i];
    if (nodes.size() > 8) list += " and " + std::to_string(nodes.size() - 8) + " more";
  }
  return list;
}

Dense::Dense(std::shared_ptr<const File> file) : file_(std::move(file)) {
  if (std::string list = missing_operators(*file_); !list.empty())
    fail(ErrorCode::unsupported,
         {.what = "cannot run " + file_->graph.name,
          .expected = "octet has no kernels for these operators:" + list,
          .hint = "export the encoder alone, without tokenizer, generation or control flow; fused operators of ONNX "
                  "Runtime go away with its optimizations off"});
  for (const TensorData& t : file_->graph.initializers)
    if (!t.data.empty()) constants_[t.name] = Array::from(t);
}

std::vector<Array> Dense::run(const std::map<std::string, Array>& inputs, const Observer& observer) const {
  Scope scope = constants_;
  for (const ValueInfo& input : file_->graph.inputs) {
    auto found = inputs.find(input.name);
    if (found == inputs.end()) fail(ErrorCode::invalid_argument, {.what = "input " + input.name + " is missing"});
    Array value = found->second;
    bool fits = !input.has_shape || value.shape.size() == input.shape.size();
    for (size_t d = 0; fits && d < value.shape.size() && input.has_shape; ++d)
      fits = input.shape[d] < 0 || input.shape[d] == value.shape[d];
    if (!fits || value.real() != is_float(input.type))
      fail(ErrorCode::invalid_argument, {.what = "input " + input.name + " does not fit",
                                         .expected = "expected " + name(input.type) + octet::to_string(input.shape) +
                                                     ", got " + name(value.type) + octet::to_string(value.shape)});
    value.type = input.type;
    scope[input.name] = value;
  }
  run_nodes(file_->graph, scope, 0, observer);
  std::vector<Array> out;
  for (const ValueInfo& output : file_->graph.outputs) {
    auto found = scope.find(output.name);
    if (found == scope.end()) fail(ErrorCode::corrupt, {.what = "output " + output.name + " is never computed"});
    out.push_back(found->second);
  }
  return out;
}

void Dense::run_nodes(const Graph& graph, Scope& scope, int depth, const Observer& observer) const {
  if (depth > kMaxDepth) fail(ErrorCode::corrupt, {.what = "graphs are nested too deeply"});
  std::map<std::string, size_t> last;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    std::vector<std::string> reads;
    collect_reads(graph.nodes[i], reads);
    for (const std::string& name : reads) last[name] = i;
  }
  for (const ValueInfo& output : graph.outputs) last[output.name] = graph.nodes.size();
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    std::vector<Array> inputs, outputs;
    for (const std::string& name : node.inputs) {
      auto found = scope.find(name);
      if (found == scope.end() && !name.empty())
        fail(ErrorCode::corrupt,
             {.what = "cannot compute " + node.label(), .expected = "its input " + name + " is not made before it"});
      inputs.push_back(name.empty() ? Array() : found->second);
    }
    if (node.op == "If" && node.domain.empty()) {
      bool on = !inputs.empty() && inputs[0].count() == 1 && inputs[0].at(0) != 0;
      const Attribute* branch = node.find(on ? "then_branch" : "else_branch");
      if (branch == nullptr || !branch->graph)
        fail(ErrorCode::corrupt, {.what = "cannot compute " + node.label(), .expected = "it lacks a branch"});
      Scope inner = scope;
      for (const TensorData& t : branch->graph->initializers) inner[t.name] = Array::from(t);
      run_nodes(*branch->graph, inner, depth + 1, observer);
      for (const ValueInfo& output : branch->graph->outputs) outputs.push_back(inner[output.name]);
    } else {
      auto begin = std::chrono::steady_clock::now();
      outputs = evaluate(node, inputs, file_->opset());
      if (observer)
        observer(node, inputs, outputs,
                 std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    }
    for (size_t i = 0; i < node.outputs.size() && i < outputs.size(); ++i)
      if (!node.outputs[i].empty()) scope[node.outputs[i]] = std::move(outputs[i]);
    if (depth == 0)
      for (const std::string& name : node.inputs)
        if (!name.empty() && last[name] == n && !constants_.contains(name)) scope.erase(name);
  }
}

}  // namespace octet::onnx
