// The attention operations one by one, scalar, f32.
//
// scores: s[h,i,j] = q_i . k_j * scale (+ bias[h,i,j]), the dot product in f64; softmax: as in int8.h, sums in 16
// lanes; context: y_i = sum_j p[h,i,j] v_j in f64. Scores of row r start at heads * sum_{s<r} length_s^2. Work is split
// over (row, head).
#include <vector>

#include "kernels/ref/scalar.h"
#include "kernels/rows.h"

namespace octet::kernels::ref {
namespace {

const char* refuse(const ScoresDesc&, const Target&) noexcept { return nullptr; }

void run_head(const ScoresDesc& d, const ScoresArgs& a, int64_t first, int64_t length, int64_t start,
              int64_t head) noexcept {
  int64_t width = d.heads * d.head_dim, column = head * d.head_dim;
  for (int64_t i = 0; i < length; ++i) {
    int64_t line = start + (head * length + i) * length;
    if (d.kind == ScoresKind::scores) {
      const float* q = a.a + (first + i) * width + column;
      for (int64_t j = 0; j < length; ++j) {
        const float* k = a.b + (first + j) * width + column;
        double sum = 0.0;
        for (int64_t c = 0; c < d.head_dim; ++c) sum += static_cast<double>(q[c]) * k[c];
        a.y[line + j] = fmaf(static_cast<float>(sum), a.scale,
                             d.bias ? a.bias[head * a.bias_head_stride + i * a.bias_query_stride + j] : 0.0f);
      }
    } else if (d.kind == ScoresKind::softmax) {
      for (int64_t j = 0; j < length; ++j) a.y[line + j] = a.a[line + j];
      softmax(a.y + line, length);
    } else {
      float* y = a.y + (first + i) * width + column;
      for (int64_t c = 0; c < d.head_dim; ++c) {
        double sum = 0.0;
        for (int64_t j = 0; j < length; ++j)
          sum += static_cast<double>(a.a[line + j]) * a.b[(first + j) * width + column + c];
        y[c] = static_cast<float>(sum);
      }
    }
  }
}

void run(const ScoresDesc& d, const ScoresArgs& a, const Launch& launch) noexcept {
  std::vector<int64_t> start(a.rows + 1, 0);
  for (int64_t r = 0; r < a.rows; ++r) {
    int64_t length = a.offsets[r + 1] - a.offsets[r];
    start[r + 1] = start[r] + d.heads * length * length;
  }
  parallel(launch, a.rows * d.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      int64_t r = item / d.heads;
      run_head(d, a, a.offsets[r], a.offsets[r + 1] - a.offsets[r], start[r], item % d.heads);
    }
  });
}

const ScoresKernel kRows[] = {{{"scores_f32_ref"}, refuse, run}};

}  // namespace

std::span<const ScoresKernel> scores_rows() noexcept { return kRows; }

}  // namespace octet::kernels::ref
