// Operations on one row, AVX2.
#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/row_ops.h"

namespace octet::kernels::avx2 {
extern const cpu::RowOps kRowOps = kRows;
}  // namespace octet::kernels::avx2
