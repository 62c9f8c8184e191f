// What the scalar rows share: typed loads and stores, the activations, and the order of sums.
#pragma once

#include <cstring>

#include "core/dtype.h"
#include "core/int8.h"
#include "core/threads.h"
#include "kernels/args.h"

namespace octet::kernels::ref {

constexpr bool is_8bit(DType type) noexcept { return type == DType::s8 || type == DType::u8; }
constexpr bool is_float(DType type) noexcept { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

inline int32_t load_int(const void* data, DType type, int64_t i) noexcept {
  return type == DType::u8 ? static_cast<const uint8_t*>(data)[i] : static_cast<const int8_t*>(data)[i];
}

/// Element i as f32; 8-bit types through their scale.
inline float load(const void* data, DType type, int64_t i, float scale = 1.0f, int32_t zero_point = 0) noexcept {
  switch (type) {
    case DType::f32: return static_cast<const float*>(data)[i];
    case DType::f16: return f32_from_f16(static_cast<const uint16_t*>(data)[i]);
    case DType::bf16: return f32_from_bf16(static_cast<const uint16_t*>(data)[i]);
    default: return int8::dequantize(load_int(data, type, i), scale, zero_point);
  }
}

inline void store_int(void* data, DType type, int64_t i, int32_t q) noexcept {
  if (type == DType::u8) static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(q);
  else static_cast<int8_t*>(data)[i] = static_cast<int8_t>(q);
}

/// Element i of channel c; 8-bit types through `requant`.
inline void store(void* data, DType type, int64_t i, float value, const Requant& requant, int64_t c) noexcept {
  switch (type) {
    case DType::f32: static_cast<float*>(data)[i] = value; break;
    case DType::f16: static_cast<uint16_t*>(data)[i] = f16_from_f32(value); break;
    case DType::bf16: static_cast<uint16_t*>(data)[i] = bf16_from_f32(value); break;
    default:
      store_int(data, type, i, int8::quantize(value, requant.inv_scale[c], requant.zero_point, requant.lo, requant.hi));
  }
}

inline float activate(Activation activation, float x) noexcept {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return x > 0.0f ? x : 0.0f;
    case Activation::tanh: return int8::tanh_exp(x);
    case Activation::gelu_erf: return int8::gelu_erf(x);
    case Activation::gelu_tanh: return int8::gelu_tanh(x);
  }
  return x;
}

/// Largest magnitude; NaN counts as nothing.
inline float row_amax(const float* x, int64_t n) noexcept {
  float amax = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    float magnitude = fabsf(x[i]);
    amax = magnitude > amax ? magnitude : amax;
  }
  return amax;
}

/// A range found at run time: multiply by `inv_scale`, round; real = q * scale. `bound` is the largest integer.
struct DynamicRange {
  float inv_scale;
  float scale;
};
inline DynamicRange dynamic_range(float amax, float bound = 127.0f) noexcept {
  if (amax <= int8::kTinyAmax) return {0.0f, 0.0f};
  return {bound / amax, amax / bound};
}

/// Sum in 16 interleaved lanes, folded in halves.
inline float lane_sum(const float* x, int64_t n) noexcept {
  float lanes[int8::kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % int8::kLanes] += x[i];
  return int8::fold_lanes(lanes);
}
inline float lane_sum_squares(const float* x, int64_t n, float mean = 0.0f) noexcept {
  float lanes[int8::kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    float d = x[i] - mean;
    lanes[i % int8::kLanes] = fmaf(d, d, lanes[i % int8::kLanes]);
  }
  return int8::fold_lanes(lanes);
}

/// Two-pass LayerNorm in place.
inline void layer_norm(float* x, int64_t n, const float* gamma, const float* beta, float epsilon) noexcept {
  float mean = lane_sum(x, n) / static_cast<float>(n);
  float variance = lane_sum_squares(x, n, mean) / static_cast<float>(n);
  float rstd = 1.0f / sqrtf(variance + epsilon);
  for (int64_t c = 0; c < n; ++c) x[c] = fmaf((x[c] - mean) * rstd, gamma[c], beta[c]);
}

/// x / max(|x|, 1e-12) in place.
inline void l2_normalize(float* x, int64_t n) noexcept {
  float length = sqrtf(lane_sum_squares(x, n));
  length = length > 1e-12f ? length : 1e-12f;
  for (int64_t c = 0; c < n; ++c) x[c] = x[c] / length;
}

/// Softmax in place.
inline void softmax(float* s, int64_t n) noexcept {
  float top = s[0];
  for (int64_t j = 1; j < n; ++j) top = s[j] > top ? s[j] : top;
  for (int64_t j = 0; j < n; ++j) s[j] = int8::exp_negative(s[j] - top);
  float inverse = 1.0f / lane_sum(s, n);
  for (int64_t j = 0; j < n; ++j) s[j] = s[j] * inverse;
}

/// The outputs of norm and embed for row i.
inline void store_outputs(const float* x, int64_t n, int64_t i, int outputs, const OutputDesc* desc,
                          const NormOutput* out) noexcept {
  for (int o = 0; o < outputs; ++o) {
    if (!desc[o].per_token) {
      for (int64_t c = 0; c < n; ++c) store(out[o].y, desc[o].dtype, i * n + c, x[c], out[o].requant, c);
      continue;
    }
    DynamicRange range = dynamic_range(row_amax(x, n));
    out[o].row_scale[i] = range.scale;
    for (int64_t c = 0; c < n; ++c)
      store_int(out[o].y, DType::s8, i * n + c, int8::quantize(x[c], range.inv_scale, 0, -127, 127));
  }
}

template <typename Body>
void parallel(const Launch& launch, int64_t items, int64_t grain, const Body& body) {
  if (launch.pool != nullptr) launch.pool->parallel_for(items, grain, body);
  else if (items > 0) body(int64_t{0}, items);
}

}  // namespace octet::kernels::ref
