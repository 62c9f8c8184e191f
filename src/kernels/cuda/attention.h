// Attention of ragged batches on the GPU: softmax(scale * Q K^T + bias) V for every (row, head), scores never in device
// memory.
//
// A batch is `tokens` rows of a matrix; batch row r owns tokens offsets[r] .. offsets[r + 1]. Element (token, head,
// channel) of Q lies at q[token * q_ld + head * head_dim + channel]; K and V likewise with their own leading dimension,
// so one [tokens, 3 * hidden] buffer or three buffers serve. head_dim is 32, 64 or 128; Q, K, V start on 16 bytes and
// leading dimensions are multiples of 16 bytes.
//
// Every launch is asynchronous, may be captured into a graph, and is deterministic; an INT8 row's bits depend only on
// its own tokens.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/dtype.h"

namespace octet::kernels::cuda {

/// INT8: scores = score_scale[head] * (q . k) exactly summed; p = softmax in f32; p_q = min(rint(p * prob_inv_scale),
/// prob_hi) as u8; context = sum p_q * v exactly summed; y = context * context_scale[channel]; out = y, or
/// saturate(rint(y * out_inv_scale[channel])).
struct AttentionS8Args {
  const int8_t* q = nullptr;
  const int8_t* k = nullptr;
  const int8_t* v = nullptr;
  int64_t q_ld = 0, k_ld = 0, v_ld = 0;  ///< elements
  const int32_t* offsets = nullptr;      ///< device [rows + 1]
  const float* score_scale =
      nullptr;  ///< device [heads]: scale(Q) * scale(K) / sqrt(head_dim), the same for all channels of a head
  const float* bias = nullptr;  ///< device, optional: added to the score of (head, query, key), in units of the score
  int64_t bias_head_stride = 0, bias_ld = 0;  ///< elements: bias[head * bias_head_stride + query * bias_ld + key]
  float prob_inv_scale = 255.0f;              ///< 1 / scale of the probabilities
  int prob_hi = 255;                          ///< largest quantized probability, at most 255
  const float* context_scale = nullptr;       ///< device [heads * head_dim]: scale(probabilities) * scale(V)
  const float* out_inv_scale = nullptr;       ///< device [heads * head_dim], for s8 output
  void* out = nullptr;                        ///< [tokens, heads * head_dim], out_ld elements a token
  int64_t out_ld = 0;
  DType out_type = DType::s8;  ///< s8, f16, bf16 or f32
  int rows = 0, heads = 0, head_dim = 0;
  int max_length = 0;         ///< no row is longer; chooses the kernel and bounds the grid
  int queries_per_block = 0;  ///< 0: chosen from rows, heads, max_length; else a multiple of 64
  bool dependent_launch = false;
};
cudaError_t attention_s8(const AttentionS8Args& args, cudaStream_t stream) noexcept;
/// The kernel that `attention_s8` picks, for `explain`: "attention_s8u8_sm80_keys256", ...
const char* attention_s8_kernel(const AttentionS8Args& args) noexcept;

/// f16 or bf16 in and out, f32 sums, one pass with a running maximum.
struct AttentionHalfArgs {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t q_ld = 0, k_ld = 0, v_ld = 0;  ///< elements
  const int32_t* offsets = nullptr;      ///< device [rows + 1]
  float score_scale = 1.0f;              ///< usually 1 / sqrt(head_dim)
  const float* bias = nullptr;           ///< as above
  int64_t bias_head_stride = 0, bias_ld = 0;
  void* out = nullptr;
  int64_t out_ld = 0;
  DType type = DType::f16;  ///< of q, k, v and out: f16 or bf16
  int rows = 0, heads = 0, head_dim = 0, max_length = 0;
  int64_t tokens = 0;  ///< of the batch: attention_half_sm90 may read all of q, k and v up to there
  bool dependent_launch = false;
};
cudaError_t attention_half(const AttentionHalfArgs& args, cudaStream_t stream) noexcept;
/// The same with wgmma on 9.0: heads of 64 without a bias.
cudaError_t attention_half_sm90(const AttentionHalfArgs& args, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
