// Attention for any type, head size and length up to kLongestRow, and its operations one by one.
//
// attention_any: a warp takes a query of a head. Its scores lie in shared memory as f32; lane l computes those of keys
// l, l + 32, ...; the sum of exponentials runs in the 16 lanes of the definition, and a lane then sums its channels
// over the keys in their order. Dynamic attention first quantizes q and k a token and v a channel of each row into
// scratch: for every token 3 x width bytes, then (rows in arrays of their own) f32 scales of q, k and v.
//
// scores_f32: a block takes one (row, head) and goes over 32 x 32 tiles of its output.
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/typed.cuh"
#include "kernels/cuda/device/warp.cuh"
#include "kernels/cuda/general.h"

namespace octet::kernels::cuda {
namespace {

// Where dynamic attention keeps its integers: q, k, v [tokens, width], then scales [tokens], [tokens], [tokens, width]
// (a row's scales of v start at its first token).
struct Quantized {
  int8_t *q, *k, *v;
  float *q_scale, *k_scale, *v_scale;
};
__host__ __device__ inline Quantized in_scratch(unsigned char* scratch, int64_t tokens, int64_t width) {
  Quantized s;
  s.q = reinterpret_cast<int8_t*>(scratch);
  s.k = s.q + tokens * width;
  s.v = s.k + tokens * width;
  s.q_scale = reinterpret_cast<float*>(scratch + (3 * tokens * width + 15) / 16 * 16);
  s.k_scale = s.q_scale + tokens;
  s.v_scale = s.k_scale + tokens;
  return s;
}

// Blocks 0 .. tokens - 1: q and k of a token. A block of 128 threads.
__global__ __launch_bounds__(128) void quantize_tokens_kernel(const __grid_constant__ AttentionDesc d,
                                                              const __grid_constant__ AttentionArgs a) {
  __shared__ float parts[32];
  launch_dependents();
  wait_for_inputs();
  const int64_t width = d.heads * d.head_dim, i = blockIdx.x;
  const Quantized s = in_scratch(a.scratch, a.tokens, width);
  for (int which = 0; which < 2; ++which) {
    const void* x = which == 0 ? a.q : a.k;
    const int64_t begin = i * (which == 0 ? a.ldq : a.ldk);
    float amax = 0.0f;
    for (int64_t c = threadIdx.x; c < width; c += 128) amax = fmaxf(amax, fabsf(load(x, d.qkv, begin + c)));
    for (int m = 16; m > 0; m /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, m));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = amax;
    __syncthreads();
    amax = fmaxf(fmaxf(parts[0], parts[1]), fmaxf(parts[2], parts[3]));
    const DynamicRange range = dynamic_range(amax);
    if (threadIdx.x == 0) (which == 0 ? s.q_scale : s.k_scale)[i] = range.scale;
    int8_t* out = (which == 0 ? s.q : s.k) + i * width;
    for (int64_t c = threadIdx.x; c < width; c += 128)
      out[c] = static_cast<int8_t>(int8::quantize(load(x, d.qkv, begin + c), range.inv_scale, 0, -127, 127));
  }
}
// A thread a channel of v in a row of the batch.
__global__ void quantize_channels_kernel(const __grid_constant__ AttentionDesc d,
                                         const __grid_constant__ AttentionArgs a) {
  launch_dependents();
  wait_for_inputs();
  const int64_t width = d.heads * d.head_dim, c = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  const int64_t first = a.offsets[blockIdx.x], last = a.offsets[blockIdx.x + 1];
  if (c >= width || first >= last) return;
  const Quantized s = in_scratch(a.scratch, a.tokens, width);
  float amax = 0.0f;
  for (int64_t i = first; i < last; ++i) amax = fmaxf(amax, fabsf(load(a.v, d.qkv, i * a.ldv + c)));
  const DynamicRange range = dynamic_range(amax);
  s.v_scale[first * width + c] = range.scale;
  for (int64_t i = first; i < last; ++i)
    s.v[i * width + c] =
        static_cast<int8_t>(int8::quantize(load(a.v, d.qkv, i * a.ldv + c), range.inv_scale, 0, -127, 127));
}

template <typename T>
__device__ __forceinline__ T multiply_add(T a, T b, T c) {
  if constexpr (sizeof(T) == 4 && T(0.5f) == T(0)) return a * b + c;
  else return fmaf(a, b, c);
}

// 4 products of bytes.
__device__ __forceinline__ int32_t dot4(int32_t a, int32_t b, int32_t c) { return __dp4a(a, b, c); }

template <bool kInteger>
__global__ void attention_kernel(const __grid_constant__ AttentionDesc d, const __grid_constant__ AttentionArgs a,
                                 int warps) {
  extern __shared__ __align__(16) float shared[];
  launch_dependents();
  wait_for_inputs();
  const int row = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first = a.offsets[row];
  const int length = int(a.offsets[row + 1] - first);
  const int head_dim = int(d.head_dim), rounded = (head_dim + 3) / 4 * 4;
  const int64_t width = d.heads * d.head_dim, column = int64_t(head) * head_dim;
  float* scores = shared + int64_t(warp) * (a.max_length + rounded);
  float* query = scores + a.max_length;  // f32, or bytes
  const Quantized s = d.dynamic ? in_scratch(a.scratch, a.tokens, width) : Quantized{};
  const void *q = d.dynamic ? s.q : a.q, *k = d.dynamic ? s.k : a.k, *v = d.dynamic ? s.v : a.v;
  const int64_t ldq = d.dynamic ? width : a.ldq, ldk = d.dynamic ? width : a.ldk, ldv = d.dynamic ? width : a.ldv;
  const float score_scale = a.score_scale[head];
  // Four bytes at once where every key starts on four bytes.
  const bool words = kInteger && head_dim % 4 == 0 && ldk % 4 == 0 && (reinterpret_cast<uintptr_t>(k) & 3) == 0;

  for (int i = blockIdx.z * warps + warp; i < length; i += gridDim.z * warps) {
    __syncwarp();
    for (int c = lane; c < rounded; c += 32) {
      const int64_t at = (first + i) * ldq + column + c;
      if constexpr (kInteger)
        reinterpret_cast<int8_t*>(query)[c] = c < head_dim ? static_cast<const int8_t*>(q)[at] : int8_t(0);
      else query[c] = c < head_dim ? load(q, d.qkv, at) : 0.0f;
    }
    __syncwarp();
    float top = -INFINITY;
    for (int j = lane; j < length; j += 32) {
      const int64_t at = (first + j) * ldk + column;
      const float bias = d.bias ? a.bias[head * a.bias_head_stride + i * a.bias_query_stride + j] : 0.0f;
      float score;
      if constexpr (kInteger) {
        int32_t acc = 0;
        const int8_t* key = static_cast<const int8_t*>(k) + at;
        if (words)
          for (int c = 0; c < head_dim / 4; ++c)
            acc = dot4(reinterpret_cast<const int32_t*>(query)[c], reinterpret_cast<const int32_t*>(key)[c], acc);
        else
          for (int c = 0; c < head_dim; ++c) acc += int32_t(reinterpret_cast<const int8_t*>(query)[c]) * key[c];
        score = d.dynamic ? int8::rescale_row(acc, s.q_scale[first + i], s.k_scale[first + j] * score_scale, bias)
                          : int8::rescale(acc, score_scale, bias);
      } else {
        float sum = 0.0f;
        for (int c = 0; c < head_dim; ++c) sum = fmaf(query[c], load(k, d.qkv, at + c), sum);
        score = fmaf(sum, score_scale, bias);
      }
      scores[j] = score;
      top = fmaxf(top, score);
    }
    for (int m = 16; m > 0; m /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, m));
    __syncwarp();
    for (int j = lane; j < length; j += 32) scores[j] = int8::exp_negative(scores[j] - top);
    __syncwarp();
    float sum = 0.0f;
    if (lane < int8::kLanes)
      for (int j = lane; j < length; j += int8::kLanes) sum += scores[j];
    for (int step = int8::kLanes / 2; step > 0; step /= 2) {
      const float other = __shfl_down_sync(0xffffffffu, sum, step);
      if (lane < step) sum = sum + other;
    }
    const float inverse = 1.0f / __shfl_sync(0xffffffffu, sum, 0);
    for (int j = lane; j < length; j += 32) {
      const float p = scores[j] * inverse;
      if constexpr (kInteger)
        reinterpret_cast<int32_t*>(scores)[j] = int8::quantize(p, a.p_inv_scale, 0, a.p_lo, a.p_hi);
      else scores[j] = p;
    }
    __syncwarp();
    for (int c = lane; c < head_dim; c += 32) {
      const int64_t at = first * ldv + column + c, to = (first + i) * a.ldy + column + c;
      if constexpr (kInteger) {
        int32_t acc = 0;
        for (int j = 0; j < length; ++j)
          acc += reinterpret_cast<const int32_t*>(scores)[j] * static_cast<const int8_t*>(v)[at + j * ldv];
        const float scale = d.dynamic ? a.context_scale[column + c] * s.v_scale[first * width + column + c]
                                      : a.context_scale[column + c];
        store(a.y, d.y, to, static_cast<float>(acc) * scale, a.requant, column + c);
      } else {
        float y = 0.0f;
        for (int j = 0; j < length; ++j) y = fmaf(scores[j], load(v, d.qkv, at + j * ldv), y);
        store(a.y, d.y, to, y, a.requant, column + c);
      }
    }
  }
}

// ---------------------------------------------------------------- one by one

// Where the scores of a row start: every thread gets it. The block has 256 threads.
__device__ int64_t start_of(const ScoresArgs& a, int64_t heads, int64_t row) {
  __shared__ unsigned long long total;
  __syncthreads();
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long mine = 0;
  for (int64_t r = threadIdx.x; r < row; r += blockDim.x) {
    const int64_t length = a.offsets[r + 1] - a.offsets[r];
    mine += static_cast<unsigned long long>(length * length);
  }
  if (mine != 0) atomicAdd(&total, mine);
  __syncthreads();
  return static_cast<int64_t>(total) * heads;
}

constexpr int kTile = 32;

// 32 x 32 outputs a turn: scores are q k^T over head_dim, context is p v over the row's tokens.
__global__ __launch_bounds__(256) void scores_kernel(const __grid_constant__ ScoresDesc d,
                                                     const __grid_constant__ ScoresArgs a) {
  __shared__ float left[kTile][kTile + 1], right[kTile][kTile + 1];
  launch_dependents();
  wait_for_inputs();
  const int64_t row = blockIdx.x / d.heads, head = blockIdx.x % d.heads;
  const int64_t first = a.offsets[row], length = a.offsets[row + 1] - first, width = d.heads * d.head_dim;
  const int64_t line = start_of(a, d.heads, row) + head * length * length;
  const bool context = d.kind == ScoresKind::context;
  const int64_t columns = context ? d.head_dim : length, inner = context ? length : d.head_dim;
  const int64_t across = (columns + kTile - 1) / kTile, down = (length + kTile - 1) / kTile;
  const int tx = threadIdx.x % kTile, ty = threadIdx.x / kTile;  // 8 rows of threads, 4 outputs each
  for (int64_t tile = blockIdx.y; tile < across * down; tile += gridDim.y) {
    const int64_t i0 = tile / across * kTile, j0 = tile % across * kTile;
    float sum[4] = {};
    for (int64_t k0 = 0; k0 < inner; k0 += kTile) {
      for (int r = ty; r < kTile; r += 8) {
        const int64_t i = i0 + r, k = k0 + tx;
        float x = 0.0f, y = 0.0f;
        if (i < length && k < inner)
          x = context ? a.a[line + i * length + k] : a.a[(first + i) * width + head * d.head_dim + k];
        // right[k][j]
        if (context) {
          if (k0 + r < inner && j0 + tx < columns) y = a.b[(first + k0 + r) * width + head * d.head_dim + j0 + tx];
          right[r][tx] = y;
        } else {
          if (j0 + r < columns && k < inner) y = a.b[(first + j0 + r) * width + head * d.head_dim + k];
          right[tx][r] = y;
        }
        left[r][tx] = x;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kTile; ++k)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[e] = fmaf(left[ty + 8 * e][k], right[k][tx], sum[e]);
      __syncthreads();
    }
    for (int e = 0; e < 4; ++e) {
      const int64_t i = i0 + ty + 8 * e, j = j0 + tx;
      if (i >= length || j >= columns) continue;
      if (context) a.y[(first + i) * width + head * d.head_dim + j] = sum[e];
      else
        a.y[line + i * length + j] =
            fmaf(sum[e], a.scale, d.bias ? a.bias[head * a.bias_head_stride + i * a.bias_query_stride + j] : 0.0f);
    }
  }
}

// A warp a line of scores.
__global__ __launch_bounds__(256) void softmax_kernel(const __grid_constant__ ScoresDesc d,
                                                      const __grid_constant__ ScoresArgs a) {
  launch_dependents();
  wait_for_inputs();
  const int64_t row = blockIdx.x / d.heads, head = blockIdx.x % d.heads;
  const int64_t length = a.offsets[row + 1] - a.offsets[row];
  const int64_t begin = start_of(a, d.heads, row) + head * length * length;
  const int lane = threadIdx.x % 32;
  for (int64_t i = int64_t(blockIdx.y) * 8 + threadIdx.x / 32; i < length; i += int64_t(gridDim.y) * 8) {
    const float* x = a.a + begin + i * length;
    float* y = a.y + begin + i * length;
    float top = -INFINITY, sum = 0.0f;
    for (int64_t j = lane; j < length; j += 32) top = fmaxf(top, x[j]);
    for (int m = 16; m > 0; m /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, m));
    if (lane < int8::kLanes)
      for (int64_t j = lane; j < length; j += int8::kLanes) sum += int8::exp_negative(x[j] - top);
    for (int step = int8::kLanes / 2; step > 0; step /= 2) {
      const float other = __shfl_down_sync(0xffffffffu, sum, step);
      if (lane < step) sum = sum + other;
    }
    const float inverse = 1.0f / __shfl_sync(0xffffffffu, sum, 0);
    for (int64_t j = lane; j < length; j += 32) y[j] = int8::exp_negative(x[j] - top) * inverse;
  }
}

}  // namespace

int64_t attention_any_scratch(const AttentionDesc& desc) noexcept {
  const int64_t width = desc.heads * desc.head_dim;
  return desc.dynamic ? 3 * width + 8 + 4 * width + 16 : 0;
}

cudaError_t attention_any(const AttentionDesc& desc, const AttentionArgs& args, cudaStream_t stream) noexcept {
  const int64_t width = desc.heads * desc.head_dim;
  if (desc.dynamic) {
    cudaError_t error =
        launch(quantize_tokens_kernel, dim3(unsigned(args.tokens)), dim3(128), 0, stream, true, desc, args);
    if (error == cudaSuccess)
      error = launch(quantize_channels_kernel, dim3(unsigned(args.rows), unsigned((width + 127) / 128)), dim3(128), 0,
                     stream, true, desc, args);
    if (error != cudaSuccess) return error;
  }
  const bool integer = desc.dynamic || desc.qkv == DType::s8;
  const int64_t a_warp = (args.max_length + (desc.head_dim + 3) / 4 * 4) * 4;
  const int warps = int(a_warp * 8 <= 48 * 1024 ? 8 : a_warp * 4 <= 96 * 1024 ? 4 : a_warp * 2 <= 96 * 1024 ? 2 : 1);
  const int64_t turns = (args.max_length + warps - 1) / warps;
  const dim3 grid(unsigned(args.rows), unsigned(desc.heads), unsigned(turns < 65535 ? turns : 65535));
  return launch(integer ? attention_kernel<true> : attention_kernel<false>, grid, dim3(unsigned(32 * warps)),
                size_t(warps * a_warp), stream, true, desc, args, warps);
}

cudaError_t scores_f32(const ScoresDesc& desc, const ScoresArgs& args, cudaStream_t stream) noexcept {
  const dim3 grid(unsigned(args.rows * desc.heads), 16);
  return launch(desc.kind == ScoresKind::softmax ? softmax_kernel : scores_kernel, grid, dim3(256), 0, stream, true,
                desc, args);
}

}  // namespace octet::kernels::cuda
