// The graph as a data structure: values, nodes, edits. Nothing here knows what an operation computes.
#include "graph/graph.h"

#include <algorithm>

#include "core/error.h"

namespace octet {

namespace {

[[noreturn]] void wrong_kind(const Node& node, const char* key, const char* kind) {
  fail(ErrorCode::invalid_argument,
       {.what = "attribute " + std::string(key) + " of node " + node.name + " is no " + kind,
        .where = "operation " + std::string(name(node.op))});
}

}  // namespace

int64_t Node::integer(const char* key, int64_t fallback) const {
  auto it = attributes.find(key);
  if (it == attributes.end()) return fallback;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return *value;
  wrong_kind(*this, key, "integer");
}

double Node::number(const char* key, double fallback) const {
  auto it = attributes.find(key);
  if (it == attributes.end()) return fallback;
  if (const auto* value = std::get_if<double>(&it->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return static_cast<double>(*value);
  wrong_kind(*this, key, "number");
}

std::string Node::text(const char* key, const std::string& fallback) const {
  auto it = attributes.find(key);
  if (it == attributes.end()) return fallback;
  if (const auto* value = std::get_if<std::string>(&it->second)) return *value;
  wrong_kind(*this, key, "text");
}

ValueId Graph::add_value(const std::string& name, ValueType type) {
  if (name.empty())
    fail(ErrorCode::invalid_argument, {.what = "cannot add a value without a name to graph " + this->name});
  if (value_by_name_.contains(name))
    fail(ErrorCode::invalid_argument,
         {.what = "cannot add value " + name + ": the name is taken", .where = "graph " + this->name});
  auto id = static_cast<ValueId>(values_.size());
  values_.push_back({name, std::move(type)});
  value_by_name_.emplace(name, id);
  return id;
}

ValueId Graph::add_input(const std::string& name, ValueType type) {
  ValueId id = add_value(name, std::move(type));
  inputs_.push_back(id);
  return id;
}

ValueId Graph::add_parameter(const std::string& name, Tensor tensor) {
  if (tensor.empty() && tensor.elements() != 0)
    fail(ErrorCode::invalid_argument, {.what = "cannot add parameter " + name + ": it has no data"});
  ValueId id = add_value(name, {tensor.dtype(), tensor.shape()});
  parameters_.emplace(name, std::move(tensor));
  return id;
}

ValueId Graph::add(Op op, const std::string& name, std::vector<ValueId> inputs, Attributes attributes) {
  Node node{op, name, std::move(inputs), kNone, std::move(attributes)};
  ValueType type = infer_type(*this, node);
  node.output = add_value(name, std::move(type));
  nodes_.push_back(std::move(node));
  return nodes_.back().output;
}

ValueId Graph::insert(Op op, const std::string& name, std::vector<ValueId> inputs, Attributes attributes) {
  int64_t last = -1;
  for (ValueId input : inputs)
    if (input != kNone) last = std::max(last, producer(input));
  ValueId output = add(op, name, std::move(inputs), std::move(attributes));
  std::rotate(nodes_.begin() + last + 1, nodes_.end() - 1, nodes_.end());
  return output;
}

ValueId Graph::find_value(std::string_view name) const noexcept {
  auto it = value_by_name_.find(name);
  return it == value_by_name_.end() ? kNone : it->second;
}

int64_t Graph::find_node(std::string_view name) const noexcept {
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].name == name) return static_cast<int64_t>(i);
  return -1;
}

int64_t Graph::producer(ValueId value) const noexcept {
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (nodes_[i].output == value) return static_cast<int64_t>(i);
  return -1;
}

std::vector<size_t> Graph::users(ValueId value) const {
  std::vector<size_t> found;
  if (value == kNone) return found;
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (std::find(nodes_[i].inputs.begin(), nodes_[i].inputs.end(), value) != nodes_[i].inputs.end())
      found.push_back(i);
  return found;
}

bool Graph::is_output(ValueId value) const noexcept {
  return std::any_of(outputs_.begin(), outputs_.end(), [value](const auto& output) { return output.second == value; });
}

const Tensor& Graph::parameter(ValueId value) const {
  OCTET_CHECK(is_parameter(value), "value " + std::to_string(value) + " is no parameter");
  return parameters_.at(this->value(value).name);
}

void Graph::set_parameter(ValueId value, Tensor tensor) {
  OCTET_CHECK(is_parameter(value), "value " + std::to_string(value) + " is no parameter");
  Value& target = values_[static_cast<size_t>(value)];
  target.type = {tensor.dtype(), tensor.shape()};
  parameters_.at(target.name) = std::move(tensor);
}

void Graph::replace_uses(ValueId from, ValueId to, ValueId except) {
  for (Node& node : nodes_)
    if (except == kNone || node.output != except) std::replace(node.inputs.begin(), node.inputs.end(), from, to);
  for (auto& output : outputs_)
    if (output.second == from) output.second = to;
}

void Graph::set_input(size_t node, size_t input, ValueId value) {
  std::vector<ValueId>& inputs = nodes_.at(node).inputs;
  if (inputs.size() <= input) inputs.resize(input + 1, kNone);
  inputs[input] = value;
}

void Graph::bypass(size_t node) {
  const Node& gone = nodes_.at(node);
  replace_uses(gone.output, gone.inputs.at(0), gone.output);
  value_by_name_.erase(gone.name);
  nodes_.erase(nodes_.begin() + static_cast<int64_t>(node));
}

void Graph::remove_dead() {
  std::vector<char> live(values_.size(), 0);
  for (const auto& output : outputs_) live[static_cast<size_t>(output.second)] = 1;
  for (ValueId input : inputs_) live[static_cast<size_t>(input)] = 1;
  std::vector<Node> nodes;
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    if (!live[static_cast<size_t>(node->output)]) continue;
    for (ValueId input : node->inputs)
      if (input != kNone) live[static_cast<size_t>(input)] = 1;
    nodes.push_back(std::move(*node));
  }
  std::reverse(nodes.begin(), nodes.end());

  std::vector<ValueId> renamed(values_.size(), kNone);
  std::vector<Value> values;
  std::map<std::string, Tensor> parameters;
  value_by_name_.clear();
  for (size_t i = 0; i < values_.size(); ++i) {
    if (!live[i]) continue;
    renamed[i] = static_cast<ValueId>(values.size());
    value_by_name_.emplace(values_[i].name, renamed[i]);
    if (auto it = parameters_.find(values_[i].name); it != parameters_.end()) parameters.insert(*it);
    values.push_back(std::move(values_[i]));
  }
  for (Node& node : nodes) {
    for (ValueId& input : node.inputs)
      if (input != kNone) input = renamed[static_cast<size_t>(input)];
    node.output = renamed[static_cast<size_t>(node.output)];
  }
  for (ValueId& input : inputs_) input = renamed[static_cast<size_t>(input)];
  for (auto& output : outputs_) output.second = renamed[static_cast<size_t>(output.second)];
  nodes_ = std::move(nodes);
  values_ = std::move(values);
  parameters_ = std::move(parameters);
}

EncoderInputs add_encoder_inputs(Graph& graph, bool with_type_ids) {
  EncoderInputs inputs;
  inputs.ids = graph.add_input("ids", {DType::s32, {kTokens}});
  inputs.offsets = graph.add_input("offsets", {DType::s32, {kOffsets}});
  if (with_type_ids) inputs.type_ids = graph.add_input("type_ids", {DType::s32, {kTokens}});
  return inputs;
}

}  // namespace octet
