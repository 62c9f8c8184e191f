// A matrix of activations as the row-wise kernels see it: pointer, element type, scales.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace octet::kernels::cuda {

/// Input [rows, columns]: s8 (value = q * scale[column]), f16, bf16 or f32. Rows start on 16 bytes.
struct MatrixIn {
  const void* data = nullptr;
  DType type = DType::f32;
  int64_t ld = 0;                ///< elements from row to row
  const float* scale = nullptr;  ///< device [columns], for s8
};
/// Output [rows, columns]: s8 (q = saturate(rint(value * inv_scale[column]))), f16, bf16 or f32. Null data: not wanted.
struct MatrixOut {
  void* data = nullptr;
  DType type = DType::f32;
  int64_t ld = 0;
  const float* inv_scale = nullptr;  ///< device [columns], for s8 with fixed scales
  float* row_scale =
      nullptr;  ///< device [rows]: when set (s8), the row's own scale amax / 127 is used and written here
};

}  // namespace octet::kernels::cuda
