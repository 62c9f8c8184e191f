// kRows rows of a matrix in the registers of one warp: lane l holds columns (32 i + l) * V .. + V - 1 for i < N.
// LayerNorm and output live here.
#pragma once

#include "kernels/cuda/device/values.cuh"
#include "kernels/cuda/matrix.h"

namespace octet::kernels::cuda {

template <int V, int N, int kRows>
struct Rows {
  float x[kRows][N][V];

  __device__ __forceinline__ static int column(int i) { return (i * 32 + int(threadIdx.x & 31)) * V; }

  /// Adds rows first .. of `m` (rows past the end repeat the last one). All loads are issued before the first use.
  template <bool kFirst>
  __device__ __forceinline__ void add(const MatrixIn& m, int64_t first, int64_t rows, int hidden) {
    with_type(m.type, [&](auto type) {
      constexpr DType kType = decltype(type)::value;
      Raw<bytes_of<kType>, V> raw[kRows][N];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int64_t row = first + r < rows ? first + r : rows - 1;
#pragma unroll
        for (int i = 0; i < N; ++i)
          if (column(i) < hidden)
            raw[r][i] = load_raw<bytes_of<kType>, V>(element<kType>(m.data, row * m.ld + column(i)));
          else raw[r][i] = {};
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float scale[V];
        if (kType == DType::s8 && column(i) < hidden) load_floats(scale, m.scale + column(i));
        else
#pragma unroll
          for (int k = 0; k < V; ++k) scale[k] = 1.0f;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          float f[V];
          unpack<kType>(f, raw[r][i]);
          if (column(i) >= hidden)
#pragma unroll
            for (int k = 0; k < V; ++k) f[k] = 0.0f;
#pragma unroll
          for (int k = 0; k < V; ++k) x[r][i][k] = kFirst ? f[k] * scale[k] : fmaf(f[k], scale[k], x[r][i][k]);
        }
      }
    });
  }

  /// Row `index` of an s8 or float table, as loaded.
  template <DType kType>
  struct TableRow {
    Raw<bytes_of<kType>, V> raw[N];
    float scale;
    __device__ __forceinline__ void load(const void* data, const float* row_scale, int64_t index, int hidden) {
      scale = kType == DType::s8 ? row_scale[index] : 1.0f;
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (column(i) < hidden) raw[i] = load_raw<bytes_of<kType>, V>(element<kType>(data, index * hidden + column(i)));
        else raw[i] = {};
    }
  };
  template <bool kFirst, DType kType>
  __device__ __forceinline__ void add_table(int r, const TableRow<kType>& row, int hidden) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float f[V];
      unpack<kType>(f, row.raw[i]);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (column(i) >= hidden) f[k] = 0.0f;
        x[r][i][k] = kFirst ? f[k] * row.scale : fmaf(f[k], row.scale, x[r][i][k]);
      }
    }
  }
  template <bool kFirst>
  __device__ __forceinline__ void add_table(int r, const void* data, DType table_type, const float* row_scale,
                                            int64_t index, int hidden) {
    with_type(table_type, [&](auto type) {
      TableRow<decltype(type)::value> row;
      row.load(data, row_scale, index, hidden);
      add_table<kFirst>(r, row, hidden);
    });
  }

  /// x -= mean; rstd = 1 / sqrt(var + eps). Sums run in V interleaved chains, then over the chains, then over the
  /// lanes.
  __device__ __forceinline__ void center(float (&rstd)[kRows], float eps, int hidden) {
    const float inv = 1.0f / float(hidden);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum[V];
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] = x[r][0][k];
#pragma unroll
      for (int i = 1; i < N; ++i)
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += x[r][i][k];
      const float mean = warp_sum(fold(sum)) * inv;
#pragma unroll
      for (int i = 0; i < N; ++i)
#pragma unroll
        for (int k = 0; k < V; ++k) {
          x[r][i][k] = column(i) < hidden ? x[r][i][k] - mean : 0.0f;
          sum[k] = i == 0 ? x[r][i][k] * x[r][i][k] : fmaf(x[r][i][k], x[r][i][k], sum[k]);
        }
      rstd[r] = rsqrtf(fmaf(warp_sum(fold(sum)), inv, eps));
    }
  }
  __device__ __forceinline__ static float fold(float (&sum)[V]) {
#pragma unroll
    for (int n = V / 2; n > 0; n /= 2)
#pragma unroll
      for (int k = 0; k < n; ++k) sum[k] += sum[k + n];
    return sum[0];
  }

  /// x = (x - mean) / sqrt(var + eps) * gamma + beta.
  __device__ __forceinline__ void normalize(const float* gamma, const float* beta, float eps, int hidden) {
    float rstd[kRows];
    center(rstd, eps, hidden);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (column(i) >= hidden) continue;
      float g[V], b[V];
      load_floats(g, gamma + column(i));
      load_floats(b, beta + column(i));
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int k = 0; k < V; ++k) x[r][i][k] = fmaf(x[r][i][k] * rstd[r], g[k], b[k]);
    }
  }

  __device__ __forceinline__ void write(const MatrixOut& m, int64_t first, int64_t rows, int hidden) const {
    if (!m.data) return;
    with_type(m.type, [&](auto type) {
      constexpr DType kType = decltype(type)::value;
      float row_inv[kRows];
      if (kType == DType::s8 && m.row_scale) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          float amax = 0.0f;
#pragma unroll
          for (int i = 0; i < N; ++i)
#pragma unroll
            for (int k = 0; k < V; ++k)
              if (column(i) < hidden) amax = fmaxf(amax, fabsf(x[r][i][k]));
#pragma unroll
          for (int s = 16; s > 0; s /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, s));
          const float scale = amax <= 0x1p-24f ? 0.0f : amax / 127.0f;
          row_inv[r] = scale > 0.0f ? 1.0f / scale : 0.0f;
          if (first + r < rows && (threadIdx.x & 31) == 0) m.row_scale[first + r] = scale;
        }
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (column(i) >= hidden) continue;
        float inv[V];
        if (kType == DType::s8 && !m.row_scale) load_floats(inv, m.inv_scale + column(i));
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (first + r >= rows) continue;
          float y[V];
#pragma unroll
          for (int k = 0; k < V; ++k)
            y[k] = kType == DType::s8 ? x[r][i][k] * (m.row_scale ? row_inv[r] : inv[k]) : x[r][i][k];
          store_raw(element<kType>(m.data, (first + r) * m.ld + column(i)), pack<kType>(y));
        }
      }
    });
  }
};

/// Calls f(integral constants V, N) for the smallest tile that holds `hidden` columns.
template <int V_, int N_>
struct RowTile {
  static constexpr int V = V_, N = N_;
};
template <typename F>
cudaError_t with_row_tile(int hidden, F&& f) {
  if (hidden <= 0 || hidden % 16 != 0 || hidden > 4096) return cudaErrorInvalidValue;
  if (hidden <= 128) return f(RowTile<4, 1>{});
  if (hidden <= 256) return f(RowTile<4, 2>{});
  if (hidden <= 384) return f(RowTile<4, 3>{});
  if (hidden <= 512) return f(RowTile<8, 2>{});
  if (hidden <= 768) return f(RowTile<8, 3>{});
  if (hidden <= 1024) return f(RowTile<8, 4>{});
  if (hidden <= 2048) return f(RowTile<8, 8>{});
  return f(RowTile<8, 16>{});
}

}  // namespace octet::kernels::cuda
