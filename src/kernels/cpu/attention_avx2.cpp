// Attention of one head, AVX2.
#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/vector_math.h"

#include "kernels/cpu/dot_madd256.h"

#include "kernels/cpu/dot_f32.h"

#include "kernels/cpu/tile.h"

#include "kernels/cpu/attention_tile.h"

#include "kernels/cpu/scores_tile.h"

namespace octet::kernels::avx2 {
extern const cpu::AttentionTile kAttentionS8 = attention_tile<DotInt>();
extern const cpu::AttentionTile kAttentionF32 = attention_tile<DotF32<6, 1>>();
extern const cpu::ScoresTile kScores = scores_tile<DotF32<6, 1>>();
}  // namespace octet::kernels::avx2
