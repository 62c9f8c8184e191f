// Every fused region that octet runs: one descriptor, one argument struct and one table of kernels each.
//
// A table lists its rows best first and the scalar reference last; `find` takes the first row that does not refuse.
// Rows of the CPU take host pointers and split their work over Launch::pool; rows of CUDA take device pointers and
// enqueue on Launch::stream. `refuse` is a pure function of descriptor and target. `run` checks nothing: what is wrong
// is refused when a plan is built. Arithmetic: docs/numerics.md. All matrices are row-major; leading dimensions count
// elements.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/target.h"
#include "kernels/args.h"

namespace octet::kernels {

/// What all rows have. `approximate`: may differ from the reference by one step in under 1 % of 8-bit outputs
/// (docs/numerics.md).
struct Row {
  std::string_view name;
  DeviceKind device = DeviceKind::cpu;
  bool approximate = false;
  /// Takes 8-bit tensors with zero point 0 and the whole range of s8 only (what descriptors do not say).
  bool symmetric = false;
};

struct GemmKernel : Row {
  using Desc = GemmDesc;
  const char* (*refuse)(const GemmDesc&, const Target&) noexcept = nullptr;  ///< nullptr: accepts
  int64_t (*packed_bytes)(const GemmDesc&) noexcept = nullptr;
  /// w: [n, k] of desc.w, row-major, host memory -> packed_bytes of host memory, 64-byte aligned (the session copies
  /// those of CUDA rows to the device).
  void (*pack)(const GemmDesc&, const void* w, unsigned char* packed) noexcept = nullptr;
  void (*run)(const GemmDesc&, const GemmArgs&, const Launch&) noexcept = nullptr;
  bool finishes = false;  ///< takes GemmArgs::finish
  /// Rows that can do the LayerNorm after them in the same kernel, the GEMM's output (which is then not written) being
  /// its input `a`; both null elsewhere. run_with_norm returns false, and does nothing, where two kernels are faster.
  const char* (*refuse_with_norm)(const GemmDesc&, const NormDesc&) noexcept = nullptr;
  bool (*run_with_norm)(const GemmDesc&, const GemmArgs&, const NormArgs&, const Launch&) noexcept = nullptr;
};
struct AttentionKernel : Row {
  using Desc = AttentionDesc;
  const char* (*refuse)(const AttentionDesc&, const Target&) noexcept = nullptr;
  int64_t (*scratch_bytes)(const AttentionDesc&, int64_t max_length, int threads) noexcept = nullptr;
  void (*run)(const AttentionDesc&, const AttentionArgs&, const Launch&) noexcept = nullptr;
  int64_t (*scratch_bytes_a_token)(const AttentionDesc&) noexcept = nullptr;  ///< more of it; null: none
};
template <typename D, typename A>
struct SimpleKernel : Row {
  using Desc = D;
  const char* (*refuse)(const D&, const Target&) noexcept = nullptr;
  void (*run)(const D&, const A&, const Launch&) noexcept = nullptr;
};
using NormKernel = SimpleKernel<NormDesc, NormArgs>;
using EmbedKernel = SimpleKernel<EmbedDesc, EmbedArgs>;
using PoolKernel = SimpleKernel<PoolDesc, PoolArgs>;
using ElementwiseKernel = SimpleKernel<ElementwiseDesc, ElementwiseArgs>;
using ScoresKernel = SimpleKernel<ScoresDesc, ScoresArgs>;

std::span<const GemmKernel> gemm_kernels() noexcept;
std::span<const AttentionKernel> attention_kernels() noexcept;
std::span<const NormKernel> norm_kernels() noexcept;
std::span<const EmbedKernel> embed_kernels() noexcept;
std::span<const PoolKernel> pool_kernels() noexcept;
std::span<const ElementwiseKernel> elementwise_kernels() noexcept;
std::span<const ScoresKernel> scores_kernels() noexcept;

/// A better row that was passed over, and why.
struct Refusal {
  std::string_view kernel;
  std::string reason;
};

/// Why the row cannot compute this; nullptr: it can. `symmetric`: all 8-bit tensors of the step are.
template <typename Kernel>
const char* refuse(const Kernel& row, const typename Kernel::Desc& desc, const Target& target, bool symmetric) {
  if (row.symmetric && !symmetric) return "takes zero point 0 and the whole range of s8 only";
  return row.refuse(desc, target);
}

/// The first row that accepts, or nullptr; rows of the same device that were refused on the way go to `refused`.
template <typename Kernel>
const Kernel* find(std::span<const Kernel> table, const typename Kernel::Desc& desc, const Target& target,
                   std::vector<Refusal>* refused = nullptr, bool symmetric = true) {
  for (const Kernel& row : table) {
    if (row.device != target.device) continue;
    const char* reason = refuse(row, desc, target, symmetric);
    if (reason == nullptr) return &row;
    if (refused != nullptr) refused->push_back({row.name, reason});
  }
  return nullptr;
}

/// The row of that name, or nullptr.
template <typename Kernel>
const Kernel* find_by_name(std::span<const Kernel> table, std::string_view name) {
  for (const Kernel& row : table)
    if (row.name == name) return &row;
  return nullptr;
}

}  // namespace octet::kernels
