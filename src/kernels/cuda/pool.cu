// Pooling: one block per batch row; thread groups of `columns / 8` take every n-th token, their partial results are
// folded in a fixed order. Dense: one warp per (output, 8 rows); lanes stride over the inputs, so a weight row is read
// once for 8 rows.
#include "kernels/cuda/pool.h"

#include "kernels/cuda/device/activation.cuh"
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/values.cuh"

namespace octet::kernels::cuda {
namespace {

constexpr int kPoolThreads = 1024;

/// One value to an f32, f16 or bf16 output.
__device__ __forceinline__ void store_float(float x, const MatrixOut& m, int64_t at) {
  if (m.type == DType::f32) static_cast<float*>(m.data)[at] = x;
  else if (m.type == DType::f16) static_cast<__half*>(m.data)[at] = __float2half_rn(x);
  else static_cast<__nv_bfloat16*>(m.data)[at] = __float2bfloat16_rn(x);
}

/// Reads tokens token0 + lane, + lanes, ... of 8 columns. Type is resolved outside the loop, so that loads of several
/// tokens overlap.
__device__ __forceinline__ void gather(float (&v)[8], const PoolArgs& a, int64_t token0, int length, int column,
                                       int lane, int lanes) {
  with_type(a.in.type, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    const bool is_max = a.pooling == Pooling::max;
#pragma unroll 8
    for (int i = lane; i < length; i += lanes) {
      float f[8];
      unpack<kType>(f, load_raw<bytes_of<kType>, 8>(element<kType>(a.in.data, (token0 + i) * a.in.ld + column)));
#pragma unroll
      for (int k = 0; k < 8; ++k) v[k] = is_max ? fmaxf(v[k], f[k]) : v[k] + f[k];
    }
  });
}

__global__ __launch_bounds__(kPoolThreads) void pool_kernel(const __grid_constant__ PoolArgs a) {
  extern __shared__ float partial[];  // [lanes][columns] of this pass, then 16 floats
  __shared__ float squares_of_warp[kPoolThreads / 32];
  launch_dependents();
  wait_for_inputs();
  const int row = blockIdx.x;
  const int64_t token0 = a.offsets[row];
  int length = a.offsets[row + 1] - int(token0);
  if (a.pooling == Pooling::first) length = min(length, 1);
  const int groups = a.columns / 8;
  const int lanes = max(1, kPoolThreads / groups);  // a function of columns alone: the same order of sums in any batch
  const bool is_max = a.pooling == Pooling::max;
  for (int i = threadIdx.x; i < groups * lanes; i += kPoolThreads) {
    const int group = i % groups, lane = i / groups;
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = is_max && length > 0 ? -INFINITY : 0.0f;
    gather(v, a, token0, length, group * 8, lane, lanes);
#pragma unroll
    for (int k = 0; k < 8; ++k) partial[lane * a.columns + group * 8 + k] = v[k];
  }
  __syncthreads();
  float squares = 0.0f;
  const float inv = a.pooling == Pooling::mean && length > 0 ? 1.0f / float(length) : 1.0f;
  for (int c = threadIdx.x; c < a.columns; c += kPoolThreads) {
    float v = partial[c];
    for (int l = 1; l < lanes; ++l) {
      const float w = partial[l * a.columns + c];
      v = is_max ? fmaxf(v, w) : v + w;
    }
    if (a.pooling == Pooling::mean) v *= inv;
    if (a.in.type == DType::s8) v *= a.in.scale[c];
    partial[c] = v;
    squares = fmaf(v, v, squares);
  }
  float factor = 1.0f;
  if (a.normalize) {
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) squares_of_warp[threadIdx.x / 32] = squares;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < kPoolThreads / 32; ++i) total += squares_of_warp[i];
    factor = 1.0f / fmaxf(sqrtf(total), 1e-12f);
  }
  for (int c = threadIdx.x; c < a.columns; c += kPoolThreads)
    store_float(partial[c] * factor, a.out, row * a.out.ld + c);
}

constexpr int kDenseRows = 8, kDenseWarps = 4;

__global__ __launch_bounds__(32 * kDenseWarps) void dense_kernel(const __grid_constant__ DenseArgs a) {
  launch_dependents();
  const int lane = threadIdx.x & 31, output = blockIdx.x * kDenseWarps + threadIdx.x / 32,
            row0 = blockIdx.y * kDenseRows;
  wait_for_inputs();
  if (output >= a.outputs) return;
  int64_t at[kDenseRows];
#pragma unroll
  for (int r = 0; r < kDenseRows; ++r) {
    const int row = min(row0 + r, a.rows - 1);
    at[r] = a.offsets ? a.offsets[row] : row;
  }
  float sum[kDenseRows] = {};
  with_type(a.weight_type, [&](auto weight_type) {
    with_type(a.in.type, [&](auto in_type) {
      constexpr DType kWeight = decltype(weight_type)::value, kIn = decltype(in_type)::value;
#pragma unroll 1
      for (int i = lane * 8; i < a.inputs; i += 256) {
        const auto raw_w = load_raw<bytes_of<kWeight>, 8>(element<kWeight>(a.weight, int64_t(output) * a.inputs + i));
        Raw<bytes_of<kIn>, 8> raw_x[kDenseRows];  // all loads before the first use
#pragma unroll
        for (int r = 0; r < kDenseRows; ++r)
          raw_x[r] = load_raw<bytes_of<kIn>, 8>(element<kIn>(a.in.data, at[r] * a.in.ld + i));
        float w[8];
        unpack<kWeight>(w, raw_w);
        if constexpr (kIn == DType::s8) {
          float scale[8];
          load_floats(scale, a.in.scale + i);
#pragma unroll
          for (int k = 0; k < 8; ++k) w[k] *= scale[k];
        }
#pragma unroll
        for (int r = 0; r < kDenseRows; ++r) {
          float x[8];
          unpack<kIn>(x, raw_x[r]);
#pragma unroll
          for (int k = 0; k < 8; ++k) sum[r] = fmaf(w[k], x[k], sum[r]);
        }
      }
    });
  });
#pragma unroll
  for (int r = 0; r < kDenseRows; ++r) sum[r] = warp_sum(sum[r]);
  if (lane >= kDenseRows || row0 + lane >= a.rows) return;
  float y = 0.0f;
#pragma unroll
  for (int r = 0; r < kDenseRows; ++r) y = lane == r ? sum[r] : y;
  if (a.weight_type == DType::s8) y *= a.weight_scale[output];
  if (a.bias) y += a.bias[output];
  store_float(activate(y, a.activation), a.out, (row0 + lane) * a.out.ld + output);
}

}  // namespace

cudaError_t pool(const PoolArgs& args, cudaStream_t stream) noexcept {
  if (args.rows == 0) return cudaSuccess;
  if (args.columns % 8 != 0 || args.columns > 8192) return cudaErrorInvalidValue;
  const int groups = args.columns / 8, lanes = groups < kPoolThreads ? kPoolThreads / groups : 1;
  return launch(pool_kernel, dim3(args.rows), dim3(kPoolThreads), size_t(lanes) * args.columns * 4, stream,
                args.dependent_launch, args);
}

cudaError_t dense(const DenseArgs& args, cudaStream_t stream) noexcept {
  if (args.rows == 0) return cudaSuccess;
  if (args.inputs % 8 != 0) return cudaErrorInvalidValue;
  const dim3 grid((args.outputs + kDenseWarps - 1) / kDenseWarps, (args.rows + kDenseRows - 1) / kDenseRows);
  return launch(dense_kernel, grid, dim3(32 * kDenseWarps), 0, stream, args.dependent_launch, args);
}

}  // namespace octet::kernels::cuda
