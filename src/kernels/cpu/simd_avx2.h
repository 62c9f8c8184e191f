// Sixteen f32 (F) or s32 (I) lanes on AVX2, as two registers, with whole and partial loads and stores. Partial ones
// never touch memory past the end.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace octet::kernels {
namespace {

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};

/// How many of the sixteen lanes exist: all, or the first `n` (1..15).
struct Whole {};
struct Part {
  int n;
};

inline __m256i lane_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }  // x > y ? x : y
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }  // x < y ? x : y
inline F abs(F x) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F round(F x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// -x where a < 0, else x.
inline F negate_if_negative(F x, F a) {
  __m256 sign = _mm256_set1_ps(-0.0f), none = _mm256_setzero_ps();
  return {_mm256_xor_ps(x.a, _mm256_and_ps(sign, _mm256_cmp_ps(a.a, none, _CMP_LT_OQ))),
          _mm256_xor_ps(x.b, _mm256_and_ps(sign, _mm256_cmp_ps(a.b, none, _CMP_LT_OQ)))};
}
inline F keep(F x, Whole) { return x; }
inline F keep(F x, Part p) {
  return {_mm256_and_ps(x.a, _mm256_castsi256_ps(lane_mask(p.n))),
          _mm256_and_ps(x.b, _mm256_castsi256_ps(lane_mask(p.n - 8)))};
}

inline I set1_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I add_int(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I sub_int(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline __m256 add_exponent(__m256 x, __m256 n) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
/// p * 2^n, by adding to the exponent's bits, where a > b, else 0.
inline F scale_if_greater(F p, F n, F a, F b) {
  return {_mm256_and_ps(add_exponent(p.a, n.a), _mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ)),
          _mm256_and_ps(add_exponent(p.b, n.b), _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ))};
}

inline F load(const float* p, Whole) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F load(const float* p, Part n) {
  return {_mm256_maskload_ps(p, lane_mask(n.n)),
          n.n > 8 ? _mm256_maskload_ps(p + 8, lane_mask(n.n - 8)) : _mm256_setzero_ps()};
}
inline void store(float* p, F x, Whole) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store(float* p, F x, Part n) {
  _mm256_maskstore_ps(p, lane_mask(n.n), x.a);
  if (n.n > 8) _mm256_maskstore_ps(p + 8, lane_mask(n.n - 8), x.b);
}
inline I load(const int32_t* p, Whole) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
inline I load(const int32_t* p, Part n) {
  return {_mm256_maskload_epi32(p, lane_mask(n.n)),
          n.n > 8 ? _mm256_maskload_epi32(p + 8, lane_mask(n.n - 8)) : _mm256_setzero_si256()};
}

inline __m128i load_bytes(const void* p, Whole) { return _mm_loadu_si128((const __m128i*)p); }
inline __m128i load_bytes(const void* p, Part n) {
  unsigned char bytes[16] = {};
  for (int i = 0; i < n.n; ++i) bytes[i] = ((const unsigned char*)p)[i];
  return _mm_loadu_si128((const __m128i*)bytes);
}
inline __m256i load_halves(const void* p, Whole) { return _mm256_loadu_si256((const __m256i*)p); }
inline __m256i load_halves(const void* p, Part n) {
  uint16_t halves[16] = {};
  memcpy(halves, p, (size_t)n.n * 2);
  return _mm256_loadu_si256((const __m256i*)halves);
}
inline void store_halves(void* p, __m256i x, Whole) { _mm256_storeu_si256((__m256i*)p, x); }
inline void store_halves(void* p, __m256i x, Part n) {
  uint16_t halves[16];
  _mm256_storeu_si256((__m256i*)halves, x);
  memcpy(p, halves, (size_t)n.n * 2);
}

template <class N>
inline I load_s8(const void* p, N n) {
  __m128i bytes = load_bytes(p, n);
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}
template <class N>
inline I load_u8(const void* p, N n) {
  __m128i bytes = load_bytes(p, n);
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
/// The low byte of each lane.
inline __m128i low_bytes(I x) {
  const __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                        -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1);
  __m256i a = _mm256_shuffle_epi8(x.a, pick), b = _mm256_shuffle_epi8(x.b, pick);
  __m128i low = _mm_or_si128(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  __m128i high = _mm_or_si128(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
  return _mm_unpacklo_epi64(low, high);
}
inline void store_8(void* p, I x, Whole) { _mm_storeu_si128((__m128i*)p, low_bytes(x)); }
inline void store_8(void* p, I x, Part n) {
  unsigned char bytes[16];
  _mm_storeu_si128((__m128i*)bytes, low_bytes(x));
  for (int i = 0; i < n.n; ++i) ((unsigned char*)p)[i] = bytes[i];
}

/// How many vectors `pack_8` takes, and what it gives: their bytes one vector after the other. Values beyond s8 (u8
/// when `is_unsigned`, where they must not exceed 32767) saturate.
constexpr int kPackVectors = 2;
typedef __m256i Packed;
template <bool is_unsigned>
inline Packed pack_8(const I* x) {
  __m256i low = _mm256_packs_epi32(x[0].a, x[0].b), high = _mm256_packs_epi32(x[1].a, x[1].b);
  __m256i bytes = is_unsigned ? _mm256_packus_epi16(low, high) : _mm256_packs_epi16(low, high);
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
inline void store(void* p, Packed x) { _mm256_storeu_si256((__m256i*)p, x); }
inline void store_low(void* p, Packed x) { _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(x)); }
inline void store_high(void* p, Packed x) { _mm_storeu_si128((__m128i*)p, _mm256_extracti128_si256(x, 1)); }
/// Low halves of the lanes, which fit.
inline void store_16(void* p, I x) {
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8));
}

/// Bytes [0, n) xor flip; what is written ends at a multiple of 64.
inline void copy_flipped(unsigned char* to, const unsigned char* from, int64_t n, char flip) {
  const __m256i mask = _mm256_set1_epi8(flip);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    _mm256_storeu_si256((__m256i*)(to + i), _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)(from + i)), mask));
  if (i == n) return;
  unsigned char rest[32] = {};
  memcpy(rest, from + i, (size_t)(n - i));
  _mm256_storeu_si256((__m256i*)(to + i), _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)rest), mask));
}

template <class N>
inline F load_f16(const void* p, N n) {
  __m256i halves = load_halves(p, n);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
template <class N>
inline F load_bf16(const void* p, N n) {
  __m256i halves = load_halves(p, n);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(halves)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(halves, 1)), 16))};
}
template <class N>
inline void store_f16(void* p, F x, N n) {
  store_halves(p,
               _mm256_set_m128i(_mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT),
                                _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT)),
               n);
}
inline __m256i bf16_bits(__m256 x) {
  __m256i bits = _mm256_castps_si256(x);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
template <class N>
inline void store_bf16(void* p, F x, N n) {
  __m256i packed = _mm256_packus_epi32(bf16_bits(x.a), bf16_bits(x.b));  // halves of a and b interleaved by 128 bits
  store_halves(p, _mm256_permute4x64_epi64(packed, 0xd8), n);
}

/// Folds in halves: lane l += lane l+8, then +4, +2, +1 (int8::fold_lanes).
inline float fold(F x) {
  __m256 eight = _mm256_add_ps(x.a, x.b);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float fold_max(F x) {
  __m256 eight = _mm256_max_ps(x.a, x.b);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

}  // namespace
}  // namespace octet::kernels
