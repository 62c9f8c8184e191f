// Attention of one head, AVX-VNNI.
#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_vnni256.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/attention_tile.h"

namespace octet::kernels::avxvnni {
extern const cpu::AttentionTile kAttentionS8 = attention_tile<DotInt>();
}  // namespace octet::kernels::avxvnni
