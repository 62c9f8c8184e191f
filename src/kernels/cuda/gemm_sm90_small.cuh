// GEMM for few rows of x: one 64 x N tile a block, so that small N puts all multiprocessors to work; k is divided among
// W warpgroups of the block, whose partial sums meet in shared memory. What counts here is latency: one warp requests
// every block of w before it waits for the kernel before (dependent launch), then x, as far as shared memory reaches.
#pragma once

#include "kernels/cuda/gemm_sm90_device.cuh"

namespace octet::kernels::cuda {

template <class T, int N, int W, Out out, bool gelu>
__global__ void __launch_bounds__(128 * W + 32, 1)
    gemm_small(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
               const __grid_constant__ GemmDevice args) {
  using Mma = ptx::Wgmma<T, N>;
  using Acc = typename Mma::Acc;
  constexpr int kXBytes = 64 * kBlockBytes, kWBytes = N * kBlockBytes, kMaxStages = 32;
  constexpr int kElements = kBlockBytes / sizeof(T);
  constexpr int kGroup = N % 32 == 0 ? 32 : 16,
                kColumns = kGroup / 4;  // neighbouring columns a thread finishes at once
  extern __shared__ __align__(1024) uint8_t dynamic[];
  const uint32_t smem = ptx::smem_address(dynamic);
  constexpr int kSumBytes = W * 128 * (N / 2) * 4;
  float* vectors = (float*)(dynamic + max(args.stages * (kXBytes + kWBytes), kSumBytes));
  static_assert(8 * 2 * kMaxStages <= kBarrierBytes);
  const uint32_t full = ptx::smem_address(vectors) + kVectorBytes<N>, empty = full + 8 * kMaxStages;
  const int k_blocks = args.k_blocks, stages = args.stages;
  const int row = blockIdx.x / args.tiles_n * 64, column = blockIdx.x % args.tiles_n * N;
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);

  ptx::dependency_launch();
  if (warp == 4 * W) {
    if (ptx::elect_one()) {
      ptx::prefetch_tensormap(&x_map);
      ptx::prefetch_tensormap(&w_map);
      for (int i = 0; i < stages; ++i) {
        ptx::mbarrier_init(full + 8 * i, 1);
        ptx::mbarrier_init(empty + 8 * i, 4);
      }
      ptx::mbarrier_init_fence();
    }
    __syncwarp();
  }
  __syncthreads();

  if (warp == 4 * W) {
    if (ptx::elect_one()) {
      int stage = 0, x_stage = 0;
      uint32_t parity = 1;
      auto load_w = [&](int kb) {
        const uint32_t bar = full + 8 * stage;
        ptx::mbarrier_wait(empty + 8 * stage, parity);
        ptx::mbarrier_arrive_expect(bar, kXBytes + kWBytes);
        fetch_w(smem + stage * (kXBytes + kWBytes) + kXBytes, &w_map, bar, kb * kElements, column / kGroup, 0);
        if (++stage == stages) stage = 0, parity ^= 1;
      };
      auto load_x = [&](int kb) {
        ptx::tma_load_2d(smem + x_stage * (kXBytes + kWBytes), &x_map, full + 8 * x_stage, kb * kElements, row);
        if (++x_stage == stages) x_stage = 0;
      };
      const int early = min(stages, k_blocks);
      for (int kb = 0; kb < early; ++kb) load_w(kb);
      ptx::dependency_wait();
      for (int kb = 0; kb < early; ++kb) load_x(kb);
      for (int kb = early; kb < k_blocks; ++kb) {
        load_w(kb);
        load_x(kb);
      }
    }
    __syncwarp();
  }

  const int part = warp / 4;
  if (warp < 4 * W) fetch_vectors<N>(vectors, args, column, threadIdx.x, 128 * W);
  Acc acc[N / 2];
  if (warp < 4 * W) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) acc[i] = 0;
    int stage = part;
    uint32_t parity = 0;
    for (int kb = part; kb < k_blocks; kb += W, stage += W) {
      while (stage >= stages) stage -= stages, parity ^= 1;
      ptx::mbarrier_wait(full + 8 * stage, parity);
      const uint32_t base = smem + stage * (kXBytes + kWBytes);
      const uint64_t a = ptx::wgmma_descriptor(base), b = ptx::wgmma_descriptor(base + kXBytes);
      ptx::wgmma_fence();
#pragma unroll
      for (int s = 0; s < 4; ++s) Mma::run(acc, a + 2 * s, b + 2 * s, false);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      ptx::mbarrier_arrive_if(threadIdx.x % 32 == 0, empty + 8 * stage);
    }
  }
  // Partial sums: [part][register][thread], over the operands, which nobody reads any more.
  __syncthreads();
  if (warp == 4 * W) return;
  Acc* sums = (Acc*)dynamic;
  const int thread = threadIdx.x % 128;
#pragma unroll
  for (int i = 0; i < N / 2; ++i) sums[(part * (N / 2) + i) * 128 + thread] = acc[i];
  ptx::barrier_sync(1, 128 * W);
  const int lane = threadIdx.x % 32;
  for (int unit = part; unit < N / kGroup * 2; unit += W) {
    const int g = unit / 2, r = unit % 2;
    const int i = row + (warp % 4) * 16 + lane / 4 + r * 8, c = column + g * kGroup + lane % 4 * kColumns;
    if (i >= args.m || c >= args.n) continue;
    float v[kColumns];
    const float* vector = vectors + c - column;
    const float row_scale = args.row_scale != nullptr ? __ldcg(args.row_scale + i) : 1.0f;
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
      Acc a = 0;
#pragma unroll
      for (int w = 0; w < W; ++w)
        a += sums[(w * (N / 2) + g * (kGroup / 2) + 4 * (e / 2) + 2 * r + e % 2) * 128 + thread];
      if constexpr (__is_same(Acc, float)) v[e] = a + vector[N + e];
      else v[e] = fmaf(__fmul_rn(__int2float_rn(a), row_scale), vector[e], vector[N + e]);
      if constexpr (gelu && out != Out::s8) v[e] = gelu_fast(v[e]);
    }
    const int64_t at = (int64_t)i * args.ldy + c;
#pragma unroll
    for (int e = 0; e < kColumns; e += 4) {
      if constexpr (out == Out::s8) {
        uint32_t q[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) q[j] = quantize_bits<gelu>(v[e + j], vector[2 * N + e + j], args);
        *(uint32_t*)((int8_t*)args.y + at + e) = pack_bytes(q[0], q[1], q[2], q[3]);
      } else if constexpr (out == Out::f16) {
        const __half2 a = __floats2half2_rn(v[e], v[e + 1]), b = __floats2half2_rn(v[e + 2], v[e + 3]);
        *(uint2*)((__half*)args.y + at + e) = make_uint2(*(const uint32_t*)&a, *(const uint32_t*)&b);
      } else {
        *(float4*)((float*)args.y + at + e) = make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
      }
    }
  }
}

}  // namespace octet::kernels::cuda
