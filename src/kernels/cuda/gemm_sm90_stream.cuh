// GEMM for any k: blocks of 128H x N outputs, both operands stream through shared memory; two warpgroups of 64H rows
// share every w tile (so a byte that the second-level cache delivers is used as often as registers allow).
//
// A cluster is CM x CN blocks. Blocks of one row share their x (each fetches 1/CN and multicasts it), blocks of one
// column their w. One warp feeds a ring of `stages` x (128H + N) x 128 bytes; blocks are persistent over cluster tiles,
// column tiles fastest.
#pragma once

#include "kernels/cuda/gemm_sm90_device.cuh"

namespace octet::kernels::cuda {

template <class T, int H, int N, int CM, int CN, Out out, bool gelu>
__global__ void __launch_bounds__(384, 1)
    gemm_stream(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                const __grid_constant__ GemmDevice args) {
  using Mma = ptx::Wgmma<T, N>;
  static_assert(N / 32 % CM == 0, "every block of a cluster fetches whole 32-row groups of w");
  constexpr int kRows = 128 * H, kXBytes = kRows * kBlockBytes, kWBytes = N * kBlockBytes, kMaxStages = 12;
  constexpr int kElements = kBlockBytes / sizeof(T), kPeers = CM + CN - 1;
  extern __shared__ __align__(1024) uint8_t dynamic[];
  const uint32_t smem = ptx::smem_address(dynamic);
  float* vectors = (float*)(dynamic + args.stages * (kXBytes + kWBytes));
  static_assert(8 * (2 * kMaxStages + 2) <= kBarrierBytes);
  const uint32_t full = ptx::smem_address(vectors) + kVectorBytes<N>, empty = full + 8 * kMaxStages,
                 vectors_full = empty + 8 * kMaxStages, vectors_empty = vectors_full + 8;
  const uint32_t rank = CM * CN > 1 ? ptx::cluster_rank() : 0;
  const int cm = rank % CM, cn = rank / CM;
  const int cluster = blockIdx.x / (CM * CN), clusters = gridDim.x / (CM * CN);
  const int k_blocks = args.k_blocks, stages = args.stages, tiles = args.tiles_m * args.tiles_n;

  ptx::dependency_launch();
  if (threadIdx.x == 0) {
    ptx::prefetch_tensormap(&x_map);
    ptx::prefetch_tensormap(&w_map);
    for (int i = 0; i < stages; ++i) {
      ptx::mbarrier_init(full + 8 * i, 1);
      ptx::mbarrier_init(empty + 8 * i, 8 * kPeers);
    }
    ptx::mbarrier_init(vectors_full, 32);
    ptx::mbarrier_init(vectors_empty, 8);
    ptx::mbarrier_init_fence();
  }
  if constexpr (CM * CN > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  } else {
    __syncthreads();
  }

  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0),
            group = warp / 4;  // uniform in the compiler's eyes too
  if (group == 0) {
    ptx::drop_registers<40>();
    if (warp == 0) {
      if (ptx::elect_one()) {
        const int mine = (tiles - cluster + clusters - 1) / clusters, slots = mine * k_blocks;
        const uint16_t x_mask = (uint16_t)([&] {
          int mask = 0;
          for (int j = 0; j < CN; ++j) mask |= 1 << (cm + CM * j);
          return mask;
        }());
        const uint16_t w_mask = (uint16_t)(((1 << CM) - 1) << (CM * cn));
        // Cursors instead of divisions: this one thread's instructions decide how fast blocks are requested.
        struct Cursor {
          int stage = 0, block = 0, tile;
          uint32_t parity = 1;
        };
        auto advance = [&](Cursor& c) {
          if (++c.stage == stages) c.stage = 0, c.parity ^= 1;
          if (++c.block == k_blocks) {
            c.block = 0, c.tile += clusters;
            return true;
          }
          return false;
        };
        Cursor w{.tile = cluster}, x{.tile = cluster};
        int row_group, row;
        auto place_w = [&] { row_group = ((w.tile % args.tiles_n) * CN + cn) * (N / 32) + cm * (N / 32 / CM); };
        auto place_x = [&] { row = ((x.tile / args.tiles_n) * CM + cm) * kRows + cn * (kRows / CN); };
        place_w();
        place_x();
        auto load_w = [&] {
          const uint32_t bar = full + 8 * w.stage,
                         dst = smem + w.stage * (kXBytes + kWBytes) + kXBytes + cm * (kWBytes / CM);
          ptx::mbarrier_wait(empty + 8 * w.stage, w.parity);
          ptx::mbarrier_arrive_expect(bar, kXBytes + kWBytes);
          fetch_w(dst, &w_map, bar, w.block * kElements, row_group, CM > 1 ? w_mask : 0);
          if (advance(w)) place_w();
        };
        auto load_x = [&] {
          const uint32_t dst = smem + x.stage * (kXBytes + kWBytes) + cn * (kXBytes / CN);
          if constexpr (CN > 1)
            ptx::tma_load_2d_multicast(dst, &x_map, full + 8 * x.stage, x.block * kElements, row, x_mask);
          else ptx::tma_load_2d(dst, &x_map, full + 8 * x.stage, x.block * kElements, row);
          if (advance(x)) place_x();
        };
        const int early = min(stages, slots);
        for (int slot = 0; slot < early; ++slot) load_w();  // weights do not depend on the kernel before this one
        ptx::dependency_wait();
        for (int slot = 0; slot < early; ++slot) load_x();
        for (int slot = early; slot < slots; ++slot) {
          load_w();
          load_x();
        }
      }
    } else if (warp == 1) {  // keeps the vectors of the next tile ready
      uint32_t parity = 1;
      for (int tile = cluster; tile < tiles; tile += clusters, parity ^= 1) {
        ptx::mbarrier_wait(vectors_empty, parity);
        fetch_vectors<N>(vectors, args, ((tile % args.tiles_n) * CN + cn) * N, threadIdx.x % 32, 32);
        ptx::mbarrier_arrive(vectors_full);
      }
    }
    __syncwarp();
  } else {
    ptx::raise_registers<232>();
    const int half = group - 1, lane = threadIdx.x % 32;
    const int peer = lane < CM ? lane + CM * cn : cm + CM * (lane - CM + (lane - CM >= cn));
    typename Mma::Acc acc[H][N / 2];
    int stage = 0;
    uint32_t parity = 0, vectors_parity = 0;
    for (int tile = cluster; tile < tiles; tile += clusters) {
      auto multiply = [&](bool fresh) {
        ptx::mbarrier_wait(full + 8 * stage, parity);
        const uint32_t base = smem + stage * (kXBytes + kWBytes);
        const uint64_t a = ptx::wgmma_descriptor(base + half * (kXBytes / 2)),
                       b = ptx::wgmma_descriptor(base + kXBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int s = 0; s < 4; ++s)
#pragma unroll
          for (int h = 0; h < H; ++h)
            Mma::run(acc[h], a + 2 * s + h * (64 * kBlockBytes / 16), b + 2 * s, fresh && s == 0);
        ptx::wgmma_commit();
      };
      auto release = [&](int done) {
        if constexpr (kPeers > 1) ptx::mbarrier_arrive_remote_if(lane < kPeers, empty + 8 * done, peer);
        else ptx::mbarrier_arrive_if(lane == 0, empty + 8 * done);
      };
      const int column = ((tile % args.tiles_n) * CN + cn) * N;
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
      ptx::mbarrier_wait(vectors_full, vectors_parity);
      store_tile<out, gelu, H, N>(acc, args, vectors, ((tile / args.tiles_n) * CM + cm) * kRows + half * (kRows / 2),
                                  column);
      __syncwarp();
      ptx::mbarrier_arrive_if(lane == 0, vectors_empty);
      vectors_parity ^= 1;
    }
  }
  if constexpr (CM * CN > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

}  // namespace octet::kernels::cuda
