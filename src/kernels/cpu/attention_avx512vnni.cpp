// Attention of one head, AVX512-VNNI.
#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_vnni512.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/attention_tile.h"

namespace octet::kernels::avx512vnni {
extern const cpu::AttentionTile kAttentionS8 = attention_tile<DotInt>();
}  // namespace octet::kernels::avx512vnni
