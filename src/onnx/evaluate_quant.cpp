// Reference kernels: quantization.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "onnx/call.h"

namespace octet::onnx {

namespace {

void type_range(ElemType type, int64_t* lo, int64_t* hi) {
  switch (type) {
    case ElemType::s8: *lo = -128, *hi = 127; break;
    case ElemType::s16: *lo = -32768, *hi = 32767; break;
    case ElemType::u16: *lo = 0, *hi = 65535; break;
    case ElemType::s4: *lo = -8, *hi = 7; break;
    case ElemType::u4: *lo = 0, *hi = 15; break;
    default: *lo = 0, *hi = 255;
  }
}

/// Index of the scale of element i: one scale, or one along the axis.
struct ScaleIndex {
  int64_t inner = 1, extent = 1;
  ScaleIndex(const Call& c, const Array& x, const Array& scale) {
    if (scale.count() == 1) return;
    auto axis = static_cast<size_t>(c.axis(c.node.integer("axis", 1), x.rank()));
    if (scale.rank() != 1 || c.node.integer("block_size", 0) != 0) c.lacks("blocked scales");
    c.require(x.shape.at(axis) == scale.count(), "a scale a channel");
    inner = strides_of(x.shape)[axis], extent = scale.count();
  }
  int64_t operator()(int64_t i) const { return i / inner % extent; }
};

Arrays quantize_linear(const Call& c) {
  const Array &x = c.reals(0), &scale = c.reals(1);
  ElemType type = ElemType::u8;
  if (c.has(2)) type = c.ints(2).type;
  else if (int64_t to = c.node.integer("output_dtype", 0); to != 0) type = static_cast<ElemType>(to);
  int64_t lo = 0, hi = 0;
  type_range(type, &lo, &hi);
  ScaleIndex at(c, x, scale);
  if (c.has(2)) c.require(c.in[2].count() == scale.count(), "a zero point a scale");
  int64_t* out = nullptr;
  Array y = c.make_i(type, x.shape, &out);
  for (int64_t i = 0, n = x.count(); i < n; ++i) {
    int64_t k = at(i);
    double q = std::nearbyint(x.f[i] / scale.f[k]) + (c.has(2) ? static_cast<double>(c.in[2].i[k]) : 0.0);
    out[i] = std::isnan(q) ? 0 : static_cast<int64_t>(std::clamp(q, static_cast<double>(lo), static_cast<double>(hi)));
  }
  return {y};
}

Arrays dequantize_linear(const Call& c) {
  const Array &q = c.ints(0), &scale = c.reals(1);
  ScaleIndex at(c, q, scale);
  if (c.has(2)) c.require(c.ints(2).count() == scale.count(), "a zero point a scale");
  float* out = nullptr;
  Array y = c.make_f(scale.type, q.shape, &out);
  for (int64_t i = 0, n = q.count(); i < n; ++i) {
    int64_t k = at(i);
    out[i] = static_cast<float>(q.i[i] - (c.has(2) ? c.in[2].i[k] : 0)) * scale.f[k];
  }
  return {y};
}

Arrays dynamic_quantize(const Call& c) {
  const Array& x = c.reals(0);
  float lo = 0, hi = 0;
  for (float v : x.reals()) lo = std::min(lo, v), hi = std::max(hi, v);
  float scale = (hi - lo) / 255.0f;
  float zero = scale > 0 ? std::clamp(std::nearbyint(-lo / scale), 0.0f, 255.0f) : 0.0f;
  int64_t *out = nullptr, *z = nullptr;
  Array y = c.make_i(ElemType::u8, x.shape, &out), zp = c.make_i(ElemType::u8, {}, &z);
  *z = static_cast<int64_t>(zero);
  for (int64_t i = 0, n = x.count(); i < n; ++i)
    out[i] = scale > 0 ? static_cast<int64_t>(std::clamp(std::nearbyint(x.f[i] / scale) + zero, 0.0f, 255.0f)) : 0;
  return {y, Array::scalar(scale), zp};
}

}  // namespace

void add_quantization(Kernels& t) {
  t["QuantizeLinear"] = quantize_linear;
  t["DequantizeLinear"] = dequantize_linear;
  t["DynamicQuantizeLinear"] = dynamic_quantize;
}

}  // namespace octet::onnx
