// Operations on one row, AVX-512.
#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/row_ops.h"

namespace octet::kernels::avx512 {
extern const cpu::RowOps kRowOps = kRows;
}  // namespace octet::kernels::avx512
