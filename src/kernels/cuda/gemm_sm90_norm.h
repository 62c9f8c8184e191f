// Between the host side and the kernels of a GEMM with residual add and LayerNorm in its epilogue.
#pragma once

#include <stdint.h>

namespace octet::kernels::cuda {

struct GemmNormDevice {
  int m, k_blocks, tiles, stages;                   // tiles: of rows; tiles, stages: not for few rows
  const int8_t* residual;                           // [m, 768]
  int8_t* y;                                        // [m, 768]
  const float *scale, *bias, *inv_scale;            // of the GEMM; bias may be null
  const float *q_scale, *residual_scale;            // what its 8-bit output and the residual stand for
  const float *gamma, *beta, *out_inv;              // of the LayerNorm
  float eps, inv_factor, shift, span, base, magic;  // as in GemmDevice
};

const void* gemm_norm_128x384_c2();
const void* gemm_norm_64x384_c2();
const void* gemm_norm_64x192_c4();

// For few rows (gemm_sm90_norm_few.cu): 64 rows a cluster, N columns a block.
/// Stages of shared memory, each 128 bytes of k of x and w.
constexpr int norm_few_stages(int N) { return N <= 96 ? 8 : 6; }
/// Floats that a row's sums take, with padding that keeps 8 rows in different banks.
constexpr int norm_few_sum_row(int N, int cluster) { return N == 96 ? 5 * cluster + 4 : 4 * cluster + 4; }
/// Bytes of shared memory of a block: the stages, partial sums, six vectors, sums of rows, barriers.
constexpr int norm_few_shared(int N, int cluster) {
  return norm_few_stages(N) * (64 + N) * 128 + N / 2 * 128 * 4 + 6 * N * 4 + 2 * 64 * norm_few_sum_row(N, cluster) * 4 +
         512;
}
const void* gemm_norm_few_c6();
const void* gemm_norm_few_c8();
const void* gemm_norm_few_1024_c8();

}  // namespace octet::kernels::cuda
