// The s16 x s16 dot of AVX2 on widened 8-bit values: two values a step, exact. Weights are widened as they are loaded:
// twice the bytes would cost more where memory binds, and in memory itself. Include after simd_avx2.h.
#pragma once

namespace octet::kernels {
namespace {

struct DotInt {
  typedef I Acc;
  static constexpr int kRows = 6, kVectors = 1, kGroup = 2, kWeightBytes = 2, kStepMultiple = 1;
  static I init(const int32_t* from) { return from != nullptr ? load(from, Whole{}) : set1_int(0); }
  static __m256i broadcast(const unsigned char* x) { return _mm256_set1_epi32(*(const int32_t*)x); }
  static I weights(const unsigned char* w) {
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)w)),
            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(w + 16)))};
  }
  static I dot(I acc, __m256i x, I w) {
    return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(x, w.a)), _mm256_add_epi32(acc.b, _mm256_madd_epi16(x, w.b))};
  }
  static void store(int32_t* c, I acc) {
    _mm256_storeu_si256((__m256i*)c, acc.a);
    _mm256_storeu_si256((__m256i*)(c + 8), acc.b);
  }
};

}  // namespace
}  // namespace octet::kernels
