// The u8 x s8 dot of AVX2 through vpmaddubsw, whose sums of two products saturate at 16 bits. Weights of which two
// (four) could exceed that shed the excess when they are packed (cpu/isa.h, ExcessHeader), so nothing saturates, and
// `correct` adds what they shed: exact. Include after simd_avx2.h and
// gemm_tile.h.
#pragma once

namespace octet::kernels {
namespace {

/// One step: four values; pairs of products fit 16 bits.
struct DotPairs {
  typedef I Acc;
  static constexpr int kRows = 6, kVectors = 1, kGroup = 4, kWeightBytes = 4, kStepMultiple = 2;
  static I init(const int32_t* from) { return from != nullptr ? load(from, Whole{}) : set1_int(0); }
  static __m256i broadcast(const unsigned char* x) { return _mm256_set1_epi32(*(const int32_t*)x); }
  static I weights(const unsigned char* w) { return load((const int32_t*)w, Whole{}); }
  static I dot(I acc, __m256i x, I w) {
    const __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w.a), ones)),
            _mm256_add_epi32(acc.b, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w.b), ones))};
  }
  static void store(int32_t* c, I acc) {
    _mm256_storeu_si256((__m256i*)c, acc.a);
    _mm256_storeu_si256((__m256i*)(c + 8), acc.b);
  }
};

/// Any weights: x = 2 (x >> 1) + (x & 1); products of values below 128 fit in pairs. For weights that shed too much.
struct DotHalves : DotPairs {
  struct Value {
    __m256i half, bit;
  };
  static Value broadcast(const unsigned char* x) {
    __m256i value = DotPairs::broadcast(x), bits = _mm256_set1_epi8(1);
    return {_mm256_and_si256(_mm256_srli_epi16(value, 1), _mm256_set1_epi8(127)), _mm256_and_si256(value, bits)};
  }
  static __m256i products(Value x, __m256i w) {
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(x.half, w), _mm256_set1_epi16(2)),
                            _mm256_madd_epi16(_mm256_maddubs_epi16(x.bit, w), _mm256_set1_epi16(1)));
  }
  static I dot(I acc, Value x, I w) {
    return {_mm256_add_epi32(acc.a, products(x, w.a)), _mm256_add_epi32(acc.b, products(x, w.b))};
  }
};

/// Two steps at once: four products fit 16 bits. c as in accumulate.
template <int R>
void accumulate_quads(const unsigned char* slabs, int64_t steps, const unsigned char* w, const int32_t* init,
                      int32_t* c, Ahead ahead) {
  const unsigned char* line = ahead.line != nullptr ? ahead.line : slabs;
  int64_t stride = ahead.line != nullptr ? 128 : 0;
  I acc[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) acc[r] = DotPairs::init(init);
  const __m256i ones = _mm256_set1_epi16(1);
  for (; steps > 0; steps -= kChunkSteps, slabs += R * cpu::kStride) {
    const unsigned char* x = slabs;
    const unsigned char* end = slabs + 4 * (steps < kChunkSteps ? steps : kChunkSteps);
    for (; x != end; x += 8, w += 128, line += stride) {
      _mm_prefetch((const char*)line, _MM_HINT_T1);
      _mm_prefetch((const char*)line + stride / 2, _MM_HINT_T1);
      const __m256i* columns = (const __m256i*)w;
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        __m256i first = DotPairs::broadcast(x + r * cpu::kStride),
                second = DotPairs::broadcast(x + r * cpu::kStride + 4);
        __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(first, _mm256_loadu_si256(columns)),
                                     _mm256_maddubs_epi16(second, _mm256_loadu_si256(columns + 2)));
        __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(first, _mm256_loadu_si256(columns + 1)),
                                     _mm256_maddubs_epi16(second, _mm256_loadu_si256(columns + 3)));
        acc[r].a = _mm256_add_epi32(acc[r].a, _mm256_madd_epi16(a, ones));
        acc[r].b = _mm256_add_epi32(acc[r].b, _mm256_madd_epi16(b, ones));
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) DotPairs::store(c + r * 16, acc[r]);
}
template <int R = DotPairs::kRows>
void accumulate_quads_rows(int rows, const unsigned char* slabs, int64_t steps, const unsigned char* w,
                           const int32_t* init, int32_t* c, Ahead ahead) {
  if (rows == R) accumulate_quads<R>(slabs, steps, w, init, c, ahead);
  else if constexpr (R > 1) accumulate_quads_rows<R - 1>(rows, slabs, steps, w, init, c, ahead);
}

/// Rows of x, as s8 (u8 less 128), transposed: xt[k][stride], stride = rows rounded up to sixteen; the rows added
/// repeat the last one.
inline void transpose_rows(const GemmDesc& d, const void* x, int64_t ldx, int rows, signed char* xt) {
  const __m128i flip = _mm_set1_epi8(d.x == DType::u8 ? (char)0x80 : 0);
  int64_t stride = (rows + 15) / 16 * 16;
  for (int64_t first = 0; first < rows; first += 16)
    by_lanes(d.k, [&](int64_t k, auto lanes) {
      __m128i a[16], b[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        int64_t row = first + i < rows ? first + i : rows - 1;
        a[i] = _mm_xor_si128(load_bytes((const char*)x + row * ldx + k, lanes), flip);
      }
      // Each round puts row i beside row i + 8: after four of them byte k of row i is byte i of row k.
#pragma GCC unroll 2
      for (int round = 0; round < 2; ++round) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
          b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
          a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
        }
      }
      int64_t left = d.k - k;
      for (int i = 0; i < (left < 16 ? left : 16); ++i)
        _mm_storeu_si128((__m128i*)(xt + (k + i) * stride + first), a[i]);
    });
}

inline void transpose_eight(const int32_t* from, int32_t* to) {  // 8 x 8, 16 values from line to line
  __m256i a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_si256((const __m256i*)(from + i * 16));
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    __m256i low01 = _mm256_unpacklo_epi32(a[i], a[i + 1]), high01 = _mm256_unpackhi_epi32(a[i], a[i + 1]);
    __m256i low23 = _mm256_unpacklo_epi32(a[i + 2], a[i + 3]), high23 = _mm256_unpackhi_epi32(a[i + 2], a[i + 3]);
    b[i] = _mm256_unpacklo_epi64(low01, low23);
    b[i + 1] = _mm256_unpackhi_epi64(low01, low23);
    b[i + 2] = _mm256_unpacklo_epi64(high01, high23);
    b[i + 3] = _mm256_unpackhi_epi64(high01, high23);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_si256((__m256i*)(to + i * 16), _mm256_permute2x128_si256(b[i], b[i + 4], 0x20));
    _mm256_storeu_si256((__m256i*)(to + (i + 4) * 16), _mm256_permute2x128_si256(b[i], b[i + 4], 0x31));
  }
}

// Groups of sixteen rows of one column's correction, into lines of 16 values.
template <int kGroups>
inline void correct_column(const cpu::Excess* at, const cpu::Excess* end, const signed char* xt, int64_t stride,
                           int32_t* y) {
  __m256i low[kGroups], high[kGroups];
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) low[g] = high[g] = _mm256_setzero_si256();
  for (; at != end; ++at) {
    const signed char *first = xt + at->k[0] * stride, *second = xt + at->k[1] * stride;
    int32_t pair;
    memcpy(&pair, at->weight, 4);
    __m256i weights = _mm256_set1_epi32(pair);
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(first + g * 16)));
      __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(second + g * 16)));
      low[g] = _mm256_add_epi32(low[g], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weights));
      high[g] = _mm256_add_epi32(high[g], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weights));
    }
  }
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g, y += 256)
    DotPairs::store(
        y, {_mm256_permute2x128_si256(low[g], high[g], 0x20), _mm256_permute2x128_si256(low[g], high[g], 0x31)});
}
template <int kGroups>
inline void correct_rows(const cpu::ExcessHeader& excess, const signed char* xt, int64_t stride, int32_t* y) {
  const auto* entries = (const cpu::Excess*)(&excess + 1);
  alignas(32) int32_t columns[kGroups * 256];
  for (int j = 0; j < 16; ++j)
    correct_column<kGroups>(entries + excess.begin[j], entries + excess.begin[j + 1], xt, stride, columns + j * 16);
  for (int g = 0; g < kGroups; ++g)
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j)
        transpose_eight(columns + g * 256 + i * 8 * 16 + j * 8, y + g * 256 + j * 8 * 16 + i * 8);
}

/// y[row][16] = what the weights of a panel shed, times x.
inline bool correct(const cpu::ExcessHeader& excess, const signed char* xt, int64_t stride, int32_t* y) {
  if (excess.begin[16] == 0) return false;
  int64_t first = 0;
  for (; first + 32 <= stride; first += 32) correct_rows<2>(excess, xt + first, stride, y + first * 16);
  if (first < stride) correct_rows<1>(excess, xt + first, stride, y + first * 16);
  return true;
}

inline void run_ubs(const GemmDesc& d, const GemmArgs& a, const unsigned char* slabs, const unsigned char* panel,
                    int64_t row, int rows, int64_t column, const unsigned char* ahead, const int32_t* correction) {
  constexpr int C = 16;
  alignas(64) int32_t c[DotPairs::kRows * C], init[C];
  initial_sums<C>(d, a, panel, column, init);
  int64_t steps = steps_of<DotPairs>(d.k);
  const unsigned char* weights = panel + C * 4;
  switch (((const cpu::ExcessHeader*)(weights + steps * C * 4))->mode) {
    case cpu::ExcessHeader::quads: accumulate_quads_rows(rows, slabs, steps, weights, init, c, Ahead{ahead}); break;
    case cpu::ExcessHeader::pairs: accumulate_rows<DotPairs>(rows, slabs, steps, weights, init, c, Ahead{ahead}); break;
    default: accumulate_rows<DotHalves>(rows, slabs, steps, weights, init, c, Ahead{ahead});
  }
  if (correction != nullptr)
    for (int r = 0; r < rows; ++r)
      DotPairs::store(c + r * C, add_int(load(c + r * C, Whole{}), load(correction + r * C, Whole{})));
  finish_columns<DotPairs>(d, a, c, row, rows, column);
}

constexpr cpu::GemmTile ubs_tile() {
  return {DotPairs::kRows, 16,     4, 4, DotPairs::kStepMultiple, true, copy_rows<DotPairs>, run_ubs,
          transpose_rows,  correct};
}

}  // namespace
}  // namespace octet::kernels
