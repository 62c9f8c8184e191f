// From token rows to sentence vectors and logits: pooling over each batch row, L2 norm, and the small dense layers of
// heads.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/matrix.h"

namespace octet::kernels::cuda {

enum class Pooling : uint8_t { first, mean, max };

/// out[r] = pooled tokens of batch row r, divided by its L2 norm (at least 1e-12) when `normalize`. Input: any type;
/// output f32, f16 or bf16. columns is a multiple of 8, at most 8192.
struct PoolArgs {
  MatrixIn in;                       ///< [tokens, columns]
  const int32_t* offsets = nullptr;  ///< device [rows + 1]
  MatrixOut out;                     ///< [rows, columns]
  Pooling pooling = Pooling::mean;
  bool normalize = false;
  int rows = 0, columns = 0;
  bool dependent_launch = false;
};
cudaError_t pool(const PoolArgs& args, cudaStream_t stream) noexcept;

enum class Unary : uint8_t { none, relu, tanh, gelu_erf, gelu_tanh };

/// out[r, o] = activation(sum_i in[r', i] * weight[o, i] + bias[o]), f32 sums; r' = offsets[r] when offsets are given
/// (the first token of a batch row), else r. For the few rows of poolers and classifiers. Inputs a multiple of 8. s8
/// weights have one scale an output.
struct DenseArgs {
  MatrixIn in;
  const int32_t* offsets = nullptr;     ///< device [rows + 1] or null
  const void* weight = nullptr;         ///< [outputs, inputs], row-major, rows on 16 bytes
  DType weight_type = DType::f32;       ///< s8, f16, bf16 or f32
  const float* weight_scale = nullptr;  ///< device [outputs], for s8
  const float* bias = nullptr;          ///< device [outputs] or null
  Unary activation = Unary::none;
  MatrixOut out;  ///< [rows, outputs], f32, f16 or bf16
  int rows = 0, inputs = 0, outputs = 0;
  bool dependent_launch = false;
};
cudaError_t dense(const DenseArgs& args, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
