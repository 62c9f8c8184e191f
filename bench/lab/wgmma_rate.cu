// What the tensor cores give when nothing else happens: s8 wgmma on operands that already lie in shared memory.
//   wgmma_rate      columns, rows a warpgroup, warpgroups, data, with or without a copy stream -> TOPS and cycles a k block of 128
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/cuda/gemm_sm90_device.cuh"

using namespace octet::kernels::cuda;

template <int N, int H>
__global__ void __launch_bounds__(384, 1) rate(int blocks, int groups, bool random, int copy_bytes, const uint8_t* source, int* sink, long long* cycles) {
  using Mma = ptx::Wgmma<int8_t, N>;
  extern __shared__ __align__(1024) uint8_t dynamic[];
  constexpr int kX = 64 * H * 128, kW = N * 128;
  __shared__ uint64_t bar;
  for (int i = threadIdx.x; i < 196608 / 4; i += blockDim.x) ((uint32_t*)dynamic)[i] = random ? (i * 2654435761u) ^ (i * 40503u << 7) : 0;
  if (threadIdx.x == 0) ptx::mbarrier_init(ptx::smem_address(&bar), 1);
  ptx::fence_async_shared();
  __syncthreads();
  const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
  const long long start = clock64();
  if (group == 2) {
    ptx::drop_registers<24>();
    if (threadIdx.x == 256 && copy_bytes > 0) {
      for (int i = 0; i < blocks; ++i) {  // copy_bytes into shared memory for every k block of all groups
        ptx::mbarrier_arrive_expect(ptx::smem_address(&bar), copy_bytes);
        for (int o = 0; o < copy_bytes; o += 8192)
          asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(ptx::smem_address(dynamic) + 131072 + o),
                       "l"(source + ((size_t)(i * 97 + blockIdx.x * 31) % 256) * 8192 + o), "r"(8192), "r"(ptx::smem_address(&bar)) : "memory");
        ptx::mbarrier_wait(ptx::smem_address(&bar), i & 1);
      }
    }
  } else if (group < groups) {
    ptx::raise_registers<240>();
    int acc[H][N / 2];
    for (int i = 0; i < blocks; ++i) {
      const uint32_t base = ptx::smem_address(dynamic) + (i & 1) * (2 * kX + kW);
      const uint64_t a = ptx::wgmma_descriptor(base + group * kX), b = ptx::wgmma_descriptor(base + 2 * kX);
      ptx::wgmma_fence();
#pragma unroll
      for (int s = 0; s < 4; ++s)
#pragma unroll
        for (int h = 0; h < H; ++h) Mma::run(acc[h], a + 2 * s + h * 512, b + 2 * s, i == 0 && s == 0);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
    }
    ptx::wgmma_wait<0>();
    int sum = 0;
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < N / 2; ++i) sum += acc[h][i];
    if (sum == 12345) *sink = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0 && blockIdx.x == 0) *cycles = clock64() - start;
}

template <int N, int H>
void measure(int groups, bool random, int copy_bytes, const uint8_t* source, int* sink, long long* cycles) {
  const int blocks = 4000;
  cudaFuncSetAttribute(rate<N, H>, cudaFuncAttributeMaxDynamicSharedMemorySize, 200000);
  cudaEvent_t a, b;
  cudaEventCreate(&a), cudaEventCreate(&b);
  std::vector<float> times;
  for (int i = 0; i < 7; ++i) {
    cudaEventRecord(a);
    rate<N, H><<<132, 384, 200000>>>(blocks, groups, random, copy_bytes, source, sink, cycles);
    cudaEventRecord(b);
    cudaEventSynchronize(b);
    float ms;
    cudaEventElapsedTime(&ms, a, b);
    times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  long long c;
  cudaMemcpy(&c, cycles, 8, cudaMemcpyDeviceToHost);
  const double ops = 2.0 * 64 * H * N * 128 * blocks * groups * 132;
  printf("%d x %d rows x %3d columns, %s, copy %5d B: %5.0f TOPS, %6.0f cycles a k block (ideal %d), %.0f MHz  %s\n", groups, 64 * H, N,
         random ? "random" : "zeros ", copy_bytes, ops / times[3] * 1e-9, (double)c / blocks, groups * 64 * H * N * 128 / 4096 , c / times[3] * 1e-3, cudaGetErrorString(cudaGetLastError()));
}

int main() {
  uint8_t* source;
  int* sink;
  long long* cycles;
  cudaMalloc(&source, 4 << 20), cudaMalloc(&sink, 4), cudaMalloc(&cycles, 8);
  cudaMemset(source, 0x5a, 4 << 20);
  for (bool random : {false, true}) {
    measure<192, 2>(1, random, 0, source, sink, cycles);
    measure<192, 2>(2, random, 0, source, sink, cycles);
    measure<192, 1>(2, random, 0, source, sink, cycles);
    measure<128, 2>(1, random, 0, source, sink, cycles);
    measure<128, 2>(2, random, 0, source, sink, cycles);
    measure<96, 2>(2, random, 0, source, sink, cycles);
  }
  measure<192, 2>(2, true, 57344, source, sink, cycles);
  measure<192, 2>(1, true, 24576, source, sink, cycles);
  measure<192, 2>(1, true, 40960, source, sink, cycles);
}
