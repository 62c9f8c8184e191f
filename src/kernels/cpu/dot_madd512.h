// The s16 x s16 dot of AVX-512 BW on widened 8-bit values: two values a step, exact. Weights are widened as they are
// loaded: twice the bytes would cost more where memory binds, and in memory itself. Include after simd_avx512.h.
#pragma once

namespace octet::kernels {
namespace {

struct DotInt {
  typedef __m512i Acc;
  static constexpr int kRows = 12, kVectors = 2, kGroup = 2, kWeightBytes = 2, kStepMultiple = 1;
  static Acc init(const int32_t* from) { return from != nullptr ? _mm512_loadu_si512(from) : _mm512_setzero_si512(); }
  static Acc broadcast(const unsigned char* x) { return _mm512_set1_epi32(*(const int32_t*)x); }
  static Acc weights(const unsigned char* w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)w)); }
  static Acc dot(Acc acc, Acc x, Acc w) { return _mm512_add_epi32(acc, _mm512_madd_epi16(x, w)); }
  static void store(int32_t* c, Acc acc) { _mm512_storeu_si512(c, acc); }
};

}  // namespace
}  // namespace octet::kernels
