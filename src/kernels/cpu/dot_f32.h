// The f32 dot: one fma a step. Include after a simd_*.h.
#pragma once

namespace octet::kernels {
namespace {

template <int Rows, int Vectors>
struct DotF32 {
  typedef F Acc;
  static constexpr int kRows = Rows, kVectors = Vectors, kGroup = 1, kWeightBytes = 4, kStepMultiple = 1;
  static F init(const int32_t* from) { return from != nullptr ? load((const float*)from, Whole{}) : zero(); }
  static F broadcast(const unsigned char* x) { return set1(*(const float*)x); }
  static F weights(const unsigned char* w) { return load((const float*)w, Whole{}); }
  static F dot(F acc, F x, F w) { return fma(x, w, acc); }
  static void store(int32_t* c, F acc) { octet::kernels::store((float*)c, acc, Whole{}); }
};

}  // namespace
}  // namespace octet::kernels
