// Attention on register tiles. Arithmetic as in ref/attention.cpp, so 8-bit rows give its bits.
//
// Work is split over (row of the batch, head), and over blocks of queries too when those are few. Dynamic: a first loop
// over tokens finds the ranges of q and k; they need memory of `tokens`, which the calling thread keeps.
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

// [tokens] inv_scale, then [tokens] scale.
void token_ranges(const RowOps& ops, const float* x, int64_t ld, int64_t n, int64_t tokens, const Launch& launch,
                  float* range) {
  parallel(launch, tokens, token_grain(launch, tokens, n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      DynamicRange found = dynamic_range(ops.amax(x + i * ld, n));
      range[i] = found.inv_scale;
      range[tokens + i] = found.scale;
    }
  });
}

template <const AttentionTile& tile, const RowOps& ops>
void run(const AttentionDesc& d, const AttentionArgs& a, const Launch& launch) noexcept {
  std::vector<float> ranges;
  if (d.dynamic) {
    ranges.resize(static_cast<size_t>(4 * a.tokens));
    token_ranges(ops, static_cast<const float*>(a.q), a.ldq, d.heads * d.head_dim, a.tokens, launch, ranges.data());
    token_ranges(ops, static_cast<const float*>(a.k), a.ldk, d.heads * d.head_dim, a.tokens, launch,
                 ranges.data() + 2 * a.tokens);
  }
  constexpr int64_t kLeastQueries = 112;
  int64_t heads = a.rows * d.heads, blocks = 1, threads = threads_of(launch);
  if (heads > 0 && threads > 1 && heads < 4 * threads)
    blocks = std::clamp<int64_t>(a.max_length / kLeastQueries, 1, (4 * threads + heads - 1) / heads);
  int64_t bytes = tile.scratch_bytes(d, a.max_length);
  parallel_slots(launch, heads * blocks, [&](int64_t item, int64_t slot) {
    int64_t block = item % blocks, head = item / blocks % d.heads, row = item / blocks / d.heads;
    HeadWork work{};
    work.first = a.offsets[row];
    work.length = a.offsets[row + 1] - work.first;
    work.head = head;
    if (d.dynamic) {
      work.q_range = ranges.data();
      work.k_range = ranges.data() + 2 * a.tokens;
    }
    work.tokens = a.tokens;
    work.query_begin = work.length * block / blocks;
    work.query_end = work.length * (block + 1) / blocks;
    if (work.query_begin < work.query_end) tile.run(d, a, work, a.scratch + slot * bytes);
  });
}

template <Isa isa, const AttentionTile& tile, const RowOps& ops>
constexpr AttentionKernel int_row(std::string_view name) {
  return {{name}, refuse_int<isa>, scratch_bytes<tile>, run<tile, ops>};
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
