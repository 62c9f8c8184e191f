// LayerNorm of (a + b), quantized on the way out: the residual add, the norm and the quantizer of an encoder layer in
// one pass.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/matrix.h"

namespace octet::kernels::cuda {

/// out = (x - mean(x)) / sqrt(var(x) + eps) * gamma + beta with x = a + b; statistics in f32 from the values themselves
/// (mean first, then the squared differences). hidden is a multiple of 16, at most 4096. A row's bits depend on that
/// row alone. Asynchronous, capturable.
struct NormArgs {
  MatrixIn a;
  MatrixIn b;                    ///< optional
  const float* gamma = nullptr;  ///< device [hidden]
  const float* beta = nullptr;   ///< device [hidden]
  float eps = 1e-12f;
  MatrixOut out[2];  ///< the second is optional
  int64_t tokens = 0;
  int hidden = 0;
  int rows_per_warp = 0;  ///< 0: chosen; 1 or 2 force the kernel that owns whole rows (same bits)
  bool dependent_launch = false;
};
cudaError_t add_norm(const NormArgs& args, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
