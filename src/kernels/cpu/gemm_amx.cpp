// GEMM tiles, AMX-INT8.
#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/dot_amx.h"

#include "kernels/cpu/gemm_tile.h"

namespace octet::kernels::amx {
extern const cpu::GemmTile kGemmS8 = int_tile<DotInt>();
}  // namespace octet::kernels::amx
