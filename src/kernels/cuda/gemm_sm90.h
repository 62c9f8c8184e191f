// GEMMs for compute capability 9.0 (wgmma, bulk tensor copies): y = epilogue(x . w^T), see GemmDesc and GemmArgs.
//
// One kernel family a regime: `stationary` (x stays in shared memory, short k, many rows), `stream` (any k, many rows),
// `small` (few rows). A tile names an instance; which one is best for a shape is found by measuring (`gemm_tiles`) or
// by `choose`.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/args.h"

struct CUstream_st;

namespace octet::kernels::cuda {

enum class GemmFamily : uint8_t { stationary, stream, small };

/// One compiled shape of block.
struct GemmTile {
  std::string_view name;  ///< "stationary_s8_192_c2_g2"
  GemmFamily family = GemmFamily::stream;
  DType type = DType::s8;            ///< of x and w
  int rows = 0, columns = 0;         ///< of y, a block
  int cluster_m = 1, cluster_n = 1;  ///< blocks that share loads
  int split = 1;                     ///< small: warpgroups that divide k; stationary: warpgroups that take turns
};

/// All tiles, the s8 ones first.
std::span<const GemmTile> gemm_tiles() noexcept;

/// Why the tile cannot compute this at m rows; nullptr: it can.
const char* refuse(const GemmDesc& desc, const GemmTile& tile) noexcept;

/// The tiles that do not refuse, the best by estimated time first.
std::vector<const GemmTile*> by_cost(const GemmDesc& desc, int64_t m, int multiprocessors);

/// The first of them; nullptr when all refuse.
const GemmTile* choose(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept;

/// The fastest of the likely tiles, measured on the device at the first call for a shape (about 10 ms, also while a
/// stream is captured) and remembered; nullptr when all refuse. Integer results do not depend on the tile.
const GemmTile* tuned(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept;
/// Makes `tuned` answer without measuring.
void remember(const GemmDesc& desc, int64_t m, const GemmTile& tile);

/// A block shape of the GEMM with residual add and LayerNorm in its epilogue (gemm_sm90_norm.cu, or for few rows
/// gemm_sm90_norm_few.cu).
struct GemmNormTile {
  std::string_view name;
  int rows = 0, cluster = 0;  ///< rows of a block; blocks that share the columns
  int columns = 0;            ///< of a whole row
  bool few = false;
};
std::span<const GemmNormTile> gemm_norm_tiles() noexcept;
/// Why no tile takes the pair, the GEMM's output being `a` of the norm; nullptr: all do.
const char* refuse_with_norm(const GemmDesc& desc, const NormDesc& norm) noexcept;
int launch_with_norm(const GemmDesc& desc, const GemmArgs& args, const kernels::NormArgs& norm,
                     const GemmNormTile& tile, CUstream_st* stream, bool dependent) noexcept;
/// The fastest tile, measured like `tuned`; nullptr when two kernels are faster.
const GemmNormTile* tuned_with_norm(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept;

/// w: [n, k] row-major -> the same, padded with zero rows to a multiple of 32 (`packed_rows`).
constexpr int64_t packed_rows(int64_t n) noexcept { return (n + 31) / 32 * 32; }

/// Enqueues on the stream; works in graph capture. `dependent`: programmatic dependent launch on the kernel before it
/// (weights are fetched before that one has finished). Returns a cudaError_t. All pointers are device pointers, 16-byte
/// aligned; ldx in elements.
int launch(const GemmDesc& desc, const GemmArgs& args, const GemmTile& tile, CUstream_st* stream,
           bool dependent) noexcept;

}  // namespace octet::kernels::cuda
