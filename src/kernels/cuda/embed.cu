// Embedding sum, LayerNorm and quantization: one warp per token.
#include "kernels/cuda/embed.h"

#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/rows.cuh"

namespace octet::kernels::cuda {
namespace {

/// The batch row of a token: the last r with offsets[r] <= token (empty rows own nothing).
__device__ __forceinline__ int row_of(const int32_t* offsets, int rows, int token) {
  int low = 0, high = rows;  // offsets[low] <= token < offsets[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (offsets[middle] <= token) low = middle;
    else high = middle;
  }
  return low;
}

/// Position of a token; the whole warp takes part.
__device__ __forceinline__ int position_of(const EmbedArgs& a, int token, int id) {
  if (a.position_mode == Positions::given) return a.positions[token];
  const int begin = a.offsets[row_of(a.offsets, a.rows, token)];
  if (a.position_mode == Positions::sequential) return a.position_start + token - begin;
  if (id == a.pad_id) return a.pad_id;
  int count = 0;
  for (int i = begin; i <= token; i += 32) {
    const int at = i + int(threadIdx.x & 31);
    count += __popc(__ballot_sync(0xffffffffu, at <= token && a.ids[at <= token ? at : token] != a.pad_id));
  }
  return a.pad_id + count;
}

/// kS8: all three tables are there and s8, and their rows are loaded together before the first use.
template <int V, int N, bool kS8>
__global__ __launch_bounds__(128) void embed_kernel(const __grid_constant__ EmbedArgs a) {
  launch_dependents();
  const int token = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  wait_for_inputs();
  if (token >= a.tokens) return;
  const int id = a.ids[token];
  Rows<V, N, 1> row;
  if constexpr (kS8) {
    typename Rows<V, N, 1>::template TableRow<DType::s8> word, type, position;
    type.load(a.type.data, a.type.row_scale, a.type_ids ? a.type_ids[token] : 0, a.hidden);
    word.load(a.word.data, a.word.row_scale, id, a.hidden);
    position.load(a.position.data, a.position.row_scale, position_of(a, token, id), a.hidden);
    row.template add_table<true>(0, word, a.hidden);
    row.template add_table<false>(0, type, a.hidden);
    row.template add_table<false>(0, position, a.hidden);
  } else {
    row.template add_table<true>(0, a.word.data, a.word.type, a.word.row_scale, id, a.hidden);
    if (a.type.data)
      row.template add_table<false>(0, a.type.data, a.type.type, a.type.row_scale, a.type_ids ? a.type_ids[token] : 0,
                                    a.hidden);
    if (a.position.data)
      row.template add_table<false>(0, a.position.data, a.position.type, a.position.row_scale,
                                    position_of(a, token, id), a.hidden);
  }
  if (a.gamma) row.normalize(a.gamma, a.beta, a.eps, a.hidden);
  row.write(a.out[0], token, a.tokens, a.hidden);
  row.write(a.out[1], token, a.tokens, a.hidden);
}

}  // namespace

cudaError_t embed(const EmbedArgs& args, cudaStream_t stream) noexcept {
  if (args.tokens == 0) return cudaSuccess;
  return with_row_tile(args.hidden, [&](auto tile) {
    const int threads = args.tokens <= 512 ? 32 : 128, per_block = threads / 32;
    constexpr int V = decltype(tile)::V, N = decltype(tile)::N;
    const bool s8 = args.type.data && args.position.data && args.word.type == DType::s8 &&
                    args.type.type == DType::s8 && args.position.type == DType::s8;
    const auto kernel = s8 && V * N <= 64 ? embed_kernel<V, N, V * N <= 64> : embed_kernel<V, N, false>;
    return launch(kernel, dim3(unsigned((args.tokens + per_block - 1) / per_block)), dim3(threads), 0, stream,
                  args.dependent_launch, args);
  });
}

}  // namespace octet::kernels::cuda
