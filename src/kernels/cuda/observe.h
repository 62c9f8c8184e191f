// Batches that lie in device memory, and the statistics of calibration.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device.h"

namespace octet::kernels::cuda {

cudaError_t stage_batch(const device::BatchStage& stage, cudaStream_t stream) noexcept;
cudaError_t positions(const int32_t* ids, const int32_t* offsets, int64_t rows, int32_t start, int32_t padding_id,
                      int32_t* out, cudaStream_t stream) noexcept;

/// All zero at the start.
struct HistogramHead {
  unsigned long long elements, nonfinite;
  uint32_t largest;  ///< bits of the largest finite magnitude so far
  int32_t exponent;  ///< of the bins' width; meaningless while elements is 0
};
struct HistogramMemory {
  HistogramHead* head = nullptr;
  unsigned long long* bins = nullptr;  ///< [kHistogramBins]
  uint32_t* extremes = nullptr;        ///< [channels, 2]: minimum and maximum as `extreme_value` reads them
  int64_t channels = 0;
};
cudaError_t collect(const HistogramMemory& histogram, const float* values, int64_t elements,
                    cudaStream_t stream) noexcept;

/// A float as an unsigned integer of the same order, above 0; 0 says that no value came. Minima are stored inverted, so
/// that both extremes are maxima.
__host__ __device__ inline uint32_t ordered_bits(uint32_t bits) {
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
float extreme_value(uint32_t stored, bool minimum) noexcept;

}  // namespace octet::kernels::cuda
