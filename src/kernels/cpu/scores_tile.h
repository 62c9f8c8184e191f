// The unfused attention products of one head, f32, on register tiles. Include after attention_tile.h.
#pragma once

namespace octet::kernels {
namespace {

template <class Dot>
int64_t scores_scratch(const ScoresDesc& d, int64_t max_length) {
  return HeadBuffers<Dot>(max_length, d.head_dim, nullptr).bytes;
}

template <class Dot>
void scores_of_head(const ScoresDesc& d, const ScoresArgs& a, int64_t first, int64_t length, int64_t head, float* line,
                    unsigned char* scratch) {
  int64_t head_dim = d.head_dim, width = d.heads * head_dim;
  HeadBuffers<Dot> at(length, head_dim, scratch);
  auto row = [&](const float* x, int64_t i) { return x + (first + i) * width + head * head_dim; };
  pack_keys<Dot>(at, length, head_dim, [&](int64_t j) -> const void* { return row(a.b, j); });
  alignas(64) float tops[Dot::kRows * int8::kLanes];
  for (int64_t begin = 0; begin < length; begin += Dot::kRows) {
    int rows = (int)(length - begin < Dot::kRows ? length - begin : Dot::kRows);
    for (int r = 0; r < rows; ++r)
      copy_row<Dot>((const unsigned char*)row(a.a, begin + r), head_dim, true, rows, at.q_slabs + r * cpu::kStride);
    const float* bias = d.bias ? a.bias + head * a.bias_head_stride + begin * a.bias_query_stride : nullptr;
    tile_scores<Dot>(at, length, rows, a.scale, bias, a.bias_query_stride, nullptr, nullptr, tops);
    for (int r = 0; r < rows; ++r) memcpy(line + (begin + r) * length, at.scores + r * at.padded, (size_t)length * 4);
  }
}

template <class Dot>
void context_of_head(const ScoresDesc& d, const ScoresArgs& a, int64_t first, int64_t length, int64_t head,
                     const float* line, unsigned char* scratch) {
  int64_t head_dim = d.head_dim, width = d.heads * head_dim;
  HeadBuffers<Dot> at(length, head_dim, scratch);
  pack_all_values<Dot>(at, length, head_dim,
                       [&](int64_t j) -> const void* { return a.b + (first + j) * width + head * head_dim; });
  AttentionDesc desc;
  desc.heads = d.heads;
  desc.head_dim = head_dim;
  AttentionArgs args;
  args.y = a.y;
  args.ldy = width;
  for (int64_t begin = 0; begin < length; begin += Dot::kRows) {
    int rows = (int)(length - begin < Dot::kRows ? length - begin : Dot::kRows);
    for (int r = 0; r < rows; ++r)
      copy_row<Dot>((const unsigned char*)(line + (begin + r) * length), length, true, rows,
                    at.p_slabs + r * cpu::kStride);
    tile_context<Dot>(desc, args, at, first + begin, rows, head * head_dim);
  }
}

template <class Dot>
constexpr cpu::ScoresTile scores_tile() {
  return {scores_scratch<Dot>, scores_of_head<Dot>, context_of_head<Dot>};
}

}  // namespace
}  // namespace octet::kernels
