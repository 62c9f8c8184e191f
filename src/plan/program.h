// A program: the steps that a graph became for one target and precision, with their buffers and weights.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/tensor.h"
#include "kernels/kernels.h"
#include "kernels/tiles.h"

namespace octet {

/// What the leading axis of a buffer counts.
enum class Extent : uint8_t { tokens, rows, scores, offsets };

/// One value during a run. `value` is the name of the graph value it holds ("a+b" joins horizontally merged ones).
struct Buffer {
  std::string value;
  std::string source;  ///< what a quantizer's value was quantized from, named alike; else empty
  DType dtype = DType::f32;
  Extent extent = Extent::tokens;
  int64_t width = 1;       ///< elements per token or row; heads for scores (then length^2 elements each)
  bool row_scale = false;  ///< 8-bit with one f32 scale a token, found at run time, kept beside it
  std::string scale;       ///< weight with the f32 scales [width] of an 8-bit buffer without row_scale
  int32_t zero_point = 0;
};

/// A buffer from a column on.
struct Slot {
  int32_t buffer = -1;
  int64_t column = 0;
};

/// Positions of the tokens in their rows, as the graph's `positions` op defines them.
struct PositionsDesc {
  int64_t start = 0;
  int64_t padding_id = -1;
  bool operator==(const PositionsDesc&) const = default;
};

using StepDesc = std::variant<kernels::GemmDesc, kernels::AttentionDesc, kernels::NormDesc, kernels::EmbedDesc,
                              kernels::PoolDesc, kernels::ElementwiseDesc, kernels::ScoresDesc, PositionsDesc>;

/// One kernel call.
struct Step {
  std::string name;  ///< the graph nodes it computes, main one first
  StepDesc desc;
  std::vector<Slot> inputs;  ///< gemm: x; attention: q k v; norm: a b; embed: an index a table (buffer -1: index 0);
                             ///< pool, elementwise: x x2; scores: a b
  std::vector<Slot> outputs;
  std::map<std::string, std::string> params;  ///< role ("w", "scale", "bias", "gamma", ...) -> name in Program::weights
  std::map<std::string, double> numbers;      ///< "epsilon", "p_inv_scale", "zero_point0", "lo0", "hi0", "scale" ...
  std::string kernel;                         ///< chosen row
  std::vector<kernels::Refusal> refused;      ///< better rows that were passed over
  std::string note;                           ///< why this step is in float where INT8 was asked for, if so
};

struct Program {
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::map<std::string, Tensor> weights;
  /// Graph inputs by name ("ids", "offsets", "type_ids", ...) -> buffer.
  std::map<std::string, int32_t> inputs;
  std::vector<std::pair<std::string, int32_t>> outputs;
  int64_t vocabulary = 0;  ///< ids must be below
  int64_t types = 1;       ///< type ids must be below
  int64_t positions = 0;   ///< rows of the position table, 0 when there is none
  int64_t max_tokens = 0;  ///< most tokens of a batch, 0 = any: bounds the arena
  int64_t max_length = 0;  ///< most tokens of a row, 0 = any
  /// What was measured on a GPU of this name: shapes of products -> tiles (kernels/tiles.h).
  std::string tiles_gpu;
  kernels::device::Tiles tiles;

  double number(const Step& step, const char* key, double fallback) const {
    auto found = step.numbers.find(key);
    return found == step.numbers.end() ? fallback : found->second;
  }
};

/// Multiply-accumulates of a step on one row of `length` tokens; 0 for steps without matrix products.
double multiply_accumulates(const Program& program, const Step& step, int64_t length);
/// Whether all 8-bit tensors of the step have zero point 0 and, where it writes them, the whole range of s8
/// (kernels::Row::symmetric).
bool symmetric(const Step& step);
/// "int8", "f32", ... : what the step's products or outputs are computed in.
std::string precision_of(const Step& step);

}  // namespace octet
