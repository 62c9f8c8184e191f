// GEMM tiles, AVX2.
#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_f32.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/gemm_tile.h"

#include "kernels/cpu/dot_ubs256.h"

namespace octet::kernels::avx2 {
extern const cpu::GemmTile kGemmS8 = ubs_tile();
extern const cpu::GemmTile kGemmF32 = f32_tile<DotF32<6, 1>>();
}  // namespace octet::kernels::avx2
