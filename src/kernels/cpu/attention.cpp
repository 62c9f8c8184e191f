// Attention on register tiles. Arithmetic as in ref/attention.cpp, so 8-bit rows give its bits.
//
// Work is split over (row of the batch, head), and over blocks of queries too when those are few. Dynamic: a first loop
// over tokens quantizes q and k, so that their floats are read once; v's ranges, one a row and channel, are each
// head's.
#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

template <Isa isa>
const char* refuse_int(const AttentionDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (!is_8bit(d.p)) return "needs 8-bit probabilities";
  if (d.qkv != (d.dynamic ? DType::f32 : DType::s8)) return "needs s8 inputs, or dynamic f32";
  if (!is_float(d.y) && d.y != DType::s8) return "type of y";
  return nullptr;
}
template <Isa isa>
const char* refuse_f32(const AttentionDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (d.dynamic || d.qkv != DType::f32 || d.p != DType::f32) return "needs f32 inputs and probabilities";
  if (!is_float(d.y) && d.y != DType::s8) return "type of y";
  return nullptr;
}

template <const AttentionTile& tile>
int64_t scratch_bytes(const AttentionDesc& d, int64_t max_length, int threads) noexcept {
  return tile.scratch_bytes(d, max_length) * std::max(1, threads);
}

// Dynamic: scales of q and of k, [tokens] f32 each, then q and k quantized, [tokens, heads * head_dim] s8 each.
int64_t scratch_bytes_a_token(const AttentionDesc& d) noexcept { return d.dynamic ? 8 + 2 * d.heads * d.head_dim : 0; }

void quantize_tokens(const RowOps& ops, const AttentionDesc& d, const AttentionArgs& a, const Launch& launch,
                     unsigned char* memory, HeadWork* work) {
  int64_t n = d.heads * d.head_dim;
  float* scale[2] = {reinterpret_cast<float*>(memory), reinterpret_cast<float*>(memory) + a.tokens};
  int8_t* y[2] = {reinterpret_cast<int8_t*>(scale[1] + a.tokens),
                  reinterpret_cast<int8_t*>(scale[1] + a.tokens) + a.tokens * n};
  const void* x[2] = {a.q, a.k};
  int64_t ld[2] = {a.ldq, a.ldk}, rows[2] = {a.first_query ? a.rows : a.tokens, a.tokens};
  parallel(launch, a.tokens, token_grain(launch, a.tokens, 2 * n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int o = 0; o < 2; ++o) {
        if (i >= rows[o]) continue;
        const float* row = static_cast<const float*>(x[o]) + i * ld[o];
        DynamicRange range = dynamic_range(ops.amax(row, n));
        scale[o][i] = range.scale;
        ops.store_token(row, n, y[o] + i * n, range.inv_scale);
      }
  });
  work->q_scale = scale[0];
  work->k_scale = scale[1];
  work->q = y[0];
  work->k = y[1];
}

template <const AttentionTile& tile, const RowOps& ops>
void run(const AttentionDesc& d, const AttentionArgs& a, const Launch& launch) noexcept {
  HeadWork dynamic{};
  int64_t bytes = tile.scratch_bytes(d, a.max_length);
  if (d.dynamic) quantize_tokens(ops, d, a, launch, a.scratch + threads_of(launch) * bytes, &dynamic);
  constexpr int64_t kLeastQueries = 112;
  int64_t heads = a.rows * d.heads, blocks = 1, threads = threads_of(launch);
  if (heads > 0 && threads > 1 && heads < 4 * threads && !a.first_query)
    blocks = std::clamp<int64_t>(a.max_length / kLeastQueries, 1, (4 * threads + heads - 1) / heads);
  parallel_slots(launch, heads * blocks, [&](int64_t item, int64_t slot) {
    int64_t block = item % blocks, head = item / blocks % d.heads, row = item / blocks / d.heads;
    HeadWork work = dynamic;
    work.first = a.offsets[row];
    work.length = a.offsets[row + 1] - work.first;
    work.head = head;
    int64_t queries = a.first_query ? std::min<int64_t>(work.length, 1) : work.length;
    work.query_first = a.first_query ? row : work.first;
    work.query_begin = queries * block / blocks;
    work.query_end = queries * (block + 1) / blocks;
    if (work.query_begin < work.query_end) tile.run(d, a, work, a.scratch + slot * bytes);
  });
}

template <Isa isa, const AttentionTile& tile, const RowOps& ops>
constexpr AttentionKernel int_row(std::string_view name) {
  return {{name}, refuse_int<isa>, scratch_bytes<tile>, run<tile, ops>, scratch_bytes_a_token};
}
template <Isa isa, const AttentionTile& tile, const RowOps& ops>
constexpr AttentionKernel f32_row(std::string_view name) {
  return {{name}, refuse_f32<isa>, scratch_bytes<tile>, run<tile, ops>};
}

const AttentionKernel kRows[] = {
    int_row<Isa::amx, amx::kAttentionS8, avx512::kRowOps>("attention_s8_amx_32x32"),
    int_row<Isa::avx512vnni, avx512vnni::kAttentionS8, avx512::kRowOps>("attention_s8_avx512vnni_14x32"),
    int_row<Isa::avxvnni, avxvnni::kAttentionS8, avx2::kRowOps>("attention_s8_avxvnni_6x16"),
    int_row<Isa::avx512, avx512::kAttentionS8, avx512::kRowOps>("attention_s8_avx512_12x32"),
    int_row<Isa::avx2, avx2::kAttentionS8, avx2::kRowOps>("attention_s8_avx2_6x16"),
    f32_row<Isa::avx512, avx512::kAttentionF32, avx512::kRowOps>("attention_f32_avx512_14x32"),
    f32_row<Isa::avx2, avx2::kAttentionF32, avx2::kRowOps>("attention_f32_avx2_6x16"),
};

}  // namespace

std::span<const AttentionKernel> attention_rows() noexcept { return kRows; }

}  // namespace octet::kernels::cpu
