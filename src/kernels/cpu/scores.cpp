// The attention operations one by one, f32, on register tiles. Work is split over (row of the batch, head).
#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

template <Isa isa>
const char* refuse(const ScoresDesc& d, const Target& target) noexcept {
  // The softmax is the same everywhere.
  if (d.exact && d.kind != ScoresKind::softmax) return "sums in f32";
  return lacks(isa, target);
}

template <const ScoresTile& tile, const RowOps& ops>
void run(const ScoresDesc& d, const ScoresArgs& a, const Launch& launch) noexcept {
  std::vector<int64_t> start(static_cast<size_t>(a.rows) + 1, 0);
  int64_t longest = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    int64_t length = a.offsets[r + 1] - a.offsets[r];
    longest = std::max(longest, length);
    start[r + 1] = start[r] + d.heads * length * length;
  }
  parallel(launch, a.rows * d.heads, 1, [&](int64_t begin, int64_t end) {
    unsigned char* scratch = d.kind == ScoresKind::softmax ? nullptr : thread_memory(tile.scratch_bytes(d, longest));
    for (int64_t item = begin; item < end; ++item) {
      int64_t row = item / d.heads, head = item % d.heads;
      int64_t first = a.offsets[row], length = a.offsets[row + 1] - first;
      if (length == 0) continue;
      int64_t line = start[row] + head * length * length;
      if (d.kind == ScoresKind::scores) {
        tile.scores(d, a, first, length, head, a.y + line, scratch);
      } else if (d.kind == ScoresKind::context) {
        tile.context(d, a, first, length, head, a.a + line, scratch);
      } else {
        for (int64_t i = 0; i < length; ++i, line += length) {
          if (a.y != a.a) std::copy_n(a.a + line, length, a.y + line);
          ops.softmax(a.y + line, length);
        }
      }
    }
  });
}

const ScoresKernel kRows[] = {
    {{"scores_f32_avx512_14x32"}, refuse<Isa::avx512>, run<avx512::kScores, avx512::kRowOps>},
    {{"scores_f32_avx2_6x16"}, refuse<Isa::avx2>, run<avx2::kScores, avx2::kRowOps>},
};

}  // namespace

std::span<const ScoresKernel> scores_rows() noexcept { return kRows; }

}  // namespace octet::kernels::cpu
