// A build without CUDA has no rows for GPUs.
#include "kernels/rows.h"

namespace octet::kernels::cuda {

std::span<const GemmKernel> gemm_rows() noexcept { return {}; }
std::span<const AttentionKernel> attention_rows() noexcept { return {}; }
std::span<const NormKernel> norm_rows() noexcept { return {}; }
std::span<const EmbedKernel> embed_rows() noexcept { return {}; }
std::span<const PoolKernel> pool_rows() noexcept { return {}; }
std::span<const ElementwiseKernel> elementwise_rows() noexcept { return {}; }
std::span<const ScoresKernel> scores_rows() noexcept { return {}; }

}  // namespace octet::kernels::cuda
