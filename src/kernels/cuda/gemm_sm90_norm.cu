// GEMM with the residual add and LayerNorm that follow it, s8 x s8 -> s8, for rows of 768 outputs:
//   q = requantize(x[m,k] . w[768,k]^T * scale + bias);  v = q * q_scale + residual * residual_scale;
//   y = requantize((v - mean(v)) / sqrt(var(v) + eps) * gamma + beta)
// The bits are those of the two kernels it stands for: the same operations, and sums in the order of add_norm_s8.
//
// A cluster of C blocks holds 64H whole rows, 768 / C columns a block, in the registers of three warpgroups of 64H x
// 256 / C each. Blocks share x (each fetches 64H / C of its rows and multicasts them). After the last multiplication a
// row's sum, then its sum of squared differences, goes from every warpgroup to all blocks of the cluster through
// st.async on an mbarrier: a warp waits only for the warps that hold the same rows.
#include "kernels/cuda/gemm_sm90_norm.h"

#include "kernels/cuda/gemm_sm90_device.cuh"

namespace octet::kernels::cuda {
namespace {

constexpr int kHidden = 768, kGroups = 3;

// Offsets are immediate: as registers the compiler would compute them once for all tiles, and spill.

/// The shared-memory address `address` of block `rank` of the cluster.
__device__ __forceinline__ uint32_t map_to(uint32_t address, uint32_t rank) {
  uint32_t r;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
  return r;
}
/// Writes to mapped shared memory where `mine`, and counts 4 bytes on a mapped barrier.
template <int offset, int bar_offset>
__device__ __forceinline__ void send(bool mine, uint32_t to, uint32_t bar, float value) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.u32 p, %3, 0;\n"
      " @p st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0 + %4], %2, [%1 + %5];\n}" ::"r"(to),
      "r"(bar), "r"(__float_as_uint(value)), "r"((uint32_t)mine), "n"(offset), "n"(bar_offset)
      : "memory");
}
template <int offset>
__device__ __forceinline__ uint32_t shared_word(uint32_t address) {
  uint32_t r;
  asm volatile("ld.shared.b32 %0, [%1 + %2];" : "=r"(r) : "r"(address), "n"(offset) : "memory");
  return r;
}
template <int offset>
__device__ __forceinline__ void load4(float (&v)[4], uint32_t address) {
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4 + %5];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "r"(address), "n"(offset)
               : "memory");
}
/// f(0), ..., f(n - 1) with constants.
template <int n, class F>
__device__ __forceinline__ void for_each(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

template <int H, int C>
__global__ void __launch_bounds__(128 * (kGroups + 1), 1)
    gemm_norm(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
              const __grid_constant__ CUtensorMap residual_map, const __grid_constant__ GemmNormDevice args) {
  constexpr int N = kHidden / C, kWide = N / kGroups;  // columns of a block, of a warpgroup
  constexpr int kRows = 64 * H, kXBytes = kRows * kBlockBytes, kWBytes = N * kBlockBytes, kMaxStages = 12;
  constexpr int kUnits = kWide / 64, kParts = kGroups * C;
  constexpr bool kStaged = H == 2;  // the residual comes through the ring of stages; else it waits in registers
  using Mma = ptx::Wgmma<int8_t, kWide>;
  static_assert(!kStaged || kWide == 128, "boxes of the residual are 128 bytes wide");
  extern __shared__ __align__(1024) uint8_t dynamic[];
  const uint32_t smem = ptx::smem_address(dynamic);
  float* vectors = (float*)(dynamic + args.stages * (kXBytes + kWBytes));  // six of N
  const uint32_t sums = ptx::smem_address(vectors) + 6 * N * 4;            // [2][kParts][kRows]
  const uint32_t full = sums + 2 * kParts * kRows * 4, empty = full + 8 * kMaxStages, summed = empty + 8 * kMaxStages,
                 vectors_full = summed + 8 * 8;
  static_assert(8 * (2 * kMaxStages + 9) <= kBarrierBytes);
  constexpr uint32_t kSumBytes = kParts * 16 * H * 4;  // a slab of 16 H rows
  const int rank = ptx::cluster_rank(), cluster = blockIdx.x / C, clusters = gridDim.x / C;
  const int k_blocks = args.k_blocks, stages = args.stages;

  ptx::dependency_launch();
  if (threadIdx.x == 0) {
    ptx::prefetch_tensormap(&x_map);
    ptx::prefetch_tensormap(&w_map);
    for (int i = 0; i < stages; ++i) {
      ptx::mbarrier_init(full + 8 * i, 1);
      ptx::mbarrier_init(empty + 8 * i, 4 * kGroups * C);
    }
    for (int i = 0; i < 8; ++i) ptx::mbarrier_init(summed + 8 * i, 1);
    ptx::mbarrier_init(vectors_full, 96);
    ptx::mbarrier_init_fence();
    for (int i = 0; i < 8; ++i) ptx::mbarrier_arrive_expect(summed + 8 * i, kSumBytes);
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();

  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0), group = warp / 4;
  if (group == 0) {
    ptx::drop_registers<32>();
    if (warp == 0) {
      if (ptx::elect_one()) {
        int stage = 0;
        uint32_t parity = 1;
        const auto next = [&] {
          if (++stage == stages) stage = 0, parity ^= 1;
        };
        const auto load_w = [&](int kb) {
          const uint32_t bar = full + 8 * stage;
          ptx::mbarrier_wait(empty + 8 * stage, parity);
          ptx::mbarrier_arrive_expect(bar, kXBytes + kWBytes);
          fetch_w(smem + stage * (kXBytes + kWBytes) + kXBytes, &w_map, bar, kb * kBlockBytes, rank * (N / 32), 0);
        };
        const auto load_x = [&](int kb, int row, int at) {
          ptx::tma_load_2d_multicast(smem + at * (kXBytes + kWBytes) + rank * (kXBytes / C), &x_map, full + 8 * at,
                                     kb * kBlockBytes, row + rank * (kRows / C), (uint16_t)((1 << C) - 1));
        };
        int early = min(stages, k_blocks);
        for (int kb = 0; kb < early; ++kb) {  // weights do not depend on the kernel before this one
          load_w(kb);
          next();
        }
        ptx::dependency_wait();
        for (int kb = 0; kb < early; ++kb) load_x(kb, cluster * kRows, kb);
        for (int tile = cluster; tile < args.tiles; tile += clusters, early = 0) {
          for (int kb = early; kb < k_blocks; ++kb) {
            load_w(kb);
            load_x(kb, tile * kRows, stage);
            next();
          }
          if constexpr (kStaged) {
            const uint32_t bar = full + 8 * stage;
            ptx::mbarrier_wait(empty + 8 * stage, parity);
            ptx::mbarrier_arrive_expect(bar, kRows * N);
            for (int g = 0; g < kGroups; ++g)
              ptx::tma_load_2d(smem + stage * (kXBytes + kWBytes) + g * kRows * kWide, &residual_map, bar,
                               rank * N + g * kWide, tile * kRows);
            next();
          }
        }
      }
    } else {
      const auto put = [&](int vector, int i, float value) { vectors[vector * N + i] = value; };
      for (int i = threadIdx.x - 32; i < N; i += 96) {
        const int c = rank * N + i;
        const float inv = __fmul_rn(__ldg(args.inv_scale + c), args.inv_factor),
                    out = __ldg(args.out_inv + c) * (1.0f / 255.0f);
        put(0, i, __fmul_rn(__ldg(args.scale + c), inv));
        put(1, i, fmaf(args.bias != nullptr ? __ldg(args.bias + c) : 0.0f, inv, args.shift));
        put(2, i, __ldg(args.q_scale + c));
        put(3, i, __ldg(args.residual_scale + c));
        put(4, i, __fmul_rn(__ldg(args.gamma + c), out));
        put(5, i, fmaf(__ldg(args.beta + c), out, 128.0f / 255.0f));
      }
      ptx::mbarrier_arrive(vectors_full);
    }
    __syncwarp();
  } else {
    ptx::raise_registers<160>();
    const int turn = group - 1, lane = threadIdx.x % 32, slab = warp % 4, t = lane % 4;
    const int part = rank * kGroups + turn, in_tile = slab * 16 + lane / 4;
    const uint32_t mine = ptx::smem_address(vectors) + (turn * kWide + t * 8) * 4;
    const uint32_t send_to = map_to(sums + (part * kRows + in_tile) * 4, min(t, C - 1)),
                   send_bar = map_to(summed + 8 * slab, min(t, C - 1));
    int stage = 0;
    uint32_t parity = 0, sum_parity = 0;
    int32_t acc[H][kWide / 2];
    uint2 held[kStaged ? 1 : 2 * kWide / 32];
    if constexpr (!kStaged) ptx::dependency_wait();
    for (int tile = cluster; tile < args.tiles; tile += clusters) {
      const int row = tile * kRows + in_tile, column = rank * N + turn * kWide + t * 8;
      if constexpr (!kStaged) {
#pragma unroll
        for (int g = 0; g < kWide / 32; ++g)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int i = min(row + r * 8, args.m - 1);
            held[2 * g + r] = __ldcg((const uint2*)(args.residual + (int64_t)i * kHidden + column + g * 32));
          }
      }
      auto multiply = [&](bool fresh) {
        ptx::mbarrier_wait(full + 8 * stage, parity);
        const uint32_t base = smem + stage * (kXBytes + kWBytes);
        const uint64_t a = ptx::wgmma_descriptor(base),
                       b = ptx::wgmma_descriptor(base + kXBytes + turn * kWide * kBlockBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int s = 0; s < 4; ++s)
#pragma unroll
          for (int h = 0; h < H; ++h)
            Mma::run(acc[h], a + 2 * s + h * (64 * kBlockBytes / 16), b + 2 * s, fresh && s == 0);
        ptx::wgmma_commit();
      };
      auto release = [&](int done) { ptx::mbarrier_arrive_remote_if(lane < C, empty + 8 * done, lane); };
      multiply(true);
      for (int kb = 1; kb < k_blocks; ++kb) {
        const int before = stage;
        if (++stage == stages) stage = 0, parity ^= 1;
        multiply(false);
        ptx::wgmma_wait<1>();
        release(before);
      }
      ptx::wgmma_wait<0>();
      release(stage);
      if (++stage == stages) stage = 0, parity ^= 1;
      ptx::mbarrier_wait(vectors_full, 0);
      if constexpr (kStaged) ptx::mbarrier_wait(full + 8 * stage, parity);
      // Rows of 128 bytes, whose chunks of 16 the copy engine has permuted by row % 8.
      const uint32_t swizzled = (t / 2 ^ lane / 4) * 16,
                     residual = smem + stage * (kXBytes + kWBytes) + (turn * kRows + in_tile) * kWide + t % 2 * 8;

      // v, and each row's sum over 64 columns at a time: in a thread over 16, then over the four threads of a row.
      const auto value = [&](int h, int r, int g, int k) -> int32_t& {
        return acc[h][16 * g + 4 * (k / 2) + 2 * r + k % 2];
      };
      float sum[kUnits][H][2];
      for_each<kWide / 32>([&]<int g>(std::integral_constant<int, g>) {
        float first[H][2];
        for_each<2>([&]<int half>(std::integral_constant<int, half>) {
          constexpr int at = g * 128 + half * 16;
          {
            float scales[4], biases[4];
            load4<at>(scales, mine);
            load4<at + N * 4>(biases, mine);
#pragma unroll
            for (int h = 0; h < H; ++h)
#pragma unroll
              for (int r = 0; r < 2; ++r)
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                  int32_t& a = value(h, r, g, half * 4 + k);
                  const float bits =
                      fmaf(__saturatef(fmaf(__int2float_rn(a), scales[k], biases[k])), args.span, args.base);
                  a = __float_as_int(__fadd_rn(bits, -args.magic));
                }
          }
          float q_scales[4], r_scales[4];
          load4<at + 2 * N * 4>(q_scales, mine);
          load4<at + 3 * N * 4>(r_scales, mine);
          for_each<H>([&]<int h>(std::integral_constant<int, h>) {
            for_each<2>([&]<int r>(std::integral_constant<int, r>) {
              uint32_t word;
              if constexpr (kStaged) {
                word = shared_word<(h * 64 + r * 8) * kWide + half * 4>(residual + (swizzled ^ g * 32));
              } else {
                word = half == 0 ? held[2 * g + r].x : held[2 * g + r].y;
              }
              const uint32_t u = word ^ 0x80808080u;
              float v[4];
#pragma unroll
              for (int k = 0; k < 4; ++k) {
                int32_t& a = value(h, r, g, half * 4 + k);
                const float other = __uint_as_float(__byte_perm(u, 0x4B000000u, 0x7440 + k)) - 8388736.0f;
                v[k] = fmaf(other, r_scales[k], __fmul_rn(__int_as_float(a), q_scales[k]));
                a = __float_as_int(v[k]);
              }
              const float four = __fadd_rn(__fadd_rn(v[0], v[1]), __fadd_rn(v[2], v[3]));
              float& s = half == 0 ? first[h][r] : sum[g / 2][h][r];
              if (half == 0) s = four;
              else if (g % 2 == 0) s = __fadd_rn(first[h][r], four);
              else s = __fadd_rn(s, __fadd_rn(first[h][r], four));
              asm volatile("" : "+f"(s));  // now: the compiler would keep what is summed
            });
          });
        });
      });
      if constexpr (kStaged) {
        release(stage);
        if (++stage == stages) stage = 0, parity ^= 1;
      }
      // The row's total from all warpgroups of the cluster, by `stat` 0 or 1.
      float total[H][2];
      const auto exchange = [&]<int stat>(std::integral_constant<int, stat>) {
        for_each<H>([&]<int h>(std::integral_constant<int, h>) {
          for_each<2>([&]<int r>(std::integral_constant<int, r>) {
#pragma unroll
            for (int u = 0; u < kUnits; ++u) {
              float& s = sum[u][h][r];
              s = __fadd_rn(s, __shfl_xor_sync(0xffffffffu, s, 1));
              s = __fadd_rn(s, __shfl_xor_sync(0xffffffffu, s, 2));
            }
            const float s = kUnits == 2 ? __fadd_rn(sum[0][h][r], sum[kUnits - 1][h][r]) : sum[0][h][r];
            send<(stat * kParts * kRows + h * 64 + r * 8) * 4, stat * 32>(t < C, send_to, send_bar, s);
          });
        });
        ptx::mbarrier_wait(summed + 8 * (stat * 4 + slab), sum_parity);
        for_each<H>([&]<int h>(std::integral_constant<int, h>) {
          for_each<2>([&]<int r>(std::integral_constant<int, r>) {
            constexpr int per = kParts / 3;  // parts of 256 columns: 2 or 4
            for_each<3>([&]<int i>(std::integral_constant<int, i>) {
              const auto part_sum = [&]<int p>(std::integral_constant<int, p>) {
                return __uint_as_float(
                    shared_word<((stat * kParts + per * i + p) * kRows + h * 64 + r * 8) * 4>(sums + in_tile * 4));
              };
              using std::integral_constant;
              float wide = __fadd_rn(part_sum(integral_constant<int, 0>()), part_sum(integral_constant<int, 1>()));
              if constexpr (per == 4)
                wide = __fadd_rn(
                    wide, __fadd_rn(part_sum(integral_constant<int, 2>()), part_sum(integral_constant<int, 3>())));
              total[h][r] = i == 0 ? wide : __fadd_rn(total[h][r], wide);
              asm volatile("" : "+f"(total[h][r]));
            });
          });
        });
        // Re-armed for the next tile, which no block reaches before it has this warp's second sum.
        if (turn == 0 && lane == 0) ptx::mbarrier_arrive_expect(summed + 8 * (stat * 4 + slab), kSumBytes);
      };
      exchange(std::integral_constant<int, 0>());
      constexpr float kInverse = 1.0f / kHidden;
#pragma unroll
      for (int h = 0; h < H; ++h)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float mean = __fmul_rn(total[h][r], kInverse);
#pragma unroll
          for (int g = 0; g < kWide / 32; ++g) {
            float four[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              float d[4];
#pragma unroll
              for (int k = 0; k < 4; ++k) {
                int32_t& a = value(h, r, g, half * 4 + k);
                d[k] = __fadd_rn(__int_as_float(a), -mean);
                a = __float_as_int(d[k]);
              }
              four[half] = __fadd_rn(fmaf(d[1], d[1], __fmul_rn(d[0], d[0])), fmaf(d[3], d[3], __fmul_rn(d[2], d[2])));
            }
            const float chunk = __fadd_rn(four[0], four[1]);
            sum[g / 2][h][r] = g % 2 == 0 ? chunk : __fadd_rn(sum[g / 2][h][r], chunk);
            asm volatile("" : "+f"(sum[g / 2][h][r]));
          }
        }
      exchange(std::integral_constant<int, 1>());
      sum_parity ^= 1;
      float rstd[H][2];
      int8_t* y[H][2];
#pragma unroll
      for (int h = 0; h < H; ++h)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          rstd[h][r] = rsqrtf(fmaf(total[h][r], kInverse, args.eps));
          y[h][r] = args.y + (int64_t)(row + h * 64 + r * 8) * kHidden + column;
          asm volatile("" : "+l"(y[h][r]));
        }
      const auto finish = [&]<int g>(std::integral_constant<int, g>) {
        float gamma[2][4], beta[2][4];
        for_each<2>([&]<int half>(std::integral_constant<int, half>) {
          load4<4 * N * 4 + g * 128 + half * 16>(gamma[half], mine);
          load4<5 * N * 4 + g * 128 + half * 16>(beta[half], mine);
        });
#pragma unroll
        for (int h = 0; h < H; ++h)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            uint32_t q[8];
#pragma unroll
            for (int k = 0; k < 8; ++k) {
              const float normal = __fmul_rn(__int_as_float(value(h, r, g, k)), rstd[h][r]);
              q[k] = __float_as_uint(
                  fmaf(__saturatef(fmaf(normal, gamma[k / 4][k % 4], beta[k / 4][k % 4])), 255.0f, kRoundMagic));
            }
            ptx::store_inside<g * 32>(y[h][r], row + h * 64 + r * 8, args.m, 0, 1,
                                      make_uint2(pack_bytes(q[0], q[1], q[2], q[3]) ^ 0x80808080u,
                                                 pack_bytes(q[4], q[5], q[6], q[7]) ^ 0x80808080u));
          }
      };
      for_each<kWide / 32>(finish);
    }
  }
  ptx::cluster_arrive();  // a block must outlive what its neighbours send it
  ptx::cluster_wait();
}

}  // namespace

const void* gemm_norm_128x384_c2() { return (const void*)gemm_norm<2, 2>; }
const void* gemm_norm_64x384_c2() { return (const void*)gemm_norm<1, 2>; }
const void* gemm_norm_64x192_c4() { return (const void*)gemm_norm<1, 4>; }

}  // namespace octet::kernels::cuda
