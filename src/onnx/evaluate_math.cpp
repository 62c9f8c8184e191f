// Reference kernels: operators an element.
#include <cmath>
#include <cstdint>
#include <limits>

#include "onnx/call.h"

namespace octet::onnx {

namespace {

template <typename F>
Arrays unary(const Call& c, F f) {
  float* out = nullptr;
  const Array& x = c.reals(0);
  Array y = c.make_f(x.type, x.shape, &out);
  for (int64_t i = 0, n = x.count(); i < n; ++i) out[i] = f(x.f[i]);
  return {y};
}

template <typename FF, typename FI>
Arrays binary(const Call& c, FF ff, FI fi) {
  const Array &a = c.arg(0), &b = c.arg(1);
  c.require(a.real() == b.real(), "two inputs of one type");
  Shape shape = broadcast(a.shape, b.shape, c.node);
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = ff(a.f[p], b.f[q]); });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = wrap(a.type, fi(a.i[p], b.i[q])); });
  return {y};
}

template <typename F>
Arrays compare(const Call& c, F f) {
  const Array &a = c.arg(0), &b = c.arg(1);
  c.require(a.real() == b.real(), "two inputs of one type");
  Shape shape = broadcast(a.shape, b.shape, c.node);
  int64_t* out = nullptr;
  Array y = c.make_i(ElemType::boolean, shape, &out);
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = f(a.f[p], b.f[q]); });
  else walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = f(a.i[p], b.i[q]); });
  return {y};
}

Arrays power(const Call& c) {
  const Array &a = c.arg(0), &b = c.arg(1);
  Shape shape = broadcast(a.shape, b.shape, c.node);
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) {
      double e = b.at(q);
      out[i] = e == 2.0 ? a.f[p] * a.f[p] : static_cast<float>(std::pow(static_cast<double>(a.f[p]), e));
    });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) {
    double v = std::pow(static_cast<double>(a.i[p]), b.at(q));
    out[i] = std::fabs(v) < 9e18 ? wrap(a.type, static_cast<int64_t>(v)) : 0;
  });
  return {y};
}

Arrays fold_inputs(const Call& c, bool largest) {
  Array y = c.arg(0);
  for (size_t i = 1; i < c.in.size(); ++i) {
    Arrays pair{y, c.arg(i)};
    Call step{c.node, pair, c.opset};
    y = binary(
        step,
        [&](float a, float b) {
          if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<float>::quiet_NaN();
          return largest ? std::max(a, b) : std::min(a, b);
        },
        [&](int64_t a, int64_t b) { return largest ? std::max(a, b) : std::min(a, b); })[0];
  }
  return {y};
}

Arrays clip(const Call& c) {
  const Array& x = c.arg(0);
  if (!x.real()) {
    int64_t* out = nullptr;
    Array y = c.make_i(x.type, x.shape, &out);
    for (int64_t i = 0; i < x.count(); ++i) {
      out[i] = x.i[i];
      if (c.has(1)) out[i] = std::max(out[i], c.ints(1).i[0]);
      if (c.has(2)) out[i] = std::min(out[i], c.ints(2).i[0]);
    }
    return {y};
  }
  float lo = -std::numeric_limits<float>::infinity(), hi = -lo;
  if (c.opset < 11) {
    lo = static_cast<float>(c.node.number("min", lo)), hi = static_cast<float>(c.node.number("max", hi));
  } else {
    if (c.has(1)) lo = c.reals(1).f[0];
    if (c.has(2)) hi = c.reals(2).f[0];
  }
  return unary(c, [=](float v) {
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
  });
}

float round_to(ElemType type, float v) {
  if (type == ElemType::f16) return f32_from_f16(f16_from_f32(v));
  if (type == ElemType::bf16) return f32_from_bf16(bf16_from_f32(v));
  return v;
}

Arrays cast(const Call& c, ElemType to) {
  const Array& x = c.arg(0);
  if (to == ElemType::none || to == ElemType::string || to == ElemType::f8e4m3fn) c.lacks("no cast to " + name(to));
  if (is_float(to)) {
    if (x.real() && (to == x.type || (to != ElemType::f16 && to != ElemType::bf16))) {
      Array y = x;
      y.type = to;
      return {y};
    }
    float* out = nullptr;
    Array y = c.make_f(to, x.shape, &out);
    for (int64_t i = 0, n = x.count(); i < n; ++i)
      out[i] = round_to(to, x.real() ? x.f[i] : static_cast<float>(x.i[i]));
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(to, x.shape, &out);
  for (int64_t i = 0, n = x.count(); i < n; ++i) {
    if (!x.real()) out[i] = wrap(to, x.i[i]);
    else if (to == ElemType::boolean) out[i] = x.f[i] != 0.0f;
    else
      out[i] = x.f[i] >= 9.2e18f    ? std::numeric_limits<int64_t>::max()
               : x.f[i] > -9.2e18f  ? wrap(to, static_cast<int64_t>(x.f[i]))
               : std::isnan(x.f[i]) ? 0
                                    : std::numeric_limits<int64_t>::min();
  }
  return {y};
}

Arrays where(const Call& c) {
  const Array &cond = c.ints(0), &a = c.arg(1), &b = c.arg(2);
  c.require(a.real() == b.real(), "branches of one type");
  Shape shape = broadcast(broadcast(a.shape, b.shape, c.node), cond.shape, c.node);
  std::vector<int64_t> pick(static_cast<size_t>(count(shape)));
  c.limit(shape);
  std::vector<int64_t> none(shape.size(), 0);
  walk(shape, broadcast_strides(cond.shape, shape), none,
       [&](int64_t i, int64_t p, int64_t) { pick[static_cast<size_t>(i)] = cond.i[p]; });
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    walk(shape, sa, sb,
         [&](int64_t i, int64_t p, int64_t q) { out[i] = pick[static_cast<size_t>(i)] ? a.f[p] : b.f[q]; });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  walk(shape, sa, sb,
       [&](int64_t i, int64_t p, int64_t q) { out[i] = pick[static_cast<size_t>(i)] ? a.i[p] : b.i[q]; });
  return {y};
}

float gelu(float x, bool tanh_form) {
  double v = x;
  if (tanh_form) return static_cast<float>(0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))));
  return static_cast<float>(0.5 * v * (1 + std::erf(v * 0.7071067811865476)));
}

}  // namespace

void add_elementwise(Kernels& t) {
  auto real = [&](const char* name, float (*f)(float)) { t[name] = [f](const Call& c) { return unary(c, f); }; };
  real("Sqrt", [](float x) { return std::sqrt(x); });
  real("Exp", [](float x) { return std::exp(x); });
  real("Log", [](float x) { return std::log(x); });
  real("Erf", [](float x) { return static_cast<float>(std::erf(static_cast<double>(x))); });
  real("Tanh", [](float x) { return std::tanh(x); });
  real("Sigmoid", [](float x) { return 1.0f / (1.0f + std::exp(-x)); });
  real("Reciprocal", [](float x) { return 1.0f / x; });
  real("Floor", [](float x) { return std::floor(x); });
  real("Ceil", [](float x) { return std::ceil(x); });
  real("Round", [](float x) { return std::nearbyint(x); });
  real("Sin", [](float x) { return std::sin(x); });
  real("Cos", [](float x) { return std::cos(x); });
  real("Softplus", [](float x) { return std::log1p(std::exp(x)); });
  auto both = [&](const char* name, float (*f)(float), int64_t (*g)(int64_t)) {
    t[name] = [f, g](const Call& c) -> Arrays {
      const Array& x = c.arg(0);
      if (x.real()) return unary(c, f);
      int64_t* out = nullptr;
      Array y = c.make_i(x.type, x.shape, &out);
      for (int64_t i = 0; i < x.count(); ++i) out[i] = wrap(x.type, g(x.i[i]));
      return {y};
    };
  };
  both(
      "Abs", [](float x) { return std::fabs(x); }, [](int64_t x) { return x < 0 ? sub_wrapping(0, x) : x; });
  both(
      "Neg", [](float x) { return -x; }, [](int64_t x) { return sub_wrapping(0, x); });
  both(
      "Relu", [](float x) { return x > 0 ? x : 0.0f; }, [](int64_t x) { return x > 0 ? x : 0; });
  both(
      "Sign", [](float x) { return x > 0   ? 1.0f
                                   : x < 0 ? -1.0f
                                           : 0.0f; },
      [](int64_t x) -> int64_t { return x > 0   ? 1
                                        : x < 0 ? -1
                                                : 0; });
  both(
      "Not", [](float x) { return x; }, [](int64_t x) -> int64_t { return x == 0; });
  t["IsNaN"] = [](const Call& c) -> Arrays {
    int64_t* out = nullptr;
    const Array& x = c.reals(0);
    Array y = c.make_i(ElemType::boolean, x.shape, &out);
    for (int64_t i = 0; i < x.count(); ++i) out[i] = std::isnan(x.f[i]);
    return {y};
  };
  t["Gelu"] = [](const Call& c) {
    bool form = c.node.text("approximate", "none") == "tanh";
    return unary(c, [form](float x) { return gelu(x, form); });
  };
  t["LeakyRelu"] = [](const Call& c) {
    auto alpha = static_cast<float>(c.node.number("alpha", 0.01));
    return unary(c, [alpha](float x) { return x >= 0 ? x : alpha * x; });
  };
  t["Add"] = [](const Call& c) {
    return binary(
        c, [](float a, float b) { return a + b; }, add_wrapping);
  };
  t["Sub"] = [](const Call& c) {
    return binary(
        c, [](float a, float b) { return a - b; }, sub_wrapping);
  };
  t["Mul"] = [](const Call& c) {
    return binary(
        c, [](float a, float b) { return a * b; }, mul_wrapping);
  };
  t["Div"] = [](const Call& c) {
    return binary(
        c, [](float a, float b) { return a / b; }, div_safe);
  };
  t["Mod"] = [](const Call& c) {
    bool truncates = c.node.integer("fmod", 0) != 0;
    return binary(
        c, [](float a, float b) { return std::fmod(a, b); },
        [=](int64_t a, int64_t b) { return truncates ? (b == 0 || b == -1 ? 0 : a % b) : mod_floor(a, b); });
  };
  t["Pow"] = power;
  t["Max"] = [](const Call& c) { return fold_inputs(c, true); };
  t["Min"] = [](const Call& c) { return fold_inputs(c, false); };
  t["Equal"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a == b; }); };
  t["Less"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a < b; }); };
  t["LessOrEqual"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a <= b; }); };
  t["Greater"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a > b; }); };
  t["GreaterOrEqual"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a >= b; }); };
  t["And"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a != 0 && b != 0; }); };
  t["Or"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a != 0 || b != 0; }); };
  t["Xor"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return (a != 0) != (b != 0); }); };
  t["Where"] = where;
  t["Clip"] = clip;
  t["Cast"] = [](const Call& c) { return cast(c, static_cast<ElemType>(c.node.integer("to", 0))); };
  t["CastLike"] = [](const Call& c) { return cast(c, c.arg(1).type); };
  t["Identity"] = [](const Call& c) -> Arrays { return {c.arg(0)}; };
  t["Dropout"] = [](const Call& c) -> Arrays {
    if (c.has(2) && c.in[2].at(0) != 0) c.lacks("training");
    int64_t* out = nullptr;
    Array on = c.make_i(ElemType::boolean, c.arg(0).shape, &out);
    std::fill(out, out + on.count(), 1);
    return {c.arg(0), on};
  };
}

}  // namespace octet::onnx
