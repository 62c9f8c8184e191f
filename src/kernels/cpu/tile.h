// The register tile shared by GEMM and attention: c[R][16 * vectors] = x . w. Include after a simd_*.h and
// vector_math.h, and after a Dot.
//
// A step takes 4 bytes of each row of x (4 u8, 2 s16 or 1 f32) and as many values of each column of w. x lies in slabs
// (cpu/isa.h); w is [step][columns][4 u8 | 2 s8 | 1 f32]. A Dot names the instruction: Acc, kRows, kVectors, kGroup
// (values a step), kWeightBytes (a step and column), kStepMultiple, init, broadcast, weights, dot, store.
#pragma once

#include <string.h>

#include "kernels/cpu/isa.h"

namespace octet::kernels {
namespace {

constexpr int64_t kChunkSteps = cpu::kChunk / 4;

/// Lines that the next tiles read, brought to the second-level cache on the way: one a step. A panel comes from the
/// third-level cache or from memory, and the processor's own prefetchers stop at every page of it.
struct Ahead {
  const unsigned char* line = nullptr;
};

/// c[r][column] as 4-byte values, `kVectors` * 16 a row. `init` (or null for 0): one value a column.
template <class Dot, int R>
void accumulate(const unsigned char* slabs, int64_t steps, const unsigned char* w, const int32_t* init, int32_t* c,
                Ahead ahead = {}) {
  const unsigned char* line = ahead.line != nullptr ? ahead.line : slabs;
  int64_t stride = ahead.line != nullptr ? 64 : 0;
  constexpr int V = Dot::kVectors;
  typename Dot::Acc acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = Dot::init(init != nullptr ? init + v * 16 : nullptr);
  for (; steps > 0; steps -= kChunkSteps, slabs += R * cpu::kStride) {
    const unsigned char* x = slabs;
    const unsigned char* end = slabs + 4 * (steps < kChunkSteps ? steps : kChunkSteps);
    for (; x != end; x += 4, w += V * 16 * Dot::kWeightBytes) {
      _mm_prefetch((const char*)line, _MM_HINT_T1);
      line += stride;
      typename Dot::Acc columns[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) columns[v] = Dot::weights(w + v * 16 * Dot::kWeightBytes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        auto value = Dot::broadcast(x + r * cpu::kStride);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = Dot::dot(acc[r][v], value, columns[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Dot::store(c + (r * V + v) * 16, acc[r][v]);
}

/// The same for a number of rows known at run time, 1..R.
template <class Dot, int R = Dot::kRows>
void accumulate_rows(int rows, const unsigned char* slabs, int64_t steps, const unsigned char* w, const int32_t* init,
                     int32_t* c, Ahead ahead = {}) {
  if (rows == R) accumulate<Dot, R>(slabs, steps, w, init, c, ahead);
  else if constexpr (R > 1) accumulate_rows<Dot, R - 1>(rows, slabs, steps, w, init, c, ahead);
}

/// Calls fn(byte offset in the row's slabs, first value, values) for each chunk of a row of k values of `bytes` bytes.
template <class Fn>
inline void by_chunks(int64_t k, int rows, int64_t bytes, Fn fn) {
  int64_t values = cpu::kChunk / bytes, chunk = 0;
  for (int64_t c = 0; c < k; c += values, ++chunk) fn(chunk * rows * cpu::kStride, c, k - c < values ? k - c : values);
}

/// Steps that packed weights have for k values.
template <class Dot>
inline int64_t steps_of(int64_t k) {
  int64_t steps = (k + Dot::kGroup - 1) / Dot::kGroup;
  return (steps + Dot::kStepMultiple - 1) / Dot::kStepMultiple * Dot::kStepMultiple;
}

/// Copies a row of k values into its slabs: f32 as it is; 8-bit widened to s16, or u8 with s8 + 128. Values past k in
/// the last group meet zero weights.
template <class Dot>
void copy_row(const unsigned char* x, int64_t k, bool is_signed, int rows, unsigned char* slabs) {
  if constexpr (Dot::kGroup == 1) {
    by_chunks(k, rows, 4,
              [&](int64_t at, int64_t c, int64_t values) { memcpy(slabs + at, x + 4 * c, (size_t)values * 4); });
  } else if constexpr (Dot::kGroup == 2) {
    by_chunks(k, rows, 2, [&](int64_t at, int64_t c, int64_t values) {
      by_lanes(values, [&](int64_t i, auto lanes) {
        __m128i bytes = load_bytes(x + c + i, lanes);
        _mm256_storeu_si256((__m256i*)(slabs + at + 2 * i),
                            is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes));
      });
    });
  } else {
    by_chunks(k, rows, 1, [&](int64_t at, int64_t c, int64_t values) {
      copy_flipped(slabs + at, x + c, values, is_signed ? (char)0x80 : 0);
    });
  }
}

}  // namespace
}  // namespace octet::kernels
