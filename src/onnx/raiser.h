// The interpreter that raises a graph: its state and its parts (raise.cpp, raise_text.cpp, raise_emit.cpp).
#pragma once

#include <climits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "onnx/raise.h"
#include "onnx/value.h"

namespace octet::onnx {

struct NotRaised {
  std::string text;
};
/// The tables of the file hold fewer rows than the length it was tried with.
struct ShorterLength {
  int64_t length = 0;
};

class Raiser {
 public:
  Raiser(const File& file, int64_t length) : file_(file), length_(length) {}
  Raised run();

 private:
  // raise.cpp: constants and shapes
  Value known(Array data) const;
  Value uniform(double number, ElemType type, std::vector<Poly> shape) const;
  Value extents(std::vector<Poly> numbers, bool scalar) const;
  int64_t concrete(const Poly& p) const;
  bool plain(const Value& v) const;
  bool constant_value(const Value& v, double* number) const;
  Array whole(const Value& v, size_t axis) const;
  Array whole(const Value& v) const;
  std::vector<Poly> shape_of(const Value& v) const;
  Poly extent_of(const Axis& axis) const;
  std::vector<Poly> polys(const Value& v) const;
  std::vector<int64_t> constants(const Value& v) const;
  std::vector<int64_t> axes_of(size_t input) const;
  int64_t axis_of(int64_t axis, size_t rank) const;
  void add_initializers(const Graph& g);
  void run_nodes(const Graph& g, int depth);
  void run_if(const Node& node, int depth);
  [[noreturn]] void refuse(const std::string& why) const;
  bool has(size_t i) const { return i < in_.size() && in_[i]->kind != Value::Kind::none; }
  const Value& arg(size_t i) const {
    if (!has(i)) refuse("an input is missing");
    return *in_[i];
  }
  std::vector<Value> compute();
  static bool integers_only(const Value& v);
  Value shape();
  std::vector<Value> shape_arithmetic(bool* done);
  std::vector<Poly> broadcast_shapes(const std::vector<const Value*>& values) const;
  std::vector<Value> compute_known();
  Value straight(const Value& v) const;
  void note_columns(const std::vector<const Value*>& inputs, Value* out) const;
  Value known_shaping(const std::vector<const Value*>& inputs);
  Value known_gather_nd(const Value& x, const Value& index);
  Value known_reshape(const Value& x, std::vector<Poly> to);
  Value known_slice(const std::vector<const Value*>& inputs);
  Value known_gather(const std::vector<const Value*>& inputs);
  Value known_reduce(const Value& x);

  // raise_text.cpp: operations on text
  std::vector<Value> compute_text();
  Value view_of(ValueId id, std::vector<Axis> axes, char form) const;
  Value reshape_view(const Value& x, std::vector<Poly> to);
  Value transpose_view(const Value& x, const std::vector<int64_t>& perm);
  Value unsqueeze_view(const Value& x, bool remove);
  Value take_view(const Value& x, size_t axis, int64_t begin, int64_t count, bool keep);
  Value gather_text();
  std::vector<Value> split_text();
  Value slice_text();
  Value embed(const Value& table, const Value& index);
  Value matmul();
  Value linear(const Value& x, const Value& w, bool turn, const std::string& name);
  Value attention_product(const Value& q, const Value& k);
  Value context_product(const Value& p, const Value& v);
  Value gemm();
  Value einsum();
  ValueId root(ValueId id) const;  ///< what its quantizers quantize
  Value add(const Value& a, const Value& b, double sign);
  Value add_known(const Value& x, const Value& k, double sign);
  Value multiply_values(const Value& a, const Value& b);
  Value multiply_known(const Value& x, const Value& k);
  Value divide_values(const Value& a, const Value& b);
  Value power();
  Value reduce_text();
  Value normalized();
  Value where_text();
  Value softmax_text();
  Value tanh_text();
  Value quantize();
  Value dequantize();
  std::vector<Value> dynamic_quantize();
  Value matmul_integer();
  Value fake_quant(const Value& x, const Array& scale, const Array& zero, ElemType type, int64_t axis,
                   const std::string& name);
  bool drops_bias_quantizer(const Value& x, const Value& other) const;
  Value released(const Value& x);  ///< with the quantizer that it holds
  bool bias_of_axes(const Value& x, const Value& k, Array* vector) const;
  bool feature_axis(const Value& x, size_t axis) const;
  bool vector_along_features(const Value& k, const Value& x, int64_t* width) const;

  // raise_emit.cpp: nodes of octet's graph
  std::string node_name(const Node& node) const;
  /// A name that says nothing ("MatMul_16") gives way to that of a parameter.
  static void name_by(const std::string& parameter, const char* suffix, std::string* name);
  static std::string positions_name(const std::string& maker);
  std::string unique(const std::string& name, const std::set<std::string>& taken) const;
  ValueId emit(octet::Op op, const std::string& name, std::vector<ValueId> inputs, Attributes attributes, int order);
  ValueId parameter(const std::string& name, Tensor tensor);
  ValueId parameter(const std::string& name, const Array& array);
  /// A matrix as it is stored, with its quantizer; `rows` picks some (empty: all).
  ValueId weight(const Value& w, const std::string& name, const std::vector<int64_t>& rows, int order,
                 bool table = true);
  /// The product's matrix as [N, K].
  Value standing(const Product& p) const;
  /// The view as a value of the graph whose features lie in the order of the view's axes; pending stays outside.
  ValueId settle(const Value& x);
  ValueId settle_plain(const Value& x);  ///< the same, refusing a pending factor
  ValueId scores_of(const Value& x);
  std::vector<Atom> features(const Value& x) const;
  bool same_view(const Value& a, const Value& b) const;
  Value settled(const Value& x);
  void finish();
  octet::Graph rebuilt();

  const File& file_;
  int64_t length_;
  bool fixed_ = false, has_mask_ = false, question_answering_ = false;
  Poly batch_{0, 1}, tokens_{0, 0, 1};
  octet::Graph graph_;
  ValueId ids_ = kNone, offsets_ = kNone, types_ = kNone;
  std::map<std::string, Value> scope_;
  const Node* node_ = nullptr;
  std::vector<const Value*> in_;
  int order_ = 0;
  int64_t limit_ = INT64_MAX;
  std::vector<std::string> notes_;
  std::map<std::string, int> order_of_;  ///< graph node -> place in the file
  std::map<std::string, ValueId> positions_;
  std::map<std::pair<ValueId, const Value*>, ValueId> released_;  ///< quantizers that waited
  std::vector<std::shared_ptr<Value>> held_alive_;                ///< whose addresses are keys
  mutable std::set<std::string> node_names_, value_names_;
  std::map<std::string, std::pair<const void*, ValueId>> parameter_by_name_;
  std::map<const float*, Array> score_biases_;  // as parameters
};

}  // namespace octet::onnx
