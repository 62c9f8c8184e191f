// Sum of word, position and type embeddings, LayerNorm, quantization; positions are found on the device.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/matrix.h"

namespace octet::kernels::cuda {

/// Rows of one table: s8 (value = q * row_scale[row]), f16, bf16 or f32; [entries, hidden] without gaps.
struct EmbeddingTable {
  const void* data = nullptr;  ///< null: the table is not there
  DType type = DType::f32;
  const float* row_scale = nullptr;  ///< device [entries], for s8
};

enum class Positions : uint8_t {
  given,       ///< read from `positions`
  sequential,  ///< position_start + index in the row (BERT: start 0)
  non_pad,     ///< RoBERTa: pad_id + number of non-pad tokens up to and with this one; pad_id for a pad token
};

struct EmbedArgs {
  const int32_t* ids = nullptr;        ///< device [tokens]; every id is inside its table
  const int32_t* type_ids = nullptr;   ///< device [tokens], or null: all 0
  const int32_t* positions = nullptr;  ///< device [tokens], for Positions::given
  const int32_t* offsets = nullptr;    ///< device [rows + 1]
  EmbeddingTable word, position, type;
  Positions position_mode = Positions::sequential;
  int position_start = 0, pad_id = 0;
  const float* gamma = nullptr;  ///< null: no LayerNorm
  const float* beta = nullptr;
  float eps = 1e-12f;
  MatrixOut out[2];
  int64_t tokens = 0;
  int rows = 0, hidden = 0;  ///< hidden as in NormArgs
  bool dependent_launch = false;
};
cudaError_t embed(const EmbedArgs& args, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
