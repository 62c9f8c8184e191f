// Sixteen f32 (F) or s32 (I) lanes on AVX-512, with whole and partial loads and stores. Partial ones never touch memory
// past the end.
#pragma once

// GCC 12 warns of its own undefined-value intrinsics.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

namespace octet::kernels {
namespace {

typedef __m512 F;
typedef __m512i I;

/// How many of the sixteen lanes exist: all, or the first `n` (1..15).
struct Whole {};
struct Part {
  int n;
  __mmask16 mask() const { return (__mmask16)((1u << n) - 1u); }
};

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float x) { return _mm512_set1_ps(x); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }  // a > b ? a : b
inline F min(F a, F b) { return _mm512_min_ps(a, b); }  // a < b ? a : b
inline F abs(F a) { return _mm512_abs_ps(a); }
inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// -x where a < 0, else x.
inline F negate_if_negative(F x, F a) {
  __mmask16 negative = _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mask_xor_ps(x, negative, x, _mm512_set1_ps(-0.0f));
}
inline F keep(F x, Whole) { return x; }
inline F keep(F x, Part p) { return _mm512_maskz_mov_ps(p.mask(), x); }

inline I set1_int(int32_t x) { return _mm512_set1_epi32(x); }
inline I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
inline I sub_int(I a, I b) { return _mm512_sub_epi32(a, b); }
inline I to_int(F a) { return _mm512_cvtps_epi32(a); }
inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
/// p * 2^n (exact here: no result is subnormal) where a > b, else 0.
inline F scale_if_greater(F p, F n, F a, F b) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), p, n);
}

inline F load(const float* p, Whole) { return _mm512_loadu_ps(p); }
inline F load(const float* p, Part n) { return _mm512_maskz_loadu_ps(n.mask(), p); }
inline void store(float* p, F x, Whole) { _mm512_storeu_ps(p, x); }
inline void store(float* p, F x, Part n) { _mm512_mask_storeu_ps(p, n.mask(), x); }
inline I load(const int32_t* p, Whole) { return _mm512_loadu_si512(p); }
inline I load(const int32_t* p, Part n) { return _mm512_maskz_loadu_epi32(n.mask(), p); }

inline __m128i load_bytes(const void* p, Whole) { return _mm_loadu_si128((const __m128i*)p); }
inline __m128i load_bytes(const void* p, Part n) { return _mm_maskz_loadu_epi8(n.mask(), p); }
inline __m256i load_halves(const void* p, Whole) { return _mm256_loadu_si256((const __m256i*)p); }
inline __m256i load_halves(const void* p, Part n) { return _mm256_maskz_loadu_epi16(n.mask(), p); }
inline void store_halves(void* p, __m256i x, Whole) { _mm256_storeu_si256((__m256i*)p, x); }
inline void store_halves(void* p, __m256i x, Part n) { _mm256_mask_storeu_epi16(p, n.mask(), x); }

template <class N>
inline I load_s8(const void* p, N n) {
  return _mm512_cvtepi8_epi32(load_bytes(p, n));
}
template <class N>
inline I load_u8(const void* p, N n) {
  return _mm512_cvtepu8_epi32(load_bytes(p, n));
}
/// The low byte of each lane.
inline void store_8(void* p, I x, Whole) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(x)); }
inline void store_8(void* p, I x, Part n) { _mm_mask_storeu_epi8(p, n.mask(), _mm512_cvtepi32_epi8(x)); }

/// How many vectors `pack_8` takes, and what it gives: their bytes one vector after the other. Values beyond s8 (u8
/// when `is_unsigned`, where they must not exceed 32767) saturate.
constexpr int kPackVectors = 4;
typedef __m512i Packed;
template <bool is_unsigned>
inline Packed pack_8(const I* x) {
  __m512i low = _mm512_packs_epi32(x[0], x[1]), high = _mm512_packs_epi32(x[2], x[3]);
  __m512i bytes = is_unsigned ? _mm512_packus_epi16(low, high) : _mm512_packs_epi16(low, high);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes);
}
inline void store(void* p, Packed x) { _mm512_storeu_si512(p, x); }
inline void store_low(void* p, Packed x) { _mm256_storeu_si256((__m256i*)p, _mm512_castsi512_si256(x)); }
inline void store_high(void* p, Packed x) { _mm256_storeu_si256((__m256i*)p, _mm512_extracti64x4_epi64(x, 1)); }
/// Low halves of the lanes, which fit.
inline void store_16(void* p, I x) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(x)); }

/// Bytes [0, n) xor flip; what is written ends at a multiple of 64.
inline void copy_flipped(unsigned char* to, const unsigned char* from, int64_t n, char flip) {
  const __m512i mask = _mm512_set1_epi8(flip);
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) _mm512_storeu_si512(to + i, _mm512_xor_si512(_mm512_loadu_si512(from + i), mask));
  if (i < n) {
    __m512i rest = _mm512_maskz_loadu_epi8(~(uint64_t)0 >> (64 - (n - i)), from + i);
    _mm512_storeu_si512(to + i, _mm512_xor_si512(rest, mask));
  }
}

template <class N>
inline F load_f16(const void* p, N n) {
  return _mm512_cvtph_ps(load_halves(p, n));
}
template <class N>
inline F load_bf16(const void* p, N n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_halves(p, n)), 16));
}
template <class N>
inline void store_f16(void* p, F x, N n) {
  store_halves(p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT), n);
}
template <class N>
inline void store_bf16(void* p, F x, N n) {
  I bits = _mm512_castps_si512(x);
  I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  I rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  I quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  I chosen = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
  store_halves(p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)), n);
}

/// Folds in halves: lane l += lane l+8, then +4, +2, +1 (int8::fold_lanes).
inline float fold(F x) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float fold_max(F x) {
  __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

}  // namespace
}  // namespace octet::kernels
