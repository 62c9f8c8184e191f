// Add, LayerNorm and quantize: one warp per row, or per four rows when there are many (the per-channel vectors are then read once for four).
#include "kernels/cuda/norm.h"

#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/rows.cuh"

namespace octet::kernels::cuda {
namespace {

template <int V, int N, int kRows>
__global__ __launch_bounds__(128) void add_norm_kernel(const __grid_constant__ NormArgs a) {
  launch_dependents();
  const int64_t first = (int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32) * kRows;
  wait_for_inputs();
  if (first >= a.tokens) return;
  Rows<V, N, kRows> rows;
  // The residual stream is s8 + s8 in every INT8 plan: both loads in flight together.
  rows.template add<true>(a.a, first, a.tokens, a.hidden);
  if (a.b.data) rows.template add<false>(a.b, first, a.tokens, a.hidden);
  rows.normalize(a.gamma, a.beta, a.eps, a.hidden);
  rows.write(a.out[0], first, a.tokens, a.hidden);
  rows.write(a.out[1], first, a.tokens, a.hidden);
}

}  // namespace

cudaError_t add_norm(const NormArgs& args, cudaStream_t stream) noexcept {
  if (args.tokens == 0) return cudaSuccess;
  return with_row_tile(args.hidden, [&](auto tile) {
    constexpr int V = decltype(tile)::V, N = decltype(tile)::N;
    const auto go = [&](auto kernel, int rows) {
      const int threads = args.tokens <= 512 ? 32 : 128;
      const int64_t per_block = threads / 32 * rows;
      return launch(kernel, dim3(unsigned((args.tokens + per_block - 1) / per_block)), dim3(threads), 0, stream, args.dependent_launch, args);
    };
    const int wanted = args.rows_per_warp > 0 ? args.rows_per_warp : args.tokens >= 2048 ? 2 : 1;
    if constexpr (V * N <= 24) {
      if (wanted >= 4) return go(add_norm_kernel<V, N, 4>, 4);
    }
    if constexpr (V * N <= 32) {
      if (wanted >= 2) return go(add_norm_kernel<V, N, 2>, 2);
    }
    return go(add_norm_kernel<V, N, 1>, 1);
  });
}

}  // namespace octet::kernels::cuda
