// The tables: rows of GPUs, of CPU instruction sets, and the scalar reference, each family best first.
#include "kernels/rows.h"

namespace octet::kernels {
namespace {

template <typename Kernel>
std::vector<Kernel> join(std::span<const Kernel> gpu, std::span<const Kernel> simd, std::span<const Kernel> scalar) {
  std::vector<Kernel> table(gpu.begin(), gpu.end());
  table.insert(table.end(), simd.begin(), simd.end());
  table.insert(table.end(), scalar.begin(), scalar.end());
  return table;
}

}  // namespace

std::span<const GemmKernel> gemm_kernels() noexcept {
  static const auto table = join(cuda::gemm_rows(), cpu::gemm_rows(), ref::gemm_rows());
  return table;
}
std::span<const AttentionKernel> attention_kernels() noexcept {
  static const auto table = join(cuda::attention_rows(), cpu::attention_rows(), ref::attention_rows());
  return table;
}
std::span<const NormKernel> norm_kernels() noexcept {
  static const auto table = join(cuda::norm_rows(), cpu::norm_rows(), ref::norm_rows());
  return table;
}
std::span<const EmbedKernel> embed_kernels() noexcept {
  static const auto table = join(cuda::embed_rows(), cpu::embed_rows(), ref::embed_rows());
  return table;
}
std::span<const PoolKernel> pool_kernels() noexcept {
  static const auto table = join(cuda::pool_rows(), cpu::pool_rows(), ref::pool_rows());
  return table;
}
std::span<const ElementwiseKernel> elementwise_kernels() noexcept {
  static const auto table = join(cuda::elementwise_rows(), cpu::elementwise_rows(), ref::elementwise_rows());
  return table;
}
std::span<const ScoresKernel> scores_kernels() noexcept {
  static const auto table = join(cuda::scores_rows(), cpu::scores_rows(), ref::scores_rows());
  return table;
}

}  // namespace octet::kernels
