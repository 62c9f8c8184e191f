// Kernels that take every descriptor: any width, type, zero point and range. They compute what the scalar rows compute,
// operation by operation (docs/numerics.md), and serve where no fast row fits.
#pragma once

#include <cuda_runtime.h>

#include "kernels/args.h"

namespace octet::kernels::cuda {

// A block a token (norm, embed, ranges per token) or a thread an element. Pointers are device pointers.
cudaError_t norm_any(const NormDesc& desc, const kernels::NormArgs& args, cudaStream_t stream) noexcept;
cudaError_t embed_any(const EmbedDesc& desc, const kernels::EmbedArgs& args, cudaStream_t stream) noexcept;
cudaError_t pool_any(const PoolDesc& desc, const kernels::PoolArgs& args, cudaStream_t stream) noexcept;
cudaError_t elementwise_any(const ElementwiseDesc& desc, const kernels::ElementwiseArgs& args,
                            cudaStream_t stream) noexcept;

/// Longest row of a matrix that the kernels above take: it stays in shared memory.
constexpr int64_t kWidestRow = 8192;

/// Any k and leading dimension; f32 products of floats, exact sums of 8-bit integers.
cudaError_t gemm_any(const GemmDesc& desc, const GemmArgs& args, cudaStream_t stream) noexcept;

/// Tensor-core GEMM by mma.sync, for compute capability 8.0 and newer: s8 or u8 by s8, f16, bf16. Rows of k are
/// multiples of 16 bytes.
cudaError_t gemm_sm80(const GemmDesc& desc, const GemmArgs& args, cudaStream_t stream) noexcept;

/// A warp a query; scores in shared memory, so `max_length` is at most kLongestRow. Dynamic attention quantizes into
/// `args.scratch`, which holds attention_any_scratch(desc) bytes a token.
cudaError_t attention_any(const AttentionDesc& desc, const AttentionArgs& args, cudaStream_t stream) noexcept;
int64_t attention_any_scratch(const AttentionDesc& desc) noexcept;
constexpr int64_t kLongestRow = 16384;

/// The attention operations one by one, f32.
cudaError_t scores_f32(const ScoresDesc& desc, const ScoresArgs& args, cudaStream_t stream) noexcept;

}  // namespace octet::kernels::cuda
