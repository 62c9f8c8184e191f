// One pass over a matrix for what no fused kernel took: conversion, quantize, dequantize, add, activation.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/matrix.h"
#include "kernels/cuda/pool.h"

namespace octet::kernels::cuda {

/// out = activation(a + b); types and scales as the matrices say. columns is a multiple of 8.
struct ElementwiseArgs {
  MatrixIn a;
  MatrixIn b;  ///< optional
  Unary activation = Unary::none;
  MatrixOut out;  ///< row_scale is not offered here (see norm.h)
  int64_t rows = 0;
  int columns = 0;
  bool dependent_launch = false;
};
cudaError_t elementwise(const ElementwiseArgs& args, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
