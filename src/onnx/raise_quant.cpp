// Quantizers of the file, of activations and weights, fixed and found at run time.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "onnx/raiser.h"

namespace octet::onnx {

namespace {

using Kind = Value::Kind;

}  // namespace

Value Raiser::released(const Value& x) {
  if (!x.held) return x;
  Value plain = x;
  plain.held = nullptr;
  plain = settled(plain);
  auto key = std::pair(plain.id, static_cast<const Value*>(x.held.get()));
  if (auto found = released_.find(key); found != released_.end()) {
    plain.id = found->second;
    return plain;
  }
  held_alive_.push_back(x.held);
  Value y = fake_quant(plain, x.held->scale, x.held->zero, x.held->data.type, static_cast<int64_t>(x.held->add),
                       x.held->node_name);
  released_[key] = y.id;
  return y;
}

// Between a product and its bias: a kernel adds the bias before it rounds.
bool Raiser::drops_bias_quantizer(const Value& x, const Value& other) const {
  int64_t width = 0;
  return other.kind == Kind::known && x.product && x.product->bias.empty() && vector_along_features(other, x, &width);
}

// ---------------------------------------------------------------- quantizers
Value Raiser::quantize() {
  const Value &x = arg(0), &scale = arg(1);
  if (scale.kind != Kind::known || (has(2) && arg(2).kind != Kind::known)) refuse("a scale that depends on the text");
  if (!scale.data.real() || (has(2) && arg(2).data.real())) refuse("a scale of integers or a zero point of floats");
  Value y;
  y.kind = Kind::quantized;
  y.inner = std::make_shared<Value>(x);
  y.scale = scale.data;
  if (has(2)) y.zero = arg(2).data;
  else {
    int64_t* out = nullptr;
    y.zero = Array::make(ElemType::u8, scale.data.shape, &out);
  }
  y.add = static_cast<double>(node_->integer("axis", 1));
  y.node_name = node_name(*node_);
  y.order = order_;
  return y;
}

Value Raiser::dequantize() {
  const Value& x = arg(0);
  if (!has(1) || arg(1).kind != Kind::known || (has(2) && arg(2).kind != Kind::known))
    refuse("a scale that depends on the text");
  if (!arg(1).data.real() || (has(2) && arg(2).data.real())) refuse("a scale of integers or a zero point of floats");
  int64_t axis = node_->integer("axis", 1);
  auto make_quant = [&](const std::string& name, const Array& scale, const Array& zero, int64_t along, size_t rank,
                        int order) {
    auto q = std::make_shared<WeightQuant>();
    q->name = name;
    bool one = scale.count() == 1 && (scale.shape.empty() || rank < 2 || true);
    q->axis = scale.shape.empty() || (one && scale.shape.size() == 1 && along < 0) ? -1 : along;
    q->scale = scale, q->zero = zero;
    q->type = zero.empty() ? ElemType::u8 : zero.type;
    q->order = order;
    return q;
  };
  if (x.kind == Kind::quantized && x.plain) {
    if (arg(1).data.count() != 1) refuse("a table with scales that octet cannot follow");
    Value table = *x.plain;
    std::vector<Array> inputs{table.data, arg(1).data};
    if (has(2)) inputs.push_back(arg(2).data);
    std::string origin = table.origin;
    ElemType type = table.data.type;
    table.data = evaluate(*node_, inputs, file_.opset())[0];
    int64_t* none = nullptr;
    Array zero = has(2) ? arg(2).data.reshaped({}) : Array::make(type, {}, &none);
    table.quant = make_quant(x.node_name + "._weight_quantizer", arg(1).data.reshaped({}), zero, -1, 2, order_);
    return embed(table, *x.inner);
  }
  if (x.kind == Kind::quantized) {
    const Array &a = x.scale, &b = arg(1).data;
    bool same = a.count() == b.count() && std::equal(a.f.data(), a.f + a.count(), b.f.data());
    if (has(2))
      same = same && arg(2).data.count() == x.zero.count() &&
             std::equal(x.zero.i, x.zero.i + x.zero.count(), arg(2).data.i);
    if (!same) refuse("a tensor is dequantized by another scale than it was quantized by");
    if (x.inner->kind == Kind::known) {
      Value y = *x.inner;
      if (y.shape.size() == 2 && !y.turned && plain(y) && (!y.origin.empty() || y.plain)) {
        y.scale = y.plain ? y.scale : Array();
        y.quant = make_quant(x.node_name, x.scale, x.zero, x.scale.shape.empty() ? -1 : axis_of(axis, 2), 2, x.order);
        if (x.scale.count() == 1 && y.data.shape[static_cast<size_t>(std::max<int64_t>(0, y.quant->axis))] != 1) {
          y.quant->axis = -1;
          y.quant->scale = x.scale.reshaped({});
          if (!y.quant->zero.empty()) y.quant->zero = x.zero.reshaped({});
        }
        return y;
      }
      // Small constants: computed.
      Node q = *node_;
      q.op = "QuantizeLinear";
      q.outputs = {"q"};
      Value stored = y.turned ? straight(y) : y;
      Array data = x.scale.count() == 1 ? stored.data : whole(stored);
      Array ints = evaluate(q, {data, x.scale, x.zero}, file_.opset())[0];
      Value out = y;
      out.data = evaluate(*node_, {ints, x.scale, x.zero}, file_.opset())[0];
      out.origin.clear();
      out.turned = false;
      out.shape = shape_of(y);
      return out;
    }
    if (x.inner->kind == Kind::view && x.inner->product && !x.inner->product->is_scores && x.scale.count() == 1) {
      Value y = *x.inner;
      y.held = std::make_shared<Value>();
      y.held->scale = x.scale, y.held->zero = x.zero;
      y.held->data.type = x.zero.type;
      y.held->add = -1;
      y.held->node_name = x.node_name;
      return y;
    }
    return fake_quant(*x.inner, x.scale, x.zero, x.zero.type, x.scale.count() == 1 ? -1 : axis, x.node_name);
  }
  if (x.kind != Kind::known) refuse("it dequantizes what is not quantized");
  Value stored = x.turned ? straight(x) : x;
  std::vector<Array> inputs{stored.data, arg(1).data};
  if (has(2)) inputs.push_back(arg(2).data);
  Value out = known(evaluate(*node_, inputs, file_.opset())[0]);
  out.origin = x.origin;
  if (!x.turned) out.shape = x.shape;
  bool bytes = stored.data.type == ElemType::s8 || stored.data.type == ElemType::u8;
  if (bytes && out.shape.size() == 2) {
    const Array& s = arg(1).data;
    int64_t along = s.count() == 1 ? -1 : axis_of(axis, 2);
    if (s.count() == 1 && s.shape.size() == 1 && out.data.shape[static_cast<size_t>(axis_of(axis, 2))] == 1)
      along = axis_of(axis, 2);
    Array scale = along < 0 ? s.reshaped({}) : s, zero;
    if (has(2)) zero = along < 0 ? arg(2).data.reshaped({}) : arg(2).data;
    else {
      int64_t* z = nullptr;
      zero = Array::make(stored.data.type, scale.shape, &z);
    }
    out.quant = make_quant(node_name(*node_), scale, zero, along, 2, order_);
    if (out.quant->axis != along) out.quant->axis = along;
  }
  return out;
}

Value Raiser::fake_quant(const Value& x, const Array& scale, const Array& zero, ElemType type, int64_t axis,
                         const std::string& name) {
  if (x.kind != Kind::view || (x.form == 's' && x.product)) {
    // Inside GELU, LayerNorm or before softmax: those are computed in float as one.
    notes_.push_back("quantizer " + name + " stands inside an operation that octet computes as one, and is left out");
    return x;
  }
  if (type != ElemType::s8 && type != ElemType::u8) refuse("a quantizer of " + onnx::name(type));
  Value y = settled(x);
  if (x.form == 's' && y.id == kNone) refuse("scores are quantized before their softmax");
  double factor = y.pending;
  if (factor < 0) refuse("a quantizer behind a negative factor");
  bool shift = type == ElemType::u8 && std::all_of(zero.i, zero.i + zero.count(), [](int64_t z) { return z == 128; });
  bool is_signed = type == ElemType::s8 || shift;
  Attributes attributes{{"type", std::string(is_signed ? "s8" : "u8")},
                        {"lo", int64_t{is_signed ? -128 : 0}},
                        {"hi", int64_t{is_signed ? 127 : 255}}};
  Shape shape;
  if (axis >= 0 || scale.count() > 1) {
    auto d = static_cast<size_t>(axis_of(axis, y.axes.size()));
    std::vector<Atom> f = features(y);
    if (f.size() != 1 || y.axes[d] != Axis{f[0]} || f[0].extent != scale.count())
      refuse("scales along an axis of the text");
    attributes["axis"] = int64_t{1};
    shape = {scale.count()};
  }
  std::vector<float> values(scale.f.data(), scale.f + scale.count());
  for (float& v : values) v = factor == 1 ? v : static_cast<float>(v / factor);
  std::vector<ValueId> inputs{y.id, kNone};
  std::string own = unique(name.empty() ? "quantizer" : name, node_names_);
  inputs[1] = parameter(own + ".scale", Tensor::from(values, shape));
  std::vector<int32_t> zeros(static_cast<size_t>(scale.count()), 0);
  bool any = false;
  for (int64_t i = 0; i < zero.count() && !shift; ++i) {
    zeros[static_cast<size_t>(zero.count() == 1 ? 0 : i)] = static_cast<int32_t>(zero.i[i]);
    any = any || zero.i[i] != 0;
  }
  if (any) inputs.push_back(parameter(own + ".zero_point", Tensor::from(zeros, shape)));
  y.id = emit(octet::Op::fake_quant, own, inputs, attributes, order_);
  return y;
}

std::vector<Value> Raiser::dynamic_quantize() {
  const Value& x = arg(0);
  if (x.kind != Kind::view || x.pending != 1) refuse("it quantizes what octet cannot follow");
  Value s = settled(x), q = s, scale = s, zero = s;
  q.kind = Kind::dynamic_q, scale.kind = Kind::dynamic_scale, zero.kind = Kind::dynamic_zero;
  q.inner = std::make_shared<Value>(s);
  q.node_name = node_name(*node_);
  q.order = order_;
  return {q, scale, zero};
}

Value Raiser::matmul_integer() {
  const Value &a = arg(0), &b = arg(1);
  if (a.kind != Kind::dynamic_q || b.kind != Kind::known || b.data.real() || b.shape.size() != 2 || b.turned)
    refuse("an integer product that octet cannot follow");
  if (has(2) && arg(2).kind != Kind::dynamic_zero) refuse("a zero point that octet cannot follow");
  Value y = *a.inner;
  ValueId id = emit(
      octet::Op::fake_quant, unique(node_name(*node_) + "._input_quantizer", node_names_), {a.inner->id},
      {{"type", std::string("s8")}, {"lo", int64_t{-127}}, {"hi", int64_t{127}}, {"dynamic", std::string("token")}},
      a.order);
  static const char* kNote = "ranges found at run time are a token's own, symmetric, where the file has one a tensor";
  if (std::find(notes_.begin(), notes_.end(), kNote) == notes_.end()) notes_.emplace_back(kNote);
  y.kind = Kind::integer_product;
  y.id = id;
  y.inner = std::make_shared<Value>(b);
  if (has(3)) y.zero = arg(3).data;
  y.node_name = node_name(*node_);
  return y;
}

}  // namespace octet::onnx
