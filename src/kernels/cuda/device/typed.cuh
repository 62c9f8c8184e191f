// Elements of any type as f32, and the arithmetic of the scalar rows (kernels/ref/scalar.h) on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/int8.h"
#include "kernels/args.h"

namespace octet::kernels::cuda {

__device__ __forceinline__ bool is_8bit(DType type) { return type == DType::s8 || type == DType::u8; }

__device__ __forceinline__ int32_t load_int(const void* data, DType type, int64_t i) {
  return type == DType::u8 ? static_cast<const uint8_t*>(data)[i] : static_cast<const int8_t*>(data)[i];
}
/// Element i; 8-bit types through their scale.
__device__ __forceinline__ float load(const void* data, DType type, int64_t i, float scale = 1.0f, int32_t zero = 0) {
  switch (type) {
    case DType::f32: return static_cast<const float*>(data)[i];
    case DType::f16: return __half2float(static_cast<const __half*>(data)[i]);
    case DType::bf16: return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    default: return int8::dequantize(load_int(data, type, i), scale, zero);
  }
}
__device__ __forceinline__ void store_int(void* data, DType type, int64_t i, int32_t q) {
  if (type == DType::u8) static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(q);
  else static_cast<int8_t*>(data)[i] = static_cast<int8_t>(q);
}
/// Element i of channel c; 8-bit types through `requant`.
__device__ __forceinline__ void store(void* data, DType type, int64_t i, float value, const Requant& requant,
                                      int64_t c) {
  switch (type) {
    case DType::f32: static_cast<float*>(data)[i] = value; break;
    case DType::f16: static_cast<__half*>(data)[i] = __float2half_rn(value); break;
    case DType::bf16: static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value); break;
    default:
      store_int(data, type, i, int8::quantize(value, requant.inv_scale[c], requant.zero_point, requant.lo, requant.hi));
  }
}

// Out of line: an epilogue has many elements, and its code would multiply.
static __device__ __noinline__ float activate(float x, Activation op) {
  switch (op) {
    case Activation::relu: return x > 0.0f ? x : 0.0f;
    case Activation::tanh: return int8::tanh_exp(x);
    case Activation::gelu_erf: return int8::gelu_erf(x);
    case Activation::gelu_tanh: return int8::gelu_tanh(x);
    default: return x;
  }
}

struct DynamicRange {
  float inv_scale, scale;
};
__device__ __forceinline__ DynamicRange dynamic_range(float amax, float bound = 127.0f) {
  if (amax <= int8::kTinyAmax) return {0.0f, 0.0f};
  return {bound / amax, amax / bound};
}

/// Result of GEMM element (i, j) from its exact accumulator, or from its sum of float products.
__device__ __forceinline__ float finish(const GemmDesc& d, const GemmArgs& a, int64_t i, int64_t j, int32_t acc) {
  if (d.column_offset) acc -= a.column_offset[j];
  const float bias = d.bias ? a.bias[j] : 0.0f;
  const float y =
      d.row_scale ? int8::rescale_row(acc, a.row_scale[i], a.scale[j], bias) : int8::rescale(acc, a.scale[j], bias);
  return d.activation == Activation::none ? y : activate(y, d.activation);
}
__device__ __forceinline__ float finish(const GemmDesc& d, const GemmArgs& a, int64_t, int64_t j, float sum) {
  const float y = d.bias ? sum + a.bias[j] : sum;
  return d.activation == Activation::none ? y : activate(y, d.activation);
}

// ---- a row in shared memory, worked on by a block of any size; all threads call these together ----

/// Sum of f(i) for i < n in the 16 lanes of the definition ("Order of sums"); every thread gets it. `lanes` is shared.
template <typename Add>
__device__ __forceinline__ float lane_fold(float* lanes, int n, Add add) {
  __syncthreads();
  if (threadIdx.x < int8::kLanes) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += int8::kLanes) sum = add(sum, i);
    lanes[threadIdx.x] = sum;
  }
  __syncthreads();
  float folded[int8::kLanes];
#pragma unroll
  for (int l = 0; l < int8::kLanes; ++l) folded[l] = lanes[l];
#pragma unroll
  for (int step = int8::kLanes / 2; step > 0; step /= 2)
#pragma unroll
    for (int l = 0; l < step; ++l) folded[l] = folded[l] + folded[l + step];
  return folded[0];
}
__device__ __forceinline__ float lane_sum(const float* x, int n, float* lanes) {
  return lane_fold(lanes, n, [&](float sum, int i) { return sum + x[i]; });
}
__device__ __forceinline__ float lane_sum_squares(const float* x, int n, float mean, float* lanes) {
  return lane_fold(lanes, n, [&](float sum, int i) {
    const float d = x[i] - mean;
    return fmaf(d, d, sum);
  });
}
/// Largest magnitude; NaN counts as nothing. `parts` holds 32 floats of shared memory.
__device__ __forceinline__ float row_amax(const float* x, int n, float* parts) {
  float amax = 0.0f;
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) amax = fmaxf(amax, fabsf(x[i]));
  for (int s = 16; s > 0; s /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, s));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = amax;
  __syncthreads();
  amax = 0.0f;
  for (int w = 0; w < blockDim.x / 32; ++w) amax = fmaxf(amax, parts[w]);
  return amax;
}

}  // namespace octet::kernels::cuda
