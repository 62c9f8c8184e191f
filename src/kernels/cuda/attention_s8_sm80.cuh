// INT8 attention with mma.sync: s8 x s8 scores, f32 softmax, u8 x s8 context.
//
// One block serves one (row, head) and a range of its queries; a warp owns 16 queries at a time. Two kernels:
//  resident  the row's K and V lie in shared memory, all scores of the 16 queries in registers (SPLIT warps share the
//  keys of long rows); streamed  rows of any length: K passes twice through a double buffer, first for the softmax
//  sums, then for P V.
//
// The exponent is 2^(s - shift) with shift = 0: no maximum is searched. Only if a query's sum leaves [2^-60, 2^120] is
// that query done again with its exact maximum. A query's sum is taken per chunk of 256 keys, in each lane over even
// and over odd columns in key order, folded over the four lanes of a quad, then added chunk by chunk: the same order in
// every kernel, so a row's bits do not depend on the kernel that its batch selects.
//
// Tile layouts (lane = 4g + t; a row is head_dim bytes):
//  Q, K  the sum over channels may run in any order, so lane t takes 16 neighbouring bytes of its row as the operands
//  of two k steps: one
//        16-byte load gives both, and K stays row-major (rows of 128 bytes swap halves when odd, against bank
//        conflicts).
//  V     P V needs four keys of one channel in a word. Once per block, a warp turns 32 keys x 16 channels with
//  ldmatrix.trans and four byte
//        permutes into operands, stored in place in the order in which lanes read them. Key order inside 32 then equals
//        the order in which the score accumulators hold them, and a lane ends with 4 neighbouring channels of the
//        context.
//  acc   accumulators start at the bit pattern of 12582912.0f and thus end as floats 12582912 + sum: no conversion.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/warp.cuh"

namespace octet::kernels::cuda {
namespace {

struct S8Params {
  AttentionS8Args a;
  int query_blocks;  // blocks along a row
  int queries_per_block;
  bool heads_together;  // short rows: one warp a head
};

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kSumLow = 0x1p-60f, kSumHigh = 0x1p120f;

/// Byte offset of 16-byte piece `c` of K row `r`.
template <int D>
__device__ __forceinline__ int k_offset(int r, int c) {
  return r * D + (D == 128 ? (c ^ ((r & 1) << 2)) : c) * 16;
}
template <int D>
__device__ __forceinline__ int v_offset(int r, int c) {
  return r * D + (D == 128 ? c ^ (r & 7) : D == 64 ? c ^ ((r >> 1) & 3) : c ^ ((r >> 2) & 1)) * 16;
}

/// Rows [first, first + count) of a head to shared memory; rows from `length` on are zeros.
template <int D, bool kIsV, int kThreads>
__device__ __forceinline__ void load_rows(uint32_t shared, const int8_t* base, int64_t ld, int first, int count,
                                          int length) {
  constexpr int kPieces = D / 16;
  for (int i = threadIdx.x % kThreads; i < count * kPieces; i += kThreads) {
    const int r = i / kPieces, c = i % kPieces;
    const bool valid = first + r < length;
    copy_async_16(shared + (kIsV ? v_offset<D>(r, c) : k_offset<D>(r, c)),
                  base + (valid ? (first + r) * ld : 0) + c * 16, valid);
  }
}

/// One warp turns channels [16 first, 16 first + 16 count) of 32 keys of V into operands: read all, then (after the
/// caller's barrier) write.
template <int D, int kCount>
__device__ __forceinline__ void transpose_read(uint32_t (&f)[kCount][4], uint32_t v_block, int first) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < kCount; ++i) load_matrix_transposed(f[i], v_block + v_offset<D>(lane, first + i));
}
template <int kCount>
__device__ __forceinline__ void transpose_write(const uint32_t (&f)[kCount][4], uint32_t v_block, int first) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    store_shared_16(v_block + ((first + i) * 32 + lane) * 16, __byte_perm(f[i][0], f[i][1], 0x6420),
                    __byte_perm(f[i][2], f[i][3], 0x6420), __byte_perm(f[i][0], f[i][1], 0x7531),
                    __byte_perm(f[i][2], f[i][3], 0x7531));
}

/// Operands of 16 queries, from global memory; queries past the end repeat the last one. `zero` is 0, unknown to the
/// compiler, which otherwise leaves the words where they were loaded and moves them together before every use.
template <int D>
__device__ __forceinline__ void load_queries(uint32_t (&q)[D / 32][4], const int8_t* base, int64_t ld, int first,
                                             int length, uint32_t zero) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int8_t* row0 = base + int64_t(min(first + g, length - 1)) * ld;
  const int8_t* row1 = base + int64_t(min(first + g + 8, length - 1)) * ld;
  if constexpr (D == 32) {
    const uint2 a = *reinterpret_cast<const uint2*>(row0 + t * 8), b = *reinterpret_cast<const uint2*>(row1 + t * 8);
    q[0][0] = a.x, q[0][1] = b.x, q[0][2] = a.y, q[0][3] = b.y;
  } else {
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      const uint4 a = *reinterpret_cast<const uint4*>(row0 + i * 64 + t * 16),
                  b = *reinterpret_cast<const uint4*>(row1 + i * 64 + t * 16);
      q[2 * i][0] = a.x, q[2 * i][1] = b.x, q[2 * i][2] = a.y, q[2 * i][3] = b.y;
      q[2 * i + 1][0] = a.z, q[2 * i + 1][1] = b.z, q[2 * i + 1][2] = a.w, q[2 * i + 1][3] = b.w;
    }
  }
#pragma unroll
  for (int i = 0; i < D / 8; ++i) q[i / 4][i % 4] ^= zero;
}

/// A value that the compiler keeps in a register instead of computing it again at each use.
__device__ __forceinline__ uint32_t keep(uint32_t x) { return __shfl_sync(0xffffffffu, x, threadIdx.x & 31); }

/// Where a lane reads inside a 32-key block of K (even and odd 64-byte halves for D = 128) and of the turned V.
struct LaneOffsets {
  uint32_t k, k_high, v;
};
template <int D>
__device__ __forceinline__ LaneOffsets lane_offsets() {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  LaneOffsets o;
  o.k = keep(D == 32 ? g * 32 + t * 8 : k_offset<D>(g, t));
  o.k_high = D == 128 ? o.k ^ 64u : 0u;
  o.v = keep(lane * 16);
  return o;
}

/// Scores of 16 queries against the 32 keys whose rows start at `k_block`; s[j] are keys 8j .. 8j + 7, as floats
/// 12582912 + sum.
template <int D>
__device__ __forceinline__ void score_block(uint32_t (&s)[4][4], const uint32_t (&q)[D / 32][4], uint32_t k_block,
                                            const LaneOffsets& o) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if constexpr (D == 32) {
      const uint2 b = load_shared_8(k_block + o.k + 8 * j * 32);
      mma_s8s8_from_magic(s[j], q[0], b.x, b.y);
    } else {
#pragma unroll
      for (int i = 0; i < D / 64; ++i) {
        const uint4 b = load_shared_16(k_block + (i == 0 ? o.k : o.k_high) + 8 * j * D);
        if (i == 0) mma_s8s8_from_magic(s[j], q[0], b.x, b.y);
        else mma_s8s8(s[j], q[2 * i], b.x, b.y);
        mma_s8s8(s[j], q[2 * i + 1], b.z, b.w);
      }
    }
  }
}

/// What turns an accumulator into an exponent: c in log2 units, shift for rows g and g + 8, and the optional bias.
struct Exponent {
  float c;
  float shift[2];
  const float* bias[2];  // of the two queries, or null
};

template <bool kGeneral>
__device__ __forceinline__ float exponent_of(uint32_t s, const Exponent& e, int half, int key) {
  if (kGeneral && e.bias[0]) {
    const float x = fmaf(__uint_as_float(s) - kMagic, e.c, e.bias[half][key] * kLog2e);
    return x - e.shift[half];
  }
  return fmaf(__uint_as_float(s), e.c, e.shift[half]);
}

/// Replaces 32 scores by exponentials.
template <bool kGeneral>
__device__ __forceinline__ void exp_block(uint32_t (&s)[4][4], const Exponent& e, int key, int length) {
  const int t = threadIdx.x & 3;
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = key + 8 * j + 2 * t + (i & 1);
      float x;
      if (kGeneral && e.bias[0] && column >= length) x = -INFINITY;
      else x = exponent_of<kGeneral>(s[j][i], e, i >> 1, column);
      s[j][i] = __float_as_uint(exp2_fast(x));
    }
}
/// Exponentials of keys from `length` on become 0.
__device__ __forceinline__ void mask_block(uint32_t (&s)[4][4], int key, int length) {
  int limit = length - key - 2 * int(threadIdx.x & 3);
  asm volatile(
      ""
      : "+r"(limit));  // keeps 16 comparisons from being hoisted out of the loops, into registers that are not there
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (8 * j + (i & 1) >= limit) s[j][i] = 0;
}
/// Adds 32 exponentials to the lane's even and odd sums.
__device__ __forceinline__ void add_block(float (&sum)[2][2], const uint32_t (&s)[4][4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      asm volatile("add.f32 %0, %0, %1;" : "+f"(sum[i >> 1][i & 1]) : "f"(__uint_as_float(s[j][i])));
}

/// Folds a chunk's sums over the quad.
__device__ __forceinline__ float fold_quad(const float (&sum)[2]) {
  float x = sum[0] + sum[1];
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float max_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/// Largest exponent of 32 keys without the shift (in accumulator units when there is no bias).
template <bool kGeneral>
__device__ __forceinline__ void max_block(const uint32_t (&s)[4][4], const Exponent& e, int key, int length,
                                          float (&top)[2]) {
  const int t = threadIdx.x & 3;
  int limit = length - key - 2 * t;
  asm volatile("" : "+r"(limit));
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (8 * j + (i & 1) >= limit) continue;
      float x = __uint_as_float(s[j][i]);
      if (kGeneral && e.bias[0]) x = fmaf(x - kMagic, e.c, e.bias[i >> 1][key + 8 * j + 2 * t + (i & 1)] * kLog2e);
      top[i >> 1] = fmaxf(top[i >> 1], x);
    }
}

template <bool kGeneral>
__device__ __forceinline__ float start_shift(const Exponent& e) {
  return kGeneral && e.bias[0] ? 0.0f : -(kMagic * e.c);
}
template <bool kGeneral>
__device__ __forceinline__ float exact_shift(const Exponent& e, float top) {
  return kGeneral && e.bias[0] ? top : -(top * e.c);
}
__device__ __forceinline__ bool out_of_range(float sum) { return !(sum > kSumLow && sum < kSumHigh); }

/// Quantizes 32 exponentials: the u8 operand of P V.
template <bool kGeneral>
__device__ __forceinline__ void quantize_block(uint32_t (&p)[4], const uint32_t (&s)[4][4], const float (&r)[2],
                                               uint32_t high) {
  uint32_t u[4][4];
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      u[j][i] = __float_as_uint(fmaf(__uint_as_float(s[j][i]), r[i >> 1], kMagic));
      if (kGeneral) u[j][i] = min(u[j][i], high);
    }
  p[0] = pack_low_bytes_now(u[0][0], u[0][1], u[1][0], u[1][1]);
  p[1] = pack_low_bytes_now(u[0][2], u[0][3], u[1][2], u[1][3]);
  p[2] = pack_low_bytes_now(u[2][0], u[2][1], u[3][0], u[3][1]);
  p[3] = pack_low_bytes_now(u[2][2], u[2][3], u[3][2], u[3][3]);
}

/// P V of 32 keys, added to acc, or (kFirst) to `start`.
template <int D, bool kFirst>
__device__ __forceinline__ void context_block(uint32_t (&acc)[D / 8][4], const uint32_t (&p)[4], uint32_t v_block,
                                              const LaneOffsets& o, uint32_t start) {
#pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    const uint4 b = load_shared_16(v_block + o.v + c * 512);
    if constexpr (kFirst) {
      mma_u8s8_from(acc[2 * c], p, b.x, b.y, start);
      mma_u8s8_from(acc[2 * c + 1], p, b.z, b.w, start);
    } else {
      mma_u8s8(acc[2 * c], p, b.x, b.y);
      mma_u8s8(acc[2 * c + 1], p, b.z, b.w);
    }
  }
}

/// The multipliers of the s8 epilogue, context_scale * out_inv_scale / 255, to shared memory.
template <int D, int kThreads>
__device__ __forceinline__ void load_multipliers(float* multipliers, const AttentionS8Args& a, int head) {
  if (a.out_type != DType::s8) return;
  for (int i = threadIdx.x % kThreads; i < D; i += kThreads)
    multipliers[i] = a.context_scale[head * D + i] * a.out_inv_scale[head * D + i] * (1.0f / 255.0f);
}

/// Scales, quantizes and writes the context of 16 queries. Lane t holds channels 16c + 4t .. + 3.
template <int D, bool kGeneral>
__device__ __forceinline__ void write_context(const uint32_t (&acc)[D / 8][4], const AttentionS8Args& a,
                                              const float* multipliers, int64_t token0, int head, int first,
                                              int length) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const auto value = [&](int c, int half, int i) {
    const uint32_t sum = acc[2 * c + (i & 1)][2 * half + (i >> 1)];
    return kGeneral ? float(int32_t(sum)) : __uint_as_float(sum) - kMagic;
  };
  const int64_t at0 = (token0 + first + g) * a.out_ld + head * D + t * 4, at1 = at0 + 8 * a.out_ld;
  const bool valid0 = first + g < length, valid1 = first + g + 8 < length;
  if (a.out_type == DType::s8) {
    int8_t* out0 = static_cast<int8_t*>(a.out) + at0;
    int8_t* out1 = static_cast<int8_t*>(a.out) + at1;
#pragma unroll
    for (int c = 0; c < D / 16; ++c) {
      const float4 m4 = *reinterpret_cast<const float4*>(multipliers + c * 16 + t * 4);
      const float m[4] = {m4.x, m4.y, m4.z, m4.w};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t u[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)  // (y + 128) / 255, saturated to [0, 1] for nothing, times 255
          u[i] = __float_as_uint(fmaf(__saturatef(fmaf(value(c, half, i), m[i], 128.0f / 255.0f)), 255.0f, kMagic));
        const uint32_t word = pack_low_bytes(u[0], u[1], u[2], u[3]) ^ 0x80808080u;
        if (half == 0 ? valid0 : valid1) *reinterpret_cast<uint32_t*>((half == 0 ? out0 : out1) + c * 16) = word;
      }
    }
    return;
  }
#pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    const float4 scale = *reinterpret_cast<const float4*>(a.context_scale + head * D + c * 16 + t * 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!(half == 0 ? valid0 : valid1)) continue;
      const float y0 = value(c, half, 0) * scale.x, y1 = value(c, half, 1) * scale.y;
      const float y2 = value(c, half, 2) * scale.z, y3 = value(c, half, 3) * scale.w;
      const int64_t at = (half == 0 ? at0 : at1) + c * 16;
      if (a.out_type == DType::f32)
        *reinterpret_cast<float4*>(static_cast<float*>(a.out) + at) = make_float4(y0, y1, y2, y3);
      else if (a.out_type == DType::f16)
        *reinterpret_cast<uint2*>(static_cast<__half*>(a.out) + at) =
            make_uint2(pack_half<false>(y0, y1), pack_half<false>(y2, y3));
      else
        *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(a.out) + at) =
            make_uint2(pack_half<true>(y0, y1), pack_half<true>(y2, y3));
    }
  }
}

struct Block {
  int64_t token0;
  int length, head, first_query, end_query;
};
/// Which (row, head, queries) this block serves; length 0 when there is nothing.
__device__ __forceinline__ Block find_block(const S8Params& p) {
  const int chunk = blockIdx.x % p.query_blocks, rest = blockIdx.x / p.query_blocks;
  Block b;
  b.head = rest % p.a.heads;
  const int row = rest / p.a.heads;
  const int begin = p.a.offsets[row];
  b.token0 = begin;
  b.length = p.a.offsets[row + 1] - begin;
  b.first_query = chunk * p.queries_per_block;
  b.end_query = min(b.length, b.first_query + p.queries_per_block);
  return b;
}

template <bool kGeneral>
__device__ __forceinline__ Exponent make_exponent(const AttentionS8Args& a, const Block& b, int first) {
  const int lane = threadIdx.x & 31, g = lane >> 2;
  Exponent e;
  e.c = a.score_scale[b.head] * kLog2e;
  e.bias[0] = e.bias[1] = nullptr;
  if (kGeneral && a.bias) {
    const float* base = a.bias + b.head * a.bias_head_stride;
    e.bias[0] = base + min(first + g, b.length - 1) * a.bias_ld;
    e.bias[1] = base + min(first + g + 8, b.length - 1) * a.bias_ld;
  }
  e.shift[0] = e.shift[1] = start_shift<kGeneral>(e);
  return e;
}

template <int kSplit>
__device__ __forceinline__ void group_barrier(int group) {
  if constexpr (kSplit > 1) asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(32 * kSplit) : "memory");
}

constexpr int kWarps = 4, kThreads = 32 * kWarps;
/// Rows up to this length may be served by one warp per head, four heads a block.
constexpr int kShortKeys = 64;

/// The shared memory of a resident block: K, V, multipliers of the heads, and what split warps exchange.
template <int D, int kBlocks, int kSplit>
struct ResidentLayout {
  static constexpr int kKeys = kBlocks * 32 * kSplit > kWarps* kShortKeys ? kBlocks * 32 * kSplit : kWarps* kShortKeys;
  static constexpr int kGroups = kWarps / kSplit;
  static constexpr int kMultipliers = 2 * kKeys * D;               // f32 [kWarps][D]
  static constexpr int kExchange = kMultipliers + kWarps * D * 4;  // f32 [kGroups][kSplit][16]
  static constexpr int kPartial = kExchange + kWarps * 16 * 4;     // s32 [kGroups][kSplit - 1][16][D]
  static constexpr int kBytes = kPartial + (kSplit > 1 ? kGroups * (kSplit - 1) * 16 * D * 4 : 0);
};

/// What the warps that share 16 queries need to know of each other.
struct Group {
  int group, part;
  float* exchange;    // [kSplit][16] of this group
  uint32_t* partial;  // [kSplit - 1][16 * D] of this group
};

/// Combines a value of rows g and g + 8 over the split warps, in key order.
template <int kSplit, bool kMax>
__device__ __forceinline__ void combine(float (&x)[2], const Group& w) {
  if constexpr (kSplit > 1) {
    const int lane = threadIdx.x & 31, g = lane >> 2;
    if ((lane & 3) == 0) w.exchange[w.part * 16 + g] = x[0], w.exchange[w.part * 16 + g + 8] = x[1];
    group_barrier<kSplit>(w.group);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      x[h] = w.exchange[g + 8 * h];
#pragma unroll
      for (int i = 1; i < kSplit; ++i)
        x[h] = kMax ? fmaxf(x[h], w.exchange[i * 16 + g + 8 * h]) : x[h] + w.exchange[i * 16 + g + 8 * h];
    }
    group_barrier<kSplit>(w.group);
  }
}

/// Blocks that were skipped are zeroed: registers written only under a condition count as live around the whole loop,
/// and spill.
template <int n>
__device__ __forceinline__ void zero(uint32_t (&s)[n][4]) {
#pragma unroll
  for (int i = 0; i < 4 * n; ++i) s[i / 4][i % 4] = 0;
}

/// All query tiles first, first + step, ... of a warp, over `blocks` <= kBlocks blocks of 32 keys from key0 on. Each
/// block's branch holds the products of the next block beside its own exponentials (and P V of the block before beside
/// its own quantization), so that tensor cores, exponentials and arithmetic overlap; without the branches the compiler
/// issues all products first and runs out of registers. turn_v() makes V ready; it is called once, by every warp, after
/// the first scores.
template <int D, int kBlocks, int kSplit, bool kGeneral, bool kFused, typename TurnV>
__device__ __forceinline__ void serve_queries(const AttentionS8Args& a, const Block& b, const float* multipliers,
                                              uint32_t k_part, uint32_t v_part, int key0, int blocks, int first,
                                              int step, const Group& w, TurnV&& turn_v) {
  [[maybe_unused]] const int lane = threadIdx.x & 31;
  const int8_t* q_base = a.q + b.token0 * a.q_ld + int64_t(b.head) * D;
  const LaneOffsets offsets = lane_offsets<D>();
  constexpr int kLead = kBlocks / 2;  // P V starts when quantization has freed the registers for its sums
  bool v_ready = false;
  for (; first < b.end_query || !v_ready; first += step) {
    const bool active = first < b.end_query;
    __syncwarp();  // nothing loaded from shared memory is kept from the tile before
    uint32_t s[kBlocks][4][4];
    uint32_t packed[kBlocks][4];
    const uint32_t high = kMagicBits + a.prob_hi;
    float r[2];
    if (active) {
      uint32_t q[D / 32][4];
      load_queries<D>(q, q_base, a.q_ld, first, b.length, unsigned(a.rows) >> 31);
      Exponent e = make_exponent<kGeneral>(a, b, first);
      float sum[2][2] = {};
      score_block<D>(s[0], q, k_part, offsets);
#pragma unroll
      for (int i = 0; i <= kBlocks; ++i) {
        if (i < kBlocks && i < blocks) {
          if (i + 1 < kBlocks) score_block<D>(s[i + 1 < kBlocks ? i + 1 : 0], q, k_part + (i + 1) * 32 * D, offsets);
          exp_block<kGeneral>(s[i], e, key0 + i * 32, b.length);
          if (i > 0) add_block(sum, s[i - 1]);
        } else {
          if (i == blocks && i > 0) {
            mask_block(s[i > 0 ? i - 1 : 0], key0 + (i - 1) * 32, b.length);
            add_block(sum, s[i > 0 ? i - 1 : 0]);
          }
          if (i + 1 < kBlocks) zero(s[i + 1 < kBlocks ? i + 1 : 0]);
        }
      }
      r[0] = fold_quad(sum[0]), r[1] = fold_quad(sum[1]);
      combine<kSplit, false>(r, w);
      if (__any_sync(0xffffffffu, out_of_range(r[0]) || out_of_range(r[1]))) {  // rare: again, with the exact maximum
        __syncwarp();
        float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int i = 0; i < kBlocks; ++i)
          if (i < blocks) {
            score_block<D>(s[i], q, k_part + i * 32 * D, offsets);
            max_block<kGeneral>(s[i], e, key0 + i * 32, b.length, top);
          }
        top[0] = max_quad(top[0]), top[1] = max_quad(top[1]);
        combine<kSplit, true>(top, w);
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (out_of_range(r[h])) e.shift[h] = exact_shift<kGeneral>(e, top[h]);
        sum[0][0] = sum[0][1] = sum[1][0] = sum[1][1] = 0.0f;
#pragma unroll
        for (int i = 0; i < kBlocks; ++i)
          if (i < blocks) {
            exp_block<kGeneral>(s[i], e, key0 + i * 32, b.length);
            mask_block(s[i], key0 + i * 32, b.length);
            add_block(sum, s[i]);
          }
        r[0] = fold_quad(sum[0]), r[1] = fold_quad(sum[1]);
        combine<kSplit, false>(r, w);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) r[h] = r[h] > 0.0f ? __fdividef(a.prob_inv_scale, r[h]) : 0.0f;
      if constexpr (!kFused) {
#pragma unroll
        for (int i = 0; i < kBlocks; ++i)
          if (i < blocks) quantize_block<kGeneral>(packed[i], s[i], r, high);
          else packed[i][0] = packed[i][1] = packed[i][2] = packed[i][3] = 0;
      }
    }
    if (!v_ready) {
      turn_v();
      v_ready = true;
    }
    if (!active) break;
    uint32_t acc[D / 8][4];
    const uint32_t start = kGeneral || w.part > 0 ? 0u : kMagicBits;
    if constexpr (!kFused) {
      context_block<D, true>(acc, packed[0], v_part, offsets, start);
#pragma unroll
      for (int i = 1; i < kBlocks; ++i)
        if (i < blocks) context_block<D, false>(acc, packed[i], v_part + i * 32 * D, offsets, 0);
    } else {  // quantization beside P V
#pragma unroll
      for (int i = 0; i < kLead; ++i)
        quantize_block<kGeneral>(packed[i], s[i], r, high);  // of zeros where there is no block
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        constexpr int kLast = kBlocks - 1;
        const int next = i + kLead < kLast ? i + kLead : kLast;
        if (i == 0) {
          quantize_block<kGeneral>(packed[next], s[next], r, high);
          context_block<D, true>(acc, packed[0], v_part, offsets, start);
        } else if (i < blocks) {
          if (i + kLead < kBlocks) quantize_block<kGeneral>(packed[next], s[next], r, high);
          context_block<D, false>(acc, packed[i], v_part + i * 32 * D, offsets, 0);
        } else if (i + kLead < kBlocks) {
          packed[next][0] = packed[next][1] = packed[next][2] = packed[next][3] = 0;
        }
      }
    }
    if constexpr (kSplit > 1) {
      if (w.part > 0) {
#pragma unroll
        for (int i = 0; i < D / 8; ++i)
#pragma unroll
          for (int k = 0; k < 4; ++k) w.partial[(w.part - 1) * 16 * D + (i * 4 + k) * 32 + lane] = acc[i][k];
      }
      group_barrier<kSplit>(w.group);
      if (w.part > 0) continue;
#pragma unroll
      for (int other = 0; other < kSplit - 1; ++other)
#pragma unroll
        for (int i = 0; i < D / 8; ++i)
#pragma unroll
          for (int k = 0; k < 4; ++k) acc[i][k] += w.partial[other * 16 * D + (i * 4 + k) * 32 + lane];
    }
    write_context<D, kGeneral>(acc, a, multipliers, b.token0, b.head, first, b.length);
  }
}

/// kBlocks: 32-key blocks that a warp holds; kSplit warps share one group of 16 queries (kBlocks is then 8, the chunk
/// of the sum).
template <int D, int kBlocks, int kSplit, bool kGeneral, int kPerSm, bool kFused>
__global__ __launch_bounds__(kThreads, kPerSm) void attention_s8_resident(const __grid_constant__ S8Params p) {
  static_assert(kSplit == 1 || kBlocks == 8, "split warps hold whole chunks of the sum");
  using Layout = ResidentLayout<D, kBlocks, kSplit>;
  extern __shared__ __align__(128) uint8_t shared[];
  wait_for_inputs();
  launch_dependents();
  const AttentionS8Args& a = p.a;
  Block b = find_block(p);
  if (b.first_query >= b.length) return;
  const int warp = threadIdx.x >> 5;
  const uint32_t k_shared = shared_address(shared), v_shared = k_shared + Layout::kKeys * D;
  float* multipliers = reinterpret_cast<float*>(shared + Layout::kMultipliers);
  const int padded = (b.length + 31) & ~31;

  if (p.heads_together && b.length <= kShortKeys) {  // one warp a head: nothing is shared, nobody waits
    if (b.head % kWarps != 0 || b.first_query > 0) return;
    b.head += warp;
    if (b.head >= a.heads) return;
    b.end_query = b.length;
    multipliers += warp * D;
    const uint32_t k_warp = k_shared + warp * kShortKeys * D, v_warp = v_shared + warp * kShortKeys * D;
    const int64_t head0 = int64_t(b.head) * D;
    load_rows<D, false, 32>(k_warp, a.k + b.token0 * a.k_ld + head0, a.k_ld, 0, padded, b.length);
    copy_commit();
    load_rows<D, true, 32>(v_warp, a.v + b.token0 * a.v_ld + head0, a.v_ld, 0, padded, b.length);
    copy_commit();
    load_multipliers<D, 32>(multipliers, a, b.head);
    copy_wait<1>();
    __syncwarp();
    serve_queries<D, 2, 1, kGeneral, true>(a, b, multipliers, k_warp, v_warp, 0, padded / 32, 0, 16, Group{}, [&] {
      copy_wait<0>();
      __syncwarp();
#pragma unroll 1
      for (int i = 0; i < padded / 32; ++i) {
        uint32_t f[D / 16][4];
        transpose_read<D, D / 16>(f, v_warp + i * 32 * D, 0);
        __syncwarp();
        transpose_write<D / 16>(f, v_warp + i * 32 * D, 0);
      }
      __syncwarp();
    });
    return;
  }

  const int64_t head0 = int64_t(b.head) * D;
  load_rows<D, false, kThreads>(k_shared, a.k + b.token0 * a.k_ld + head0, a.k_ld, 0, padded, b.length);
  copy_commit();
  load_rows<D, true, kThreads>(v_shared, a.v + b.token0 * a.v_ld + head0, a.v_ld, 0, padded, b.length);
  copy_commit();
  load_multipliers<D, kThreads>(multipliers, a, b.head);

  Group w;
  w.group = warp / kSplit, w.part = warp % kSplit;
  w.exchange = reinterpret_cast<float*>(shared + Layout::kExchange) + w.group * kSplit * 16;
  w.partial = reinterpret_cast<uint32_t*>(shared + Layout::kPartial) + w.group * (kSplit - 1) * 16 * D;
  const int key0 = w.part * kBlocks * 32;
  const auto turn_v = [&] {
    copy_wait<0>();
    __syncthreads();
    for (int i = warp; i < padded / 32; i += kWarps) {
      uint32_t f[D / 16][4];
      transpose_read<D, D / 16>(f, v_shared + i * 32 * D, 0);
      __syncwarp();
      transpose_write<D / 16>(f, v_shared + i * 32 * D, 0);
    }
    __syncthreads();
  };
  copy_wait<1>();
  __syncthreads();
  serve_queries<D, kBlocks, kSplit, kGeneral, kFused>(a, b, multipliers, k_shared + key0 * D, v_shared + key0 * D, key0,
                                                      min(kBlocks, padded / 32 - w.part * kBlocks),
                                                      b.first_query + w.group * 16, 16 * (kWarps / kSplit), w, turn_v);
}

constexpr int kStreamWarps = 8, kStreamThreads = 32 * kStreamWarps, kTileKeys = 128;

template <int D>
constexpr int streamed_bytes() {
  return 4 * kTileKeys * D + D * 4;
}

template <int D, bool kGeneral>
__global__ __launch_bounds__(kStreamThreads,
                             D == 128 ? 1 : 2) void attention_s8_streamed(const __grid_constant__ S8Params p) {
  extern __shared__ __align__(128) uint8_t shared[];
  wait_for_inputs();
  launch_dependents();
  const AttentionS8Args& a = p.a;
  const Block b = find_block(p);
  if (b.first_query >= b.length) return;
  const uint32_t k_shared = shared_address(shared), v_shared = k_shared + 2 * kTileKeys * D;
  float* multipliers = reinterpret_cast<float*>(shared + 4 * kTileKeys * D);  // [D], ready at the first barrier
  load_multipliers<D, kStreamThreads>(multipliers, a, b.head);
  const int64_t head0 = int64_t(b.head) * D;
  const int8_t* k_base = a.k + b.token0 * a.k_ld + head0;
  const int8_t* v_base = a.v + b.token0 * a.v_ld + head0;
  const int tiles = (b.length + kTileKeys - 1) / kTileKeys;
  const int warp = threadIdx.x >> 5;

  const LaneOffsets offsets = lane_offsets<D>();
  // Calls step(tile, K of the tile, V of the tile); every thread takes part.
  const auto stream = [&](bool with_v, auto&& step) {
    const auto fetch = [&](int tile) {
      const int stage = tile & 1, first = tile * kTileKeys;
      load_rows<D, false, kStreamThreads>(k_shared + stage * kTileKeys * D, k_base, a.k_ld, first, kTileKeys, b.length);
      if (with_v)
        load_rows<D, true, kStreamThreads>(v_shared + stage * kTileKeys * D, v_base, a.v_ld, first, kTileKeys,
                                           b.length);
      copy_commit();
    };
    fetch(0);
    for (int tile = 0; tile < tiles; ++tile) {
      if (tile + 1 < tiles) {
        fetch(tile + 1);
        copy_wait<1>();
      } else {
        copy_wait<0>();
      }
      __syncthreads();
      const uint32_t v_tile = v_shared + (tile & 1) * kTileKeys * D;
      if (with_v) {
        uint32_t f[D / 32][4];
        const uint32_t v_block = v_tile + (warp >> 1) * 32 * D;
        transpose_read<D, D / 32>(f, v_block, (warp & 1) * (D / 32));
        __syncthreads();
        transpose_write<D / 32>(f, v_block, (warp & 1) * (D / 32));
        __syncthreads();
      }
      step(tile, k_shared + (tile & 1) * kTileKeys * D, v_tile);
      __syncthreads();
    }
  };

  // A tile is taken as two steps of 64 keys, without branches, so that products overlap exponentials; only the last
  // tile is masked.
  for (int base = b.first_query; base < b.end_query; base += 16 * kStreamWarps) {
    const int first = base + warp * 16;
    const bool active = first < b.end_query;
    uint32_t q[D / 32][4];
    load_queries<D>(q, a.q + b.token0 * a.q_ld + head0, a.q_ld, first, b.length, unsigned(a.rows) >> 31);
    Exponent e = make_exponent<kGeneral>(a, b, first);
    const auto exponentials = [&](uint32_t(&s)[2][4][4], uint32_t k_step, int key) {
      score_block<D>(s[0], q, k_step, offsets);
      score_block<D>(s[1], q, k_step + 32 * D, offsets);
      exp_block<kGeneral>(s[0], e, key, b.length);
      exp_block<kGeneral>(s[1], e, key + 32, b.length);
      if (key + 64 > b.length) mask_block(s[0], key, b.length), mask_block(s[1], key + 32, b.length);
    };
    float total[2] = {0.0f, 0.0f};
#pragma unroll 1
    for (int attempt = 0;; ++attempt) {
      if (attempt == 1) {
        float top[2] = {-INFINITY, -INFINITY};
        stream(false, [&](int tile, uint32_t k_tile, uint32_t) {
#pragma unroll 1
          for (int i = 0; i < kTileKeys / 32; ++i) {
            uint32_t s[4][4];
            score_block<D>(s, q, k_tile + i * 32 * D, offsets);
            max_block<kGeneral>(s, e, tile * kTileKeys + i * 32, b.length, top);
          }
        });
        top[0] = max_quad(top[0]), top[1] = max_quad(top[1]);
        for (int h = 0; h < 2; ++h)
          if (out_of_range(total[h])) e.shift[h] = exact_shift<kGeneral>(e, top[h]);
      }
      total[0] = total[1] = 0.0f;
      float sum[2][2] = {};
      stream(false, [&](int tile, uint32_t k_tile, uint32_t) {
        if (active)
#pragma unroll
          for (int i = 0; i < kTileKeys / 64; ++i) {
            uint32_t s[2][4][4];
            exponentials(s, k_tile + i * 64 * D, tile * kTileKeys + i * 64);
            add_block(sum, s[0]), add_block(sum, s[1]);
          }
        if ((tile & 1) || tile + 1 == tiles)
          for (int h = 0; h < 2; ++h) {
            total[h] += fold_quad(sum[h]);
            sum[h][0] = sum[h][1] = 0.0f;
          }
      });
      if (attempt == 1 || !__syncthreads_or(active && (out_of_range(total[0]) || out_of_range(total[1])))) break;
    }
    float r[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) r[h] = total[h] > 0.0f ? __fdividef(a.prob_inv_scale, total[h]) : 0.0f;
    uint32_t acc[D / 8][4];
#pragma unroll
    for (int i = 0; i < D / 8; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) acc[i][k] = kGeneral ? 0u : kMagicBits;
    stream(true, [&](int tile, uint32_t k_tile, uint32_t v_tile) {
      if (active)
#pragma unroll
        for (int i = 0; i < kTileKeys / 64; ++i) {
          uint32_t s[2][4][4], packed[4];
          exponentials(s, k_tile + i * 64 * D, tile * kTileKeys + i * 64);
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            quantize_block<kGeneral>(packed, s[k], r, kMagicBits + a.prob_hi);
            context_block<D, false>(acc, packed, v_tile + (2 * i + k) * 32 * D, offsets, 0);
          }
        }
    });
    if (active) write_context<D, kGeneral>(acc, a, multipliers, b.token0, b.head, first, b.length);
  }
}

/// Queries a block takes: the whole row when there are rows enough to fill the machine, else pieces.
inline int choose_queries(const AttentionS8Args& a, int step, int blocks_wanted) {
  if (a.queries_per_block > 0) return (a.queries_per_block + step - 1) / step * step;
  int queries = (a.max_length + step - 1) / step * step;
  while (queries > step && int64_t(a.rows) * a.heads * ((a.max_length + queries - 1) / queries) < blocks_wanted)
    queries = (queries / 2 + step - 1) / step * step;
  return queries;
}

/// Shared memory a block may have on this device.
inline int shared_limit() {
  static const int limit = [] {
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) == cudaSuccess)
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return bytes;
  }();
  return limit;
}

template <int D, bool kGeneral>
cudaError_t run_attention_s8(const AttentionS8Args& a, cudaStream_t stream) {
  const auto go = [&](auto kernel, int bytes, int threads, int step, int blocks_wanted) {
    S8Params p{a, 0, choose_queries(a, step, blocks_wanted), a.rows * a.heads >= 1024};
    p.query_blocks = (a.max_length + p.queries_per_block - 1) / p.queries_per_block;
    const unsigned blocks = unsigned(a.rows) * a.heads * p.query_blocks;
    return launch(kernel, dim3(blocks), dim3(threads), bytes, stream, a.dependent_launch, p);
  };
  if (a.max_length <= 64)
    return go(attention_s8_resident<D, 2, 1, kGeneral, 4, true>, ResidentLayout<D, 2, 1>::kBytes, kThreads, 64, 396);
  if (a.max_length <= 128)
    return go(attention_s8_resident<D, 4, 1, kGeneral, 4, false>, ResidentLayout<D, 4, 1>::kBytes, kThreads, 64, 264);
  if (a.max_length <= 256)
    return go(attention_s8_resident < D, 8, 1, kGeneral, D == 128 ? 2 : 3, false >, ResidentLayout<D, 8, 1>::kBytes,
              kThreads, 64, 264);
  if (a.max_length <= 512 && ResidentLayout<D, 8, 2>::kBytes <= shared_limit())
    return go(attention_s8_resident < D, 8, 2, kGeneral,
              D == 128   ? 1
              : kGeneral ? 2
                         : 3,
              false >, ResidentLayout<D, 8, 2>::kBytes, kThreads, 32, 264);
  return go(attention_s8_streamed<D, kGeneral>, streamed_bytes<D>(), kStreamThreads, 128, 264);
}

}  // namespace

template <int D>
cudaError_t attention_s8_head(const AttentionS8Args& a, cudaStream_t stream) noexcept {
  // The plain kernel relies on p * 255 <= 255 and on sums below 2^22.
  const bool general = a.bias || a.prob_hi < a.prob_inv_scale || a.prob_inv_scale > 255.0f || a.max_length > 32768;
  return general ? run_attention_s8<D, true>(a, stream) : run_attention_s8<D, false>(a, stream);
}

}  // namespace octet::kernels::cuda
