// The u8 x s8 dot of AVX-VNNI: four values a step, exact. Include after simd_avx2.h.
#pragma once

namespace octet::kernels {
namespace {

struct DotInt {
  typedef I Acc;
  static constexpr int kRows = 6, kVectors = 1, kGroup = 4, kWeightBytes = 4, kStepMultiple = 1;
  static I init(const int32_t* from) { return from != nullptr ? load(from, Whole{}) : set1_int(0); }
  static __m256i broadcast(const unsigned char* x) { return _mm256_set1_epi32(*(const int32_t*)x); }
  static I weights(const unsigned char* w) { return load((const int32_t*)w, Whole{}); }
  static I dot(I acc, __m256i x, I w) {
    return {_mm256_dpbusd_avx_epi32(acc.a, x, w.a), _mm256_dpbusd_avx_epi32(acc.b, x, w.b)};
  }
  static void store(int32_t* c, I acc) {
    _mm256_storeu_si256((__m256i*)c, acc.a);
    _mm256_storeu_si256((__m256i*)(c + 8), acc.b);
  }
};

}  // namespace
}  // namespace octet::kernels
