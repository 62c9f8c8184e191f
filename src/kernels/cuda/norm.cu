// Add, LayerNorm and quantize. Two kernels with the same arithmetic, so that a row has the same bits in both:
//  persistent  the widths and types of common encoders: a warp goes down the rows with the per-channel vectors in
//  registers. Reading them again for
//              each row is what would bind: 5 x 4 bytes of them against 3 bytes of s8 data.
//  rows        everything else: a warp owns one row, or two when there are many.
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

template <DType kType, int V>
__device__ __forceinline__ void load_scale(float (&scale)[V], const float* p, int column) {
  if constexpr (kType == DType::s8) load_floats(scale, p + column);
}

/// One warp a row at a time, down the matrix, a + b with both present. hidden = 32 V N exactly. The per-channel vectors
/// stay in registers, and the next row is loaded while this one is worked on.
template <DType kA, DType kB, int V, int N>
__global__ __launch_bounds__(128) void add_norm_persistent(const __grid_constant__ NormArgs a) {
  using Tile = Rows<V, N, 1>;
  launch_dependents();
  // The vectors are weights and not results of the kernel before: they may be read before the wait.
  float sa[N][V], sb[N][V], gamma[N][V], beta[N][V], inv[N][V];
  const bool s8_out = a.out[0].data && a.out[0].type == DType::s8;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int column = Tile::column(i);
    load_scale<kA>(sa[i], a.a.scale, column);
    load_scale<kB>(sb[i], a.b.scale, column);
    load_floats(gamma[i], a.gamma + column);
    load_floats(beta[i], a.beta + column);
    if (s8_out) load_floats(inv[i], a.out[0].inv_scale + column);
  }
  const int64_t step = int64_t(gridDim.x) * (blockDim.x / 32);
  int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  wait_for_inputs();
  if (row >= a.tokens) return;
  Raw<bytes_of<kA>, V> raw_a[N];
  Raw<bytes_of<kB>, V> raw_b[N];
  const auto fetch = [&](int64_t r) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      raw_a[i] = load_raw<bytes_of<kA>, V>(element<kA>(a.a.data, r * a.a.ld + Tile::column(i)));
      raw_b[i] = load_raw<bytes_of<kB>, V>(element<kB>(a.b.data, r * a.b.ld + Tile::column(i)));
    }
  };
  fetch(row);
  for (; row < a.tokens; row += step) {
    Tile tile;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float f[V], g[V];
      unpack<kA>(f, raw_a[i]);
      unpack<kB>(g, raw_b[i]);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        // As Rows::add: the scale of a float is 1, and its product exact.
        const float x = kA == DType::s8 ? f[k] * sa[i][k] : f[k];
        tile.x[0][i][k] = kB == DType::s8 ? fmaf(g[k], sb[i][k], x) : x + g[k];
      }
    }
    if (row + step < a.tokens) fetch(row + step);
    float rstd[1];
    tile.center(rstd, a.eps, a.hidden);
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
      for (int k = 0; k < V; ++k) tile.x[0][i][k] = fmaf(tile.x[0][i][k] * rstd[0], gamma[i][k], beta[i][k]);
    if (s8_out) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float y[V];
#pragma unroll
        for (int k = 0; k < V; ++k) y[k] = tile.x[0][i][k] * inv[i][k];
        store_raw(element<DType::s8>(a.out[0].data, row * a.out[0].ld + Tile::column(i)), pack<DType::s8>(y));
      }
    } else {
      tile.write(a.out[0], row, a.tokens, a.hidden);
    }
    tile.write(a.out[1], row, a.tokens, a.hidden);
  }
}

/// Rows::center with the sums in the order of gemm_sm90_norm.cu, which holds the same row in other registers: over the
/// V columns of a lane, over lanes apart by 4 (64 columns), then 1, 2, 8 and 16 (32 V columns), then over the N chunks.
template <int V, int N>
__device__ __forceinline__ void center_by_chunk(Rows<V, N, 1>& tile, float& rstd, float eps, int hidden) {
  const float inv = 1.0f / float(hidden);
  const auto total = [&](auto four) {
    float chunk[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      chunk[i] = four(&tile.x[0][i][0]);
      if constexpr (V == 8) chunk[i] += four(&tile.x[0][i][4]);
    }
#pragma unroll
    for (int m : {4, 1, 2, 8, 16})
#pragma unroll
      for (int i = 0; i < N; ++i) chunk[i] += __shfl_xor_sync(0xffffffffu, chunk[i], m);
    float sum = chunk[0];
#pragma unroll
    for (int i = 1; i < N; ++i) sum += chunk[i];
    return sum;
  };
  const float mean = total([](const float* v) { return (v[0] + v[1]) + (v[2] + v[3]); }) * inv;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int k = 0; k < V; ++k) tile.x[0][i][k] -= mean;
  rstd = rsqrtf(fmaf(
      total([](const float* d) { return fmaf(d[1], d[1], d[0] * d[0]) + fmaf(d[3], d[3], d[2] * d[2]); }), inv, eps));
}

/// The same for s8 + s8 -> s8 alone. gamma and beta carry the output's scale, and the multiply-add's saturation to [0,
/// 1] clamps: 13 instead of 17 instructions an element. kShared: gamma and beta lie in shared memory, so that 16 warps
/// fit on a multiprocessor instead of 12 (for many rows; the bits are the same).
template <int V, int N, bool kShared>
__global__ __launch_bounds__(128, kShared ? 4 : 1) void add_norm_s8(const __grid_constant__ NormArgs a) {
  using Tile = Rows<V, N, 1>;
  constexpr int kFours = V / 4;
  __shared__ float4 vectors[2][kShared ? N * kFours * 32 : 1];  // as lanes read them
  launch_dependents();
  const auto fold_scale = [](float(&gamma)[4], float(&beta)[4], const NormArgs& args, int column) {
    float inv[4];
    load_floats(gamma, args.gamma + column);
    load_floats(beta, args.beta + column);
    load_floats(inv, args.out[0].inv_scale + column);
#pragma unroll
    for (int k = 0; k < 4; ++k) {  // (y + 128) / 255
      const float f = inv[k] * (1.0f / 255.0f);
      gamma[k] *= f;
      beta[k] = fmaf(beta[k], f, 128.0f / 255.0f);
    }
  };
  float sa[N][V], sb[N][V];
  float gamma[kShared ? 1 : N * kFours][4], beta[kShared ? 1 : N * kFours][4];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    load_floats(sa[i], a.a.scale + Tile::column(i));
    load_floats(sb[i], a.b.scale + Tile::column(i));
    if constexpr (!kShared)
#pragma unroll
      for (int j = 0; j < kFours; ++j)
        fold_scale(gamma[i * kFours + j], beta[i * kFours + j], a, Tile::column(i) + 4 * j);
  }
  if constexpr (kShared) {
    for (int n = threadIdx.x; n < N * kFours * 32; n += blockDim.x) {
      const int four = n / 32, column = (four / kFours * 32 + n % 32) * V + four % kFours * 4;
      float g[4], b[4];
      fold_scale(g, b, a, column);
      vectors[0][n] = make_float4(g[0], g[1], g[2], g[3]), vectors[1][n] = make_float4(b[0], b[1], b[2], b[3]);
    }
    __syncthreads();
  }
  const int64_t step = int64_t(gridDim.x) * (blockDim.x / 32);
  int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  wait_for_inputs();
  if (row >= a.tokens) return;
  Raw<1, V> raw_a[N], raw_b[N];
  const auto fetch = [&](int64_t r) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      raw_a[i] = load_raw<1, V>(element<DType::s8>(a.a.data, r * a.a.ld + Tile::column(i)));
      raw_b[i] = load_raw<1, V>(element<DType::s8>(a.b.data, r * a.b.ld + Tile::column(i)));
    }
  };
  fetch(row);
  for (; row < a.tokens; row += step) {
    Tile tile;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float f[V], g[V];
      unpack<DType::s8>(f, raw_a[i]);
      unpack<DType::s8>(g, raw_b[i]);
#pragma unroll
      for (int k = 0; k < V; ++k) tile.x[0][i][k] = fmaf(g[k], sb[i][k], f[k] * sa[i][k]);
    }
    if (row + step < a.tokens) fetch(row + step);
    float rstd[1];
    center_by_chunk<V, N>(tile, rstd[0], a.eps, a.hidden);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      Raw<1, V> out;
#pragma unroll
      for (int j = 0; j < kFours; ++j) {
        float g[4], b[4];
        if constexpr (kShared) {
          const float4 x = vectors[0][(i * kFours + j) * 32 + (threadIdx.x & 31)],
                       y = vectors[1][(i * kFours + j) * 32 + (threadIdx.x & 31)];
          g[0] = x.x, g[1] = x.y, g[2] = x.z, g[3] = x.w, b[0] = y.x, b[1] = y.y, b[2] = y.z, b[3] = y.w;
        } else {
#pragma unroll
          for (int k = 0; k < 4; ++k) g[k] = gamma[i * kFours + j][k], b[k] = beta[i * kFours + j][k];
        }
        uint32_t u[4];
#pragma unroll
        for (int k = 0; k < 4; ++k)
          u[k] =
              __float_as_uint(fmaf(__saturatef(fmaf(tile.x[0][i][4 * j + k] * rstd[0], g[k], b[k])), 255.0f, kMagic));
        out.w[j] = pack_low_bytes(u[0], u[1], u[2], u[3]) ^ 0x80808080u;
      }
      store_raw(element<DType::s8>(a.out[0].data, row * a.out[0].ld + Tile::column(i)), out);
    }
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

/// Blocks of `kernel` that a multiprocessor holds at 128 threads.
template <typename Kernel>
int resident(Kernel kernel) {
  int n = 0;
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel, 128, 0) == cudaSuccess && n > 0 ? n : 1;
}
/// As many blocks as there are rows for, no more than fit on the machine at once; `fit` at 128 threads.
template <typename Kernel>
cudaError_t run_down(Kernel kernel, int fit, int threads, const NormArgs& a, cudaStream_t stream) {
  const int64_t blocks = (a.tokens + threads / 32 - 1) / (threads / 32),
                most = int64_t(sm_count()) * fit * (128 / threads);
  return launch(kernel, dim3(unsigned(blocks < most ? blocks : most)), dim3(threads), 0, stream, a.dependent_launch, a);
}

template <DType kA, DType kB, int V, int N>
cudaError_t run_persistent(const NormArgs& a, cudaStream_t stream) {
  static const int fit = resident(add_norm_persistent<kA, kB, V, N>);
  return run_down(add_norm_persistent<kA, kB, V, N>, fit, a.tokens <= 1024 ? 32 : 128, a, stream);
}
template <int V, int N>
cudaError_t run_s8(const NormArgs& a, cudaStream_t stream) {
  if constexpr (V * N <= 24) {  // wider rows need the registers of 12 warps
    static const int fit = resident(add_norm_s8<V, N, true>);
    if (a.tokens > 1024) return run_down(add_norm_s8<V, N, true>, fit, 128, a, stream);
  }
  static const int fit = resident(add_norm_s8<V, N, false>);
  return run_down(add_norm_s8<V, N, false>, fit, a.tokens <= 1024 ? 32 : 128, a, stream);
}

cudaError_t run_rows(const NormArgs& args, cudaStream_t stream) {
  return with_row_tile(args.hidden, [&](auto tile) {
    constexpr int V = decltype(tile)::V, N = decltype(tile)::N;
    const auto go = [&](auto kernel, int rows) {
      const int threads = args.tokens <= 512 ? 32 : 128;
      const int64_t per_block = threads / 32 * rows;
      return launch(kernel, dim3(unsigned((args.tokens + per_block - 1) / per_block)), dim3(threads), 0, stream,
                    args.dependent_launch, args);
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
  // The pairs and widths that encoders have. Row scales need the row's maximum: the other kernel.
  if (args.b.data && !args.out[0].row_scale && !args.out[1].row_scale && args.rows_per_warp == 0) {
    const auto by_type = [&](auto v, auto n) {
      constexpr int V = decltype(v)::V, N = decltype(n)::N;
      const DType a = args.a.type, b = args.b.type;
      if (a == DType::s8 && b == DType::s8 && args.out[0].type == DType::s8 && !args.out[1].data)
        return run_s8<V, N>(args, stream);
      if (a == DType::s8 && b == DType::s8) return run_persistent<DType::s8, DType::s8, V, N>(args, stream);
      if (a == DType::f16 && b == DType::f16) return run_persistent<DType::f16, DType::f16, V, N>(args, stream);
      if (a == DType::f16 && b == DType::s8) return run_persistent<DType::f16, DType::s8, V, N>(args, stream);
      return run_rows(args, stream);
    };
    if (args.hidden == 384) return by_type(RowTile<4, 3>{}, RowTile<4, 3>{});
    if (args.hidden == 512) return by_type(RowTile<8, 2>{}, RowTile<8, 2>{});
    if (args.hidden == 768) return by_type(RowTile<8, 3>{}, RowTile<8, 3>{});
    if (args.hidden == 1024) return by_type(RowTile<8, 4>{}, RowTile<8, 4>{});
  }
  return run_rows(args, stream);
}

}  // namespace octet::kernels::cuda
