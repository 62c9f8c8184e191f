// One function an operator, each writing nodes in the place of the fused one.
#include "onnx/decompose.h"

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "core/error.h"

namespace octet::onnx {

namespace {

class Decomposer {
 public:
  explicit Decomposer(File& file) : file_(file) {
    for (const TensorData& t : file.graph.initializers) shapes_[t.name] = t.data.empty() ? Shape{} : t.data.shape();
  }

  void run() {
    for (size_t i = 0; i < file_.graph.initializers.size(); ++i) tensors_[file_.graph.initializers[i].name] = i;
    std::vector<Node> nodes = std::move(file_.graph.nodes);
    file_.graph.nodes.clear();
    for (const Node& node : nodes)
      if (!node.outputs.empty()) makers_[node.outputs[0]] = node;
    for (Node& node : nodes) {
      node_ = &node;
      base_ = !node.name.empty() ? node.name : node.outputs.empty() ? node.op : node.outputs[0];
      count_ = 0;
      if (!fused()) file_.graph.nodes.push_back(std::move(node));
    }
  }

 private:
  bool has(size_t i) const { return !node_->input(i).empty(); }
  const std::string& in(size_t i) const { return node_->input(i); }
  std::string out(size_t i = 0) const { return i < node_->outputs.size() ? node_->outputs[i] : ""; }

  static Attribute integer(const char* name, int64_t v) {
    Attribute a;
    a.kind = Attribute::Kind::integer, a.name = name, a.integer = v;
    return a;
  }
  static Attribute integers(const char* name, std::vector<int64_t> v) {
    Attribute a;
    a.kind = Attribute::Kind::integers, a.name = name, a.integers = std::move(v);
    return a;
  }
  static Attribute number(const char* name, double v) {
    Attribute a;
    a.kind = Attribute::Kind::number, a.name = name, a.number = v;
    return a;
  }
  static Attribute text(const char* name, const std::string& v) {
    Attribute a;
    a.kind = Attribute::Kind::text, a.name = name, a.text = v;
    return a;
  }
  std::string add(const std::string& op, std::vector<std::string> inputs, std::vector<Attribute> attributes = {},
                  const std::string& result = "") {
    Node n;
    n.op = op;
    n.name = base_;
    n.inputs = std::move(inputs);
    n.attributes = std::move(attributes);
    n.outputs = {result.empty() ? base_ + "::" + std::to_string(++count_) : result};
    file_.graph.nodes.push_back(std::move(n));
    return file_.graph.nodes.back().outputs[0];
  }
  std::string constant(const std::vector<int64_t>& values, bool scalar = false) {
    std::byte* bytes = nullptr;
    Tensor t = Tensor::allocate(DType::s64, scalar ? Shape{} : Shape{static_cast<int64_t>(values.size())}, &bytes);
    std::memcpy(bytes, values.data(), values.size() * 8);
    std::string name = base_ + "::constant_" + std::to_string(++count_);
    file_.graph.initializers.push_back({name, ElemType::s64, t});
    return name;
  }
  std::string real(float value) {
    std::string name = base_ + "::constant_" + std::to_string(++count_);
    file_.graph.initializers.push_back({name, ElemType::f32, Tensor::scalar(value)});
    return name;
  }
  std::string unsqueeze(const std::string& x, const std::vector<int64_t>& axes) {
    if (file_.opset() < 13) return add("Unsqueeze", {x}, {integers("axes", axes)});
    return add("Unsqueeze", {x, constant(axes)});
  }

  bool fused() {
    const std::string& op = node_->op;
    if (node_->domain.empty()) {
      if (op == "QLinearMatMul") return qlinear("MatMul", 2, 6);
      if (op == "Attention") return standard_attention();
      if (op == "RotaryEmbedding") return rotary();
      if (op == "RMSNormalization" || op == "SimplifiedLayerNormalization") return rms_norm();
      return false;
    }
    if (node_->domain != "com.microsoft") return false;
    if (op == "Gelu" || op == "FastGelu" || op == "BiasGelu") {
      std::string x = has(1) ? add("Add", {in(0), in(1)}) : in(0);
      return gelu(x, op == "FastGelu", out());
    }
    if (op == "QuantizeLinear" || op == "DequantizeLinear") {
      // The quantizer's own domain, for types that the standard operators had later.
      add(op, node_->inputs, node_->attributes, out());
      return true;
    }
    if (op == "QuickGelu") {
      std::string gate = add("Sigmoid", {add("Mul", {in(0), real(static_cast<float>(node_->number("alpha", 1.702)))})});
      add("Mul", {in(0), gate}, {}, out());
      return true;
    }
    if (op == "FusedMatMul") return fused_matmul();
    if (op == "FusedGemm") return fused_gemm();
    if (op == "SkipLayerNormalization") return skip_norm();
    if (op == "EmbedLayerNormalization") return embed_norm();
    if (op == "Attention") return attention();
    if (op == "MultiHeadAttention") return multi_head();
    if (op == "QAttention") return quantized_attention();
    if (op == "QLinearAdd") return qlinear("Add", 2, 6);
    if (op == "QLinearMul") return qlinear("Mul", 2, 6);
    if (op == "QLinearSigmoid") return qlinear("Sigmoid", 1, 3);
    if (op == "QLinearSoftmax") {
      std::string x = add("DequantizeLinear", {in(0), in(1), in(2)});
      int64_t opset = node_->integer("opset", 13);
      std::string y = add("Softmax", {x}, {integer("axis", node_->integer("axis", opset < 13 ? 1 : -1))});
      return quantized(y, in(3), in(4));
    }
    if (op == "QLinearWhere") return qlinear_where();
    if (op == "MatMulNBits") return few_bits();
    if (op == "QGemm") return qgemm();
    if (op == "DynamicQuantizeMatMul") return dynamic_matmul();
    if (op == "MatMulIntegerToFloat") return integer_to_float();
    return false;
  }

  // Written out where the opset has no node for it.
  bool gelu(const std::string& x, bool tanh_form, const std::string& result) {
    if (!tanh_form) {
      std::string e = add("Erf", {add("Div", {x, real(1.4142135623730951f)})});
      std::string m = add("Mul", {x, add("Add", {e, real(1.0f)})});
      add("Mul", {m, real(0.5f)}, {}, result);
      return true;
    }
    std::string cube = add("Mul", {add("Pow", {x, real(3.0f)}), real(0.044715f)});
    std::string inner = add("Mul", {add("Add", {x, cube}), real(0.7978845608028654f)});
    std::string m = add("Mul", {x, add("Add", {add("Tanh", {inner}), real(1.0f)})});
    add("Mul", {m, real(0.5f)}, {}, result);
    return true;
  }

  bool fused_matmul() {
    std::string a = in(0), b = in(1);
    if (node_->integer("transBatchA", 0) || node_->integer("transBatchB", 0)) return false;
    // A transpose of the last two axes needs the rank: attention's is 4, a weight's is known.
    auto turn = [&](const std::string& x) {
      auto held = shapes_.find(x);
      std::vector<int64_t> perm{0, 1, 3, 2};
      if (held != shapes_.end()) {
        perm.clear();
        for (size_t d = 0; d < held->second.size(); ++d) perm.push_back(static_cast<int64_t>(d));
        if (perm.size() > 1) std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
      }
      return add("Transpose", {x}, {integers("perm", perm)});
    };
    if (node_->integer("transA", 0)) a = turn(a);
    if (node_->integer("transB", 0)) b = turn(b);
    auto alpha = static_cast<float>(node_->number("alpha", 1));
    if (alpha == 1.0f) return add("MatMul", {a, b}, {}, out()), true;
    add("Mul", {add("MatMul", {a, b}), real(alpha)}, {}, out());
    return true;
  }

  bool fused_gemm() {
    std::string activation = node_->text("activation", "");
    if (activation != "Tanh" && activation != "Relu" && activation != "Gelu" && activation != "Sigmoid") return false;
    std::vector<Attribute> kept;
    for (const Attribute& a : node_->attributes)
      if (!a.name.starts_with("activation")) kept.push_back(a);
    std::string y = add("Gemm", node_->inputs, kept);
    if (activation == "Gelu") return gelu(y, false, out());
    add(activation, {y}, {}, out());
    return true;
  }

  std::string norm(const std::string& x, const std::string& gamma, const std::string& beta, double epsilon,
                   const std::string& result) {
    std::vector<std::string> inputs{x, gamma};
    if (!beta.empty()) inputs.push_back(beta);
    return add("LayerNormalization", inputs, {integer("axis", -1), number("epsilon", epsilon)}, result);
  }

  bool skip_norm() {
    std::string x = has(4) ? add("Add", {in(0), in(4)}) : in(0);
    std::string sum = add("Add", {x, in(1)}, {}, out(3));
    norm(sum, in(2), in(3), node_->number("epsilon", 1e-12), out());
    return true;
  }

  bool embed_norm() {
    // ids, segments, words, positions, segment table, gamma, beta, mask, position ids
    std::string x = add("Gather", {in(2), in(0)});
    if (has(1) && has(4)) x = add("Add", {x, add("Gather", {in(4), in(1)})});
    std::string places = has(8) ? in(8) : "";
    if (places.empty()) {
      std::string length = add("Gather", {add("Shape", {in(0)}), constant({1}, true)});
      places = unsqueeze(add("Range", {constant({0}, true), length, constant({1}, true)}), {0});
    }
    x = add("Add", {x, add("Gather", {in(3), places})}, {}, out(2));
    norm(x, in(5), in(6), node_->number("epsilon", 1e-12), out(0));
    // The mask's index is the mask itself for the operators behind it.
    if (!out(1).empty()) {
      if (has(7)) add("Identity", {in(7)}, {}, out(1));
      else add("Identity", {constant({0})}, {}, out(1));
      masks_[out(1)] = has(7);
    }
    return true;
  }

  /// [batch, sequence, heads * d] -> [batch, heads, sequence, d].
  std::string heads_of(const std::string& x, int64_t heads, int64_t d) {
    std::string shaped = add("Reshape", {x, constant({0, 0, heads, d})});
    return add("Transpose", {shaped}, {integers("perm", {0, 2, 1, 3})});
  }

  void attend(const std::string& q, const std::string& k, const std::string& v, const std::string& mask,
              const std::string& bias, double scale, int64_t hidden, const std::string& result) {
    std::string turned = add("Transpose", {k}, {integers("perm", {0, 1, 3, 2})});
    std::string s = add("Mul", {add("MatMul", {q, turned}), real(static_cast<float>(scale))});
    if (!bias.empty()) s = add("Add", {s, bias});
    if (!mask.empty()) {
      std::string kept = add("Cast", {unsqueeze(mask, {1, 2})}, {integer("to", 1)});
      std::string off = add("Mul", {add("Sub", {real(1.0f), kept}), real(-10000.0f)});
      s = add("Add", {s, off});
    }
    std::string c = add("MatMul", {add("Softmax", {s}, {integer("axis", 3)}), v});
    c = add("Transpose", {c}, {integers("perm", {0, 2, 1, 3})});
    add("Reshape", {c, constant({0, 0, hidden})}, {}, result);
  }

  /// The mask [batch, sequence]. Lengths of rows, which are sums of it, stand for what they sum.
  void usable_mask(size_t input, std::string* mask) const {
    if (!has(input)) return;
    std::string name = in(input);
    auto found = masks_.find(name);
    if (found != masks_.end() && !found->second) return;
    for (auto maker = makers_.find(name); maker != makers_.end() && !maker->second.inputs.empty();
         maker = makers_.find(name)) {
      if (maker->second.op == "ReduceSum") {
        *mask = maker->second.inputs[0];
        return;
      }
      if (maker->second.op != "Cast") break;
      name = maker->second.inputs[0];
    }
    *mask = in(input);
  }

  bool attention() {
    // input, weights [K, 3N], bias, mask, past, relative bias
    auto weight = shapes_.find(in(1));
    int64_t heads = node_->integer("num_heads", 0);
    if (weight == shapes_.end() || weight->second.size() != 2 || heads < 1 || has(4) || has(6) ||
        node_->integer("unidirectional", 0) || node_->find("qkv_hidden_sizes") != nullptr)
      return false;
    std::string x = add("MatMul", {in(0), in(1)});
    if (has(2)) x = add("Add", {x, in(2)});
    return split_attention(x, weight->second[1] / 3, heads, 3, has(5) ? in(5) : "");
  }

  bool split_attention(const std::string& x, int64_t hidden, int64_t heads, size_t mask_input,
                       const std::string& bias) {
    if (hidden < 1 || hidden % heads != 0) return false;
    int64_t d = hidden / heads;
    Node split;
    split.op = "Split";
    split.name = base_;
    split.inputs = {x};
    split.attributes = {integer("axis", 2)};
    if (file_.opset() < 13) split.attributes.push_back(integers("split", {hidden, hidden, hidden}));
    else split.inputs.push_back(constant({hidden, hidden, hidden}));
    for (const char* part : {"::q", "::k", "::v"}) split.outputs.push_back(base_ + part);
    file_.graph.nodes.push_back(split);
    std::string mask;
    usable_mask(mask_input, &mask);
    double scale = node_->number("scale", 0) > 0 ? node_->number("scale", 0) : 1.0 / std::sqrt(static_cast<double>(d));
    attend(heads_of(split.outputs[0], heads, d), heads_of(split.outputs[1], heads, d),
           heads_of(split.outputs[2], heads, d), mask, bias, scale, hidden, out());
    return true;
  }

  bool multi_head() {
    // query, key, value, bias [3N], mask, relative bias
    int64_t heads = node_->integer("num_heads", 0), hidden = 0;
    if (heads < 1 || !has(1) || !has(2) || has(6) || has(7)) return false;
    std::string q = in(0), k = in(1), v = in(2);
    if (has(3)) {
      auto bias = shapes_.find(in(3));
      if (bias == shapes_.end() || bias->second.size() != 1 || bias->second[0] % 3 != 0) return false;
      hidden = bias->second[0] / 3;
      int64_t at = 0;
      for (std::string* x : {&q, &k, &v}) {
        std::string part = add("Slice", {in(3), constant({at}), constant({at + hidden}), constant({0})});
        *x = add("Add", {*x, part});
        at += hidden;
      }
    }
    // Without a bias the width shows only in the shape: -1 splits it.
    auto split = [&](const std::string& x) {
      std::string shaped = add("Reshape", {x, constant({0, 0, heads, -1})});
      return add("Transpose", {shaped}, {integers("perm", {0, 2, 1, 3})});
    };
    std::string mask;
    usable_mask(4, &mask);
    double scale = node_->number("scale", 0);
    std::string hq = split(q), hk = split(k), hv = split(v);
    if (scale <= 0) {
      if (hidden == 0) return false;
      scale = 1.0 / std::sqrt(static_cast<double>(hidden / heads));
    }
    if (hidden == 0) hidden = -1;
    attend(hq, hk, hv, mask, has(5) ? in(5) : "", scale, hidden, out());
    return true;
  }

  // ------------------------------------------------------------ standard operators of opset 23
  /// Whether a value is of booleans, by what made it.
  bool boolean(std::string name) const {
    static const std::set<std::string> kMake{
        "And", "Or", "Xor", "Not", "Equal", "Less", "Greater", "IsNaN", "GreaterOrEqual", "LessOrEqual"};
    static const std::set<std::string> kMove{"Expand", "Unsqueeze", "Squeeze", "Reshape",  "Slice",
                                             "Concat", "Tile",      "Gather",  "Identity", "Transpose"};
    for (int depth = 0; depth < 64; ++depth) {
      auto maker = makers_.find(name);
      if (maker == makers_.end()) break;
      const Node& node = maker->second;
      if (kMake.contains(node.op)) return true;
      if (node.op == "Cast") return node.integer("to", 0) == static_cast<int64_t>(ElemType::boolean);
      if (node.op == "Where") name = node.input(1);
      else if (kMove.contains(node.op)) name = node.input(0);
      else break;
    }
    for (const ValueInfo& input : file_.graph.inputs)
      if (input.name == name) return input.type == ElemType::boolean;
    auto held = tensors_.find(name);
    return held != tensors_.end() && file_.graph.initializers[held->second].type == ElemType::boolean;
  }
  std::string extent(const std::string& x, int64_t axis) {
    return add("Gather", {add("Shape", {x}), constant({axis})}, {integer("axis", 0)});
  }

  /// Q, K and V [batch, heads, sequence, d], or [batch, sequence, heads * d] with the numbers of heads.
  bool standard_attention() {
    int64_t heads = node_->integer("q_num_heads", 0);
    if (has(4) || has(5) || has(6) || !out(1).empty() || !out(2).empty() || !out(3).empty() ||
        node_->number("softcap", 0) != 0 || node_->integer("kv_num_heads", heads) != heads)
      return false;
    std::string q = in(0), k = in(1), v = in(2);
    if (heads > 0)
      for (std::string* x : {&q, &k, &v}) *x = heads_of(*x, heads, -1);
    std::string scale;
    if (node_->find("scale") != nullptr) {
      scale = real(static_cast<float>(node_->number("scale", 1)));
    } else {
      std::string width = add("Cast", {extent(q, 3)}, {integer("to", 1)});
      scale = add("Div", {real(1.0f), add("Sqrt", {width})});
    }
    std::string turned = add("Transpose", {k}, {integers("perm", {0, 1, 3, 2})});
    std::string s = add("Mul", {add("MatMul", {q, turned}), scale});
    std::string lowest = real(-3.402823466e+38f);
    if (node_->integer("is_causal", 0)) {
      std::string shape = add("Concat", {extent(q, 2), extent(k, 2)}, {integer("axis", 0)});
      std::string ones = add("Expand", {real(1.0f), shape});
      std::string before = add("Cast", {add("Trilu", {ones}, {integer("upper", 0)})}, {integer("to", 9)});
      s = add("Where", {before, s, lowest});
    }
    if (has(3)) s = boolean(in(3)) ? add("Where", {in(3), s, lowest}) : add("Add", {s, in(3)});
    std::string p = add("Softmax", {s}, {integer("axis", -1)});
    if (heads == 0) return add("MatMul", {p, v}, {}, out()), true;
    std::string c = add("Transpose", {add("MatMul", {p, v})}, {integers("perm", {0, 2, 1, 3})});
    add("Reshape", {c, constant({0, 0, -1})}, {}, out());
    return true;
  }

  bool rotary() {
    auto maker = makers_.find(in(0));
    bool four =
        maker != makers_.end() && maker->second.op == "Transpose" && maker->second.integers("perm", {}).size() == 4;
    int64_t heads = node_->integer("num_heads", 0);
    if (node_->integer("interleaved", 0) || node_->integer("rotary_embedding_dim", 0)) return false;
    if (!four && heads > 0) return false;
    std::string x = in(0), y[2], table[2];
    for (size_t i = 0; i < 2; ++i) {
      std::string rows = has(3) ? add("Gather", {in(1 + i), in(3)}, {integer("axis", 0)}) : in(1 + i);
      table[i] = unsqueeze(rows, {1});
    }
    Node split;
    split.op = "Split";
    split.name = base_;
    split.inputs = {x};
    split.attributes = {integer("axis", -1), integer("num_outputs", 2)};
    split.outputs = {base_ + "::first", base_ + "::second"};
    file_.graph.nodes.push_back(split);
    const std::string &a = split.outputs[0], &b = split.outputs[1];
    y[0] = add("Sub", {add("Mul", {a, table[0]}), add("Mul", {b, table[1]})});
    y[1] = add("Add", {add("Mul", {a, table[1]}), add("Mul", {b, table[0]})});
    add("Concat", {y[0], y[1]}, {integer("axis", -1)}, out());
    return true;
  }

  bool rms_norm() {
    if (node_->integer("axis", -1) != -1 || !out(1).empty()) return false;
    std::string square = add("Mul", {in(0), in(0)});
    std::string mean = file_.opset() < 18 ? add("ReduceMean", {square}, {integers("axes", {-1})})
                                          : add("ReduceMean", {square, constant({-1})});
    std::string root = add("Sqrt", {add("Add", {mean, real(static_cast<float>(node_->number("epsilon", 1e-5)))})});
    add("Mul", {add("Div", {in(0), root}), in(1)}, {}, out());
    return true;
  }

  // ------------------------------------------------------------ integers
  bool quantized(const std::string& y, const std::string& scale, const std::string& zero) {
    std::vector<std::string> inputs{y, scale};
    if (!zero.empty()) inputs.push_back(zero);
    add("QuantizeLinear", inputs, {}, out());
    return true;
  }
  /// `operands` triples of value, scale and zero point, then the result's scale and zero point.
  bool qlinear(const std::string& op, size_t operands, size_t result) {
    std::vector<std::string> inputs;
    for (size_t i = 0; i < operands; ++i) {
      std::vector<std::string> triple{in(3 * i), in(3 * i + 1)};
      if (has(3 * i + 2)) triple.push_back(in(3 * i + 2));
      inputs.push_back(add("DequantizeLinear", triple, {integer("axis", 1)}));
    }
    return quantized(add(op, inputs), in(result), in(result + 1));
  }
  bool qgemm() {
    // A, scale, zero, B, scale, zero, C (int32 at both scales), scale, zero of the result
    std::string a = add("DequantizeLinear", {in(0), in(1), in(2)});
    int64_t turned = node_->integer("transB", 0);
    std::string b = add("DequantizeLinear", {in(3), in(4), in(5)}, {integer("axis", turned ? 0 : 1)});
    std::vector<std::string> inputs{a, b};
    if (has(6)) {
      std::string scale = add("Mul", {in(1), in(4)});
      inputs.push_back(add("Mul", {add("Cast", {in(6)}, {integer("to", 1)}), scale}));
    }
    std::vector<Attribute> kept{integer("transB", turned), integer("transA", node_->integer("transA", 0)),
                                number("alpha", node_->number("alpha", 1))};
    if (!has(7)) return add("Gemm", inputs, kept, out()), true;
    return quantized(add("Gemm", inputs, kept), in(7), in(8));
  }
  std::string dynamic_product(const std::string& x, const std::string& b, const std::string& b_scale,
                              const std::string& b_zero, const std::string& result) {
    Node q;
    q.op = "DynamicQuantizeLinear";
    q.name = base_;
    q.inputs = {x};
    q.outputs = {base_ + "::x", base_ + "::x_scale", base_ + "::x_zero"};
    file_.graph.nodes.push_back(q);
    std::vector<std::string> inputs{q.outputs[0], b, q.outputs[2]};
    if (!b_zero.empty()) inputs.push_back(b_zero);
    std::string y = add("Cast", {add("MatMulInteger", inputs)}, {integer("to", 1)});
    std::string scale = add("Mul", {q.outputs[1], b_scale});
    return add("Mul", {y, scale}, {}, result);
  }
  bool dynamic_matmul() {
    // A, B, B's scale, B's zero point, bias
    if (!has(4)) return dynamic_product(in(0), in(1), in(2), in(3), out()), true;
    add("Add", {dynamic_product(in(0), in(1), in(2), in(3), ""), in(4)}, {}, out());
    return true;
  }
  bool qlinear_where() {
    // condition, x, scale, zero, y, scale, zero, scale, zero of the result
    std::string x = add("DequantizeLinear", {in(1), in(2), in(3)}), y = add("DequantizeLinear", {in(4), in(5), in(6)});
    return quantized(add("Where", {in(0), x, y}), in(7), in(8));
  }
  /// Whether integers come from that operator, maybe moved. Those of fixed scales are multiplied as what they stand
  /// for.
  bool made_by(const std::string& value, const char* op) const {
    auto maker = makers_.find(value);
    for (int steps = 0; maker != makers_.end() && steps < 16; ++steps) {
      const Node& node = maker->second;
      if (node.op == op) return true;
      bool moves = node.op == "Transpose" || node.op == "Reshape" || node.op == "Unsqueeze" || node.op == "Squeeze" ||
                   node.op == "Gather" || node.op == "Slice" || node.op == "Split" || node.op == "Identity";
      if (!moves) return false;
      maker = makers_.find(node.input(0));
    }
    return false;
  }

  // Weights of 2, 4 or 8 bits in blocks along the inputs: written out in floats.
  bool few_bits() {
    // A, B [N, blocks, bytes], scales [N * blocks], zero points (packed a row, or floats), group index, bias
    int64_t k = node_->integer("K", 0), n = node_->integer("N", 0), bits = node_->integer("bits", 4);
    int64_t block = node_->integer("block_size", 0);
    auto b = tensors_.find(in(1)), s = tensors_.find(in(2));
    if (b == tensors_.end() || s == tensors_.end() || has(4) || (bits != 2 && bits != 4 && bits != 8) || block < 16 ||
        k < 1 || n < 1 || k > (int64_t{1} << 24) || n > (int64_t{1} << 24) || block > k + 256)
      return false;
    const Tensor packed = file_.graph.initializers[b->second].data, scales = file_.graph.initializers[s->second].data;
    int64_t blocks = (k + block - 1) / block, bytes = block * bits / 8, zero_row = (blocks * bits + 7) / 8;
    if (packed.dtype() != DType::u8 || packed.elements() != n * blocks * bytes || scales.elements() != n * blocks ||
        (scales.dtype() != DType::f32 && scales.dtype() != DType::f16))
      return false;
    std::vector<float> scale = scales.to_f32(), zeros;
    const uint8_t* packed_zeros = nullptr;
    Tensor zero;
    if (has(3)) {
      auto z = tensors_.find(in(3));
      if (z == tensors_.end()) return false;
      zero = file_.graph.initializers[z->second].data;
      if (zero.dtype() == DType::u8 && zero.elements() == n * zero_row)
        packed_zeros = reinterpret_cast<const uint8_t*>(zero.data());
      else if ((zero.dtype() == DType::f32 || zero.dtype() == DType::f16) && zero.elements() == n * blocks)
        zeros = zero.to_f32();
      else return false;
    }
    auto part = [&](const uint8_t* row, int64_t i) {
      return (row[i * bits / 8] >> (i * bits % 8)) & ((1 << bits) - 1);
    };
    std::byte* raw = nullptr;
    Tensor weight = Tensor::allocate(DType::f32, {n, k}, &raw);
    auto* to = reinterpret_cast<float*>(raw);
    const auto* from = reinterpret_cast<const uint8_t*>(packed.data());
    for (int64_t row = 0; row < n; ++row)
      for (int64_t i = 0; i < k; ++i) {
        int64_t at = row * blocks + i / block;
        float middle = packed_zeros != nullptr ? static_cast<float>(part(packed_zeros + row * zero_row, i / block))
                       : !zeros.empty()        ? zeros[static_cast<size_t>(at)]
                                               : static_cast<float>(1 << (bits - 1));
        to[row * k + i] =
            (static_cast<float>(part(from + at * bytes, i % block)) - middle) * scale[static_cast<size_t>(at)];
      }
    std::string name = in(1) + "::dequantized";
    file_.graph.initializers.push_back({name, ElemType::f32, weight});
    std::string turned = add("Transpose", {name}, {integers("perm", {1, 0})});
    if (!has(5)) return add("MatMul", {in(0), turned}, {}, out()), true;
    add("Add", {add("MatMul", {in(0), turned}), in(5)}, {}, out());
    return true;
  }

  bool integer_to_float() {
    if (!made_by(in(0), "DynamicQuantizeLinear")) {
      std::vector<std::string> a{in(0), in(2)}, b{in(1), in(3)};
      if (has(4)) a.push_back(in(4));
      if (has(5)) b.push_back(in(5));
      std::string y = has(6) ? "" : out();
      y = add("MatMul", {add("DequantizeLinear", a), add("DequantizeLinear", b, {integer("axis", 1)})}, {}, y);
      if (has(6)) add("Add", {y, in(6)}, {}, out());
      return true;
    }
    // A, B, scales, zero points, bias. A comes from a DynamicQuantizeLinear, or has constant scales.
    std::vector<std::string> inputs{in(0), in(1)};
    if (has(4)) inputs.push_back(in(4));
    if (has(5)) {
      if (!has(4)) return false;
      inputs.push_back(in(5));
    }
    std::string y = add("Cast", {add("MatMulInteger", inputs)}, {integer("to", 1)});
    std::string scale = add("Mul", {in(2), in(3)});
    if (!has(6)) return add("Mul", {y, scale}, {}, out()), true;
    add("Add", {add("Mul", {y, scale}), in(6)}, {}, out());
    return true;
  }
  bool quantized_attention() {
    // input, weight, bias, input scale, weight scale, mask, input zero, weight zero
    auto weight = shapes_.find(in(1));
    int64_t heads = node_->integer("num_heads", 0);
    if (weight == shapes_.end() || weight->second.size() != 2 || heads < 1 || has(8) ||
        node_->integer("unidirectional", 0))
      return false;
    if (!made_by(in(0), "DynamicQuantizeLinear")) {
      std::vector<std::string> a{in(0), in(3)}, b{in(1), in(4)};
      if (has(6)) a.push_back(in(6));
      if (has(7)) b.push_back(in(7));
      std::string x = add("MatMul", {add("DequantizeLinear", a), add("DequantizeLinear", b, {integer("axis", 1)})});
      if (has(2)) x = add("Add", {x, in(2)});
      return split_attention(x, weight->second[1] / 3, heads, 5, "");
    }
    std::vector<std::string> integers_in{in(0), in(1)};
    if (has(6)) integers_in.push_back(in(6));
    if (has(7)) {
      if (!has(6)) return false;
      integers_in.push_back(in(7));
    }
    std::string y = add("Cast", {add("MatMulInteger", integers_in)}, {integer("to", 1)});
    y = add("Mul", {y, add("Mul", {in(3), in(4)})});
    if (has(2)) y = add("Add", {y, in(2)});
    return split_attention(y, weight->second[1] / 3, heads, 5, "");
  }

  File& file_;
  const Node* node_ = nullptr;
  std::string base_;
  int count_ = 0;
  std::map<std::string, size_t> tensors_;  // places of initializers
  std::map<std::string, Shape> shapes_;
  std::map<std::string, Node> makers_;
  std::map<std::string, bool> masks_;  // outputs of embedding norms that stand for masks
};

}  // namespace

void decompose(File& file) { Decomposer(file).run(); }

}  // namespace octet::onnx
