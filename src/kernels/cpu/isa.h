// What each instruction set supplies, as plain tables of functions: work on one row, one tile or one head,
// single-threaded. The files beside this one split the work over threads.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/args.h"

namespace octet::kernels::cpu {

/// Operations on one row of n values. The row buffer `x` is f32.
struct RowOps {
  /// x = values of `data` (element 0 first); 8-bit ones are dequantized with scale[c].
  void (*load)(float* x, int64_t n, const void* data, DType type, const float* scale, int32_t zero_point);
  /// x += the same.
  void (*add)(float* x, int64_t n, const void* data, DType type, const float* scale, int32_t zero_point);
  /// x = or x += s8 values times one scale.
  void (*load_row_scale)(float* x, int64_t n, const int8_t* data, float scale, bool accumulate);
  /// x = max(x, data).
  void (*max)(float* x, int64_t n, const void* data, DType type, const float* scale, int32_t zero_point);
  /// Of each of x's rows, [rows, n].
  void (*layer_norm)(float* x, int64_t n, int64_t rows, const float* gamma, const float* beta, float epsilon);
  void (*l2_normalize)(float* x, int64_t n);
  void (*divide)(float* x, int64_t n, float by);
  void (*activate)(float* x, int64_t n, Activation activation);
  void (*softmax)(float* x, int64_t n);
  float (*amax)(const float* x, int64_t n);
  /// top = max(top, |x|), a channel each.
  void (*amax_channels)(float* top, const float* x, int64_t n);
  /// To `type` at y; 8-bit through `requant`.
  void (*store)(const float* x, int64_t n, void* y, DType type, const Requant& requant);
  /// s8 with one inv_scale, [-127, 127].
  void (*store_token)(const float* x, int64_t n, int8_t* y, float inv_scale);
  /// y = dequantize(quantize(x)); scale and inv_scale are per channel, or one value when `uniform`.
  void (*fake_quant)(const float* x, int64_t n, float* y, const float* inv_scale, const float* scale, bool uniform,
                     int32_t zero_point, int32_t lo, int32_t hi);
};

/// A register tile of a GEMM: `rows` x `columns`. Rows of x are copied into slabs: chunk c of the row's bytes (of
/// kChunk) lies at slabs + c * rows * kStride + r * kStride, so that a row is a constant displacement and rows do not
/// collide in the cache.
constexpr int64_t kChunk = 1024;
constexpr int64_t kStride = kChunk + 64;

/// What weights of a panel of sixteen columns shed so that 16-bit sums of their products with u8 never saturate: behind
/// the weights, `begin[16]` of these, a column's from begin[column]; at most most_excess().
struct Excess {
  uint16_t k[2];
  int16_t weight[2];
};
struct alignas(64) ExcessHeader {
  enum Mode : int32_t {
    quads,  ///< four products fit: of k % 4 = 0, 1 (2, 3) in steps 2 s and 2 s + 1
    pairs,  ///< two products fit
    none    ///< too many would have to shed: nothing did
  };
  int32_t mode;
  int32_t begin[17];
};
constexpr int kMostInSum = 128;  ///< |weights| of one sign that may meet in a 16-bit sum: 255 * 128 < 2^15
constexpr int64_t most_excess(int64_t steps) { return steps * 2 + 16; }

struct GemmTile {
  int rows;
  int columns;
  int group;          ///< values of k that one dot instruction takes
  int weight_bytes;   ///< of a step of one column
  int step_multiple;  ///< packed steps are padded to
  bool offset_x;      ///< s8 x is stored as u8, + 128; packed weights carry the compensation
  /// Copies `rows` rows of k values into slabs, padded with zeros to whole groups.
  void (*copy)(const GemmDesc& d, const void* x, int64_t ldx, int rows, unsigned char* slabs);
  /// y[row .. row+rows, column .. column+columns) from slabs and one panel. `ahead` (or null): lines to prefetch, one a
  /// step. `correction` (or null) is added to the sums, [rows][columns].
  void (*run)(const GemmDesc& d, const GemmArgs& a, const unsigned char* slabs, const unsigned char* panel, int64_t row,
              int rows, int64_t column, const unsigned char* ahead, const int32_t* correction);
  /// Null unless panels end in what weights shed. xt[k][stride] = rows of x transposed, stride = rows rounded up to 16.
  void (*transpose)(const GemmDesc& d, const void* x, int64_t ldx, int rows, signed char* xt);
  /// y[stride][columns] = that times x; false where nothing was shed.
  bool (*correct)(const ExcessHeader& excess, const signed char* xt, int64_t stride, int32_t* y);
};

/// Attention of one head of one row of the batch.
struct HeadWork {
  int64_t first;  ///< token
  int64_t length;
  int64_t query_first;  ///< row of q and y that query 0 has: `first`, unless AttentionArgs::first_query
  int64_t head;
  const float* q_scale;  ///< dynamic: a row of q each
  const float* k_scale;
  const int8_t* q;  ///< dynamic: [rows of q, heads * head_dim], quantized
  const int8_t* k;
  int64_t query_begin, query_end;  ///< within the row
};
struct AttentionTile {
  /// Scratch of one thread.
  int64_t (*scratch_bytes)(const AttentionDesc& d, int64_t max_length);
  void (*run)(const AttentionDesc& d, const AttentionArgs& a, const HeadWork& work, unsigned char* scratch);
};

/// The unfused attention products of one head, f32.
struct ScoresTile {
  int64_t (*scratch_bytes)(const ScoresDesc& d, int64_t max_length);
  /// `line`: the head's [length, length] scores.
  void (*scores)(const ScoresDesc& d, const ScoresArgs& a, int64_t first, int64_t length, int64_t head, float* line,
                 unsigned char* scratch);
  void (*context)(const ScoresDesc& d, const ScoresArgs& a, int64_t first, int64_t length, int64_t head,
                  const float* line, unsigned char* scratch);
};

}  // namespace octet::kernels::cpu

namespace octet::kernels::avx2 {
extern const cpu::RowOps kRowOps;
extern const cpu::GemmTile kGemmS8, kGemmF32;
extern const cpu::AttentionTile kAttentionS8, kAttentionF32;
extern const cpu::ScoresTile kScores;
/// sums[r][c] = sum_k x_r[k] * panel[k][c] for two rows and 16 columns, in f64.
void dot_f64(const float* x0, const float* x1, const float* panel, int64_t k, double* sums);
}  // namespace octet::kernels::avx2
namespace octet::kernels::avxvnni {
extern const cpu::GemmTile kGemmS8;
extern const cpu::AttentionTile kAttentionS8;
}  // namespace octet::kernels::avxvnni
namespace octet::kernels::avx512 {
extern const cpu::RowOps kRowOps;
extern const cpu::GemmTile kGemmS8, kGemmF32;
extern const cpu::AttentionTile kAttentionS8, kAttentionF32;
extern const cpu::ScoresTile kScores;
}  // namespace octet::kernels::avx512
namespace octet::kernels::avx512vnni {
extern const cpu::GemmTile kGemmS8;
extern const cpu::AttentionTile kAttentionS8;
}  // namespace octet::kernels::avx512vnni
namespace octet::kernels::amx {
extern const cpu::GemmTile kGemmS8;
extern const cpu::AttentionTile kAttentionS8;
}  // namespace octet::kernels::amx
