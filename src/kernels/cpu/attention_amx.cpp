// Attention of one head, AMX-INT8.
#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/dot_amx.h"

#include "kernels/cpu/attention_tile.h"

namespace octet::kernels::amx {
extern const cpu::AttentionTile kAttentionS8 = attention_tile<DotInt>();
}  // namespace octet::kernels::amx
