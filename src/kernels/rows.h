// Where the rows of the tables come from: one function per table and family. tables.cpp joins them, best first.
#pragma once

#include <span>

#include "kernels/kernels.h"

namespace octet::kernels {

// Scalar rows that accept every valid descriptor: the last of each table, and what the others are tested against.
namespace ref {
std::span<const GemmKernel> gemm_rows() noexcept;
std::span<const AttentionKernel> attention_rows() noexcept;
std::span<const NormKernel> norm_rows() noexcept;
std::span<const EmbedKernel> embed_rows() noexcept;
std::span<const PoolKernel> pool_rows() noexcept;
std::span<const ElementwiseKernel> elementwise_rows() noexcept;
std::span<const ScoresKernel> scores_rows() noexcept;
}  // namespace ref

// Rows for CPU instruction sets (cpu/), best first.
namespace cpu {
std::span<const GemmKernel> gemm_rows() noexcept;
std::span<const AttentionKernel> attention_rows() noexcept;
std::span<const NormKernel> norm_rows() noexcept;
std::span<const EmbedKernel> embed_rows() noexcept;
std::span<const PoolKernel> pool_rows() noexcept;
std::span<const ElementwiseKernel> elementwise_rows() noexcept;
std::span<const ScoresKernel> scores_rows() noexcept;
}  // namespace cpu

// Rows for GPUs: cuda/rows.cpp in a build with OCTET_CUDA, else no_cuda.cpp, which has none.
namespace cuda {
std::span<const GemmKernel> gemm_rows() noexcept;
std::span<const AttentionKernel> attention_rows() noexcept;
std::span<const NormKernel> norm_rows() noexcept;
std::span<const EmbedKernel> embed_rows() noexcept;
std::span<const PoolKernel> pool_rows() noexcept;
std::span<const ElementwiseKernel> elementwise_rows() noexcept;
std::span<const ScoresKernel> scores_rows() noexcept;
}  // namespace cuda

}  // namespace octet::kernels
