// Measured tiles of a plan for a GPU, and the file that keeps them.
#pragma once

#include <string>

#include "core/target.h"
#include "plan/program.h"

namespace octet {

/// Writes the tiles of the GPU that is here into a program for it: those of the cache, and with `measure` all others,
/// which the cache then gets too. Throws device where `measure` finds no GPU of the target.
void choose_tiles(Program& program, const Target& target, bool measure);

/// " TILE" of a product at a shape, as far as it is known; " + TILE" where the LayerNorm behind it is in its epilogue.
std::string tile_of(const Program& program, size_t step, int64_t batch, int64_t length);

}  // namespace octet
