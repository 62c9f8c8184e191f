// Copies of a batch and its results.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::kernels::cuda {

/// Copies between pinned host memory and the device, or on the device, in the order of the stream. May be captured.
cudaError_t transfer(void* to, const void* from, int64_t bytes, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
