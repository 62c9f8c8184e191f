// Small copies between pinned host memory and the device, by a kernel: a copy node of a graph costs 6 us more, because
// kernels and the copy engine wait for each other.
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/warp.cuh"
#include "kernels/cuda/transfer.h"

namespace octet::kernels::cuda {
namespace {

__global__ void copy_kernel(const uint32_t* from, uint32_t* to, int64_t groups, int64_t words) {
  launch_dependents();
  wait_for_inputs();
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < groups) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
  if (i < words - 4 * groups) to[4 * groups + i] = from[4 * groups + i];
}

}  // namespace

cudaError_t transfer(void* to, const void* from, int64_t bytes, cudaStream_t stream) noexcept {
  constexpr int64_t kMost = 1 << 20;  // above it the copy engine is faster
  const bool aligned =
      (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 == 0 && bytes % 4 == 0;
  if (!aligned || bytes > kMost)
    return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream);
  const int64_t groups = bytes / 16;
  return launch(copy_kernel, dim3(unsigned(groups / 128 + 1)), dim3(128), 0, stream, true,
                static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to), groups, bytes / 4);
}

}  // namespace octet::kernels::cuda
