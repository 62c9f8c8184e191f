// Staging of batches in device memory, and the histogram of calibration.
//
// Histogram of a tensor, as quant/statistics.h defines it: with 2^k <= max|x| < 2^(k+1) bins are 2^(k-11) wide. Three
// kernels a call: extremes a channel and the largest magnitude; merging of neighbouring bins when that grew (one
// block); counting, in shared memory first. Counts are integers and extremes are maxima, so neither order nor batching
// shows.
#include <limits>

#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/observe.h"

namespace octet::kernels::cuda {
namespace {

constexpr int kBins = int(device::kHistogramBins), kBinBits = 11, kLowestExponent = -111;
constexpr uint32_t kInfinity = 0x7f800000u;

// ---------------------------------------------------------------- batches

__global__ __launch_bounds__(1024) void stage_kernel(const __grid_constant__ device::BatchStage s) {
  bool wrong = false;
  for (int64_t t = threadIdx.x; t < s.tokens; t += blockDim.x) {
    wrong |= s.ids[t] < 0 || (s.vocabulary > 0 && s.ids[t] >= s.vocabulary);
    if (s.type_ids != nullptr) wrong |= s.type_ids[t] < 0 || s.type_ids[t] >= s.types;
  }
  for (int64_t r = threadIdx.x; r < s.rows; r += blockDim.x) {
    const int64_t length = int64_t(s.offsets[r + 1]) - s.offsets[r];
    wrong |= length < 1 || length > s.max_length;
  }
  if (threadIdx.x == 0) wrong |= s.offsets[0] != 0 || s.offsets[s.rows] != s.tokens;
  const bool refused = __syncthreads_or(wrong);
  if (refused && threadIdx.x == 0) *s.bad = 1;
  for (int64_t t = threadIdx.x; t < s.padded_tokens; t += blockDim.x) {
    const bool inside = t < s.tokens && !refused;
    s.out_ids[t] = inside ? s.ids[t] : 0;
    if (s.out_types != nullptr) s.out_types[t] = inside && s.type_ids != nullptr ? s.type_ids[t] : 0;
  }
  for (int64_t r = threadIdx.x; r <= s.padded_rows; r += blockDim.x)
    s.out_offsets[r] = refused ? 0 : s.offsets[r < s.rows ? r : s.rows];
}

__global__ void positions_kernel(const int32_t* ids, const int32_t* offsets, int32_t start, int32_t padding_id,
                                 int32_t* out) {
  const int32_t first = offsets[blockIdx.x], last = offsets[blockIdx.x + 1];
  // A warp a row: 32 tokens at a time, counting those that are not padding.
  int32_t next = start;
  for (int32_t begin = first; begin < last; begin += 32) {
    const int32_t t = begin + int32_t(threadIdx.x);
    const bool inside = t < last, pad = inside && padding_id >= 0 && ids[t] == padding_id;
    const unsigned counted = __ballot_sync(0xffffffffu, inside && !pad);
    if (inside) out[t] = pad ? padding_id : next + __popc(counted & ((1u << threadIdx.x) - 1));
    next += __popc(counted);
  }
}

// ---------------------------------------------------------------- statistics

__device__ __forceinline__ uint32_t magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// A thread a channel of a slice of tokens (or, of one channel, a thread an element): columns threadIdx.x + 256
// blockIdx.y.
__global__ __launch_bounds__(256) void extremes_kernel(HistogramMemory h, const float* x, int64_t groups) {
  __shared__ uint32_t largest;
  __shared__ unsigned long long finite;
  if (threadIdx.x == 0) largest = 0, finite = 0;
  __syncthreads();
  const bool single = h.channels == 1;
  const int64_t channel = single ? 0 : int64_t(blockIdx.y) * 256 + threadIdx.x;
  const int64_t first = single ? int64_t(blockIdx.x) * 256 + threadIdx.x : blockIdx.x;
  const int64_t step = single ? int64_t(gridDim.x) * 256 : gridDim.x;
  uint32_t low = 0, high = 0, top = 0;
  unsigned long long count = 0;
  if (channel < h.channels)
    for (int64_t i = first; i < groups; i += step) {
      const float value = x[i * h.channels + channel];
      if (magnitude(value) >= kInfinity) continue;
      const uint32_t bits = ordered_bits(__float_as_uint(value));
      high = max(high, bits);
      low = max(low, ~bits);
      top = max(top, magnitude(value));
      ++count;
    }
  if (count != 0) {
    atomicMax(&h.extremes[2 * channel], low);
    atomicMax(&h.extremes[2 * channel + 1], high);
    atomicMax(&largest, top);
    atomicAdd(&finite, count);
  }
  __syncthreads();
  if (threadIdx.x == 0 && finite != 0) {
    atomicMax(&h.head->largest, largest);
    atomicAdd(&h.head->elements, finite);
  }
}

__global__ __launch_bounds__(1024) void grow_kernel(HistogramMemory h, unsigned long long total_elements) {
  __shared__ unsigned long long merged[kBins];
  if (threadIdx.x == 0) h.head->nonfinite += total_elements;  // of all values; the host takes the finite ones off
  if (h.head->elements == 0) return;
  const int exponent = max(int(h.head->largest >> 23) - 127 - kBinBits, kLowestExponent);
  const int shift = min(exponent - h.head->exponent, 62);
  // Before the first value the bins are empty, whatever the exponent says.
  if (shift > 0) {
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) merged[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += blockDim.x)
      if (h.bins[i] != 0) atomicAdd(&merged[i >> shift], h.bins[i]);
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) h.bins[i] = merged[i];
  }
  __syncthreads();
  if (threadIdx.x == 0) h.head->exponent = exponent;
}

__global__ __launch_bounds__(512) void count_kernel(HistogramMemory h, const float* x, int64_t elements) {
  __shared__ uint32_t bins[2][kBins];  // two copies: half of the warps each
  for (int i = threadIdx.x; i < 2 * kBins; i += blockDim.x) (&bins[0][0])[i] = 0;
  __syncthreads();
  if (h.head->elements != 0) {
    const int exponent = h.head->exponent;
    // |x| / 2^exponent in two exact steps: the factor alone may leave the range of f32.
    const float first = ldexpf(1.0f, -exponent / 2), second = ldexpf(1.0f, -exponent - (-exponent / 2));
    uint32_t* mine = bins[threadIdx.x / 32 % 2];
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < elements;
         i += int64_t(gridDim.x) * blockDim.x) {
      const float value = x[i];
      if (magnitude(value) < kInfinity) atomicAdd(&mine[int(fabsf(value) * first * second)], 1u);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += blockDim.x)
    if (const uint32_t sum = bins[0][i] + bins[1][i]) atomicAdd(&h.bins[i], static_cast<unsigned long long>(sum));
}

}  // namespace

cudaError_t stage_batch(const device::BatchStage& stage, cudaStream_t stream) noexcept {
  return launch(stage_kernel, dim3(1), dim3(1024), 0, stream, false, stage);
}
cudaError_t positions(const int32_t* ids, const int32_t* offsets, int64_t rows, int32_t start, int32_t padding_id,
                      int32_t* out, cudaStream_t stream) noexcept {
  return launch(positions_kernel, dim3(unsigned(rows)), dim3(32), 0, stream, false, ids, offsets, start, padding_id,
                out);
}

cudaError_t collect(const HistogramMemory& histogram, const float* values, int64_t elements,
                    cudaStream_t stream) noexcept {
  if (elements == 0) return cudaSuccess;
  const int64_t groups = elements / histogram.channels;
  const int64_t down = histogram.channels == 1 ? (groups + 255) / 256 : groups;
  const dim3 grid(unsigned(down < 512 ? down : 512), unsigned((histogram.channels + 255) / 256));
  cudaError_t error = launch(extremes_kernel, grid, dim3(256), 0, stream, false, histogram, values, groups);
  if (error == cudaSuccess)
    error = launch(grow_kernel, dim3(1), dim3(1024), 0, stream, false, histogram,
                   static_cast<unsigned long long>(elements));
  const int64_t blocks = (elements + 8191) / 8192;
  if (error == cudaSuccess)
    error = launch(count_kernel, dim3(unsigned(blocks < 528 ? blocks : 528)), dim3(512), 0, stream, false, histogram,
                   values, elements);
  return error;
}

float extreme_value(uint32_t stored, bool minimum) noexcept {
  if (stored == 0) return minimum ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity();
  const uint32_t ordered = minimum ? ~stored : stored;
  const uint32_t bits = ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered;
  float value;
  static_assert(sizeof value == sizeof bits);
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

}  // namespace octet::kernels::cuda
