// Operations on one row, on sixteen lanes. Include after a simd_*.h and vector_math.h.
#pragma once

#include "kernels/cpu/isa.h"

namespace octet::kernels {
namespace {

// fn(c, values) for each sixteen of a row of any element type.
template <class Fn>
inline __attribute__((always_inline)) void by_values(int64_t n, const void* data, DType type, const float* scale,
                                                     int32_t zero_point, Fn fn) {
  I zero = set1_int(zero_point);
  switch (type) {
    case DType::f32:
      by_lanes(n, [&](int64_t c, auto lanes) { fn(c, load((const float*)data + c, lanes), lanes); });
      break;
    case DType::f16:
      by_lanes(n, [&](int64_t c, auto lanes) { fn(c, load_f16((const uint16_t*)data + c, lanes), lanes); });
      break;
    case DType::bf16:
      by_lanes(n, [&](int64_t c, auto lanes) { fn(c, load_bf16((const uint16_t*)data + c, lanes), lanes); });
      break;
    case DType::u8:
      by_lanes(n, [&](int64_t c, auto lanes) {
        I q = sub_int(load_u8((const uint8_t*)data + c, lanes), zero);
        fn(c, mul(to_float(q), load(scale + c, lanes)), lanes);
      });
      break;
    default:
      by_lanes(n, [&](int64_t c, auto lanes) {
        I q = sub_int(load_s8((const int8_t*)data + c, lanes), zero);
        fn(c, mul(to_float(q), load(scale + c, lanes)), lanes);
      });
  }
}

void row_load(float* x, int64_t n, const void* data, DType type, const float* scale, int32_t zero_point) {
  by_values(n, data, type, scale, zero_point, [&](int64_t c, F value, auto lanes) { store(x + c, value, lanes); });
}
void row_add(float* x, int64_t n, const void* data, DType type, const float* scale, int32_t zero_point) {
  by_values(n, data, type, scale, zero_point,
            [&](int64_t c, F value, auto lanes) { store(x + c, add(load(x + c, lanes), value), lanes); });
}
void row_max(float* x, int64_t n, const void* data, DType type, const float* scale, int32_t zero_point) {
  by_values(n, data, type, scale, zero_point,
            [&](int64_t c, F value, auto lanes) { store(x + c, max(value, load(x + c, lanes)), lanes); });
}
void row_load_scaled(float* x, int64_t n, const int8_t* data, float scale, bool accumulate) {
  F s = set1(scale);
  by_lanes(n, [&](int64_t c, auto lanes) {
    F value = mul(to_float(load_s8(data + c, lanes)), s);
    store(x + c, accumulate ? add(load(x + c, lanes), value) : value, lanes);
  });
}

// kRows rows at a time, for one row's sums are chains of additions that wait for each other.
template <int kRows>
inline __attribute__((always_inline)) void layer_norm_rows(float* x, int64_t n, const float* gamma, const float* beta,
                                                           float epsilon) {
  F sum[kRows], mean[kRows], rstd[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sum[r] = zero();
  by_lanes(
      n, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sum[r] = add(sum[r], load(x + r * n + c, lanes));
      });
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    mean[r] = set1(fold(sum[r]) / (float)n);
    sum[r] = zero();
  }
  by_lanes(
      n, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          F d = keep(sub(load(x + r * n + c, lanes), mean[r]), lanes);
          sum[r] = fma(d, d, sum[r]);
        }
      });
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) rstd[r] = set1(1.0f / sqrtf(fold(sum[r]) / (float)n + epsilon));
  by_lanes(
      n, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
        F scale = load(gamma + c, lanes), offset = load(beta + c, lanes);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          F d = mul(sub(load(x + r * n + c, lanes), mean[r]), rstd[r]);
          store(x + r * n + c, fma(d, scale, offset), lanes);
        }
      });
}
void row_layer_norm(float* x, int64_t n, int64_t rows, const float* gamma, const float* beta, float epsilon) {
  for (; rows >= 4; rows -= 4, x += 4 * n) layer_norm_rows<4>(x, n, gamma, beta, epsilon);
  for (; rows > 0; --rows, x += n) layer_norm_rows<1>(x, n, gamma, beta, epsilon);
}

void row_divide(float* x, int64_t n, float by) {
  F d = set1(by);
  by_lanes(n, [&](int64_t c, auto lanes) { store(x + c, div(load(x + c, lanes), d), lanes); });
}

void row_l2_normalize(float* x, int64_t n) {
  F squares = zero();
  by_lanes(n, [&](int64_t c, auto lanes) {
    F v = load(x + c, lanes);
    squares = fma(v, v, squares);
  });
  float length = sqrtf(fold(squares));
  row_divide(x, n, length > 1e-12f ? length : 1e-12f);
}

void row_activate(float* x, int64_t n, Activation activation) {
  by_lanes(n, [&](int64_t c, auto lanes) { store(x + c, activate(activation, load(x + c, lanes)), lanes); });
}

float row_amax(const float* x, int64_t n) {
  // Four maxima, so that none waits for the one before.
  F top[4] = {zero(), zero(), zero(), zero()};
  int64_t c = 0;
  for (; c + 4 * int8::kLanes <= n; c += 4 * int8::kLanes)
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) top[l] = max(abs(load(x + c + l * int8::kLanes, Whole{})), top[l]);
  by_lanes(n - c, [&](int64_t rest, auto lanes) { top[0] = max(abs(load(x + c + rest, lanes)), top[0]); });
  return fold_max(max(max(top[0], top[1]), max(top[2], top[3])));
}
void row_amax_channels(float* top, const float* x, int64_t n) {
  by_lanes(n,
           [&](int64_t c, auto lanes) { store(top + c, max(abs(load(x + c, lanes)), load(top + c, lanes)), lanes); });
}

void row_store(const float* x, int64_t n, void* y, DType type, const Requant& requant) {
  int64_t bytes = bytes_of(type), done = 0;
  if (type == DType::s8 && packs_whole_range(requant.zero_point, requant.lo, requant.hi, false)) {
    constexpr int64_t kValues = kPackVectors * int8::kLanes;
    F hi = set1(127.0f);
    for (; done + kValues <= n; done += kValues) {
      I q[kPackVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kPackVectors; ++v) {
        int64_t c = done + v * int8::kLanes;
        q[v] = quantize_to_pack(load(x + c, Whole{}), load(requant.inv_scale + c, Whole{}), hi);
      }
      store((char*)y + done, pack_8<false>(q));
    }
  }
  Output out(type, requant);
  by_lanes(n - done, [&](int64_t rest, auto lanes) {
    int64_t c = done + rest;
    out.channels(c, lanes);
    out.store((char*)y + c * bytes, load(x + c, lanes), lanes);
  });
}
void row_store_token(const float* x, int64_t n, int8_t* y, float inv_scale) {
  F inverse = set1(inv_scale);
  quantize_covered(x, n, y, [&](int64_t, auto) { return inverse; });
}

void row_fake_quant(const float* x, int64_t n, float* y, const float* inv_scale, const float* scale, bool uniform,
                    int32_t zero_point, int32_t lo, int32_t hi) {
  F inverse = set1(*inv_scale), back = set1(*scale);
  Limits limits(zero_point, lo, hi);
  by_lanes(n, [&](int64_t c, auto lanes) {
    I q = quantize(load(x + c, lanes), uniform ? inverse : load(inv_scale + c, lanes), limits);
    store(y + c, mul(to_float(sub_int(q, limits.zero_point)), uniform ? back : load(scale + c, lanes)), lanes);
  });
}

constexpr cpu::RowOps kRows = {row_load,          row_add,    row_load_scaled, row_max,       row_layer_norm,
                               row_l2_normalize,  row_divide, row_activate,    softmax_row,   row_amax,
                               row_amax_channels, row_store,  row_store_token, row_fake_quant};

}  // namespace
}  // namespace octet::kernels
