// Descriptions of matrices for the bulk copy engine of 9.0.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/dtype.h"

namespace octet::kernels::cuda {

/// A row-major matrix of 16-bit values, `ld` elements a row, in boxes of `box_rows` rows and 128 bytes, which lie
/// swizzled in shared memory (128-byte rows). False where the driver refuses: base or rows not on 16 bytes.
bool encode_matrix(CUtensorMap* map, DType type, const void* base, int64_t rows, int64_t columns, int64_t ld,
                   int box_rows) noexcept;

}  // namespace octet::kernels::cuda
