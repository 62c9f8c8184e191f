// GEMM tiles, AVX-VNNI.
#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_vnni256.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/gemm_tile.h"

namespace octet::kernels::avxvnni {
extern const cpu::GemmTile kGemmS8 = int_tile<DotInt>();
}  // namespace octet::kernels::avxvnni
