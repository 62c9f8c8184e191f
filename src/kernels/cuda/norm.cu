// Add, LayerNorm and quantize. Two kernels, chosen by hidden alone, so that a row has the same bits in every batch:
//  columns   hidden = 32 V W (W warps): a thread owns V columns, keeps their scales, gamma and beta in registers and goes down the rows, kRows at a
//            time; the next rows are loaded while these are worked on. Reading the vectors once per block and not once per row is what
//            matters here: 5 x 4 bytes of them against 3 bytes of s8 data.
//  rows      any other hidden: a warp owns whole rows.
// Mean and squared differences are merged over lanes and warps by Chan's formula: as accurate as two passes, one exchange.
#include "kernels/cuda/norm.h"

#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/rows.cuh"

namespace octet::kernels::cuda {
namespace {

template <int V, int N, int kRows>
__global__ __launch_bounds__(128) void add_norm_rows(const __grid_constant__ NormArgs a) {
  launch_dependents();
  const int64_t first = (int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32) * kRows;
  wait_for_inputs();
  if (first >= a.tokens) return;
  Rows<V, N, kRows> rows;
  rows.template add<true>(a.a, first, a.tokens, a.hidden);
  if (a.b.data) rows.template add<false>(a.b, first, a.tokens, a.hidden);
  rows.normalize(a.gamma, a.beta, a.eps, a.hidden);
  rows.write(a.out[0], first, a.tokens, a.hidden);
  rows.write(a.out[1], first, a.tokens, a.hidden);
}

/// Mean and sum of squared differences of n values, merged with those of n other values.
struct Moments {
  float mean, squares;
};
__device__ __forceinline__ Moments merge(Moments x, Moments y, float half_n) {
  const float d = x.mean - y.mean;
  return {0.5f * (x.mean + y.mean), fmaf(d * d, half_n, x.squares + y.squares)};
}
__device__ __forceinline__ Moments shuffle(Moments x, int mask) {
  return {__shfl_xor_sync(0xffffffffu, x.mean, mask), __shfl_xor_sync(0xffffffffu, x.squares, mask)};
}

/// Merges the moments of kRows rows over the warp. Lanes first share the rows out among themselves, so that few shuffles remain; the tree over
/// lanes is the same for every kRows. Afterwards lane l holds row row_of(l).
template <int V, int kRows>
__device__ __forceinline__ Moments merge_warp(Moments (&m)[kRows]) {
  const int lane = threadIdx.x & 31;
  float half_n = 0.5f * V;
  int mask = 16;
#pragma unroll
  for (int n = kRows; n > 1; n /= 2, mask /= 2, half_n *= 2.0f) {
    const bool upper = lane & mask;
#pragma unroll
    for (int i = 0; i < n / 2; ++i) {
      const Moments keep = upper ? m[i + n / 2] : m[i], give = upper ? m[i] : m[i + n / 2];
      m[i] = merge(keep, shuffle(give, mask), half_n);
    }
  }
#pragma unroll
  for (; mask > 0; mask /= 2, half_n *= 2.0f) m[0] = merge(m[0], shuffle(m[0], mask), half_n);
  return m[0];
}
/// The row that a lane holds after merge_warp: bit 4 of the lane is the top bit of the row number, and so on.
template <int kRows>
__device__ __forceinline__ int row_of(int lane) {
  return kRows == 1 ? 0 : kRows == 2 ? lane >> 4 : lane >> 3;
}

template <DType kA, DType kB, bool kHasB, int V, int kRows>
struct RawRows {
  Raw<bytes_of<kA>, V> a[kRows];
  Raw<bytes_of<kB>, V> b[kHasB ? kRows : 1];
  __device__ __forceinline__ void load(const NormArgs& args, int64_t first, int column) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = first + r < args.tokens ? first + r : args.tokens - 1;
      a[r] = load_raw<bytes_of<kA>, V>(element<kA>(args.a.data, row * args.a.ld + column));
      if constexpr (kHasB) b[r] = load_raw<bytes_of<kB>, V>(element<kB>(args.b.data, row * args.b.ld + column));
    }
  }
};

template <DType kType, int V>
__device__ __forceinline__ void load_scale(float (&scale)[V], const float* p, int column) {
  if constexpr (kType == DType::s8) load_floats(scale, p + column);
}

constexpr int kMaxWarps = 16;

template <DType kA, DType kB, bool kHasB, int V, int kRows>
__global__ __launch_bounds__(512) void add_norm_columns(const __grid_constant__ NormArgs a) {
  __shared__ Moments of_warp[2][kMaxWarps][kRows];
  launch_dependents();
  const int column = threadIdx.x * V, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  // Weights do not come from the kernel before: they may be read before the wait.
  float sa[V], sb[V], gamma[V], beta[V], inv[V];
  load_scale<kA>(sa, a.a.scale, column);
  if constexpr (kHasB) load_scale<kB>(sb, a.b.scale, column);
  load_floats(gamma, a.gamma + column);
  load_floats(beta, a.beta + column);
  const bool s8_out = a.out[0].data && a.out[0].type == DType::s8 && !a.out[0].row_scale;
  if (s8_out) load_floats(inv, a.out[0].inv_scale + column);
  wait_for_inputs();
  const int64_t step = int64_t(gridDim.x) * kRows;
  int64_t first = int64_t(blockIdx.x) * kRows;
  RawRows<kA, kB, kHasB, V, kRows> raw;
  if (first < a.tokens) raw.load(a, first, column);
  const float inv_warps = 1.0f / float(warps), inv_hidden = 1.0f / float(a.hidden);
  for (int turn = 0; first < a.tokens; first += step, turn ^= 1) {
    float x[kRows][V];
    Moments m[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      unpack<kA>(x[r], raw.a[r]);
      if constexpr (kA == DType::s8)
#pragma unroll
        for (int k = 0; k < V; ++k) x[r][k] *= sa[k];
      if constexpr (kHasB) {
        float y[V];
        unpack<kB>(y, raw.b[r]);
#pragma unroll
        for (int k = 0; k < V; ++k) x[r][k] = kB == DType::s8 ? fmaf(y[k], sb[k], x[r][k]) : x[r][k] + y[k];
      }
    }
    if (first + step < a.tokens) raw.load(a, first + step, column);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < V; ++k) sum += x[r][k];
      m[r] = {sum * (1.0f / V), 0.0f};
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float d = x[r][k] - m[r].mean;
        m[r].squares = fmaf(d, d, m[r].squares);
      }
    }
    const Moments merged = merge_warp<V, kRows>(m);
    if ((lane & (32 / kRows - 1)) == 0) of_warp[turn][warp][row_of<kRows>(lane)] = merged;
    __syncthreads();  // one is enough: the other half of of_warp is written next
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float mean = 0.0f, squares = 0.0f;
      for (int w = 0; w < warps; ++w) mean += of_warp[turn][w][r].mean;
      mean *= inv_warps;
      for (int w = 0; w < warps; ++w) {
        const float d = of_warp[turn][w][r].mean - mean;
        squares += fmaf(d * d, 32.0f * V, of_warp[turn][w][r].squares);
      }
      const float rstd = rsqrtf(fmaf(squares, inv_hidden, a.eps));
#pragma unroll
      for (int k = 0; k < V; ++k) x[r][k] = fmaf((x[r][k] - mean) * rstd, gamma[k], beta[k]);
    }
#pragma unroll
    for (int o = 0; o < 2; ++o) {
      if (!a.out[o].data) continue;
      with_type(a.out[o].type, [&](auto type) {
        constexpr DType kType = decltype(type)::value;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (first + r >= a.tokens) continue;
          float y[V];
          if (kType == DType::s8 && o == 1) load_floats(inv, a.out[1].inv_scale + column);
#pragma unroll
          for (int k = 0; k < V; ++k) y[k] = kType == DType::s8 ? x[r][k] * inv[k] : x[r][k];
          store_raw(element<kType>(a.out[o].data, (first + r) * a.out[o].ld + column), pack<kType>(y));
        }
      });
    }
    if (s8_out && a.out[1].data && a.out[1].type == DType::s8) load_floats(inv, a.out[0].inv_scale + column);
  }
}

int sm_count() {
  static const int count = [] {
    int device = 0, n = 132;
    if (cudaGetDevice(&device) == cudaSuccess) cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device);
    return n;
  }();
  return count;
}

template <DType kA, DType kB, bool kHasB, int V>
cudaError_t run_columns(const NormArgs& a, cudaStream_t stream) {
  const int threads = a.hidden / V;
  const int wanted = a.rows_per_warp > 0 ? a.rows_per_warp : a.tokens >= 8 * sm_count() ? 4 : 1;
  const auto go = [&](auto kernel, int rows) {
    static int per_sm[kMaxWarps + 1] = {};  // found once per kernel and block size; racing threads find the same
    int& fit = per_sm[threads / 32];
    if (fit == 0 && (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, kernel, threads, 0) != cudaSuccess || fit == 0)) fit = 1;
    const int resident = sm_count() * fit;
    const int64_t blocks = (a.tokens + rows - 1) / rows;
    return launch(kernel, dim3(unsigned(blocks < resident ? blocks : resident)), dim3(threads), 0, stream, a.dependent_launch, a);
  };
  if (wanted >= 4) return go(add_norm_columns<kA, kB, kHasB, V, 4>, 4);
  if (wanted >= 2) return go(add_norm_columns<kA, kB, kHasB, V, 2>, 2);
  return go(add_norm_columns<kA, kB, kHasB, V, 1>, 1);
}

cudaError_t run_rows(const NormArgs& args, cudaStream_t stream) {
  return with_row_tile(args.hidden, [&](auto tile) {
    constexpr int V = decltype(tile)::V, N = decltype(tile)::N;
    const auto go = [&](auto kernel, int rows) {
      const int threads = args.tokens <= 512 ? 32 : 128;
      const int64_t per_block = threads / 32 * rows;
      return launch(kernel, dim3(unsigned((args.tokens + per_block - 1) / per_block)), dim3(threads), 0, stream, args.dependent_launch, args);
    };
    const int wanted = args.rows_per_warp > 0 ? args.rows_per_warp : args.tokens >= 2048 ? 2 : 1;
    if constexpr (V * N <= 32) {
      if (wanted >= 2) return go(add_norm_rows<V, N, 2>, 2);
    }
    return go(add_norm_rows<V, N, 1>, 1);
  });
}

}  // namespace

cudaError_t add_norm(const NormArgs& args, cudaStream_t stream) noexcept {
  if (args.tokens == 0) return cudaSuccess;
  const bool wide = args.hidden % 256 == 0 && args.hidden <= 4096, narrow = args.hidden % 128 == 0 && args.hidden <= 1024;
  const DType a = args.a.type, b = args.b.type;
  // The pairs that encoders have; one of a type per plan, and no row scales (they need the row's maximum).
  if ((wide || narrow) && !args.out[0].row_scale && !args.out[1].row_scale) {
    const auto go = [&](auto ta, auto tb) {
      constexpr DType kA = decltype(ta)::value, kB = decltype(tb)::value;
      return wide ? run_columns<kA, kB, true, 8>(args, stream) : run_columns<kA, kB, true, 4>(args, stream);
    };
    if (args.b.data) {
      if (a == DType::s8 && b == DType::s8) return go(Type<DType::s8>{}, Type<DType::s8>{});
      if (a == DType::f16 && b == DType::f16) return go(Type<DType::f16>{}, Type<DType::f16>{});
      if (a == DType::f16 && b == DType::s8) return go(Type<DType::f16>{}, Type<DType::s8>{});
    }
  }
  return run_rows(args, stream);
}

}  // namespace octet::kernels::cuda
