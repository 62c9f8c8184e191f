// The formulas of core/int8.h on sixteen lanes: the same IEEE operations in the same order, so the same bits. Include
// after a simd_*.h.
#pragma once

#include <math.h>

#include "core/int8.h"
#include "kernels/args.h"

namespace octet::kernels {
namespace {

/// Calls fn(first, Whole or Part) over [0, n) in steps of sixteen.
template <class Fn>
inline __attribute__((always_inline)) void by_lanes(int64_t n, Fn fn) {
  int64_t c = 0;
  for (; c + int8::kLanes <= n; c += int8::kLanes) fn(c, Whole{});
  if (c < n) fn(c, Part{(int)(n - c)});
}

inline F exp_negative(F x) {
  F n = round(mul(x, set1(1.44269504088896341f)));
  F f = fma(n, set1(-0.693359375f), x);
  f = fma(n, set1(2.12194440e-4f), f);
  F p = set1(1.3981999507e-3f);
  p = fma(p, f, set1(8.3334519073e-3f));
  p = fma(p, f, set1(4.1665795894e-2f));
  p = fma(p, f, set1(1.6666665459e-1f));
  p = fma(p, f, set1(5.0000001201e-1f));
  p = fma(p, mul(f, f), f);
  p = add(p, set1(1.0f));
  return scale_if_greater(p, n, x, set1(-87.0f));
}

inline F erf_rational(F x) {
  x = min(max(x, set1(-4.0f)), set1(4.0f));
  F s = mul(x, x);
  F a = set1(-2.72614225801306e-10f);
  a = fma(a, s, set1(2.77068142495902e-08f));
  a = fma(a, s, set1(-2.10102402082508e-06f));
  a = fma(a, s, set1(-5.69250639462346e-05f));
  a = fma(a, s, set1(-7.34990630326855e-04f));
  a = fma(a, s, set1(-2.95459980854025e-03f));
  a = fma(a, s, set1(-1.60960333262415e-02f));
  a = mul(a, x);
  F b = set1(-1.45660718464996e-05f);
  b = fma(b, s, set1(-2.13374055278905e-04f));
  b = fma(b, s, set1(-1.68282697438203e-03f));
  b = fma(b, s, set1(-7.37332916720468e-03f));
  b = fma(b, s, set1(-1.42647390514189e-02f));
  return div(a, b);
}

inline F gelu_erf(F x) {
  F half = mul(set1(0.5f), x);
  return fma(half, erf_rational(mul(x, set1(0.70710678118654752f))), half);
}

inline F tanh_exp(F x) {
  F e = exp_negative(mul(set1(-2.0f), abs(x)));
  return negate_if_negative(div(sub(set1(1.0f), e), add(set1(1.0f), e)), x);
}

inline F gelu_tanh(F x) {
  F inner = mul(set1(0.79788456080286536f), fma(mul(mul(set1(0.044715f), x), x), x, x));
  F half = mul(set1(0.5f), x);
  return fma(half, tanh_exp(inner), half);
}

inline F activate(Activation activation, F x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return max(x, zero());
    case Activation::tanh: return tanh_exp(x);
    case Activation::gelu_erf: return gelu_erf(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
  }
  return x;
}

/// Saturation before rounding and the zero point after it, in integers: the same result as int8::quantize, with fewer
/// operations.
struct Limits {
  F lo, hi;
  I zero_point;
  Limits(int32_t zero, int32_t low, int32_t high)
      : lo(set1((float)(low - zero))), hi(set1((float)(high - zero))), zero_point(set1_int(zero)) {}
};
inline I quantize(F x, F inv_scale, const Limits& limits) {
  return add_int(to_int(min(max(mul(x, inv_scale), limits.lo), limits.hi)), limits.zero_point);
}

/// The same for `pack_8`, which saturates at the type's lower end, where the zero point is 0 and the range is the
/// type's. NaN becomes the lowest integer and so `lo`.
inline bool packs_whole_range(int32_t zero_point, int32_t lo, int32_t hi, bool is_unsigned) {
  return zero_point == 0 && (is_unsigned ? lo == 0 && hi == 255 : lo == -128 && hi == 127);
}
inline I quantize_to_pack(F x, F inv_scale, F hi) { return to_int(min(hi, mul(x, inv_scale))); }

/// n values to s8, [-127, 127], zero point 0, with a range that covers them: |x * inv_scale| is below 127.5, so only
/// NaN needs the clamp, to the lower end. inv_scale(c): of values c...
template <class InvScale>
inline __attribute__((always_inline)) void quantize_covered(const float* x, int64_t n, int8_t* y, InvScale inv_scale) {
  constexpr int64_t kValues = kPackVectors * int8::kLanes;
  F lo = set1(-127.0f);
  int64_t done = 0;
  for (; done + kValues <= n; done += kValues) {
    I q[kPackVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPackVectors; ++v) {
      int64_t c = done + v * int8::kLanes;
      q[v] = to_int(max(mul(load(x + c, Whole{}), inv_scale(c, Whole{})), lo));
    }
    store(y + done, pack_8<false>(q));
  }
  Limits limits(0, -127, 127);
  by_lanes(n - done, [&](int64_t rest, auto lanes) {
    int64_t c = done + rest;
    store_8(y + c, quantize(load(x + c, lanes), inv_scale(c, lanes), limits), lanes);
  });
}

/// Stores values of any element type. It holds what is the same for many stores: bytes written could alias the
/// arguments, so the compiler would read those again for each.
struct Output {
  DType type;
  const float* inv_scales;
  Limits limits;
  F inv_scale;
  Output(DType t, const Requant& requant)
      : type(t), inv_scales(requant.inv_scale), limits(requant.zero_point, requant.lo, requant.hi), inv_scale(zero()) {}
  /// Before storing channels c..
  template <class N>
  void channels(int64_t c, N n) {
    if (type == DType::s8 || type == DType::u8) inv_scale = octet::kernels::load(inv_scales + c, n);
  }
  template <class N>
  void store(void* p, F x, N n) const {
    switch (type) {
      case DType::f32: octet::kernels::store((float*)p, x, n); break;
      case DType::f16: store_f16(p, x, n); break;
      case DType::bf16: store_bf16(p, x, n); break;
      default: store_8(p, quantize(x, inv_scale, limits), n);
    }
  }
};

inline int64_t bytes_of(DType type) {
  return type == DType::f32 ? 4 : type == DType::f16 || type == DType::bf16 ? 2 : 1;
}

/// Softmax of s in place, n > 0; returns nothing: s holds probabilities.
inline void softmax_row(float* s, int64_t n) {
  F top = set1(-INFINITY);
  by_lanes(n, [&](int64_t j, auto lanes) {
    F x = load(s + j, lanes);
    if constexpr (sizeof(lanes) == sizeof(Part)) {
      // Lanes that do not exist must not win the maximum: give them the first element.
      float padded[int8::kLanes];
      for (int l = 0; l < int8::kLanes; ++l) padded[l] = j + l < n ? s[j + l] : s[j];
      x = load(padded, Whole{});
    }
    top = max(x, top);
  });
  F m = set1(fold_max(top)), sum = zero();
  by_lanes(n, [&](int64_t j, auto lanes) {
    F e = exp_negative(sub(load(s + j, lanes), m));
    store(s + j, e, lanes);
    sum = add(sum, keep(e, lanes));
  });
  F inverse = set1(1.0f / fold(sum));
  by_lanes(n, [&](int64_t j, auto lanes) { store(s + j, mul(load(s + j, lanes), inverse), lanes); });
}

}  // namespace
}  // namespace octet::kernels
