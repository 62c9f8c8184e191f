// Two rows of f32 times a panel of 16 columns, summed in f64: sums[r][c] = sum_k x_r[k] * panel[k][c].
#include <immintrin.h>

#include "kernels/cpu/isa.h"

namespace octet::kernels::avx2 {

void dot_f64(const float* x0, const float* x1, const float* panel, int64_t k, double* sums) {
  __m256d acc[2][4];
  for (int r = 0; r < 2; ++r)
    for (int c = 0; c < 4; ++c) acc[r][c] = _mm256_setzero_pd();
  for (int64_t i = 0; i < k; ++i) {
    __m256d a = _mm256_set1_pd(static_cast<double>(x0[i])), b = _mm256_set1_pd(static_cast<double>(x1[i]));
    for (int c = 0; c < 4; ++c) {
      __m256d w = _mm256_cvtps_pd(_mm_loadu_ps(panel + 16 * i + 4 * c));
      acc[0][c] = _mm256_fmadd_pd(a, w, acc[0][c]);
      acc[1][c] = _mm256_fmadd_pd(b, w, acc[1][c]);
    }
  }
  for (int r = 0; r < 2; ++r)
    for (int c = 0; c < 4; ++c) _mm256_storeu_pd(sums + 16 * r + 4 * c, acc[r][c]);
}

}  // namespace octet::kernels::avx2
