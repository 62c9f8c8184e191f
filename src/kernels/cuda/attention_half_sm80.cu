// f16 / bf16 attention with mma.sync m16n8k16, f32 sums, one pass over the keys with a running maximum.
//
// One block of four warps serves 64 queries of one (row, head); a warp owns 16. K and V pass through a double buffer of
// 64 keys. As in attention_s8_sm80.cuh the sum over channels runs in the order that lets one 16-byte load give the
// operands of two k steps (lane 4g + t takes piece 4i + t of row g); V is read with ldmatrix.trans.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/warp.cuh"

namespace octet::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kQueries = 16 * kWarps, kKeys = 64;
constexpr float kLog2e = 1.44269504088896341f;

struct HalfParams {
  AttentionHalfArgs a;
  int query_blocks;
};

template <int D>
__device__ __forceinline__ int k_offset(int r, int c) {
  return r * D * 2 + (D >= 64 ? (c ^ ((r & 1) << 2)) : c) * 16;
}
template <int D>
__device__ __forceinline__ int v_offset(int r, int c) {
  return r * D * 2 + (D >= 64 ? c ^ (r & 7) : c ^ ((r >> 1) & 3)) * 16;
}

template <int D, bool kIsV>
__device__ __forceinline__ void load_rows(uint32_t shared, const uint16_t* base, int64_t ld, int first, int length) {
  constexpr int kPieces = D / 8;
#pragma unroll
  for (int n = 0; n < kKeys * kPieces / kThreads; ++n) {
    const int i = threadIdx.x + n * kThreads, r = i / kPieces, c = i % kPieces;
    const bool valid = first + r < length;
    copy_async_16(shared + (kIsV ? v_offset<D>(r, c) : k_offset<D>(r, c)),
                  base + (valid ? (first + r) * ld : 0) + c * 8, valid);
  }
}

__device__ __forceinline__ float max_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float sum_quad(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

template <int D, bool kBf16>
__global__ __launch_bounds__(kThreads,
                             D == 128 ? 2 : 4) void attention_half_kernel(const __grid_constant__ HalfParams p) {
  extern __shared__ __align__(128) uint8_t shared[];
  wait_for_inputs();
  launch_dependents();
  const AttentionHalfArgs& a = p.a;
  const int chunk = blockIdx.x % p.query_blocks, rest = blockIdx.x / p.query_blocks;
  const int head = rest % a.heads, row = rest / a.heads;
  const int64_t token0 = a.offsets[row];
  const int length = a.offsets[row + 1] - int(token0);
  if (chunk * kQueries >= length) return;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int first = chunk * kQueries + warp * 16;
  const int64_t head0 = int64_t(head) * D;
  const uint16_t* k_base = static_cast<const uint16_t*>(a.k) + token0 * a.k_ld + head0;
  const uint16_t* v_base = static_cast<const uint16_t*>(a.v) + token0 * a.v_ld + head0;
  constexpr int kTileBytes = kKeys * D * 2;
  const uint32_t k_shared = shared_address(shared), v_shared = k_shared + 2 * kTileBytes;
  const int tiles = (length + kKeys - 1) / kKeys;
  const auto fetch = [&](int tile) {
    load_rows<D, false>(k_shared + (tile & 1) * kTileBytes, k_base, a.k_ld, tile * kKeys, length);
    load_rows<D, true>(v_shared + (tile & 1) * kTileBytes, v_base, a.v_ld, tile * kKeys, length);
    copy_commit();
  };
  fetch(0);

  const int query0 = min(first + g, length - 1), query1 = min(first + g + 8, length - 1);
  const uint16_t* q0 = static_cast<const uint16_t*>(a.q) + (token0 + query0) * a.q_ld + head0 + t * 8;
  const uint16_t* q1 = static_cast<const uint16_t*>(a.q) + (token0 + query1) * a.q_ld + head0 + t * 8;
  uint32_t q[D / 16][4];
  const uint32_t zero = unsigned(a.rows) >> 31;  // keeps the operand in four neighbouring registers
#pragma unroll
  for (int i = 0; i < D / 32; ++i) {
    const uint4 x = *reinterpret_cast<const uint4*>(q0 + i * 32), y = *reinterpret_cast<const uint4*>(q1 + i * 32);
    q[2 * i][0] = x.x ^ zero, q[2 * i][1] = y.x ^ zero, q[2 * i][2] = x.y ^ zero, q[2 * i][3] = y.y ^ zero;
    q[2 * i + 1][0] = x.z ^ zero, q[2 * i + 1][1] = y.z ^ zero, q[2 * i + 1][2] = x.w ^ zero,
              q[2 * i + 1][3] = y.w ^ zero;
  }
  const float* bias[2] = {nullptr, nullptr};
  if (a.bias) {
    bias[0] = a.bias + head * a.bias_head_stride + query0 * a.bias_ld;
    bias[1] = a.bias + head * a.bias_head_stride + query1 * a.bias_ld;
  }
  const float scale = a.score_scale * kLog2e;
  const float c = a.bias ? 1.0f : scale;  // a bias is added before the maximum, in log2 units

  float o[D / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) {
      fetch(tile + 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    const uint32_t k_tile = k_shared + (tile & 1) * kTileBytes, v_tile = v_shared + (tile & 1) * kTileBytes;
    float s[kKeys / 8][4];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] = 0.0f;
#pragma unroll
      for (int i = 0; i < D / 32; ++i) {
        const uint4 b = load_shared_16(k_tile + k_offset<D>(8 * j + g, 4 * i + t));
        mma_half<kBf16>(s[j], q[2 * i], b.x, b.y);
        mma_half<kBf16>(s[j], q[2 * i + 1], b.z, b.w);
      }
    }
    const int key0 = tile * kKeys + 2 * t;
    if (a.bias)
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = min(key0 + 8 * j + (i & 1), length - 1);
          s[j][i] = fmaf(s[j][i], scale, bias[i >> 1][key] * kLog2e);
        }
    if (tile + 1 == tiles)
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (key0 + 8 * j + (i & 1) >= length) s[j][i] = -INFINITY;
    float shift[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float m = top[h];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) m = fmaxf(m, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
      m = max_quad(m);
      const float safe = m == -INFINITY ? 0.0f : m;
      const float factor = exp2_fast((top[h] - safe) * c);
      top[h] = m;
      shift[h] = -safe * c;
      sum[h] *= factor;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) o[n][2 * h] *= factor, o[n][2 * h + 1] *= factor;
    }
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[j][i] = exp2_fast(fmaf(s[j][i], c, shift[i >> 1]));
        sum[i >> 1] += s[j][i];
      }
    const int v_row = (lane & 7) + (lane & 8), v_piece = lane >> 4;
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t pk[4] = {pack_half<kBf16>(s[2 * k][0], s[2 * k][1]), pack_half<kBf16>(s[2 * k][2], s[2 * k][3]),
                              pack_half<kBf16>(s[2 * k + 1][0], s[2 * k + 1][1]),
                              pack_half<kBf16>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        load_matrix_transposed(b, v_tile + v_offset<D>(16 * k + v_row, 2 * n + v_piece));
        mma_half<kBf16>(o[2 * n], pk, b[0], b[1]);
        mma_half<kBf16>(o[2 * n + 1], pk, b[2], b[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = sum_quad(sum[h]);
    const float r = total > 0.0f ? 1.0f / total : 0.0f;
    const int query = first + g + 8 * h;
    if (query >= length) continue;
    uint16_t* out = static_cast<uint16_t*>(a.out) + (token0 + query) * a.out_ld + head0 + 2 * t;
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      *reinterpret_cast<uint32_t*>(out + n * 8) = pack_half<kBf16>(o[n][2 * h] * r, o[n][2 * h + 1] * r);
  }
}

template <int D>
cudaError_t run(const AttentionHalfArgs& a, cudaStream_t stream) {
  HalfParams p{a, (a.max_length + kQueries - 1) / kQueries};
  const unsigned blocks = unsigned(a.rows) * a.heads * p.query_blocks;
  const auto kernel = a.type == DType::bf16 ? attention_half_kernel<D, true> : attention_half_kernel<D, false>;
  return launch(kernel, dim3(blocks), dim3(kThreads), 4 * kKeys * D * 2, stream, a.dependent_launch, p);
}

}  // namespace

cudaError_t attention_half(const AttentionHalfArgs& args, cudaStream_t stream) noexcept {
  if (args.rows == 0) return cudaSuccess;
  if (args.type != DType::f16 && args.type != DType::bf16) return cudaErrorInvalidValue;
  switch (args.head_dim) {
    case 32: return run<32>(args, stream);
    case 64: return run<64>(args, stream);
    case 128: return run<128>(args, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace octet::kernels::cuda
