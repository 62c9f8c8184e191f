// GEMM for short k (the 128 rows of x of a block stay in shared memory): what binds on this chip is not the tensor
// cores but the bytes that the second-level cache and shared memory deliver to them, so x is read once and only w
// streams.
//
// A cluster of CM blocks takes CM neighbouring 128-row blocks of x and a run of column tiles; each block fetches 1/CM
// of every w tile and multicasts it. One warp of the first warpgroup feeds; G other warpgroups take turns: while one
// multiplies its 128xN tile, the others convert and write theirs (so the epilogue costs no time as long as it is
// shorter than G - 1 main loops). Shared memory: k_blocks x 16 KiB of x, `stages` x (N x 128 bytes) of w, the vectors
// of G tiles, barriers.
#pragma once

#include "kernels/cuda/gemm_sm90_device.cuh"

namespace octet::kernels::cuda {

template <class T, int N, int CM, int G, Out out, bool gelu>
__global__ void __launch_bounds__(128 * (G + 1), 1)
    gemm_stationary(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                    const __grid_constant__ GemmDevice args) {
  using Mma = ptx::Wgmma<T, N>;
  static_assert(N / 32 % CM == 0, "every block of a cluster fetches whole 32-row groups of w");
  constexpr int kXBytes = 128 * kBlockBytes, kWBytes = N * kBlockBytes, kMaxBlocks = 8, kMaxStages = 8;
  constexpr int kElements = kBlockBytes / sizeof(T);
  extern __shared__ __align__(1024) uint8_t dynamic[];
  const uint32_t x_smem = ptx::smem_address(dynamic), w_smem = x_smem + args.k_blocks * kXBytes;
  float* vectors = (float*)(dynamic + args.k_blocks * kXBytes + args.stages * kWBytes);
  static_assert(8 * (2 * kMaxBlocks + 2 * kMaxStages + 2 * G) <= kBarrierBytes);
  static_assert(G == 2 || G == 3, "registers are divided for two or three warpgroups");
  const uint32_t x_full = ptx::smem_address(vectors) + G * kVectorBytes<N>, x_empty = x_full + 8 * kMaxBlocks,
                 w_full = x_empty + 8 * kMaxBlocks, w_empty = w_full + 8 * kMaxStages,
                 vectors_full = w_empty + 8 * kMaxStages, vectors_empty = vectors_full + 8 * G;
  const uint32_t rank = CM > 1 ? ptx::cluster_rank() : 0;
  const int cluster = blockIdx.x / CM, clusters = gridDim.x / CM;
  const int k_blocks = args.k_blocks, stages = args.stages;
  // This cluster's run of tiles, column tiles fastest.
  const int64_t tiles = (int64_t)args.tiles_m * args.tiles_n;
  const int first = (int)(tiles * cluster / clusters), last = (int)(tiles * (cluster + 1) / clusters);

  ptx::dependency_launch();
  if (threadIdx.x == 0) {
    ptx::prefetch_tensormap(&x_map);
    ptx::prefetch_tensormap(&w_map);
    for (int i = 0; i < k_blocks; ++i) {
      ptx::mbarrier_init(x_full + 8 * i, 1);
      ptx::mbarrier_init(x_empty + 8 * i, 4 * G);  // the four warps of the last G tiles of a row block
    }
    for (int i = 0; i < stages; ++i) {
      ptx::mbarrier_init(w_full + 8 * i, 1);
      ptx::mbarrier_init(w_empty + 8 * i, 4 * CM);  // the four warps that used it, in each block it is multicast to
    }
    for (int i = 0; i < G; ++i) {
      ptx::mbarrier_init(vectors_full + 8 * i, 32);
      ptx::mbarrier_init(vectors_empty + 8 * i, 4);
    }
    ptx::mbarrier_init_fence();
  }
  if constexpr (CM > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  } else {
    __syncthreads();
  }

  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0),
            group = warp / 4;  // uniform in the compiler's eyes too
  if (group == 0) {
    ptx::drop_registers<(G == 2 ? 40 : 32)>();
    if (warp == 0 && ptx::elect_one()) {
      // Cursors instead of divisions: this one thread's instructions decide how fast blocks are requested.
      int stage = 0, w_block = 0, w_column = first % args.tiles_n * (N / 32) + rank * (N / 32 / CM);
      const int w_end = args.tiles_n * (N / 32);
      uint32_t parity = 1;
      auto load_w = [&] {
        const uint32_t bar = w_full + 8 * stage, dst = w_smem + stage * kWBytes + rank * (kWBytes / CM);
        ptx::mbarrier_wait(w_empty + 8 * stage, parity);
        ptx::mbarrier_arrive_expect(bar, kWBytes);
        fetch_w(dst, &w_map, bar, w_block * kElements, w_column, CM > 1 ? (1 << CM) - 1 : 0);
        if (++stage == stages) stage = 0, parity ^= 1;
        if (++w_block == k_blocks) {
          w_block = 0;
          w_column += N / 32;
          if (w_column >= w_end) w_column -= w_end;
        }
      };
      // Weights do not depend on the kernel before this one.
      const int early = min(stages, (last - first) * k_blocks);
      for (int i = 0; i < early; ++i) load_w();
      ptx::dependency_wait();
      int column = first % args.tiles_n, row = (first / args.tiles_n * CM + rank) * 128, loaded = 0;
      uint32_t x_parity = 1;
      bool fresh = true;
      for (int tile = first; tile < last; ++tile) {
        for (int kb = 0; kb < k_blocks; ++kb, ++loaded) {
          if (fresh) {
            ptx::mbarrier_wait(x_empty + 8 * kb, x_parity);
            ptx::mbarrier_arrive_expect(x_full + 8 * kb, kXBytes);
            ptx::tma_load_2d(x_smem + kb * kXBytes, &x_map, x_full + 8 * kb, kb * kElements, row);
          }
          if (loaded >= early) load_w();
        }
        if (fresh) x_parity ^= 1;
        fresh = ++column == args.tiles_n;
        if (fresh) column = 0, row += CM * 128;
      }
    }
    // One more warp for each multiplying warpgroup keeps its vectors ready.
    const int turn = warp - 1;
    if (turn >= 0 && turn < G) {
      float* mine = vectors + turn * (kVectorBytes<N> / 4);
      int column = (first + turn) % args.tiles_n;
      uint32_t parity = 1;
      for (int tile = first + turn; tile < last; tile += G, parity ^= 1) {
        ptx::mbarrier_wait(vectors_empty + 8 * turn, parity);
        fetch_vectors<N>(mine, args, column * N, threadIdx.x % 32, 32);
        ptx::mbarrier_arrive(vectors_full + 8 * turn);
        column = (column + G) % args.tiles_n;
      }
    }
    __syncwarp();
  } else {
    ptx::raise_registers<(G == 2 ? 232 : 160)>();
    const int turn = group - 1, lane = threadIdx.x % 32;
    typename Mma::Acc acc[2][N / 2];
    vectors += turn * (kVectorBytes<N> / 4);
    int row_block = (first + turn) / args.tiles_n, column = (first + turn) % args.tiles_n;
    const int first_block = first / args.tiles_n;
    int stage = turn * k_blocks % stages;
    uint32_t parity = turn * k_blocks / stages & 1, vectors_parity = 0;
    for (int tile = first + turn; tile < last; tile += G) {
      // Row blocks before this one in the run decide the phase of x.
      const uint32_t x_parity = (row_block - first_block) & 1;
      const int block_end = min(last, tile - column + args.tiles_n);
      // The last G tiles of a row block free its x; where there are fewer, the last one stands in.
      const int in_block = block_end - max(first, tile - column), behind = block_end - 1 - tile;
      const int releases = block_end == last || behind >= G ? 0 : behind > 0 ? 1 : 1 + max(0, G - in_block);
      auto multiply = [&](int kb, bool fresh) {
        ptx::mbarrier_wait(x_full + 8 * kb, x_parity);
        ptx::mbarrier_wait(w_full + 8 * stage, parity);
        const uint64_t a = ptx::wgmma_descriptor(x_smem + kb * kXBytes),
                       b = ptx::wgmma_descriptor(w_smem + stage * kWBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          Mma::run(acc[0], a + 2 * s, b + 2 * s, fresh && s == 0);
          Mma::run(acc[1], a + 2 * s + 64 * kBlockBytes / 16, b + 2 * s, fresh && s == 0);
        }
        ptx::wgmma_commit();
      };
      auto release = [&](int done_stage, int done_block) {
        if constexpr (CM > 1) ptx::mbarrier_arrive_remote_if(lane < CM, w_empty + 8 * done_stage, lane);
        else ptx::mbarrier_arrive_if(lane == 0, w_empty + 8 * done_stage);
        ptx::mbarrier_arrive_if(lane < releases, x_empty + 8 * done_block);
      };
      if (tile > first) ptx::barrier_sync(1 + turn, 256);
      multiply(0, true);
      for (int kb = 1; kb < k_blocks; ++kb) {
        const int before = stage;
        if (++stage == stages) stage = 0, parity ^= 1;
        multiply(kb, false);
        ptx::wgmma_wait<1>();
        release(before, kb - 1);
      }
      if (tile + 1 < last) ptx::barrier_arrive(turn + 1 < G ? 2 + turn : 1, 256);
      ptx::wgmma_wait<0>();
      release(stage, k_blocks - 1);
      ptx::mbarrier_wait(vectors_full + 8 * turn, vectors_parity);
      store_tile<out, gelu, 2, N>(acc, args, vectors, (row_block * CM + rank) * 128, column * N);
      __syncwarp();
      ptx::mbarrier_arrive_if(lane == 0, vectors_empty + 8 * turn);
      vectors_parity ^= 1;
      // Past the tiles of the other warpgroups.
      stage += (G - 1) * k_blocks + 1;
      while (stage >= stages) stage -= stages, parity ^= 1;
      column += G;
      while (column >= args.tiles_n) column -= args.tiles_n, ++row_block;
    }
  }
  if constexpr (CM > 1) {  // a block must outlive what its neighbour sends it
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

}  // namespace octet::kernels::cuda
