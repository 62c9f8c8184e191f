// GEMM on a register tile and its epilogues. Include after tile.h.
#pragma once

namespace octet::kernels {
namespace {

template <class Dot>
void copy_rows(const GemmDesc& d, const void* x, int64_t ldx, int rows, unsigned char* slabs) {
  int64_t bytes = bytes_of(d.x);
  for (int r = 0; r < rows; ++r)
    copy_row<Dot>((const unsigned char*)x + r * ldx * bytes, d.k, d.x == DType::s8, rows, slabs + r * cpu::kStride);
}

// Sixteen columns of all rows of the tile.
template <class N>
inline __attribute__((always_inline)) void finish_int(const GemmDesc& d, const GemmArgs& a, const int32_t* c,
                                                      int stride, int64_t row, int rows, int64_t column, N lanes) {
  F scale = load(a.scale + column, lanes), bias = d.bias ? load(a.bias + column, lanes) : zero();
  const float* row_scale = d.row_scale ? a.row_scale + row : nullptr;
  Activation activation = d.activation;
  Output out(d.y, a.requant);
  out.channels(column, lanes);
  int64_t line = a.ldy * bytes_of(d.y);
  char* y = (char*)a.y + row * line + column * bytes_of(d.y);
  for (int r = 0; r < rows; ++r, y += line, c += stride) {
    F acc = to_float(load(c, Whole{}));
    if (row_scale != nullptr) acc = mul(acc, set1(row_scale[r]));
    out.store(y, activate(activation, fma(acc, scale, bias)), lanes);
  }
}

// All columns of the tile to s8 of the whole range with zero point 0, two rows at a time: what most products end in.
template <class Dot, class Activate>
inline __attribute__((always_inline)) void finish_packed(const GemmDesc& d, const GemmArgs& a, const int32_t* c,
                                                         int64_t row, int rows, int64_t column, Activate act) {
  constexpr int V = Dot::kVectors, C = V * 16;
  static_assert(kPackVectors == 2 * V, "a pack is two rows");
  F scale[V], bias[V], inv_scale[V], hi = set1(127.0f);
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    scale[v] = load(a.scale + column + v * 16, Whole{});
    bias[v] = d.bias ? load(a.bias + column + v * 16, Whole{}) : zero();
    inv_scale[v] = load(a.requant.inv_scale + column + v * 16, Whole{});
  }
  char* y = (char*)a.y + row * a.ldy + column;
  for (int r = 0; r < rows; r += 2, y += 2 * a.ldy, c += 2 * C) {
    const int32_t* pair[2] = {c, r + 1 < rows ? c + C : c};
    I q[2 * V];
#pragma GCC unroll 4
    for (int i = 0; i < 2 * V; ++i) {
      F x = fma(to_float(load(pair[i / V] + i % V * 16, Whole{})), scale[i % V], bias[i % V]);
      q[i] = quantize_to_pack(act(x), inv_scale[i % V], hi);
    }
    Packed bytes = pack_8<false>(q);
    store_low(y, bytes);
    if (r + 1 < rows) store_high(y + a.ldy, bytes);
  }
}

// All columns of the tile to f32.
template <class Dot, class Activate>
inline __attribute__((always_inline)) void finish_floats(const GemmDesc& d, const GemmArgs& a, const int32_t* c,
                                                         int64_t row, int rows, int64_t column, Activate act) {
  constexpr int V = Dot::kVectors, C = V * 16;
  F scale[V], bias[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    scale[v] = load(a.scale + column + v * 16, Whole{});
    bias[v] = d.bias ? load(a.bias + column + v * 16, Whole{}) : zero();
  }
  float* y = (float*)a.y + row * a.ldy + column;
  const float* row_scale = d.row_scale ? a.row_scale + row : nullptr;
  for (int r = 0; r < rows; ++r, y += a.ldy, c += C) {
    F by = set1(row_scale != nullptr ? row_scale[r] : 1.0f);  // times 1 changes nothing
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      store(y + v * 16, act(fma(mul(to_float(load(c + v * 16, Whole{})), by), scale[v], bias[v])), Whole{});
  }
}

template <class N>
inline __attribute__((always_inline)) void finish_f32(const GemmDesc& d, const GemmArgs& a, const int32_t* c,
                                                      int stride, int64_t row, int rows, int64_t column, N lanes) {
  F bias = d.bias ? load(a.bias + column, lanes) : zero();
  Activation activation = d.activation;
  Output out(d.y, a.requant);
  out.channels(column, lanes);
  int64_t line = a.ldy * bytes_of(d.y);
  char* y = (char*)a.y + row * line + column * bytes_of(d.y);
  for (int r = 0; r < rows; ++r, y += line, c += stride)
    out.store(y, activate(activation, add(load((const float*)c, Whole{}), bias)), lanes);
}

template <class Dot>
void finish_columns(const GemmDesc& d, const GemmArgs& a, const int32_t* c, int64_t row, int rows, int64_t column) {
  constexpr int C = Dot::kVectors * 16;
  int64_t left = d.n - column;
  if (left >= C && d.y == DType::s8 && !d.row_scale &&
      packs_whole_range(a.requant.zero_point, a.requant.lo, a.requant.hi, false)) {
    if (d.activation == Activation::none) return finish_packed<Dot>(d, a, c, row, rows, column, [](F x) { return x; });
    if (d.activation == Activation::gelu_erf) return finish_packed<Dot>(d, a, c, row, rows, column, gelu_erf);
  }
  if (left >= C && d.y == DType::f32) {
    if (d.activation == Activation::none) return finish_floats<Dot>(d, a, c, row, rows, column, [](F x) { return x; });
    if (d.activation == Activation::gelu_erf) return finish_floats<Dot>(d, a, c, row, rows, column, gelu_erf);
  }
  by_lanes(left < C ? left : C,
           [&](int64_t j, auto lanes) { finish_int(d, a, c + j, C, row, rows, column + j, lanes); });
}

// A panel of 8-bit weights starts with one compensation a column.
template <int C>
inline void initial_sums(const GemmDesc& d, const GemmArgs& a, const unsigned char* panel, int64_t column,
                         int32_t* init) {
  memcpy(init, panel, C * 4);
  if (d.column_offset)
    for (int j = 0; j < C && column + j < d.n; ++j) init[j] -= a.column_offset[column + j];
}

template <class Dot>
void run_int(const GemmDesc& d, const GemmArgs& a, const unsigned char* slabs, const unsigned char* panel, int64_t row,
             int rows, int64_t column, const unsigned char* ahead, const int32_t*) {
  constexpr int C = Dot::kVectors * 16;
  alignas(64) int32_t c[Dot::kRows * C], init[C];
  initial_sums<C>(d, a, panel, column, init);
  accumulate_rows<Dot>(rows, slabs, steps_of<Dot>(d.k), panel + C * 4, init, c, Ahead{ahead});
  finish_columns<Dot>(d, a, c, row, rows, column);
}

template <class Dot>
void run_f32(const GemmDesc& d, const GemmArgs& a, const unsigned char* slabs, const unsigned char* panel, int64_t row,
             int rows, int64_t column, const unsigned char* ahead, const int32_t*) {
  constexpr int C = Dot::kVectors * 16;
  alignas(64) int32_t c[Dot::kRows * C];
  accumulate_rows<Dot>(rows, slabs, d.k, panel, nullptr, c, Ahead{ahead});
  int64_t left = d.n - column;
  by_lanes(left < C ? left : C,
           [&](int64_t j, auto lanes) { finish_f32(d, a, c + j, C, row, rows, column + j, lanes); });
}

template <class Dot>
constexpr cpu::GemmTile int_tile() {
  return {Dot::kRows,       Dot::kVectors * 16, Dot::kGroup,  Dot::kWeightBytes, Dot::kStepMultiple,
          Dot::kGroup == 4, copy_rows<Dot>,     run_int<Dot>, nullptr,           nullptr};
}
template <class Dot>
constexpr cpu::GemmTile f32_tile() {
  return {Dot::kRows, Dot::kVectors * 16, 1, 4, 1, false, copy_rows<Dot>, run_f32<Dot>, nullptr, nullptr};
}

}  // namespace
}  // namespace octet::kernels
