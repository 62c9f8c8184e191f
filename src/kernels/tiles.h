// Which tile of the 9.0 GEMMs each shape runs on: found by measuring, kept by plans.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/args.h"

namespace octet::kernels::device {

/// A shape -> the name of its tile, "apart" where a GEMM and its LayerNorm are faster as two kernels.
using Tiles = std::map<std::string, std::string>;

/// The numbers of rows that choices are made for, up to `most`: others take the next larger one's.
std::vector<int64_t> tile_rows(int64_t most);
/// The key of a GEMM (with the LayerNorm behind it) at `m` rows.
std::string tile_key(const GemmDesc& desc, int64_t m, bool with_norm);
/// Measures the shape unless its tile is known. Nothing happens where no kernel of 9.0 takes it.
void measure_tile(const GemmDesc& desc, int64_t m, bool with_norm);
/// Takes choices that were made on a GPU like this one; names that no tile has are left out.
void remember_tiles(const Tiles& tiles);
/// What was measured or remembered in this process.
Tiles known_tiles();

}  // namespace octet::kernels::device
