// f16 / bf16 attention on 9.0: wgmma for both products, K and V by the bulk copy engine, f32 sums, one pass over the
// keys with a running maximum. Heads of 64.
//
// A warpgroup owns 64 queries of one (row, head); a block of G warpgroups shares the row's K and V, which pass through
// a ring of 128-key stages. Scores stay in registers, where they become the left operand of P V; V is the right one as
// it lies in memory (its channels are contiguous, which wgmma takes for 16-bit types). Two blocks a multiprocessor, so
// that one warpgroup's exponentials run beside another's products.
//
// A row's keys are cut from its own first token on, so its bits do not depend on its batch. A box may reach beyond the
// row: scores there are masked, and V's rows there are zeroed in shared memory (0 times another row's infinity would be
// NaN).
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace octet::kernels::cuda {
namespace {

constexpr int kDim = 64, kKeys = 128, kQueries = 64, kMostStages = 3;
constexpr int kTileBytes = kKeys * kDim * 2, kQueryBytes = kQueries * kDim * 2;
constexpr int kBarrierBytes = 8 * (1 + 3 * kMostStages);
constexpr float kLog2e = 1.44269504088896341f;

struct Params {
  const int32_t* offsets;
  uint16_t* out;
  int64_t out_ld;
  float scale;  // of the scores, times log2(e)
  int heads, query_blocks, stages;
};

// D[64, 128] (+)= Q[64, 16] K[128, 16]^T, both in shared memory.
template <bool kBf16>
__device__ __forceinline__ void multiply_scores(float (&d)[64], uint64_t a, uint64_t b, bool fresh) {
#define OCTET_SCORES(type)                                                                                          \
  asm volatile(                                                                                                     \
      "{\n .reg .pred p;\n setp.eq.u32 p, %66, 0;\n"                                                                \
      " wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                                                 \
      " {"                                                                                                          \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                      \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                            \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                            \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                           \
      "%64, %65, p, 1, 1, 0, 0;\n}"                                                                                 \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), \
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),      \
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),     \
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),     \
        "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),     \
        "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),     \
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),     \
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])                   \
      : "l"(a), "l"(b), "r"((uint32_t)fresh))
  if constexpr (kBf16) OCTET_SCORES("bf16");
  else OCTET_SCORES("f16");
#undef OCTET_SCORES
}

// D[64, 64] += P[64, 16] V[16, 64], P in registers, V with its channels contiguous.
template <bool kBf16>
__device__ __forceinline__ void multiply_values(float (&d)[32], const uint32_t (&p)[4], uint64_t v) {
#define OCTET_VALUES(type)                                                                                             \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                             \
               " {"                                                                                                    \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                     \
               "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                                                \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),       \
                 "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
                 "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),            \
                 "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),            \
                 "+f"(d[30]), "+f"(d[31])                                                                              \
               : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v))
  if constexpr (kBf16) OCTET_VALUES("bf16");
  else OCTET_VALUES("f16");
#undef OCTET_VALUES
}

template <bool kBf16>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t r;
  if constexpr (kBf16) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ float max_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float sum_quad(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

template <bool kBf16, int G>
__global__ void __launch_bounds__(128 * G, 4 / G)
    attention_half_sm90_kernel(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                               const __grid_constant__ CUtensorMap v_map, const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t q_shared = ptx::smem_address(shared), ring = q_shared + G * kQueryBytes;
  const uint32_t q_full = ring + p.stages * 2 * kTileBytes, k_full = q_full + 8, v_full = k_full + 8 * kMostStages,
                 empty = v_full + 8 * kMostStages;
  ptx::dependency_launch();
  if (threadIdx.x == 0) {
    ptx::prefetch_tensormap(&q_map);
    ptx::prefetch_tensormap(&k_map);
    ptx::prefetch_tensormap(&v_map);
  }
  ptx::dependency_wait();
  const int chunk = blockIdx.x % p.query_blocks, rest = blockIdx.x / p.query_blocks;
  const int head = rest % p.heads, row = rest / p.heads;
  const int token0 = p.offsets[row], length = p.offsets[row + 1] - token0;
  const int block_query = chunk * G * kQueries;
  if (block_query >= length) return;
  const int groups = min(G, (length - block_query + kQueries - 1) / kQueries);  // the others have no queries
  const int tiles = (length + kKeys - 1) / kKeys;
  const auto fetch = [&](int tile, int stage) {
    const int token = token0 + tile * kKeys;
    const uint32_t k = ring + stage * 2 * kTileBytes, v = k + kTileBytes;
    ptx::mbarrier_arrive_expect(k_full + 8 * stage, kTileBytes);
    ptx::tma_load_2d(k, &k_map, k_full + 8 * stage, head * kDim, token);
    ptx::mbarrier_arrive_expect(v_full + 8 * stage, kTileBytes);
    ptx::tma_load_2d(v, &v_map, v_full + 8 * stage, head * kDim, token);
  };
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(q_full, 1);
    for (int s = 0; s < p.stages; ++s) {
      ptx::mbarrier_init(k_full + 8 * s, 1);
      ptx::mbarrier_init(v_full + 8 * s, 1);
      ptx::mbarrier_init(empty + 8 * s, groups);
    }
    ptx::mbarrier_init_fence();
    ptx::mbarrier_arrive_expect(q_full, groups * kQueryBytes);
    for (int g = 0; g < groups; ++g)
      ptx::tma_load_2d(q_shared + g * kQueryBytes, &q_map, q_full, head * kDim, token0 + block_query + g * kQueries);
    for (int s = 0; s < min(p.stages, tiles); ++s) fetch(s, s);
  }
  __syncthreads();
  const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
  if (group >= groups) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, t = lane % 4;

  float o[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) o[i] = 0.0f;
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  const uint64_t q = ptx::wgmma_descriptor(q_shared + group * kQueryBytes);
  ptx::mbarrier_wait(q_full, 0);
  int stage = 0;
  uint32_t parity = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    const uint32_t k_tile = ring + stage * 2 * kTileBytes, v_tile = k_tile + kTileBytes;
    float s[64];
    ptx::mbarrier_wait(k_full + 8 * stage, parity);
    const uint64_t k = ptx::wgmma_descriptor(k_tile);
#pragma unroll
    for (int i = 0; i < 64; ++i) ptx::wgmma_pin(s[i]);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) multiply_scores<kBf16>(s, q + 2 * i, k + 2 * i, i == 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 64; ++i) ptx::wgmma_pin(s[i]);
    const int keys = length - tile * kKeys;  // from this tile on
    if (keys < kKeys) {
#pragma unroll
      for (int i = 0; i < 64; ++i)
        if (i / 4 * 8 + 2 * t + i % 2 >= keys) s[i] = -INFINITY;
    }
    float shift[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float m[4] = {top[h], s[2 * h], s[2 * h + 1], s[4 + 2 * h]};
#pragma unroll
      for (int i = 3; i < 32; ++i) m[i % 4] = fmaxf(m[i % 4], s[i / 2 * 4 + 2 * h + i % 2]);
      const float most = max_quad(fmaxf(fmaxf(m[0], m[1]), fmaxf(m[2], m[3])));
      const float factor = ptx::exp2_fast((top[h] - most) * p.scale);
      top[h] = most;
      shift[h] = -most * p.scale;
      sum[h] *= factor;
#pragma unroll
      for (int n = 0; n < 8; ++n) o[4 * n + 2 * h] *= factor, o[4 * n + 2 * h + 1] *= factor;
    }
    uint32_t probabilities[kKeys / 16][4];
    float partial[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int h = i % 2;
      const float a = ptx::exp2_fast(fmaf(s[2 * i], p.scale, shift[h])),
                  b = ptx::exp2_fast(fmaf(s[2 * i + 1], p.scale, shift[h]));
      partial[h][0] += a, partial[h][1] += b;
      probabilities[i / 4][i % 4] = pack<kBf16>(a, b);
    }
    sum[0] += partial[0][0] + partial[0][1], sum[1] += partial[1][0] + partial[1][1];

    ptx::mbarrier_wait(v_full + 8 * stage, parity);
    if (keys < kKeys) {  // what lies behind the row
      uint8_t* v = shared + (v_tile - q_shared);
      for (int i = threadIdx.x % 128 + keys * 8; i < kKeys * 8; i += 128)
        reinterpret_cast<uint4*>(v)[i] = make_uint4(0, 0, 0, 0);
      ptx::fence_async_shared();
      ptx::barrier_sync(1 + group, 128);
    }
    // Channels are contiguous: 8 keys of 128 bytes are 1,024 bytes, a step of 16 keys two of them.
    const uint64_t v = ptx::wgmma_descriptor(v_tile);
#pragma unroll
    for (int i = 0; i < 32; ++i) ptx::wgmma_pin(o[i]);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) multiply_values<kBf16>(o, probabilities[i], v + i * (2048 / 16));
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 32; ++i) ptx::wgmma_pin(o[i]);
    if (tiles > p.stages) {
      // The stage is free when every warp of every warpgroup has read it; one thread fetches the tile that comes
      // `stages` later.
      ptx::barrier_sync(1 + group, 128);
      if (threadIdx.x % 128 == 0) ptx::mbarrier_arrive(empty + 8 * stage);
      // One tile late, so that this warpgroup seldom waits for the others.
      const int before = stage == 0 ? p.stages - 1 : stage - 1, next = tile - 1 + p.stages;
      if (threadIdx.x == 0 && tile > 0 && next < tiles) {
        ptx::mbarrier_wait(empty + 8 * before, (tile - 1) / p.stages & 1);
        fetch(next, before);
      }
    }
    if (++stage == p.stages) stage = 0, parity ^= 1;
  }

  // Through this warpgroup's part of Q's memory, so that rows are written 128 bytes at a time.
  ptx::barrier_sync(1 + group, 128);
  uint8_t* mine = shared + group * kQueryBytes + warp * 16 * 128;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = sum_quad(sum[h]);
    const float r = total > 0.0f ? 1.0f / total : 0.0f;
    const int line = lane / 4 + 8 * h;
#pragma unroll
    for (int n = 0; n < 8; ++n)
      *reinterpret_cast<uint32_t*>(mine + line * 128 + (n ^ (line & 7)) * 16 + t * 4) =
          pack<kBf16>(o[4 * n + 2 * h] * r, o[4 * n + 2 * h + 1] * r);
  }
  __syncwarp();
  const int query0 = block_query + group * kQueries + warp * 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int line = i * 4 + lane / 8, piece = lane % 8;
    const uint4 value = *reinterpret_cast<const uint4*>(mine + line * 128 + (piece ^ (line & 7)) * 16);
    if (query0 + line < length)
      *reinterpret_cast<uint4*>(p.out + (token0 + query0 + line) * p.out_ld + head * kDim + piece * 8) = value;
  }
}

template <bool kBf16, int G>
cudaError_t run(const AttentionHalfArgs& a, cudaStream_t stream) {
  CUtensorMap q, k, v;
  const int64_t columns = int64_t{a.heads} * kDim;
  if (!encode_matrix(&q, a.type, a.q, a.tokens, columns, a.q_ld, kQueries) ||
      !encode_matrix(&k, a.type, a.k, a.tokens, columns, a.k_ld, kKeys) ||
      !encode_matrix(&v, a.type, a.v, a.tokens, columns, a.v_ld, kKeys))
    return cudaErrorInvalidValue;
  const int most_tiles = (a.max_length + kKeys - 1) / kKeys;
  Params p{a.offsets,
           static_cast<uint16_t*>(a.out),
           a.out_ld,
           a.score_scale * kLog2e,
           a.heads,
           (a.max_length + G * kQueries - 1) / (G * kQueries),
           most_tiles < kMostStages ? most_tiles : kMostStages};
  const auto blocks = unsigned(a.rows) * unsigned(a.heads) * unsigned(p.query_blocks);
  return launch(attention_half_sm90_kernel<kBf16, G>, dim3(blocks), dim3(128 * G),
                size_t(G * kQueryBytes + p.stages * 2 * kTileBytes + kBarrierBytes), stream, a.dependent_launch, q, k,
                v, p);
}

}  // namespace

cudaError_t attention_half_sm90(const AttentionHalfArgs& args, cudaStream_t stream) noexcept {
  if (args.rows == 0) return cudaSuccess;
  if (args.head_dim != kDim || args.bias != nullptr) return cudaErrorInvalidValue;
  const bool bf16 = args.type == DType::bf16;
  if (args.max_length <= kQueries) return bf16 ? run<true, 1>(args, stream) : run<false, 1>(args, stream);
  return bf16 ? run<true, 2>(args, stream) : run<false, 2>(args, stream);
}

}  // namespace octet::kernels::cuda
