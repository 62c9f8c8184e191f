// norm, embed, pool and elementwise for every descriptor, in the order of operations of the scalar rows.
//
// A block of 128 threads takes a token (or a batch row when pooling); its values lie in shared memory as f32. Sums run
// in 16 threads, one a lane of the definition, so the bits are those of the reference. What works element by element
// takes a thread an element.
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/typed.cuh"
#include "kernels/cuda/device/warp.cuh"
#include "kernels/cuda/general.h"

namespace octet::kernels::cuda {
namespace {

constexpr int kThreads = 128;
extern __shared__ float row[];

__device__ void layer_norm(float* x, int n, const float* gamma, const float* beta, float epsilon, float* lanes) {
  const float mean = lane_sum(x, n, lanes) / static_cast<float>(n);
  const float variance = lane_sum_squares(x, n, mean, lanes) / static_cast<float>(n);
  const float rstd = 1.0f / sqrtf(variance + epsilon);
  for (int c = threadIdx.x; c < n; c += kThreads) x[c] = fmaf((x[c] - mean) * rstd, gamma[c], beta[c]);
  __syncthreads();
}

__device__ void l2_normalize(float* x, int n, float* lanes) {
  float length = sqrtf(lane_sum_squares(x, n, 0.0f, lanes));
  length = length > 1e-12f ? length : 1e-12f;
  for (int c = threadIdx.x; c < n; c += kThreads) x[c] = x[c] / length;
  __syncthreads();
}

__device__ void store_outputs(const float* x, int n, int64_t i, int outputs, const OutputDesc* desc,
                              const NormOutput* out, float* lanes) {
  for (int o = 0; o < outputs; ++o) {
    if (!desc[o].per_token) {
      for (int c = threadIdx.x; c < n; c += kThreads)
        store(out[o].y, desc[o].dtype, i * n + c, x[c], out[o].requant, c);
      continue;
    }
    const DynamicRange range = dynamic_range(row_amax(x, n, lanes));
    if (threadIdx.x == 0) out[o].row_scale[i] = range.scale;
    for (int c = threadIdx.x; c < n; c += kThreads)
      store_int(out[o].y, DType::s8, i * n + c, int8::quantize(x[c], range.inv_scale, 0, -127, 127));
  }
}

__global__ __launch_bounds__(kThreads) void norm_kernel(const __grid_constant__ NormDesc d,
                                                        const __grid_constant__ kernels::NormArgs a) {
  __shared__ float lanes[32];
  launch_dependents();
  wait_for_inputs();
  const int n = int(d.n);
  for (int64_t i = blockIdx.x; i < a.m; i += gridDim.x) {
    for (int c = threadIdx.x; c < n; c += kThreads) {
      float x = load(a.a, d.a, i * n + c, is_8bit(d.a) ? a.a_scale[c] : 1.0f, a.a_zero);
      if (d.residual) x = x + load(a.b, d.b, i * n + c, is_8bit(d.b) ? a.b_scale[c] : 1.0f, a.b_zero);
      row[c] = x;
    }
    layer_norm(row, n, a.gamma, a.beta, a.epsilon, lanes);
    store_outputs(row, n, i, d.outputs, d.y, a.out, lanes);
    __syncthreads();
  }
}

__global__ __launch_bounds__(kThreads) void embed_kernel(const __grid_constant__ EmbedDesc d,
                                                         const __grid_constant__ kernels::EmbedArgs a) {
  __shared__ float lanes[32];
  launch_dependents();
  wait_for_inputs();
  const int n = int(d.n);
  for (int64_t i = blockIdx.x; i < a.m; i += gridDim.x) {
    for (int t = 0; t < d.tables; ++t) {
      const int64_t index = a.index[t] != nullptr ? a.index[t][i] : 0;
      const float scale = d.table[t] == DType::s8 ? a.table_scale[t][index] : 1.0f;
      for (int c = threadIdx.x; c < n; c += kThreads) {
        const float value = load(a.table[t], d.table[t], index * n + c, scale);
        row[c] = t == 0 ? value : row[c] + value;
      }
    }
    __syncthreads();
    if (d.norm) layer_norm(row, n, a.gamma, a.beta, a.epsilon, lanes);
    store_outputs(row, n, i, d.outputs, d.y, a.out, lanes);
    __syncthreads();
  }
}

__global__ __launch_bounds__(kThreads) void pool_kernel(const __grid_constant__ PoolDesc d,
                                                        const __grid_constant__ kernels::PoolArgs a) {
  __shared__ float lanes[32];
  launch_dependents();
  wait_for_inputs();
  const int n = int(d.n);
  const int64_t i = blockIdx.x, first = a.offsets[i], last = a.offsets[i + 1];
  for (int c = threadIdx.x; c < n; c += kThreads) {
    auto value = [&](int64_t token) {
      return load(a.x, d.x, token * n + c, is_8bit(d.x) ? a.x_scale[c] : 1.0f, a.x_zero);
    };
    float y = first < last ? value(first) : 0.0f;
    if (d.kind != PoolKind::first) {
      for (int64_t token = first + 1; token < last; ++token) {
        const float x = value(token);
        y = d.kind == PoolKind::mean ? y + x : (x > y ? x : y);
      }
      if (d.kind == PoolKind::mean && first < last) y = y / static_cast<float>(last - first);
    }
    row[c] = y;
  }
  __syncthreads();
  if (d.normalize) l2_normalize(row, n, lanes);
  for (int c = threadIdx.x; c < n; c += kThreads) store(a.y, d.y, i * n + c, row[c], Requant{}, c);
}

// ---------------------------------------------------------------- elementwise

__global__ void point_kernel(const __grid_constant__ ElementwiseDesc d,
                             const __grid_constant__ kernels::ElementwiseArgs a) {
  launch_dependents();
  wait_for_inputs();
  const int64_t count = a.m * d.n, step = int64_t(gridDim.x) * blockDim.x;
  const bool dequantize = d.kind == ElementwiseKind::dequantize;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t c = d.n == 1 ? 0 : i % d.n;
    float x = load(a.x, d.x, i, dequantize ? a.scale[c] : 1.0f, dequantize ? a.requant.zero_point : 0);
    switch (d.kind) {
      case ElementwiseKind::activation: x = activate(x, d.activation); break;
      case ElementwiseKind::add: x = x + load(a.x2, d.x, i); break;
      case ElementwiseKind::fake_quant:
        x = int8::dequantize(
            int8::quantize(x, a.requant.inv_scale[c], a.requant.zero_point, a.requant.lo, a.requant.hi), a.scale[c],
            a.requant.zero_point);
        break;
      default: break;
    }
    store(a.y, d.y, i, x, a.requant, c);
  }
}

__global__ __launch_bounds__(kThreads) void token_kernel(const __grid_constant__ ElementwiseDesc d,
                                                         const __grid_constant__ kernels::ElementwiseArgs a) {
  __shared__ float lanes[32];
  launch_dependents();
  wait_for_inputs();
  const int n = int(d.n);
  for (int64_t i = blockIdx.x; i < a.m; i += gridDim.x) {
    for (int c = threadIdx.x; c < n; c += kThreads) row[c] = load(a.x, d.x, i * n + c);
    __syncthreads();
    if (d.kind == ElementwiseKind::normalize) {
      l2_normalize(row, n, lanes);
      for (int c = threadIdx.x; c < n; c += kThreads) store(a.y, d.y, i * n + c, row[c], a.requant, c);
    } else if (d.kind == ElementwiseKind::quantize_token) {
      const DynamicRange range = dynamic_range(row_amax(row, n, lanes));
      if (threadIdx.x == 0) a.row_scale[i] = range.scale;
      for (int c = threadIdx.x; c < n; c += kThreads)
        store_int(a.y, d.y, i * n + c, int8::quantize(row[c], range.inv_scale, 0, -127, 127));
    } else {  // fake_quant_token
      const DynamicRange range = dynamic_range(row_amax(row, n, lanes), static_cast<float>(a.requant.hi));
      for (int c = threadIdx.x; c < n; c += kThreads)
        static_cast<float*>(a.y)[i * n + c] =
            int8::dequantize(int8::quantize(row[c], range.inv_scale, 0, a.requant.lo, a.requant.hi), range.scale, 0);
    }
    __syncthreads();
  }
}

// A thread a channel of a batch row.
__global__ void row_channel_kernel(const __grid_constant__ ElementwiseDesc d,
                                   const __grid_constant__ kernels::ElementwiseArgs a) {
  launch_dependents();
  wait_for_inputs();
  const int64_t c = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (c >= d.n) return;
  const int64_t first = a.offsets[blockIdx.x], last = a.offsets[blockIdx.x + 1];
  const float* x = static_cast<const float*>(a.x);
  float amax = 0.0f;
  for (int64_t i = first; i < last; ++i) amax = fmaxf(amax, fabsf(x[i * d.n + c]));
  const DynamicRange range = dynamic_range(amax, static_cast<float>(a.requant.hi));
  for (int64_t i = first; i < last; ++i)
    static_cast<float*>(a.y)[i * d.n + c] = int8::dequantize(
        int8::quantize(x[i * d.n + c], range.inv_scale, 0, a.requant.lo, a.requant.hi), range.scale, 0);
}

unsigned blocks_for(int64_t tokens) { return static_cast<unsigned>(tokens < 65535 ? tokens : 65535); }

}  // namespace

cudaError_t norm_any(const NormDesc& desc, const kernels::NormArgs& args, cudaStream_t stream) noexcept {
  return launch(norm_kernel, dim3(blocks_for(args.m)), dim3(kThreads), size_t(desc.n) * 4, stream, true, desc, args);
}
cudaError_t embed_any(const EmbedDesc& desc, const kernels::EmbedArgs& args, cudaStream_t stream) noexcept {
  return launch(embed_kernel, dim3(blocks_for(args.m)), dim3(kThreads), size_t(desc.n) * 4, stream, true, desc, args);
}
cudaError_t pool_any(const PoolDesc& desc, const kernels::PoolArgs& args, cudaStream_t stream) noexcept {
  return launch(pool_kernel, dim3(unsigned(args.rows)), dim3(kThreads), size_t(desc.n) * 4, stream, true, desc, args);
}

cudaError_t elementwise_any(const ElementwiseDesc& desc, const kernels::ElementwiseArgs& args,
                            cudaStream_t stream) noexcept {
  switch (desc.kind) {
    case ElementwiseKind::quantize_token:
    case ElementwiseKind::fake_quant_token:
    case ElementwiseKind::normalize:
      return launch(token_kernel, dim3(blocks_for(args.m)), dim3(kThreads), size_t(desc.n) * 4, stream, true, desc,
                    args);
    case ElementwiseKind::fake_quant_row_channel:
      return launch(row_channel_kernel, dim3(unsigned(args.rows), unsigned((desc.n + 127) / 128)), dim3(128), 0, stream,
                    true, desc, args);
    default: {
      const int64_t blocks = (args.m * desc.n + 255) / 256;
      return launch(point_kernel, dim3(unsigned(blocks < 16384 ? blocks : 16384)), dim3(256), 0, stream, true, desc,
                    args);
    }
  }
}

}  // namespace octet::kernels::cuda
