// GEMM tiles, AVX512-VNNI.
#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_vnni512.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/gemm_tile.h"

namespace octet::kernels::avx512vnni {
extern const cpu::GemmTile kGemmS8 = int_tile<DotInt>();
}  // namespace octet::kernels::avx512vnni
