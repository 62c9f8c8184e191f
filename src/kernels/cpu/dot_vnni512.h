// The u8 x s8 dot of AVX512-VNNI: four values a step, exact. Include after simd_avx512.h.
#pragma once

namespace octet::kernels {
namespace {

struct DotInt {
  typedef __m512i Acc;
  static constexpr int kRows = 14, kVectors = 2, kGroup = 4, kWeightBytes = 4, kStepMultiple = 1;
  static Acc init(const int32_t* from) { return from != nullptr ? _mm512_loadu_si512(from) : _mm512_setzero_si512(); }
  static Acc broadcast(const unsigned char* x) { return _mm512_set1_epi32(*(const int32_t*)x); }
  static Acc weights(const unsigned char* w) { return _mm512_loadu_si512(w); }
  static Acc dot(Acc acc, Acc x, Acc w) { return _mm512_dpbusd_epi32(acc, x, w); }
  static void store(int32_t* c, Acc acc) { _mm512_storeu_si512(c, acc); }
};

}  // namespace
}  // namespace octet::kernels
