// Lowering of the coarse operations to ONNX's primitives on padded [batch, sequence, ...] tensors.
#include "onnx/export.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/int8.h"
#include "graph/relative_bias.h"

namespace octet::onnx {

namespace {

using octet::Op;
constexpr float kMasked = -10000.0f;  // as the reference adds to scores of padding
constexpr float kLowest = -3.4028234663852886e38f;

class Exporter {
 public:
  Exporter(const octet::Graph& graph, const ExportOptions& options) : graph_(graph), options_(options) {}

  File run() {
    check();
    name_.resize(graph_.values().size());
    for (const octet::Node& node : graph_.nodes())
      if (node.op == Op::attention_scores || node.op == Op::pool_mean || node.op == Op::pool_max) masked_ = true;
    bool typed = std::any_of(graph_.inputs().begin(), graph_.inputs().end(), [&](ValueId id) {
      return graph_.value(id).name == "type_ids" && !graph_.users(id).empty();
    });
    input("input_ids");
    if (masked_) input("attention_mask");
    if (typed) input("token_type_ids");
    for (ValueId id : graph_.inputs()) {
      const std::string& n = graph_.value(id).name;
      name_[static_cast<size_t>(id)] = n == "ids" ? "input_ids" : n == "type_ids" ? "token_type_ids" : n;
    }
    for (const octet::Node& node : graph_.nodes()) lower(node);
    for (const auto& [name, value] : graph_.outputs()) output(name, value);
    file_.ir_version = options_.opset >= 21 ? 10 : options_.opset >= 19 ? 9 : 8;
    file_.producer = "octet";
    file_.producer_version = OCTET_VERSION;
    file_.opsets[""] = options_.opset;
    file_.metadata = options_.metadata;
    file_.graph.name = graph_.name;
    return std::move(file_);
  }

 private:
  // ------------------------------------------------------------ what cannot be written
  void check() const {
    if (options_.opset < 13 || options_.opset > 23)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot export with opset " + std::to_string(options_.opset), .expected = "expected 13 to 23"});
    std::string list;
    for (const octet::Node& node : graph_.nodes()) {
      if (node.op != Op::fake_quant) continue;
      if (options_.half)
        fail(ErrorCode::invalid_argument, {.what = "cannot export quantizers in float16",
                                           .hint = "export float16 without a calibration, or QDQ in float32"});
      std::string type = node.text("type", "s8"), why;
      bool weight = graph_.is_parameter(node.input(0));
      if (!node.text("dynamic", "").empty()) why = "finds its range at run time; calibrate the model";
      else if (node.input(1) == kNone) why = "has no range; calibrate the model";
      else if (type != "s8" && type != "u8") why = "has type " + type + ", QDQ has 8 bits";
      else if (!weight && node.integer("lo", -128) != (type == "s8" ? -128 : 0)) why = "has a narrow range";
      if (!why.empty()) list += "\n    " + node.name + " " + why;
    }
    if (!list.empty())
      fail(ErrorCode::unsupported,
           {.what = "cannot write " + graph_.name + " as QDQ ONNX", .expected = "these quantizers do not fit:" + list});
  }

  // ------------------------------------------------------------ pieces of a file
  void input(const std::string& name) {
    file_.graph.inputs.push_back({name, ElemType::s64, true, {-1, -1}, {"batch", "sequence"}});
  }
  bool per_token(ValueId id) const { return graph_.value(id).type.shape.at(0) == kTokens; }
  int64_t width(ValueId id) const { return graph_.value(id).type.shape.at(1); }

  void output(const std::string& name, ValueId value) {
    // The value gets the output's name through a node of its own: it may have other readers.
    const std::string from = take(value);
    if (options_.half) node("Cast", "output/" + name, {from}, name, {integer("to", 1)});
    else node("Identity", "output/" + name, {from}, name);
    ValueInfo info{name, ElemType::f32, true, {-1, -1, width(value)}, {"batch", "sequence", ""}};
    if (!per_token(value)) info.shape = {-1, width(value)}, info.symbols = {"batch", ""};
    file_.graph.outputs.push_back(std::move(info));
  }

  static Attribute integer(const char* name, int64_t value) {
    Attribute a;
    a.kind = Attribute::Kind::integer, a.name = name, a.integer = value;
    return a;
  }
  static Attribute integers(const char* name, std::vector<int64_t> values) {
    Attribute a;
    a.kind = Attribute::Kind::integers, a.name = name, a.integers = std::move(values);
    return a;
  }
  static Attribute number(const char* name, double value) {
    Attribute a;
    a.kind = Attribute::Kind::number, a.name = name, a.number = value;
    return a;
  }
  static Attribute text(const char* name, const std::string& value) {
    Attribute a;
    a.kind = Attribute::Kind::text, a.name = name, a.text = value;
    return a;
  }

  /// Appends a node named "path/Op" whose output is called like it, or `out`.
  std::string node(const std::string& op, const std::string& name, std::vector<std::string> inputs,
                   const std::string& out = "", std::vector<Attribute> attributes = {}) {
    Node n;
    n.op = op, n.name = name, n.inputs = std::move(inputs);
    n.outputs = {out.empty() ? name + "_output" : out};
    n.attributes = std::move(attributes);
    file_.graph.nodes.push_back(std::move(n));
    return file_.graph.nodes.back().outputs[0];
  }

  std::string initializer(const std::string& name, ElemType type, Tensor data) {
    if (held_.insert(name).second) file_.graph.initializers.push_back({name, type, std::move(data)});
    return name;
  }
  std::string constant(const std::string& name, float value) {
    if (!options_.half) return initializer(name, ElemType::f32, Tensor::scalar(value));
    return initializer(name, ElemType::f16, half(Tensor::scalar(value)));
  }
  std::string constant32(const std::string& name, float value) {
    return initializer(name, ElemType::f32, Tensor::scalar(value));
  }
  std::string indices(const std::string& name, const std::vector<int64_t>& values, bool scalar = false) {
    std::byte* bytes = nullptr;
    Tensor t = Tensor::allocate(DType::s64, scalar ? Shape{} : Shape{static_cast<int64_t>(values.size())}, &bytes);
    std::copy(values.begin(), values.end(), reinterpret_cast<int64_t*>(bytes));
    return initializer(name, ElemType::s64, t);
  }
  static Tensor half(const Tensor& t) {
    std::vector<float> values = t.to_f32();
    std::byte* bytes = nullptr;
    Tensor out = Tensor::allocate(DType::f16, t.shape(), &bytes);
    for (size_t i = 0; i < values.size(); ++i) reinterpret_cast<uint16_t*>(bytes)[i] = f16_from_f32(values[i]);
    return out;
  }
  /// A parameter as the file's float type; norms keep float32.
  std::string parameter(ValueId id, bool keep32 = false) {
    Tensor t = graph_.parameter(id);
    const std::string& name = graph_.value(id).name;
    if (options_.half && !keep32) return initializer(name, ElemType::f16, half(t));
    return initializer(name, ElemType::f32, t.as_f32());
  }

  /// The ONNX name of a value; parameters are written on first use.
  std::string take(ValueId id) {
    std::string& name = name_[static_cast<size_t>(id)];
    if (!name.empty()) return name;
    if (graph_.is_parameter(id)) return name = parameter(id);
    OCTET_CHECK(false, "value " + graph_.value(id).name + " is used before it is made");
  }
  void set(const octet::Node& n, std::string name) { name_[static_cast<size_t>(n.output)] = std::move(name); }

  // ------------------------------------------------------------ quantizers
  struct Params {
    std::string scale, zero;
  };
  Params quantizer_params(const octet::Node& n) {
    std::vector<float> scale = graph_.parameter(n.input(1)).to_f32();
    for (float& s : scale)
      if (s == 0.0f) s = 1.0f;  // a tensor of zeros: every scale gives zeros, and ONNX divides by it
    bool is_unsigned = n.text("type", "s8") == "u8";
    Shape shape = graph_.parameter(n.input(1)).shape();
    std::byte* bytes = nullptr;
    Tensor zero = Tensor::allocate(is_unsigned ? DType::u8 : DType::s8, shape, &bytes);
    if (n.input(2) != kNone) {
      auto zeros = graph_.parameter(n.input(2)).as<int32_t>();
      for (size_t i = 0; i < zeros.size(); ++i) bytes[i] = static_cast<std::byte>(zeros[i]);
    }
    return {initializer(n.name + ".scale", ElemType::f32, Tensor::from(scale, shape)),
            initializer(n.name + ".zero_point", is_unsigned ? ElemType::u8 : ElemType::s8, zero)};
  }

  std::string quantize(const octet::Node& n, const std::string& x, int64_t axis) {
    Params p = quantizer_params(n);
    std::vector<Attribute> attributes;
    if (axis >= 0) attributes = {integer("axis", axis)};
    std::string q = node("QuantizeLinear", n.name + "/QuantizeLinear", {x, p.scale, p.zero}, "", attributes);
    return node("DequantizeLinear", n.name + "/DequantizeLinear", {q, p.scale, p.zero}, "", attributes);
  }

  void fake_quant(const octet::Node& n) {
    if (n.text("state", "on") == "off") return set(n, take(n.input(0)));
    int64_t axis = n.integer("axis", -1);
    if (graph_.is_parameter(n.input(0))) return weight_quantizer(n, axis);
    if (axis < 0 && operand_only(n.output)) return;  // placed where the product reads it
    if (axis >= 0 && per_token(n.input(0))) ++axis;  // [tokens, width] is [batch, sequence, width] there
    set(n, quantize(n, take(n.input(0)), axis));
  }

  /// Read by attention products alone: the quantizer then stands at the product, as in the reference.
  bool operand_only(ValueId id) const {
    std::vector<size_t> users = graph_.users(id);
    return !users.empty() && !graph_.is_output(id) && std::all_of(users.begin(), users.end(), [&](size_t u) {
      const octet::Node& user = graph_.nodes()[u];
      return (user.op == Op::attention_scores && (user.input(0) == id) != (user.input(1) == id)) ||
             (user.op == Op::attention_context && user.input(1) == id);
    });
  }
  const octet::Node* deferred(ValueId id) const {
    int64_t maker = graph_.producer(id);
    if (maker < 0) return nullptr;
    const octet::Node& n = graph_.node(static_cast<size_t>(maker));
    bool waits = n.op == Op::fake_quant && n.text("state", "on") == "on" && n.integer("axis", -1) < 0 &&
                 !graph_.is_parameter(n.input(0)) && operand_only(id);
    return waits ? &n : nullptr;
  }

  void weight_quantizer(const octet::Node& n, int64_t axis) {
    const std::string weight = graph_.value(n.input(0)).name;
    const bool columns = n.input(3) != kNone;
    std::string column_name;
    if (columns) column_name = initializer(n.name + ".column_scale", ElemType::f32, graph_.parameter(n.input(3)));
    std::string dequantized;
    if (options_.int8_weights) {
      Params p = quantizer_params(n);
      std::vector<Attribute> attributes;
      if (axis >= 0) attributes = {integer("axis", axis)};
      std::string q = initializer(weight, n.text("type", "s8") == "u8" ? ElemType::u8 : ElemType::s8, integers_of(n));
      dequantized = node("DequantizeLinear", n.name + "/DequantizeLinear", {q, p.scale, p.zero}, "", attributes);
    } else {
      std::string w = options_.half ? parameter(n.input(0)) : initializer(weight, ElemType::f32, agreed(n));
      if (columns) w = node("Mul", n.name + "/Mul", {w, column_name});
      dequantized = quantize(n, w, axis);
    }
    if (columns) dequantized = node("Div", n.name + "/Div", {dequantized, column_name});
    set(n, dequantized);
  }

  /// What quantizes the elements of a weight. Only axis 0 or none: placements give weights nothing else.
  struct Rounding {
    std::vector<float> scale, columns;
    std::vector<int32_t> zero;
    int64_t axis, inner = 1;
    int32_t lo, hi;

    size_t channel(size_t i) const { return axis < 0 ? 0 : (i / static_cast<size_t>(inner)) % scale.size(); }
    float column(size_t i) const {
      return columns.empty() ? 1.0f : columns[columns.size() == 1 ? 0 : i % columns.size()];
    }
    int32_t here(float value, size_t i) const {
      size_t c = channel(i);
      return int8::quantize(columns.empty() ? value : value * column(i), int8::inverse(scale[c]), zero[c], lo, hi);
    }
    /// As ONNX defines it: by division.
    int32_t there(float value, size_t i) const {
      size_t c = channel(i);
      float v = columns.empty() ? value : value * column(i);
      float r = std::nearbyint(v / (scale[c] == 0.0f ? 1.0f : scale[c])) + static_cast<float>(zero[c]);
      return static_cast<int32_t>(std::clamp(r, static_cast<float>(lo), static_cast<float>(hi)));
    }
  };
  Rounding rounding_of(const octet::Node& n) const {
    Rounding r;
    r.scale = graph_.parameter(n.input(1)).to_f32();
    r.zero.assign(r.scale.size(), 0);
    if (n.input(2) != kNone) {
      auto zeros = graph_.parameter(n.input(2)).as<int32_t>();
      r.zero.assign(zeros.begin(), zeros.end());
    }
    if (n.input(3) != kNone) r.columns = graph_.parameter(n.input(3)).to_f32();
    r.axis = n.integer("axis", -1);
    const Shape& shape = graph_.parameter(n.input(0)).shape();
    for (size_t i = static_cast<size_t>(r.axis) + 1; r.axis >= 0 && i < shape.size(); ++i) r.inner *= shape[i];
    r.lo = static_cast<int32_t>(n.integer("lo", -128)), r.hi = static_cast<int32_t>(n.integer("hi", 127));
    return r;
  }

  /// The weight, where octet and ONNX round every element to the same integer. octet multiplies by the inverse of the
  /// scale: about one element in a million lies so near a boundary that dividing rounds it to the other side. Those
  /// move off the boundary, by a few units in the last place.
  Tensor agreed(const octet::Node& n) const {
    Tensor w = graph_.parameter(n.input(0)).as_f32();
    const Rounding r = rounding_of(n);
    auto values = w.as<float>();
    Tensor out = w;
    float* to = nullptr;
    for (size_t i = 0; i < values.size(); ++i) {
      const int32_t wanted = r.here(values[i], i);
      if (r.there(values[i], i) == wanted) continue;
      const float column = r.column(i);
      if (column == 0.0f) continue;
      const float centre = static_cast<float>(wanted - r.zero[r.channel(i)]) * r.scale[r.channel(i)] / column;
      float moved = values[i];
      for (int step = 0; step < 16 && r.there(moved, i) != wanted; ++step) moved = std::nextafter(moved, centre);
      if (r.there(moved, i) != wanted || r.here(moved, i) != wanted) continue;
      if (to == nullptr) {
        std::byte* bytes = nullptr;
        out = Tensor::allocate(DType::f32, w.shape(), &bytes);
        to = reinterpret_cast<float*>(bytes);
        std::copy(values.begin(), values.end(), to);
      }
      to[i] = moved;
    }
    return out;
  }

  Tensor integers_of(const octet::Node& n) const {
    const Tensor& w = graph_.parameter(n.input(0));
    const Rounding r = rounding_of(n);
    std::vector<float> values = w.to_f32();
    bool is_unsigned = n.text("type", "s8") == "u8";
    std::byte* bytes = nullptr;
    Tensor out = Tensor::allocate(is_unsigned ? DType::u8 : DType::s8, w.shape(), &bytes);
    for (size_t i = 0; i < values.size(); ++i) bytes[i] = static_cast<std::byte>(r.here(values[i], i));
    return out;
  }

  // ------------------------------------------------------------ operations
  void lower(const octet::Node& n) {
    switch (n.op) {
      case Op::positions: return positions(n);
      case Op::embedding: return set(n, node("Gather", n.name + "/Gather", {take(n.input(0)), take(n.input(1))}));
      case Op::add: return set(n, node("Add", n.name + "/Add", {take(n.input(0)), take(n.input(1))}));
      case Op::layer_norm: return layer_norm(n);
      case Op::linear: return linear(n);
      case Op::gelu: return gelu(n);
      case Op::relu: return set(n, node("Relu", n.name + "/Relu", {take(n.input(0))}));
      case Op::tanh: return set(n, node("Tanh", n.name + "/Tanh", {take(n.input(0))}));
      case Op::relative_bias: return;  // written where it is read first
      case Op::attention_scores: return scores(n);
      case Op::softmax: return softmax(n);
      case Op::attention_context: return context(n);
      case Op::select_first:
        return set(n, node("Gather", n.name + "/Gather", {take(n.input(0)), indices("zero", {0}, true)}, "",
                           {integer("axis", 1)}));
      case Op::pool_mean: return pool_mean(n);
      case Op::pool_max: {
        std::string on = node("Cast", n.name + "/Cast", {mask(2)}, "", {integer("to", 9)});
        std::string kept = node("Where", n.name + "/Where", {on, take(n.input(0)), constant("lowest", lowest())});
        return set(n, node("ReduceMax", n.name + "/ReduceMax", reduced(kept, 1), "", reduce_axes(1, false)));
      }
      case Op::normalize: return normalize(n);
      case Op::fake_quant: return fake_quant(n);
    }
  }

  float lowest() const { return options_.half ? -65504.0f : kLowest; }

  // From opset 18 on the axes of reductions are an input (ReduceSum: from 13 on).
  std::vector<std::string> reduced(const std::string& x, int64_t axis, bool sum = false) {
    if (!sum && options_.opset < 18) return {x};
    return {x, indices(axis < 0 ? "last_axis" : "axis_" + std::to_string(axis), {axis})};
  }
  std::vector<Attribute> reduce_axes(int64_t axis, bool keep, bool sum = false) const {
    if (sum || options_.opset >= 18) return {integer("keepdims", keep)};
    return {integers("axes", {axis}), integer("keepdims", keep)};
  }

  /// The attention mask with `ones` axes of extent 1 in the middle (1: [B, S] as is; 2: [B, S, 1]).
  std::string mask(int kind) {
    if (kind == 2 && mask_column_.empty())
      mask_column_ = node("Unsqueeze", "mask_column/Unsqueeze", {"attention_mask", indices("last_axis", {-1})});
    return mask_column_;
  }
  /// Added to scores: 0 or -10000, [B, 1, 1, S].
  std::string score_mask() {
    if (!score_mask_.empty()) return score_mask_;
    std::string wide = node("Unsqueeze", "mask/Unsqueeze", {"attention_mask", indices("mask_axes", {1, 2})});
    std::string real = node("Cast", "mask/Cast", {wide}, "", {integer("to", options_.half ? 10 : 1)});
    std::string off = node("Sub", "mask/Sub", {constant("one", 1.0f), real});
    return score_mask_ = node("Mul", "mask/Mul", {off, constant("masked", kMasked)});
  }

  std::string length() {
    if (!length_.empty()) return length_;
    std::string shape = node("Shape", "length/Shape", {"input_ids"});
    return length_ = node("Gather", "length/Gather", {shape, indices("one_index", {1}, true)});
  }

  void positions(const octet::Node& n) {
    int64_t start = n.integer("start", 0), pad = n.integer("padding_id", -1);
    if (pad < 0) {
      std::string end = length(), first = indices("zero", {0}, true);
      if (start != 0) {
        first = indices("positions_start", {start}, true);
        end = node("Add", n.name + "/Add", {end, first});
      }
      std::string range = node("Range", n.name + "/Range", {first, end, indices("one_index", {1}, true)});
      return set(n, node("Unsqueeze", n.name + "/Unsqueeze", {range, indices("axis_0", {0})}));
    }
    std::string is_pad = node("Equal", n.name + "/Equal", {"input_ids", indices("padding_id", {pad}, true)});
    std::string text_only = node("Not", n.name + "/Not", {is_pad});
    std::string counts = node("Cast", n.name + "/Cast", {text_only}, "", {integer("to", 7)});
    std::string sum = node("CumSum", n.name + "/CumSum", {counts, indices("one_index", {1}, true)});
    if (start != pad + 1)
      sum = node("Add", n.name + "/AddStart", {sum, indices("positions_start", {start - 1 - pad}, true)});
    std::string kept = node("Mul", n.name + "/Mul", {sum, counts});
    set(n, node("Add", n.name + "/Add", {kept, indices("padding_id", {pad}, true)}));
  }

  void layer_norm(const octet::Node& n) {
    std::string x = take(n.input(0));
    std::string gamma = parameter(n.input(1), true), beta = parameter(n.input(2), true);
    auto epsilon = static_cast<float>(n.number("epsilon", 1e-12));
    if (options_.half) x = node("Cast", n.name + "/CastIn", {x}, "", {integer("to", 1)});
    std::string y;
    if (options_.opset >= 17) {
      y = node("LayerNormalization", n.name + "/LayerNormalization", {x, gamma, beta}, "",
               {integer("axis", -1), number("epsilon", epsilon)});
    } else {
      std::string mean = node("ReduceMean", n.name + "/ReduceMean", reduced(x, -1), "", reduce_axes(-1, true));
      std::string centred = node("Sub", n.name + "/Sub", {x, mean});
      std::string squared = node("Pow", n.name + "/Pow", {centred, constant32("two", 2.0f)});
      std::string variance =
          node("ReduceMean", n.name + "/ReduceMean_1", reduced(squared, -1), "", reduce_axes(-1, true));
      std::string safe = node("Add", n.name + "/Add", {variance, constant32(n.name + ".epsilon", epsilon)});
      std::string deviation = node("Sqrt", n.name + "/Sqrt", {safe});
      std::string unit = node("Div", n.name + "/Div", {centred, deviation});
      std::string scaled = node("Mul", n.name + "/Mul", {unit, gamma});
      y = node("Add", n.name + "/Add_1", {scaled, beta});
    }
    if (options_.half) y = node("Cast", n.name + "/CastOut", {y}, "", {integer("to", 10)});
    set(n, y);
  }

  void linear(const octet::Node& n) {
    std::string turned = node("Transpose", n.name + "/Transpose", {take(n.input(1))}, "", {integers("perm", {1, 0})});
    std::string y = node("MatMul", n.name + "/MatMul", {take(n.input(0)), turned});
    if (n.input(2) != kNone) y = node("Add", n.name + "/Add", {y, parameter(n.input(2))});
    set(n, y);
  }

  void gelu(const octet::Node& n) {
    std::string x = take(n.input(0)), form = n.text("approximate", "none");
    if (options_.opset >= 20) return set(n, node("Gelu", n.name + "/Gelu", {x}, "", {text("approximate", form)}));
    std::string inner;
    if (form == "tanh") {
      std::string cube = node("Pow", n.name + "/Pow", {x, constant("three", 3.0f)});
      std::string part = node("Mul", n.name + "/Mul", {cube, constant("gelu_cubic", 0.044715f)});
      std::string sum = node("Add", n.name + "/Add", {x, part});
      std::string scaled = node("Mul", n.name + "/Mul_1", {sum, constant("gelu_scale", 0.7978845608028654f)});
      inner = node("Tanh", n.name + "/Tanh", {scaled});
    } else {
      std::string scaled = node("Div", n.name + "/Div", {x, constant("sqrt_two", 1.4142135623730951f)});
      inner = node("Erf", n.name + "/Erf", {scaled});
    }
    std::string shifted = node("Add", n.name + "/Add_1", {inner, constant("one", 1.0f)});
    std::string doubled = node("Mul", n.name + "/Mul_2", {x, shifted});
    set(n, node("Mul", n.name + "/Mul_3", {doubled, constant("half", 0.5f)}));
  }

  /// [B, S, heads * d] -> [B, heads, S, d], or [B, heads, d, S].
  std::string split_heads(ValueId value, int64_t heads, const std::string& name, bool turned) {
    const octet::Node* quantizer = deferred(value);
    ValueId source = quantizer != nullptr ? quantizer->input(0) : value;
    int64_t d = width(source) / heads;
    std::string shaped =
        node("Reshape", name + "_Reshape",
             {take(source), indices("heads_" + std::to_string(heads) + "x" + std::to_string(d), {0, 0, heads, d})});
    std::string y =
        node("Transpose", name + "_Transpose", {shaped}, "",
             {integers("perm", turned ? std::vector<int64_t>{0, 2, 3, 1} : std::vector<int64_t>{0, 2, 1, 3})});
    return quantizer != nullptr ? quantize(*quantizer, y, -1) : y;
  }

  void scores(const octet::Node& n) {
    int64_t heads = n.integer("heads", 1);
    std::string q = split_heads(n.input(0), heads, n.name + "/q", false);
    std::string k = split_heads(n.input(1), heads, n.name + "/k", true);
    std::string y = node("MatMul", n.name + "/MatMul", {q, k});
    auto scale = static_cast<float>(n.number("scale", 1.0));
    y = node("Mul", n.name + "/Mul", {y, constant(n.name + ".scale", scale)});
    if (n.input(3) != kNone) {
      if (bias_.find(n.input(3)) == bias_.end() && graph_.value(n.input(3)).type.shape.size() == 2) {
        // Only the distance counts: [heads, 2L-1] is read at key - query + L - 1.
        bias_[n.input(3)] = node("Gather", n.name + "/bias", {bias_by_distance(n.input(3)), distances(n.input(3))}, "",
                                 {integer("axis", 1)});
      } else if (bias_.find(n.input(3)) == bias_.end()) {
        std::string ends = node("Unsqueeze", n.name + "/bias_end", {length(), indices("axis_0", {0})});
        ends = node("Concat", n.name + "/bias_ends", {ends, ends}, "", {integer("axis", 0)});
        bias_[n.input(3)] =
            node("Slice", n.name + "/bias",
                 {take(n.input(3)), indices("bias_starts", {0, 0}), ends, indices("bias_axes", {1, 2})});
      }
      y = node("Add", n.name + "/AddBias", {y, bias_.at(n.input(3))});
    }
    set(n, node("Add", n.name + "/AddMask", {y, score_mask()}));
  }

  std::string bias_by_distance(ValueId id) {
    if (graph_.is_parameter(id) || !name_[static_cast<size_t>(id)].empty()) return take(id);
    const octet::Node& n = graph_.node(static_cast<size_t>(graph_.producer(id)));
    Tensor bias = octet::relative_bias(n, graph_.parameter(n.input(0)));
    const std::string& name = graph_.value(id).name;
    set(n, options_.half ? initializer(name, ElemType::f16, half(bias)) : initializer(name, ElemType::f32, bias));
    return take(id);
  }

  /// Places in a bias by distance, [S, S].
  std::string distances(ValueId bias) {
    const int64_t middle = graph_.value(bias).type.shape.at(1) / 2;
    std::string& made = distances_[middle];
    if (!made.empty()) return made;
    const std::string path = "distances_" + std::to_string(middle);
    std::string tokens =
        node("Range", path + "/Range", {indices("zero", {0}, true), length(), indices("one_index", {1}, true)});
    std::string queries = node("Unsqueeze", path + "/Unsqueeze", {tokens, indices("last_axis", {-1})});
    std::string apart = node("Sub", path + "/Sub", {tokens, queries});
    return made = node("Add", path + "/Add", {apart, indices("middle_" + std::to_string(middle), {middle}, true)});
  }

  void softmax(const octet::Node& n) {
    std::string x = take(n.input(0));
    if (options_.half) x = node("Cast", n.name + "/CastIn", {x}, "", {integer("to", 1)});
    std::string y = node("Softmax", n.name + "/Softmax", {x}, "", {integer("axis", -1)});
    if (options_.half) y = node("Cast", n.name + "/CastOut", {y}, "", {integer("to", 10)});
    set(n, y);
  }

  void context(const octet::Node& n) {
    int64_t heads = n.integer("heads", 1);
    std::string v = split_heads(n.input(1), heads, n.name + "/v", false);
    std::string y = node("MatMul", n.name + "/MatMul", {take(n.input(0)), v});
    y = node("Transpose", n.name + "/Transpose", {y}, "", {integers("perm", {0, 2, 1, 3})});
    int64_t wide = width(n.output);
    set(n, node("Reshape", n.name + "/Reshape", {y, indices("joined_" + std::to_string(wide), {0, 0, wide})}));
  }

  void pool_mean(const octet::Node& n) {
    std::string on = node("Cast", n.name + "/Cast", {mask(2)}, "", {integer("to", options_.half ? 10 : 1)});
    std::string kept = node("Mul", n.name + "/Mul", {take(n.input(0)), on});
    std::string sum = node("ReduceSum", n.name + "/ReduceSum", reduced(kept, 1, true), "", reduce_axes(1, false, true));
    std::string count =
        node("ReduceSum", n.name + "/ReduceSum_1", reduced(on, 1, true), "", reduce_axes(1, false, true));
    set(n, node("Div", n.name + "/Div", {sum, count}));
  }

  void normalize(const octet::Node& n) {
    std::string x = take(n.input(0));
    std::string norm = node("ReduceL2", n.name + "/ReduceL2", reduced(x, -1), "", reduce_axes(-1, true));
    // The smallest number of float16 that is not zero stands for the norm of zeros there.
    std::string safe = node("Max", n.name + "/Max", {norm, constant("tiny_norm", options_.half ? 6e-8f : 1e-12f)});
    set(n, node("Div", n.name + "/Div", {x, safe}));
  }

  const octet::Graph& graph_;
  const ExportOptions& options_;
  File file_;
  bool masked_ = false;
  std::vector<std::string> name_;  // by value
  std::set<std::string> held_;     // initializers written
  std::map<ValueId, std::string> bias_;
  std::map<int64_t, std::string> distances_;  // by the middle
  std::string mask_column_, score_mask_, length_;
};

}  // namespace

File export_graph(const octet::Graph& graph, const ExportOptions& options) { return Exporter(graph, options).run(); }

}  // namespace octet::onnx
