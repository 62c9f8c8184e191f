// Between the host side and the kernels of a GEMM with residual add and LayerNorm in its epilogue.
#pragma once

#include <stdint.h>

namespace octet::kernels::cuda {

struct GemmNormDevice {
  int m, k_blocks, tiles, stages;                   // tiles: of rows
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

}  // namespace octet::kernels::cuda
