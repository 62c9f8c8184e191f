// GEMM with the residual add and LayerNorm that follow it for few rows; what it computes is said in gemm_sm90_norm.cu,
// and the bits are those of the two kernels.
//
// A cluster of C blocks holds 64 whole rows, kHidden / C columns a block. Two warpgroups of a block divide k; one takes
// rows 0..7 of every 16, the other rows 8..15, and each finishes the 8 rows the other's partial sums are handed over
// for. w does not depend on the kernel before: the ring is full of it before the wait. A row's sums go to all
// blocks of the cluster through st.async on an mbarrier for the warps that hold the same rows: over 64 columns each,
// and where 64 columns are shared by two blocks (N = 96), each block's half as a thread has it, over 8 columns.
#include "kernels/cuda/gemm_sm90_norm.h"

#include "kernels/cuda/gemm_sm90_device.cuh"
#include "kernels/cuda/gemm_sm90_norm_device.cuh"

namespace octet::kernels::cuda {
namespace {

template <int N>
constexpr int kNormFewStages = norm_few_stages(N);
template <int N, int C>
constexpr int kNormFewSumRow = norm_few_sum_row(N, C);

template <int kHidden, int C>
__global__ void __launch_bounds__(288, 1)
    gemm_norm_few(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                  const __grid_constant__ GemmNormDevice args) {
  constexpr int N = kHidden / C, kGroups = N / 32, kStages = kNormFewStages<N>, kXBytes = 64 * kBlockBytes,
                kStageBytes = kXBytes + N * kBlockBytes, kHalf = N / 4;  // accumulators of 8 of the 16 rows
  constexpr bool kHalves = kGroups == 3;
  constexpr int kSumRow = kNormFewSumRow<N, C>;  // floats of a row's sums
  static_assert(N % 32 == 0 && (kGroups == 4 || (kHalves && C % 2 == 0)) && kHidden % 256 == 0);
  using Mma = ptx::Wgmma<int8_t, N>;
  extern __shared__ __align__(1024) uint8_t dynamic[];
  const uint32_t smem = ptx::smem_address(dynamic);
  int32_t* handed = (int32_t*)(dynamic + kStages * kStageBytes);  // [2][kHalf][128]
  float* vectors = (float*)(handed + 2 * kHalf * 128);            // six of N
  const uint32_t sums = ptx::smem_address(vectors) + 6 * N * 4;   // [2][64][kSumRow]
  const uint32_t full = sums + 2 * 64 * kSumRow * 4, empty = full + 8 * kStages,
                 summed = empty + 8 * kStages;  // [2][8]
  static_assert(8 * (2 * kStages + 16) <= kBarrierBytes);
  const int rank = ptx::cluster_rank(), first_row = blockIdx.x / C * 64, k_blocks = args.k_blocks;
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);

  ptx::dependency_launch();
  const auto load_w = [&](int kb, int stage) {
    ptx::mbarrier_arrive_expect(full + 8 * stage, kStageBytes);
    fetch_w(smem + stage * kStageBytes + kXBytes, &w_map, full + 8 * stage, kb * kBlockBytes, rank * kGroups, 0);
  };
  const bool loads = warp == 8 && ptx::elect_one();
  if (loads) {
    ptx::prefetch_tensormap(&x_map);
    for (int i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(full + 8 * i, 1);
      ptx::mbarrier_init(empty + 8 * i, 4);
    }
    for (int i = 0; i < 16; ++i) ptx::mbarrier_init(summed + 8 * i, 1);
    ptx::mbarrier_init_fence();
    for (int i = 0; i < 16; ++i) ptx::mbarrier_arrive_expect(summed + 8 * i, 8 * C * (kHalves ? 20 : 16));
    for (int kb = 0; kb < min(kStages, k_blocks); ++kb) load_w(kb, kb);
  }
  __syncwarp();
  ptx::cluster_arrive();
  ptx::cluster_wait();

  if (warp == 8) {
    if (loads) {
      const auto load_x = [&](int kb, int stage) {
        ptx::tma_load_2d(smem + stage * kStageBytes, &x_map, full + 8 * stage, kb * kBlockBytes, first_row);
      };
      ptx::dependency_wait();
      for (int kb = 0; kb < min(kStages, k_blocks); ++kb) load_x(kb, kb);
      uint32_t parity = 0;
      for (int kb = kStages, stage = 0; kb < k_blocks; ++kb) {
        ptx::mbarrier_wait(empty + 8 * stage, parity);
        load_w(kb, stage);
        load_x(kb, stage);
        if (++stage == kStages) stage = 0, parity ^= 1;
      }
    }
    return;
  }

  const int part = warp / 4, lane = threadIdx.x % 32, slab = warp % 4, t = lane % 4;
  for (int i = threadIdx.x; i < N; i += 256) {
    const int c = rank * N + i;
    const float inv = __fmul_rn(__ldg(args.inv_scale + c), args.inv_factor),
                out = __ldg(args.out_inv + c) * (1.0f / 255.0f);
    vectors[i] = __fmul_rn(__ldg(args.scale + c), inv);
    vectors[N + i] = fmaf(args.bias != nullptr ? __ldg(args.bias + c) : 0.0f, inv, args.shift);
    vectors[2 * N + i] = __ldg(args.q_scale + c);
    vectors[3 * N + i] = __ldg(args.residual_scale + c);
    vectors[4 * N + i] = __fmul_rn(__ldg(args.gamma + c), out);
    vectors[5 * N + i] = fmaf(__ldg(args.beta + c), out, 128.0f / 255.0f);
  }
  const int in_tile = slab * 16 + part * 8 + lane / 4, row = first_row + in_tile, column = rank * N + t * 8;
  ptx::dependency_wait();
  uint2 held[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
    held[g] = __ldcg((const uint2*)(args.residual + (int64_t)min(row, args.m - 1) * kHidden + column + g * 32));

  int32_t acc[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) acc[i] = 0;
  const auto multiply = [&](int kb) {
    const int stage = kb % kStages;
    ptx::mbarrier_wait(full + 8 * stage, kb / kStages & 1);
    const uint32_t base = smem + stage * kStageBytes;
    const uint64_t a = ptx::wgmma_descriptor(base), b = ptx::wgmma_descriptor(base + kXBytes);
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; ++s) Mma::run(acc, a + 2 * s, b + 2 * s, false);
    ptx::wgmma_commit();
  };
  const auto release = [&](int kb) { ptx::mbarrier_arrive_if(lane == 0, empty + 8 * (kb % kStages)); };
  if (part < k_blocks) multiply(part);
  for (int kb = part + 2; kb < k_blocks; kb += 2) {
    multiply(kb);
    ptx::wgmma_wait<1>();
    release(kb - 2);
  }
  ptx::wgmma_wait<0>();
  // Each warpgroup hands the other's rows over. acc[16 g + 4 (k / 2) + 2 r + k % 2] is column 32 g + 8 t + k of row
  // 8 r + lane / 4.
  const int thread = threadIdx.x % 128;
  int32_t* give = handed + (part * kHalf) * 128 + thread;
  const int32_t* take = handed + ((1 - part) * kHalf) * 128 + thread;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const int at = i / 2 * 4 + i % 2;
    give[i * 128] = part == 0 ? acc[at + 2] : acc[at];
  }
  ptx::barrier_sync(1, 256);
  float v[kGroups][8];
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const int at = i / 2 * 4 + i % 2;
    v[i / 8][i % 8] = __int2float_rn((part == 0 ? acc[at] : acc[at + 2]) + take[i * 128]);
  }

  const float* mine = vectors + t * 8;
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float scales[4], biases[4], q_scales[4], r_scales[4];
      const int at = g * 32 + half * 4;
      load4(scales, mine + at), load4(biases, mine + N + at);
      load4(q_scales, mine + 2 * N + at), load4(r_scales, mine + 3 * N + at);
      const uint32_t u = (half == 0 ? held[g].x : held[g].y) ^ 0x80808080u;
      float* e = v[g] + half * 4;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float bits = fmaf(__saturatef(fmaf(e[k], scales[k], biases[k])), args.span, args.base);
        const float other = __uint_as_float(__byte_perm(u, 0x4B000000u, 0x7440 + k)) - 8388736.0f;
        e[k] = fmaf(other, r_scales[k], __fmul_rn(__fadd_rn(bits, -args.magic), q_scales[k]));
      }
      const float four = __fadd_rn(__fadd_rn(e[0], e[1]), __fadd_rn(e[2], e[3]));
      sum[g] = half == 0 ? four : __fadd_rn(sum[g], four);
    }
  }
  // The row's total from all blocks of the cluster: every thread sends the sums of its row to blocks t and t + 4.
  const auto over_four = [](float s) {
    s = __fadd_rn(s, __shfl_xor_sync(0xffffffffu, s, 1));
    return __fadd_rn(s, __shfl_xor_sync(0xffffffffu, s, 2));
  };
  const auto total = [&](int stat) {
    const uint32_t bar = summed + 8 * (stat * 8 + part * 4 + slab), to = sums + (stat * 64 + in_tile) * kSumRow * 4;
    float message[4] = {0.0f, 0.0f, 0.0f, 0.0f}, whole = 0.0f;
    if constexpr (kHalves) {
      const bool odd = rank % 2 != 0;  // its half comes first
      whole = over_four(odd ? __fadd_rn(sum[1], sum[2]) : __fadd_rn(sum[0], sum[1]));
      const float half = odd ? sum[0] : sum[2];
#pragma unroll
      for (int i = 0; i < 4; ++i) message[i] = __shfl_sync(0xffffffffu, half, i, 4);
    } else {
      message[0] = over_four(__fadd_rn(sum[0], sum[1])), message[1] = over_four(__fadd_rn(sum[2], sum[3]));
    }
    const auto send = [&](int block) {
      const uint32_t there = map_to(bar, block);
      send4(map_to(to + rank * 16, block), there, message);
      if constexpr (kHalves) send1(map_to(to + (4 * C + rank) * 4, block), there, whole);
    };
    send(t);
    if (C == 8 || t + 4 < C) send(t + 4);
    ptx::mbarrier_wait(bar, 0);
    float units[kHidden / 64];
    if constexpr (kHalves) {
#pragma unroll
      for (int c = 0; c < C; c += 4) {
        float whole4[4];
        load4(whole4, to + (4 * C + c) * 4);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float a[4], b[4];
          load4(a, to + (c + 2 * i) * 16), load4(b, to + (c + 2 * i + 1) * 16);
          float* u = units + (c / 2 + i) * 3;
          u[0] = whole4[2 * i], u[2] = whole4[2 * i + 1];
          u[1] = __fadd_rn(__fadd_rn(__fadd_rn(a[0], b[0]), __fadd_rn(a[1], b[1])),
                           __fadd_rn(__fadd_rn(a[2], b[2]), __fadd_rn(a[3], b[3])));
        }
      }
    } else {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        float four[4];
        load4(four, to + c * 16);
        units[2 * c] = four[0], units[2 * c + 1] = four[1];
      }
    }
    float all = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < kHidden / 256; ++chunk) {
      const float* p = units + 4 * chunk;
      const float wide = __fadd_rn(__fadd_rn(p[0], p[1]), __fadd_rn(p[2], p[3]));
      all = chunk == 0 ? wide : __fadd_rn(all, wide);
    }
    return all;
  };
  constexpr float kInverse = 1.0f / kHidden;
  const float mean = __fmul_rn(total(0), kInverse);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    float four[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* d = v[g] + half * 4;
#pragma unroll
      for (int k = 0; k < 4; ++k) d[k] = __fadd_rn(d[k], -mean);
      four[half] = __fadd_rn(fmaf(d[1], d[1], __fmul_rn(d[0], d[0])), fmaf(d[3], d[3], __fmul_rn(d[2], d[2])));
    }
    sum[g] = __fadd_rn(four[0], four[1]);
  }
  const float rstd = rsqrtf(fmaf(total(1), kInverse, args.eps));
  int8_t* y = args.y + (int64_t)row * kHidden + column;
  for_each<kGroups>([&]<int g>(std::integral_constant<int, g>) {
    uint32_t q[8];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float gamma[4], beta[4];
      load4(gamma, mine + 4 * N + g * 32 + half * 4), load4(beta, mine + 5 * N + g * 32 + half * 4);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        q[half * 4 + k] = __float_as_uint(
            fmaf(__saturatef(fmaf(__fmul_rn(v[g][half * 4 + k], rstd), gamma[k], beta[k])), 255.0f, kRoundMagic));
    }
    ptx::store_inside<g * 32>(
        y, row, args.m, 0, 1,
        make_uint2(pack_bytes(q[0], q[1], q[2], q[3]) ^ 0x80808080u, pack_bytes(q[4], q[5], q[6], q[7]) ^ 0x80808080u));
  });
}

}  // namespace

const void* gemm_norm_few_c6() { return (const void*)gemm_norm_few<768, 6>; }
const void* gemm_norm_few_c8() { return (const void*)gemm_norm_few<768, 8>; }
const void* gemm_norm_few_1024_c8() { return (const void*)gemm_norm_few<1024, 8>; }

}  // namespace octet::kernels::cuda
