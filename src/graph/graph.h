// The one intermediate representation: a list of coarse encoder operations over ragged batches.
//
// A batch is flat: `tokens` positions of `rows` texts, row r owning tokens [offsets[r], offsets[r+1]). A value's shape
// holds extents; negative ones are symbols that a run fixes. Parameters are values with a tensor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace octet {

/// Symbolic extents.
constexpr int64_t kTokens = -1;   ///< all tokens of the batch
constexpr int64_t kRows = -2;     ///< texts of the batch
constexpr int64_t kLength = -3;   ///< tokens of one row: [heads, length, length] is a ragged pile of score matrices
constexpr int64_t kOffsets = -4;  ///< rows + 1

// Each line: inputs -> output; attributes. T = tokens, R = rows, H = width.
enum class Op : uint8_t {
  positions,   ///< ids s32[T], offsets -> s32[T]; start (first position), padding_id (-1: every token counts; else pads
               ///< get padding_id and do not count)
  embedding,   ///< table f32[V,H], indices s32[T] -> f32[T,H]
  add,         ///< a, b of one shape -> the same
  layer_norm,  ///< x [.,H], gamma [H], beta [H] -> the same; epsilon
  linear,      ///< x [.,K], weight [N,K], bias [N] (optional) -> [.,N]
  gelu,        ///< x -> the same; approximate ("none" | "tanh")
  relu,        ///< x -> the same
  tanh,        ///< x -> the same
  relative_bias,      ///< table f32[B,heads] -> f32[heads,2L-1]: element L-1+d is the table's row of the bucket of
                      ///< distance d = key - query (graph/relative_bias.h); length L, buckets, max_distance
  attention_scores,   ///< q [T,H], k [T,H], offsets, bias f32[heads,L,L] or f32[heads,2L-1] by key - query + L - 1
                      ///< (optional) -> [heads,length,length]; heads, scale
  softmax,            ///< scores -> the same, over the last axis
  attention_context,  ///< p [heads,length,length], v [T,H], offsets -> [T,H]; heads
  select_first,       ///< x [T,H], offsets -> [R,H]: token 0 of each row
  pool_mean,          ///< x [T,H], offsets -> [R,H]
  pool_max,           ///< x [T,H], offsets -> [R,H]
  normalize,          ///< x [R,H] -> x / max(|x|_2, 1e-12)
  fake_quant,  ///< x, scale f32[] | [C] (optional), zero_point s32 likewise (optional), column_scale f32[K] (optional,
               ///< weights only) -> the same
};
// fake_quant attributes: type ("s2".."s8", "u2".."u8"), lo, hi, axis (the axis that keeps its own scale; absent: one
// scale), dynamic ("" | "token": one range a token | "row_channel": one range a channel of each row), state ("on" |
// "off"). Without a scale and not dynamic it awaits calibration and computes the identity. A weight's column_scale c
// folds its input's per-channel scale into the columns: q = quantize(w[n,k] * c[k], scale[n]), and back w' =
// dequantize(q) / c[k].

std::string_view name(Op op) noexcept;
/// The operation of that name, or nothing.
std::optional<Op> parse_op(std::string_view text) noexcept;

using ValueId = int32_t;
constexpr ValueId kNone = -1;  ///< an optional input that is absent

struct ValueType {
  DType dtype = DType::f32;
  Shape shape;
  bool operator==(const ValueType&) const = default;
};
std::string to_string(const ValueType& type);

struct Value {
  std::string name;  ///< unique in the graph
  ValueType type;
};

using Attribute = std::variant<int64_t, double, std::string>;
using Attributes = std::map<std::string, Attribute>;

struct Node {
  Op op = Op::add;
  std::string name;  ///< unique among nodes; for a checkpoint's layer its module path
  std::vector<ValueId> inputs;
  ValueId output = kNone;
  Attributes attributes;

  int64_t integer(const char* key, int64_t fallback) const;
  double number(const char* key, double fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  /// inputs[index], or kNone when there are fewer.
  ValueId input(size_t index) const noexcept { return index < inputs.size() ? inputs[index] : kNone; }
};

/// Nodes are kept in an order in which every value is made before it is used. A value type: copies share parameter
/// bytes.
class Graph {
 public:
  std::string name = "model";

  ValueId add_input(const std::string& name, ValueType type);
  ValueId add_parameter(const std::string& name, Tensor tensor);
  /// Appends a node, infers its output type (a mismatch throws invalid_argument naming the node), and returns its
  /// output value, which is called like the node.
  ValueId add(Op op, const std::string& name, std::vector<ValueId> inputs, Attributes attributes = {});
  /// The same, placed right after the last producer among the inputs (first when all are inputs and parameters).
  ValueId insert(Op op, const std::string& name, std::vector<ValueId> inputs, Attributes attributes = {});
  void set_output(const std::string& name, ValueId value) { outputs_.emplace_back(name, value); }

  const std::vector<Node>& nodes() const noexcept { return nodes_; }
  Node& node(size_t index) { return nodes_.at(index); }
  const Node& node(size_t index) const { return nodes_.at(index); }
  const std::vector<Value>& values() const noexcept { return values_; }
  const Value& value(ValueId id) const { return values_.at(static_cast<size_t>(id)); }
  const std::vector<ValueId>& inputs() const noexcept { return inputs_; }
  const std::vector<std::pair<std::string, ValueId>>& outputs() const noexcept { return outputs_; }
  const std::map<std::string, Tensor>& parameters() const noexcept { return parameters_; }

  /// By name; kNone when there is none.
  ValueId find_value(std::string_view name) const noexcept;
  /// Index of the node of that name, or -1.
  int64_t find_node(std::string_view name) const noexcept;
  /// Index of the node that makes `value`, or -1 for inputs and parameters.
  int64_t producer(ValueId value) const noexcept;
  /// Indices of the nodes that read `value`, in order.
  std::vector<size_t> users(ValueId value) const;
  bool is_output(ValueId value) const noexcept;
  bool is_parameter(ValueId value) const { return value != kNone && parameters_.contains(this->value(value).name); }
  /// The tensor of a parameter value (checked).
  const Tensor& parameter(ValueId value) const;
  void set_parameter(ValueId value, Tensor tensor);

  /// Every use of `from` (outputs included) reads `to` instead, but for node `except` (by its output value).
  void replace_uses(ValueId from, ValueId to, ValueId except = kNone);
  /// Node `node` reads `value` as its input `input` (appending or filling with kNone as needed).
  void set_input(size_t node, size_t input, ValueId value);
  /// The uses of the node's output read its inputs[0] instead; the node goes and its name is free again.
  void bypass(size_t node);
  /// Removes nodes, values and parameters that no output depends on. Inputs stay. Value ids change.
  void remove_dead();

 private:
  ValueId add_value(const std::string& name, ValueType type);

  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<ValueId> inputs_;
  std::vector<std::pair<std::string, ValueId>> outputs_;
  std::map<std::string, Tensor> parameters_;
  std::map<std::string, ValueId, std::less<>> value_by_name_;
};

/// The standard inputs of an encoder graph: "ids" s32[tokens], "offsets" s32[offsets], "type_ids" s32[tokens].
struct EncoderInputs {
  ValueId ids = kNone, offsets = kNone, type_ids = kNone;
};
EncoderInputs add_encoder_inputs(Graph& graph, bool with_type_ids);

/// Output type of `node` given its inputs; throws invalid_argument naming the node and the shapes.
ValueType infer_type(const Graph& graph, const Node& node);

/// Checks order, types, names, parameters and quantizer attributes. Throws invalid_argument with all findings at once.
void verify(const Graph& graph);

/// Text form; parse_graph(print(g), g.parameters()) prints the same.
std::string print(const Graph& graph);
/// Throws corrupt with the line number. Parameters are looked up by name in `parameters`.
Graph parse_graph(std::string_view text, const std::map<std::string, Tensor>& parameters);

}  // namespace octet
