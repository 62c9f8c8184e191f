// GEMM tiles, AVX-512.
#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_madd512.h"

#include "kernels/cpu/dot_f32.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/gemm_tile.h"

namespace octet::kernels::avx512 {
extern const cpu::GemmTile kGemmS8 = int_tile<DotInt>();
extern const cpu::GemmTile kGemmF32 = f32_tile<DotF32<14, 2>>();
}  // namespace octet::kernels::avx512
