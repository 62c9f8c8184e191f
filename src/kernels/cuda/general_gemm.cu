// GEMM for any shape and type: y[m,n] = epilogue(x[m,k] . w[n,k]^T), products in f32 (fma) or exact integers.
//
// A block of 256 threads computes 128 x 128 of y (64 x 32 for few rows), a thread 8 x 8 (4 x 2). Steps of 16 of k lie
// in shared memory transposed, so that a thread reads its operands as vectors. An element is the sum over k in
// ascending order whatever the tile: a row's bits do not depend on its batch.
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/typed.cuh"
#include "kernels/cuda/device/warp.cuh"
#include "kernels/cuda/general.h"

namespace octet::kernels::cuda {
namespace {

constexpr int kStep = 16;

template <typename T>
__device__ __forceinline__ T element(const void* data, DType type, int64_t i) {
  if constexpr (sizeof(T) == 4 && T(0.5f) == T(0)) return load_int(data, type, i);
  else return load(data, type, i);
}
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ int32_t multiply_add(int32_t a, int32_t b, int32_t c) { return a * b + c; }

// Out of line: a thread has up to 64 elements.
template <typename T>
__device__ __noinline__ void store_result(const GemmDesc& d, const GemmArgs& a, int64_t row, int64_t column, T acc) {
  store(a.y, d.y, row * a.ldy + column, finish(d, a, row, column, acc), a.requant, column);
}

template <typename T, int kRows, int kColumns, int kMine, int kHis>
__global__ __launch_bounds__(256) void gemm_kernel(const __grid_constant__ GemmDesc d,
                                                   const __grid_constant__ GemmArgs a) {
  // One more column than needed spreads the stores of a transposed tile over the banks.
  __shared__ T xs[kStep][kRows + 4], ws[kStep][kColumns + 4];
  static_assert(kRows / kMine * (kColumns / kHis) == 256, "a thread an output patch");
  launch_dependents();
  wait_for_inputs();
  const int64_t row0 = int64_t(blockIdx.y) * kRows, column0 = int64_t(blockIdx.x) * kColumns;
  const int ty = threadIdx.x / (kColumns / kHis), tx = threadIdx.x % (kColumns / kHis);
  T acc[kMine][kHis] = {};
  for (int64_t k0 = 0; k0 < d.k; k0 += kStep) {
    for (int e = threadIdx.x; e < (kRows + kColumns) * kStep; e += 256) {
      const int r = e / kStep, c = e % kStep;
      const int64_t k = k0 + c;
      if (r < kRows) {
        const int64_t i = row0 + r;
        xs[c][r] = i < a.m && k < d.k ? element<T>(a.x, d.x, i * a.ldx + k) : T(0);
      } else {
        const int64_t j = column0 + r - kRows;
        ws[c][r - kRows] = j < d.n && k < d.k ? element<T>(a.packed, d.w, j * d.k + k) : T(0);
      }
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kStep; ++c) {
      T x[kMine], w[kHis];
#pragma unroll
      for (int i = 0; i < kMine; ++i) x[i] = xs[c][ty * kMine + i];
#pragma unroll
      for (int j = 0; j < kHis; ++j) w[j] = ws[c][tx * kHis + j];
#pragma unroll
      for (int i = 0; i < kMine; ++i)
#pragma unroll
        for (int j = 0; j < kHis; ++j) acc[i][j] = multiply_add(x[i], w[j], acc[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kMine; ++i)
#pragma unroll
    for (int j = 0; j < kHis; ++j) {
      const int64_t row = row0 + ty * kMine + i, column = column0 + tx * kHis + j;
      if (row < a.m && column < d.n) store_result(d, a, row, column, acc[i][j]);
    }
}

template <typename T>
cudaError_t run(const GemmDesc& desc, const GemmArgs& args, cudaStream_t stream) {
  auto grid = [&](int rows, int columns) {
    return dim3(unsigned((desc.n + columns - 1) / columns), unsigned((args.m + rows - 1) / rows));
  };
  if (args.m <= 1024) return launch(gemm_kernel<T, 64, 32, 4, 2>, grid(64, 32), dim3(256), 0, stream, true, desc, args);
  return launch(gemm_kernel<T, 128, 128, 8, 8>, grid(128, 128), dim3(256), 0, stream, true, desc, args);
}

}  // namespace

cudaError_t gemm_any(const GemmDesc& desc, const GemmArgs& args, cudaStream_t stream) noexcept {
  return desc.w == DType::s8 ? run<int32_t>(desc, args, stream) : run<float>(desc, args, stream);
}

}  // namespace octet::kernels::cuda
