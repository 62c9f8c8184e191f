// Factors, powers and reductions of text: the arithmetic of LayerNorm, GELU, softmax and pooling.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "onnx/raiser.h"

namespace octet::onnx {

namespace {

using Kind = Value::Kind;

bool close(double a, double b) { return std::fabs(a - b) <= 1e-3 * std::fabs(b); }

}  // namespace

// ---------------------------------------------------------------- factors
Value Raiser::multiply_values(const Value& a, const Value& b) {
  if (a.kind == Kind::known) return multiply_known(b, a);
  if (b.kind == Kind::known) return multiply_known(a, b);
  auto either = [&](Kind p, Kind q) { return (a.kind == p && b.kind == q) || (a.kind == q && b.kind == p); };
  const Value& view = a.kind == Kind::view || a.kind == Kind::centred ? a : b;
  const Value& other = &view == &a ? b : a;
  if (either(Kind::centred, Kind::inverse)) {
    Value y = other;
    y.kind = Kind::normed;
    return y;
  }
  if (a.kind == Kind::centred && b.kind == Kind::centred && same_view(a, b)) {
    Value y = a;
    y.kind = Kind::squared;
    return y;
  }
  if (either(Kind::centred, Kind::inverse_gamma)) {
    Value y = other;
    y.kind = Kind::scaled;
    return y;
  }
  if (either(Kind::view, Kind::inverse_gamma) && same_view(settled(view), other)) {
    Value y = other;
    y.kind = Kind::x_gamma;
    return y;
  }
  if (either(Kind::mean, Kind::inverse_gamma)) {
    Value y = a.kind == Kind::inverse_gamma ? a : b;
    y.kind = Kind::mean_gamma;
    return y;
  }
  if (either(Kind::pad_count, Kind::pad_flag)) {
    Value y = a.kind == Kind::pad_count ? a : b;
    y.kind = Kind::pad_place;
    return y;
  }
  if (either(Kind::dynamic_scale, Kind::known)) refuse("a scale that octet cannot follow");
  if (either(Kind::integer_product, Kind::dynamic_scale)) {
    const Value &p = a.kind == Kind::integer_product ? a : b, &s = a.kind == Kind::integer_product ? b : a;
    if (s.scale.empty()) refuse("an integer product without the weight's scale");
    // The weight in floats, with its quantizer.
    Value w = *p.inner;
    auto quant = std::make_shared<WeightQuant>();
    quant->name = p.node_name + "._weight_quantizer";
    quant->scale = s.scale;
    quant->zero = p.zero;
    quant->type = w.data.type;
    quant->axis = s.scale.count() == 1 ? -1 : 1;
    int64_t n = w.data.shape[1];
    if (s.scale.count() != 1 && s.scale.count() != n) refuse("scales of another number");
    if (quant->zero.count() > 1 && quant->axis < 0) refuse("a zero point a column without scales a column");
    float* out = nullptr;
    Array real = Array::make(ElemType::f32, w.data.shape, &out);
    for (int64_t i = 0; i < real.count(); ++i)
      out[i] = static_cast<float>(w.data.i[i] -
                                  (quant->zero.empty() ? 0 : quant->zero.i[quant->zero.count() == 1 ? 0 : i % n])) *
               s.scale.f[s.scale.count() == 1 ? 0 : i % n];
    if (quant->axis < 0)
      quant->scale = s.scale.reshaped({}), quant->zero = quant->zero.empty() ? quant->zero : quant->zero.reshaped({});
    w.data = real;
    w.quant = quant;
    w.turned = false;
    Value x = view_of(p.id, p.axes, p.form);
    bool asymmetric = false;
    for (int64_t i = 0; !quant->zero.empty() && i < quant->zero.count(); ++i)
      asymmetric = asymmetric || quant->zero.i[i] != (quant->type == ElemType::u8 ? 128 : 0);
    if (asymmetric) {
      // No kernel multiplies weights with a zero point: they stay what they dequantize to.
      x.id = graph_.node(static_cast<size_t>(graph_.producer(p.id))).input(0);
      static const char* kWhy = "weights with a zero point are multiplied in float";
      if (std::find(notes_.begin(), notes_.end(), kWhy) == notes_.end()) notes_.emplace_back(kWhy);
    }
    int keep = order_;
    Value y = linear(x, w, false, p.node_name);
    order_ = keep;
    return y;
  }
  if (a.kind == Kind::view && b.kind == Kind::view && same_view(settled(a), settled(b))) {
    Value y = settled(a);
    y.kind = Kind::poly;
    y.c[2] = a.pending * b.pending;
    y.pending = 1;
    return y;
  }
  if (either(Kind::view, Kind::poly) || (a.kind == Kind::poly && b.kind == Kind::poly)) {
    auto coefficients = [&](const Value& v, double* c) {
      if (v.kind == Kind::poly) std::copy(v.c, v.c + 4, c);
      else c[1] = v.pending;
    };
    double p[4] = {}, q[4] = {};
    coefficients(a, p), coefficients(b, q);
    Value y = a.kind == Kind::poly ? a : b;
    if (!same_view(settled(a.kind == Kind::poly ? b : a), y)) refuse("a product of texts");
    double c[7] = {};
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) c[i + j] += p[i] * q[j];
    if (c[4] != 0 || c[5] != 0 || c[6] != 0) refuse("a power that octet cannot follow");
    std::copy(c, c + 4, y.c);
    return y;
  }
  for (Kind form : {Kind::erf, Kind::tanh_gelu})
    if (either(Kind::view, form)) {
      Value x = settled(view);
      if (!same_view(x, other) || !close(other.add, 1)) refuse("a product of texts");
      std::string name = node_name(*node_);
      ValueId id = emit(octet::Op::gelu, name, {other.id},
                        {{"approximate", std::string(form == Kind::erf ? "none" : "tanh")}}, order_);
      Value y = view_of(id, other.axes, other.form);
      y.pending = 2 * x.pending * other.factor;
      if (close(y.pending, 1)) y.pending = 1;
      return y;
    }
  if (view.kind == Kind::view && other.kind == Kind::pad_flag && !other.flag) return view;
  refuse("a product of texts");
}

Value Raiser::multiply_known(const Value& x, const Value& k) {
  double number = 0;
  bool constant = constant_value(k, &number);
  if (constant && number == 1 && x.kind != Kind::normed && x.kind != Kind::inverse) return x;
  Value y = x;
  switch (x.kind) {
    case Kind::view:
      if (!constant || !std::isfinite(number)) refuse("a product with a vector");
      y.pending *= number;
      if (close(y.pending, 1)) y.pending = 1;
      return y;
    case Kind::poly:
      if (!constant) refuse("a product with a vector");
      for (double& c : y.c) c *= number;
      return y;
    case Kind::erf:
    case Kind::tanh_gelu:
      if (!constant) refuse("a product with a vector");
      y.factor *= number;
      return y;
    case Kind::normed:
    case Kind::inverse: {
      y.kind = x.kind == Kind::normed ? Kind::scaled : Kind::inverse_gamma;
      Array flat = whole(k);
      int64_t width = 1;
      for (const Atom& a : features(x)) width *= a.extent;
      if (flat.count() != width) refuse("a LayerNorm whose gamma octet cannot follow");
      y.gamma = flat.reshaped({width});
      y.gamma_name = k.origin;
      return y;
    }
    case Kind::dynamic_scale:
      if (!y.scale.empty()) refuse("a scale that octet cannot follow");
      y.scale = k.data.reshaped({k.data.count()});
      return y;
    case Kind::pad_flag: {
      // Masks made of ids: nothing is padding in a text.
      return uniform(0, k.data.type, shape_of(x));
    }
    default: refuse("a product that octet cannot follow");
  }
}

Value Raiser::divide_values(const Value& a, const Value& b) {
  double number = 0;
  if (b.kind == Kind::known && b.length_power == 1 && a.kind == Kind::view && a.sum_length == 1) {
    for (int64_t i = 0; i < b.data.count(); ++i)
      if (b.data.at(i) != 1) refuse("a mean that octet cannot follow");
    Value y = a;
    y.sum_length = 0;
    return y;
  }
  if (b.kind == Kind::extents && a.kind == Kind::view && a.sum_length == 1) {
    Value y = a;
    y.sum_length = 0;
    if (!(b.numbers.at(0) == tokens_)) refuse("a mean that octet cannot follow");
    return y;
  }
  if (b.kind == Kind::known && constant_value(b, &number) && number != 0) {
    if (a.kind == Kind::view || a.kind == Kind::poly || a.kind == Kind::erf || a.kind == Kind::tanh_gelu) {
      if (a.kind == Kind::view && a.sum_length == 1 && fixed_ && number == static_cast<double>(length_)) {
        Value y = a;
        y.sum_length = 0;
        return y;
      }
      Value y = a;
      if (a.kind == Kind::view) {
        y.pending /= number;
        if (close(y.pending, 1)) y.pending = 1;
      } else if (a.kind == Kind::poly) {
        for (double& c : y.c) c /= number;
      } else {
        y.factor /= number;
      }
      return y;
    }
  }
  if (a.kind == Kind::centred && b.kind == Kind::deviation && same_view(a, b)) {
    Value y = b;
    y.kind = Kind::normed;
    return y;
  }
  if (a.kind == Kind::known && b.kind == Kind::deviation && constant_value(a, &number) && number == 1) {
    Value y = b;
    y.kind = Kind::inverse;
    return y;
  }
  if (a.kind == Kind::view && b.kind == Kind::norm2 && !b.flag && same_view(settled(a), b)) {
    ValueId id = emit(octet::Op::normalize, node_name(*node_), {b.id}, {}, order_);
    return view_of(id, b.axes, b.form);
  }
  refuse("a quotient that octet cannot follow");
}

Value Raiser::power() {
  double e = 0;
  if (arg(1).kind != Kind::known || !constant_value(arg(1), &e)) refuse("a power that octet cannot follow");
  Value y = arg(0).kind == Kind::view ? settled(arg(0)) : arg(0);
  if (y.kind == Kind::centred && e == 2) return y.kind = Kind::squared, y;
  if (y.kind == Kind::variance && e == 0.5) return y.kind = Kind::deviation, y;
  if (y.kind == Kind::variance && e == -0.5) return y.kind = Kind::inverse, y;
  if (y.kind == Kind::view && (e == 2 || e == 3)) {
    y.kind = Kind::poly;
    y.c[static_cast<int>(e)] = std::pow(y.pending, e);
    y.pending = 1;
    return y;
  }
  refuse("a power that octet cannot follow");
}

Value Raiser::tanh_text() {
  const Value& x = arg(0);
  if (x.kind == Kind::poly) {
    constexpr double kScale = 0.7978845608028654;
    if (x.c[0] != 0 || x.c[2] != 0 || !close(x.c[1], kScale) || !close(x.c[3], kScale * 0.044715))
      refuse("a tanh that is no GELU");
    Value y = x;
    y.kind = Kind::tanh_gelu;
    y.factor = 1, y.add = 0;
    return y;
  }
  if (x.kind != Kind::view || x.form == 's') refuse("a tanh that octet cannot follow");
  return view_of(emit(octet::Op::tanh, node_name(*node_), {settle_plain(x)}, {}, order_), settled(x).axes, x.form);
}

// ---------------------------------------------------------------- norms and pools
Value Raiser::reduce_text() {
  const Value& x = arg(0);
  const std::string& op = node_->op;
  std::vector<int64_t> axes = axes_of(1);
  bool keep = node_->integer("keepdims", 1) != 0;
  if (axes.size() != 1 || x.axes.empty()) refuse("a reduction that octet cannot follow");
  auto d = static_cast<size_t>(axis_of(axes[0], x.axes.size()));
  bool over_features = !x.axes[d].empty();
  for (const Atom& a : x.axes[d]) over_features = over_features && a.kind == 'F';
  over_features = over_features && features(x).size() == x.axes[d].size();
  if (over_features && op == "ReduceMean") {
    if (x.kind == Kind::squared) {
      Value y = x;
      y.kind = Kind::variance;
      y.epsilon = 0;
      return y;
    }
    if (x.kind != Kind::view || x.pending != 1) refuse("a mean that octet cannot follow");
    Value y = settled(x);
    y.kind = Kind::mean;
    y.order = order_;
    return y;
  }
  if (over_features && (op == "ReduceL2" || op == "ReduceSumSquare" || (op == "ReduceSum" && x.kind == Kind::poly))) {
    if (x.kind == Kind::poly ? (x.c[0] != 0 || x.c[1] != 0 || x.c[3] != 0 || x.c[2] != 1)
                             : (x.kind != Kind::view || x.pending != 1))
      refuse("a norm that octet cannot follow");
    Value y = x.kind == Kind::poly ? x : settled(x);
    y.kind = Kind::norm2;
    y.flag = op != "ReduceL2";
    if (y.form != 'r') refuse("it normalizes tokens");
    return y;
  }
  if (x.kind == Kind::view && x.form == 't' && x.axes[d].size() == 1 && x.axes[d][0].kind == 'L') {
    octet::Op pool = op == "ReduceMax" ? octet::Op::pool_max : octet::Op::pool_mean;
    if (op != "ReduceMax" && op != "ReduceMean" && op != "ReduceSum") refuse("a pooling that octet lacks");
    if (op == "ReduceMax" && x.pending < 0) refuse("a pooling that octet cannot follow");
    ValueId id = settle(x);
    Value s = settled(x);
    Value y = view_of(emit(pool, node_name(*node_), {id, offsets_}, {}, order_), s.axes, 'r');
    y.pending = x.pending;
    y.sum_length = op == "ReduceSum" ? 1 : 0;
    if (keep) y.axes[d].clear();
    else y.axes.erase(y.axes.begin() + static_cast<int64_t>(d));
    return y;
  }
  refuse("a reduction that octet cannot follow");
}

Value Raiser::normalized() {
  const Value& x = arg(0);
  if (x.kind != Kind::view || x.form == 's') refuse("it reads what octet cannot follow");
  int64_t axis = axis_of(node_->integer("axis", -1), x.axes.size());
  if (axis != static_cast<int64_t>(x.axes.size()) - 1) refuse("it normalizes more than the last axis");
  std::string name = node_name(*node_);
  if (has(1)) name_by(arg(1).origin, ".weight", &name);
  if (node_->op == "LpNormalization") {
    if (x.form != 'r' || node_->integer("p", 2) != 2) refuse("a norm that octet lacks");
    return view_of(emit(octet::Op::normalize, name, {settle(x)}, {}, order_), settled(x).axes, 'r');
  }
  if (arg(1).kind != Kind::known) refuse("a gamma that octet cannot follow");
  Array gamma = whole(arg(1)), beta;
  std::string beta_name;
  if (has(2)) {
    beta = whole(arg(2));
    beta_name = arg(2).origin;
  } else {
    float* out = nullptr;
    beta = Array::make(ElemType::f32, gamma.shape, &out);
  }
  ValueId id = settle_plain(x);
  ValueId g = parameter(arg(1).origin.empty() ? name + ".weight" : arg(1).origin, gamma.reshaped({gamma.count()}));
  ValueId b = parameter(beta_name.empty() ? name + ".bias" : beta_name, beta.reshaped({beta.count()}));
  double epsilon = static_cast<float>(node_->number("epsilon", 1e-5));
  return view_of(emit(octet::Op::layer_norm, name, {id, g, b}, {{"epsilon", epsilon}}, order_), settled(x).axes,
                 x.form);
}

Value Raiser::where_text() {
  const Value& condition = arg(0);
  double on = 0;
  if (condition.kind == Kind::pad_flag) return condition.flag ? arg(2) : arg(1);
  if (condition.kind != Kind::known || !constant_value(condition, &on))
    refuse("it chooses by what octet cannot follow");
  const Value& chosen = arg(on != 0 ? 1 : 2);
  if (chosen.kind == Kind::known) return known_shaping({&chosen});
  return chosen;
}

namespace {

/// [heads, L, L] as [heads, 2L-1] by key - query + L - 1, where only the distance counts.
Array by_distance(const Array& bias) {
  const int64_t heads = bias.shape[0], length = bias.shape[1], width = 2 * length - 1;
  auto at = [&](int64_t h, int64_t i, int64_t j) { return bias.f[(h * length + i) * length + j]; };
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 1; i < length; ++i)
      for (int64_t j = 1; j < length; ++j)
        if (at(h, i, j) != at(h, i - 1, j - 1)) return bias;
  float* out = nullptr;
  Array made = Array::make(ElemType::f32, {heads, width}, &out);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t d = 1 - length; d < length; ++d) *out++ = d < 0 ? at(h, -d, 0) : at(h, 0, d);
  return made;
}

}  // namespace

Value Raiser::softmax_text() {
  const Value& x = arg(0);
  int64_t axis = node_->integer("axis", file_.opset() < 13 ? 1 : -1);
  if (x.kind != Kind::view || x.form != 's' || !x.product ||
      axis_of(axis, x.axes.size()) != static_cast<int64_t>(x.axes.size()) - 1)
    refuse("a softmax outside attention");
  Product& p = *x.product;
  bool biased = !p.score_bias.empty();
  if (biased && x.pending != p.pending) refuse("scores are scaled after their bias");
  std::vector<ValueId> inputs{p.q, p.k, offsets_};
  if (biased) {
    Array bias = p.score_bias;
    if (bias.shape[0] != p.heads) {
      float* out = nullptr;
      int64_t each = bias.count();
      Array wide = Array::make(ElemType::f32, {p.heads, length_, length_}, &out);
      for (int64_t h = 0; h < p.heads; ++h) std::copy(bias.f.data(), bias.f + each, out + h * each);
      bias = wide;
    }
    // One form for all layers that share the numbers.
    Array& form = score_biases_[p.score_bias.f];
    if (form.empty()) form = by_distance(bias);
    inputs.push_back(parameter(p.score_bias_name, form));
  }
  ValueId scores = emit(octet::Op::attention_scores, p.name, inputs,
                        {{"heads", p.heads}, {"scale", static_cast<double>(static_cast<float>(x.pending))}}, p.order);
  ValueId id = emit(octet::Op::softmax, node_name(*node_), {scores}, {}, order_);
  return view_of(id, x.axes, 's');
}

}  // namespace octet::onnx
