// Descriptors and arguments of every fused region, as plain data that instruction-set files may include.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/dtype_enum.h"

namespace octet {
class ThreadPool;
}

namespace octet::kernels {

enum class Activation : uint8_t { none, relu, tanh, gelu_erf, gelu_tanh };

/// Where a kernel runs.
struct Launch {
  ThreadPool* pool = nullptr;  ///< CPU rows
  void* stream = nullptr;      ///< CUDA rows: a cudaStream_t
};

/// How a real value becomes an 8-bit output: quantize(y, inv_scale[channel], zero_point, lo, hi).
struct Requant {
  const float* inv_scale = nullptr;  ///< [channels]
  int32_t zero_point = 0;
  int32_t lo = -128;
  int32_t hi = 127;
};

// ---------------------------------------------------------------- gemm
// y[m,n] = act(x[m,k] . w[n,k]^T * scale[n] (* row_scale[m]) + bias[n]), then requantized when y is 8-bit.
struct GemmDesc {
  int64_t n = 0, k = 0;
  DType x = DType::f32;  ///< s8 | u8 | f32 | f16 | bf16
  DType w = DType::f32;  ///< s8 with an 8-bit x, else the type of x
  DType y = DType::f32;  ///< s8 | u8 | f32 | f16 | bf16
  bool row_scale = false;
  bool bias = true;
  bool column_offset =
      false;  ///< x has a zero point: column_offset[n] = zero_point * sum_k w[n,k] is subtracted from the accumulator
  Activation activation = Activation::none;
  bool exact = false;  ///< f32 products summed in f64 (the simulated graph)
  bool operator==(const GemmDesc&) const = default;
};
struct GemmArgs {
  int64_t m = 0;
  const void* x = nullptr;  ///< [m, k]
  int64_t ldx = 0;
  const unsigned char* packed = nullptr;   ///< from `pack`
  const float* scale = nullptr;            ///< [n], 8-bit x only
  const float* bias = nullptr;             ///< [n]
  const int32_t* column_offset = nullptr;  ///< [n]
  const float* row_scale = nullptr;        ///< [m]
  Requant requant;                         ///< 8-bit y only
  void* y = nullptr;                       ///< [m, n]
  int64_t ldy = 0;
  /// Rows of kernels that say so (GemmKernel::finishes): called once for every row of y, on any thread, when a range of
  /// whole rows is done; `rows_of_y` holds them, [rows, n] without gaps, and y itself may stay unwritten (ldy = n).
  void (*finish)(const void* context, int64_t row, int64_t rows, const void* rows_of_y) = nullptr;
  const void* finish_context = nullptr;
};

// ---------------------------------------------------------------- attention
// For each row and head: P = softmax(q k^T * score_scale[head] + bias), quantized when p is 8-bit, y = P v.
// 8-bit: context = acc * context_scale[channel], then requantized when y is 8-bit.
struct AttentionDesc {
  int64_t heads = 0, head_dim = 0;
  DType qkv = DType::f32;  ///< s8 | f32 | f16 | bf16
  DType p = DType::f32;    ///< u8 | s8 with s8 qkv or dynamic, else f32
  DType y = DType::f32;    ///< s8 | f32 | f16 | bf16
  bool bias = false;
  /// q and k come as f32 and are quantized per token (over its heads * head_dim values) to s8, v per row and channel,
  /// inside the kernel.
  bool dynamic = false;
  bool operator==(const AttentionDesc&) const = default;
};
struct AttentionArgs {
  int64_t rows = 0;
  const int32_t* offsets = nullptr;  ///< [rows + 1]
  int64_t tokens = 0;
  int64_t max_length = 0;   ///< longest row
  const void* q = nullptr;  ///< [tokens, heads * head_dim]
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t ldq = 0, ldk = 0, ldv = 0;
  const float* score_scale =
      nullptr;                  ///< [heads]: q scale * k scale / sqrt(head_dim); floats and dynamic: 1 / sqrt(head_dim)
  float float_scale = 1.0f;     ///< the same for floats, whose heads all share it
  const float* bias = nullptr;  ///< added to the scaled scores: bias[head * head stride + query * query stride + key]
  int64_t bias_head_stride = 0, bias_query_stride = 0;  ///< the latter -1 where only key - query counts
  float p_inv_scale = 255.0f;                           ///< probabilities: zero point 0
  int32_t p_lo = 0, p_hi = 255;
  const float* context_scale = nullptr;  ///< [heads * head_dim]: p scale * v scale; dynamic: p scale
  Requant requant;                       ///< 8-bit y only
  void* y = nullptr;                     ///< [tokens, heads * head_dim]
  int64_t ldy = 0;
  /// CPU rows: only the first query of each row of the batch, q and y being [rows, heads * head_dim].
  bool first_query = false;
  unsigned char* scratch = nullptr;  ///< scratch_bytes(desc, max_length, threads)
};

// ---------------------------------------------------------------- norm
// y = LayerNorm(a (+ b)) * gamma + beta; 8-bit inputs are dequantized with a scale a channel; up to two outputs of one
// value.
struct OutputDesc {
  DType dtype = DType::f32;
  bool per_token = false;  ///< s8 with a range found per token: writes row_scale[m] too
  bool operator==(const OutputDesc&) const = default;
};
struct NormDesc {
  int64_t n = 0;
  DType a = DType::f32;
  bool residual = false;
  DType b = DType::f32;
  int outputs = 1;
  OutputDesc y[2];
  bool operator==(const NormDesc&) const = default;
};
struct NormOutput {
  void* y = nullptr;           ///< [m, n]
  Requant requant;             ///< 8-bit, not per token
  float* row_scale = nullptr;  ///< [m], per token only
};
struct NormArgs {
  int64_t m = 0;
  const void* a = nullptr;         ///< [m, n]
  const float* a_scale = nullptr;  ///< [n], 8-bit a
  int32_t a_zero = 0;
  const void* b = nullptr;
  const float* b_scale = nullptr;
  int32_t b_zero = 0;
  const float* gamma = nullptr;  ///< [n]
  const float* beta = nullptr;   ///< [n]
  float epsilon = 1e-12f;
  NormOutput out[2];
};

// ---------------------------------------------------------------- embed
// x = sum of one row of each table, in order; then LayerNorm when `norm`; outputs as in norm. An s8 table has one scale
// a row.
constexpr int kMaxTables = 3;
struct EmbedDesc {
  int64_t n = 0;
  int tables = 1;
  DType table[kMaxTables] = {DType::f32, DType::f32, DType::f32};  ///< f32 | f16 | bf16 | s8
  bool norm = false;
  int outputs = 1;
  OutputDesc y[2];
  bool operator==(const EmbedDesc&) const = default;
};
struct EmbedArgs {
  int64_t m = 0;
  const int32_t* index[kMaxTables] = {};  ///< [m] each, in range (checked by the session); null means index 0 for all
  const void* table[kMaxTables] = {};     ///< [vocabulary, n]
  const float* table_scale[kMaxTables] = {};  ///< [vocabulary], s8 tables
  const float* gamma = nullptr;
  const float* beta = nullptr;
  float epsilon = 1e-12f;
  NormOutput out[2];
};

// ---------------------------------------------------------------- pool
enum class PoolKind : uint8_t { first, mean, max };
// y[row] = first | mean | max of the row's tokens, then divided by its length in L2 when `normalize`.
struct PoolDesc {
  int64_t n = 0;
  PoolKind kind = PoolKind::mean;
  DType x = DType::f32;  ///< f32 | f16 | bf16 | s8 (a scale a channel)
  bool normalize = false;
  DType y = DType::f32;
  bool operator==(const PoolDesc&) const = default;
};
struct PoolArgs {
  int64_t rows = 0;
  const int32_t* offsets = nullptr;
  const void* x = nullptr;         ///< [tokens, n]
  const float* x_scale = nullptr;  ///< [n]
  int32_t x_zero = 0;
  void* y = nullptr;  ///< [rows, n]
};

// ---------------------------------------------------------------- elementwise
// What no fused region took; also the quantizers of the simulated graph.
enum class ElementwiseKind : uint8_t {
  activation,              ///< y = act(x)
  add,                     ///< y = x + x2
  quantize,                ///< f32 -> 8-bit, a scale a channel
  quantize_token,          ///< f32 -> s8 with a range per token; writes row_scale
  dequantize,              ///< 8-bit -> f32, a scale a channel
  fake_quant,              ///< f32 -> f32 through quantize and dequantize, a scale a channel
  fake_quant_token,        ///< the same with a range per token
  fake_quant_row_channel,  ///< the same with a range per channel of each row (offsets)
  normalize,               ///< y = x / max(|x|, 1e-12)
  convert,                 ///< between float types
};
struct ElementwiseDesc {
  ElementwiseKind kind = ElementwiseKind::activation;
  int64_t n = 0;
  DType x = DType::f32;
  DType y = DType::f32;
  Activation activation = Activation::none;
  bool operator==(const ElementwiseDesc&) const = default;
};
struct ElementwiseArgs {
  int64_t m = 0;
  const void* x = nullptr;  ///< [m, n]
  const void* x2 = nullptr;
  const float* scale = nullptr;  ///< [n]: dequantize, fake_quant
  Requant requant;               ///< quantize and fake_quant; zero_point also for dequantize
  float* row_scale = nullptr;    ///< [m]
  int64_t rows = 0;
  const int32_t* offsets = nullptr;
  void* y = nullptr;
};

// ---------------------------------------------------------------- the attention operations one by one
// The unfused float path (calibration, simulate). Scores of row r start at heads * sum_{s<r} length_s^2 and are [heads,
// length, length].
enum class ScoresKind : uint8_t { scores, softmax, context };
struct ScoresDesc {
  ScoresKind kind = ScoresKind::scores;
  int64_t heads = 0, head_dim = 0;
  bool bias = false;
  bool exact = false;  ///< summed in f64
  bool operator==(const ScoresDesc&) const = default;
};
struct ScoresArgs {
  int64_t rows = 0;
  const int32_t* offsets = nullptr;
  const float* a = nullptr;     ///< scores: q [tokens, width]; softmax: scores; context: probabilities
  const float* b = nullptr;     ///< scores: k; context: v
  float scale = 1.0f;           ///< scores only
  const float* bias = nullptr;  ///< as in AttentionArgs
  int64_t bias_head_stride = 0, bias_query_stride = 0;
  float* y = nullptr;
};

}  // namespace octet::kernels
