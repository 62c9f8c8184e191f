// What the sm_90a GEMM kernels share: arguments, the order of columns in registers, and the epilogue.
//
// y[m,n] = act(x[m,k] . w[n,k]^T * scale[n] (* row_scale[m]) + bias[n]), then f32, f16 or requantized to 8 bits.
//
// Column order. A wgmma accumulator gives a thread columns 8j + 2t + {0, 1} of a row (t = lane % 4). The copy engine
// brings the rows of w into shared memory in such an order (a five-dimensional view of w) that register group j = 4g +
// i of thread t holds the output columns 32g + 8t + 2i + {0, 1}: eight neighbouring columns a thread, so that the
// epilogue needs no shuffle and no shared memory: four threads write 32 neighbouring 8-bit values (one sector) or 64
// bytes of f16.
#pragma once

#include <utility>

#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/cuda/gemm_sm90_instances.h"

namespace octet::kernels::cuda {

/// x Phi(x) with Phi(x) = 1 / (1 + 2^(-x P(x^2))); P fitted to the erf form, absolute error < 2.6e-5.
__device__ __forceinline__ float gelu_fast(float x) {
  float s = fminf(x * x, 25.0f);
  float p = fmaf(fmaf(1.0142656e-3f, s, -0.10677574f), s, -2.3011213f);
  return x * ptx::reciprocal_fast(1.0f + ptx::exp2_fast(x * p));
}

/// The same P as x/2 (1 + tanh(x P ln2 / 2)): one transcendental instead of two, which bind a GELU epilogue. The
/// hardware's tanh is off by up to 2^-11 of itself, what an f16 result loses anyway.
__device__ __forceinline__ float gelu_half(float x) {
  const float s = fminf(x * x, 25.0f);
  const float p = fmaf(fmaf(-3.5151767e-4f, s, 3.7005651e-2f), s, 0.79750785f);
  const float half = 0.5f * x;
  return fmaf(half, ptx::tanh_fast(x * p), half);
}

/// Low byte = quantize(x, inv_scale, zero_point, lo, hi) of core/int8.h (for |lo|, |hi| < 2^22), of GELU(x) when
/// `gelu`. Without it x is (x * inv_scale - lo) / (hi - lo) already (see fetch_vectors), and the clamp is the
/// saturation of the multiply-add before: three instead of six instructions an element.
template <bool gelu>
__device__ __forceinline__ uint32_t quantize_bits(float x, float inv_scale, const GemmDevice& args) {
  if constexpr (gelu) {
    // The same P as above in the form x/2 (1 + tanh(x P ln2 / 2)): one transcendental; the clamp is the multiply-add's
    // saturation to [0, 1]. Differs from the exact form by one step in under 1 % of values.
    const float s = fminf(x * x, 25.0f);
    const float p = fmaf(fmaf(-3.5151767e-4f, s, 3.7005651e-2f), s, 0.79750785f);
    const float twice = fmaf(x, ptx::tanh_fast(x * p), x);
    return __float_as_uint(fmaf(__saturatef(fmaf(twice, inv_scale, args.shift)), args.span, args.base));
  } else {
    return __float_as_uint(fmaf(__saturatef(x), args.span, args.base));
  }
}

__device__ __forceinline__ uint32_t pack_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return ptx::byte_permute(ptx::byte_permute(a, b, 0x0040), ptx::byte_permute(c, d, 0x0040), 0x5410);
}

/// Fetches rows of w, in column order, for blocks in `mask` of the cluster (0: this block alone).
__device__ __forceinline__ void fetch_w(uint32_t dst, const CUtensorMap* map, uint32_t bar, int k, int group,
                                        uint16_t mask) {
  if (mask != 0) ptx::tma_load_5d_multicast(dst, map, bar, k, 0, 0, 0, group, mask);
  else ptx::tma_load_5d(dst, map, bar, k, 0, 0, 0, group);
}

/// Bytes of shared memory that hold a tile's scale, bias and inv_scale: reading them from device memory column group by
/// column group cost 1,000 cycles a group.
template <int N>
constexpr int kVectorBytes = 3 * N * 4;

/// Brings the vectors of columns [column, column + N) into shared memory; `thread` of `threads`, which synchronize
/// afterwards.
template <int N>
__device__ __forceinline__ void fetch_vectors(float* to, const GemmDevice& args, int column, int thread, int threads) {
  for (int i = thread; i < N; i += threads) {
    const bool in = column + i < args.n;
    const float scale = in && args.scale != nullptr ? __ldg(args.scale + column + i) : 0.0f,
                bias = in && args.bias != nullptr ? __ldg(args.bias + column + i) : 0.0f,
                inv = in && args.inv_scale != nullptr ? __fmul_rn(__ldg(args.inv_scale + column + i), args.inv_factor)
                                                      : 0.0f;
    to[i] = args.folded ? __fmul_rn(scale, inv) : scale;
    to[N + i] = args.folded ? fmaf(bias, inv, args.shift) : bias;
    to[2 * N + i] = inv;
  }
}

__device__ __forceinline__ void load8(float (&v)[8], const float* p) {
  const float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/// Writes H accumulators of 64 rows by N columns; `row` is the first row of the warpgroup's tile, `column` its first
/// column, `vectors` what fetch_vectors brought.
template <Out out, bool gelu, int H, int N, class Acc>
__device__ __forceinline__ void store_tile(Acc (&acc)[H][N / 2], const GemmDevice& args, const float* vectors, int row,
                                           int column) {
  static_assert(N % 32 == 0, "column groups are 32 wide");
  constexpr int bytes = out == Out::s8 ? 1 : out == Out::f16 ? 2 : 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  row += warp * 16 + lane / 4;
  column += lane % 4 * 8;
  vectors += lane % 4 * 8;
  char* y[H][2];
#pragma unroll
  for (int h = 0; h < H; ++h)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      y[h][r] = (char*)args.y + ((int64_t)(row + h * 64 + r * 8) * args.ldy + column) * bytes;
      asm volatile("" : "+l"(y[h][r]));  // computed once, not again for every store
    }
  constexpr bool integer = !__is_same(Acc, float);
  constexpr bool by_row = integer && out != Out::s8;  // one scale a token: dynamic inputs, whose outputs are real
  float row_scale[H][2];
  if constexpr (by_row) {
#pragma unroll
    for (int h = 0; h < H; ++h)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int i = row + h * 64 + r * 8;
        row_scale[h][r] = args.row_scale != nullptr && i < args.m ? __ldcg(args.row_scale + i) : 1.0f;
      }
  }
  const auto finish = [&]<int g>(std::integral_constant<int, g>) {
    float scale[8], bias[8], inv[8];
    if constexpr (integer) load8(scale, vectors + g * 32);
    load8(bias, vectors + N + g * 32);
    if constexpr (out == Out::s8 && gelu) load8(inv, vectors + 2 * N + g * 32);
#pragma unroll
    for (int h = 0; h < H; ++h)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const Acc a = acc[h][16 * g + 4 * (i / 2) + 2 * r + i % 2];
          if constexpr (by_row) v[i] = fmaf(__fmul_rn(__int2float_rn(a), row_scale[h][r]), scale[i], bias[i]);
          else if constexpr (integer) v[i] = fmaf(__int2float_rn(a), scale[i], bias[i]);
          else v[i] = a + bias[i];
          if constexpr (gelu && out == Out::f16) v[i] = gelu_half(v[i]);
          else if constexpr (gelu && out == Out::f32) v[i] = gelu_fast(v[i]);
        }
        // No branch: the compiler interleaves the groups, and one warp a scheduler has nothing else to hide latency
        // with.
        constexpr int at = g * 32 * bytes;
        const auto store = [&]<int offset>(std::integral_constant<int, offset>, auto value) {
          ptx::store_inside<offset>(y[h][r], row + h * 64 + r * 8, args.m, column + g * 32, args.n, value);
        };
        if constexpr (out == Out::s8) {
          uint32_t q[8];
#pragma unroll
          for (int i = 0; i < 8; ++i) q[i] = quantize_bits<gelu>(v[i], inv[i], args);
          store(std::integral_constant<int, at>(),
                make_uint2(pack_bytes(q[0], q[1], q[2], q[3]), pack_bytes(q[4], q[5], q[6], q[7])));
        } else if constexpr (out == Out::f16) {
          uint32_t q[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const __half2 pair = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
            q[i] = *(const uint32_t*)&pair;
          }
          store(std::integral_constant<int, at>(), make_uint4(q[0], q[1], q[2], q[3]));
        } else {
          uint32_t q[8];
#pragma unroll
          for (int i = 0; i < 8; ++i) q[i] = __float_as_uint(v[i]);
          store(std::integral_constant<int, at>(), make_uint4(q[0], q[1], q[2], q[3]));
          store(std::integral_constant<int, at + 16>(), make_uint4(q[4], q[5], q[6], q[7]));
        }
      }
  };
  [&]<int... g>(std::integer_sequence<int, g...>) { (finish(std::integral_constant<int, g>()), ...); }
  (std::make_integer_sequence<int, N / 32>());
}

}  // namespace octet::kernels::cuda
