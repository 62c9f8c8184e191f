// THE arithmetic of octet: quantize, dequantize, exp, GELU, LayerNorm and softmax order (docs/numerics.md explains
// why).
//
// Every operation here is one IEEE-754 f32 operation with round-to-nearest-even, so a vectorised kernel that performs
// the same operations in the same order gives the same bits. Functions have internal linkage on purpose: this header is
// included by files compiled with wider instruction sets, and the linker must not share their code with the others.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define OCTET_INLINE static __host__ __device__ inline
#else
#define OCTET_INLINE static inline
#endif

namespace octet::int8 {

/// A scale at or below this is treated as "the tensor is zero": everything quantizes to the zero point.
constexpr float kTinyAmax = 0x1p-24f;
/// Sums over a row are kept in this many interleaved partial sums, then folded in halves (docs/numerics.md, "Order of
/// sums").
constexpr int kLanes = 16;

/// real = scale * (q - zero_point); lo <= q <= hi.
struct Quant {
  float scale;
  int32_t zero_point;
  int32_t lo;
  int32_t hi;
};

/// The multiplier used instead of dividing by `scale`: one f32 division, done once. A zero scale gives 0.
OCTET_INLINE float inverse(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }

/// Round half to even, add the zero point, saturate. NaN gives `lo`.
OCTET_INLINE int32_t quantize(float x, float inv_scale, int32_t zero_point, int32_t lo, int32_t hi) {
  float r = rintf(x * inv_scale) + (float)zero_point;
  r = r > (float)lo ? r : (float)lo;
  r = r < (float)hi ? r : (float)hi;
  return (int32_t)r;
}

OCTET_INLINE float dequantize(int32_t q, float scale, int32_t zero_point) { return (float)(q - zero_point) * scale; }

/// Quantize and back: what a FakeQuant node computes.
OCTET_INLINE float fake_quant(float x, Quant p) {
  return dequantize(quantize(x, inverse(p.scale), p.zero_point, p.lo, p.hi), p.scale, p.zero_point);
}

/// Largest magnitude of a `bits`-bit type: 127 for s8, 255 for u8.
OCTET_INLINE int32_t bound(int bits, bool is_unsigned) { return (1 << (bits - (is_unsigned ? 0 : 1))) - 1; }

/// Symmetric parameters that cover [-amax, amax] (or [0, amax]); amax <= 2^-24 gives scale 0.
OCTET_INLINE Quant quant_from_amax(float amax, int bits, bool is_unsigned, bool narrow) {
  int32_t b = bound(bits, is_unsigned);
  Quant p;
  p.scale = amax <= kTinyAmax ? 0.0f : amax / (float)b;
  p.zero_point = 0;
  p.lo = is_unsigned ? 0 : (narrow ? -b : -b - 1);
  p.hi = b;
  return p;
}

/// GEMM epilogue: integer accumulator to real. `scale` = input scale times weight scale.
OCTET_INLINE float rescale(int32_t acc, float scale, float bias) { return fmaf((float)acc, scale, bias); }
/// The same with one scale a token (dynamic inputs).
OCTET_INLINE float rescale_row(int32_t acc, float row_scale, float scale, float bias) {
  return fmaf((float)acc * row_scale, scale, bias);
}

/// e^x for x <= 0 (softmax); 0 below -87. Cody-Waite reduction, degree-6 polynomial, relative error < 3e-7.
OCTET_INLINE float exp_negative(float x) {
  if (!(x > -87.0f)) return 0.0f;
  float n = rintf(x * 1.44269504088896341f);
  float f = fmaf(n, -0.693359375f, x);
  f = fmaf(n, 2.12194440e-4f, f);
  float p = 1.3981999507e-3f;
  p = fmaf(p, f, 8.3334519073e-3f);
  p = fmaf(p, f, 4.1665795894e-2f);
  p = fmaf(p, f, 1.6666665459e-1f);
  p = fmaf(p, f, 5.0000001201e-1f);
  p = fmaf(p, f * f, f);
  p = p + 1.0f;
  int32_t bits;
  memcpy(&bits, &p, 4);
  bits += (int32_t)n << 23;
  memcpy(&p, &bits, 4);
  return p;
}

/// erf by the rational approximation x * A(x^2) / B(x^2) on [-4, 4]; absolute error < 5e-7.
OCTET_INLINE float erf_rational(float x) {
  x = x > -4.0f ? x : -4.0f;
  x = x < 4.0f ? x : 4.0f;
  float s = x * x;
  float a = -2.72614225801306e-10f;
  a = fmaf(a, s, 2.77068142495902e-08f);
  a = fmaf(a, s, -2.10102402082508e-06f);
  a = fmaf(a, s, -5.69250639462346e-05f);
  a = fmaf(a, s, -7.34990630326855e-04f);
  a = fmaf(a, s, -2.95459980854025e-03f);
  a = fmaf(a, s, -1.60960333262415e-02f);
  a = a * x;
  float b = -1.45660718464996e-05f;
  b = fmaf(b, s, -2.13374055278905e-04f);
  b = fmaf(b, s, -1.68282697438203e-03f);
  b = fmaf(b, s, -7.37332916720468e-03f);
  b = fmaf(b, s, -1.42647390514189e-02f);
  return a / b;
}

/// GELU with erf: x/2 (1 + erf(x / sqrt 2)).
OCTET_INLINE float gelu_erf(float x) {
  float half = 0.5f * x;
  return fmaf(half, erf_rational(x * 0.70710678118654752f), half);
}

/// tanh through exp: 1 - 2/(1 + e^2|x|) with the sign of x.
OCTET_INLINE float tanh_exp(float x) {
  float e = exp_negative(-2.0f * fabsf(x));
  float t = (1.0f - e) / (1.0f + e);
  return x < 0.0f ? -t : t;
}

/// GELU with tanh: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
OCTET_INLINE float gelu_tanh(float x) {
  float inner = 0.79788456080286536f * fmaf(0.044715f * x * x, x, x);
  float half = 0.5f * x;
  return fmaf(half, tanh_exp(inner), half);
}

/// Folds the 16 partial sums of a row: lane l += lane l+8, then +4, +2, +1.
OCTET_INLINE float fold_lanes(float* lanes) {
  for (int step = kLanes / 2; step > 0; step /= 2)
    for (int l = 0; l < step; ++l) lanes[l] = lanes[l] + lanes[l + step];
  return lanes[0];
}

}  // namespace octet::int8
