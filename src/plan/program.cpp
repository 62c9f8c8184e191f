// What a step costs and what it is computed in.
#include "plan/program.h"

namespace octet {

namespace {

using namespace kernels;

template <typename... F>
struct Overload : F... {
  using F::operator()...;
};
template <typename... F>
Overload(F...) -> Overload<F...>;  // clang 14 cannot deduce aggregates

bool is_8bit(DType type) { return type == DType::s8 || type == DType::u8; }

std::string float_name(DType type) { return type == DType::f16 ? "fp16" : type == DType::bf16 ? "bf16" : "fp32"; }

}  // namespace

double multiply_accumulates(const Program& program, const Step& step, int64_t length) {
  double tokens = static_cast<double>(length);
  return std::visit(
      Overload{
          [&](const GemmDesc& d) {
            bool rows = program.buffers[static_cast<size_t>(step.inputs[0].buffer)].extent == Extent::rows;
            return (rows ? 1.0 : tokens) * static_cast<double>(d.n) * static_cast<double>(d.k);
          },
          [&](const AttentionDesc& d) { return 2.0 * tokens * tokens * static_cast<double>(d.heads * d.head_dim); },
          [&](const ScoresDesc& d) {
            return d.kind == ScoresKind::softmax ? 0.0 : tokens * tokens * static_cast<double>(d.heads * d.head_dim);
          },
          [&](const auto&) { return 0.0; },
      },
      step.desc);
}

bool symmetric(const Step& step) {
  for (const auto& [key, value] : step.numbers) {
    if ((key.starts_with("zero") || key.ends_with("_zero")) && value != 0) return false;
    if (key.starts_with("lo") && value > -128) return false;
    if (key.starts_with("hi") && value != 127) return false;
  }
  return true;
}

std::string precision_of(const Step& step) {
  return std::visit(
      Overload{
          [](const GemmDesc& d) { return is_8bit(d.x) ? std::string("int8") : float_name(d.x); },
          [](const AttentionDesc& d) { return is_8bit(d.p) ? std::string("int8") : float_name(d.qkv); },
          [](const NormDesc& d) { return is_8bit(d.a) ? std::string("int8") : float_name(d.a); },
          [](const EmbedDesc& d) { return is_8bit(d.table[0]) ? std::string("int8") : float_name(d.table[0]); },
          [](const PoolDesc& d) { return is_8bit(d.x) ? std::string("int8") : float_name(d.x); },
          [](const ElementwiseDesc& d) { return is_8bit(d.y) ? std::string("int8") : float_name(d.y); },
          [](const ScoresDesc&) { return std::string("fp32"); },
          [](const PositionsDesc&) { return std::string("s32"); },
      },
      step.desc);
}

}  // namespace octet
