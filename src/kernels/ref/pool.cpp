// Scalar pooling: first, mean or max of each row's tokens, then x / max(|x|, 1e-12) when `normalize`.
//
// mean: tokens are added in their order and the sum is divided by their number. A row without tokens gives zeros. 8-bit
// input is dequantized first. Work is split over rows.
#include <vector>

#include "kernels/ref/scalar.h"
#include "kernels/rows.h"

namespace octet::kernels::ref {
namespace {

const char* refuse(const PoolDesc& d, const Target&) noexcept {
  if (!is_8bit(d.x) && !is_float(d.x)) return "type of x";
  if (!is_float(d.y)) return "type of y";
  return nullptr;
}

void run(const PoolDesc& d, const PoolArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> y(d.n);
    auto value = [&](int64_t token, int64_t c) {
      return load(a.x, d.x, token * d.n + c, is_8bit(d.x) ? a.x_scale[c] : 1.0f, a.x_zero);
    };
    for (int64_t row = begin; row < end; ++row) {
      int64_t first = a.offsets[row], last = a.offsets[row + 1];
      for (int64_t c = 0; c < d.n; ++c) {
        y[c] = first < last ? value(first, c) : 0.0f;
        if (d.kind == PoolKind::first) continue;
        for (int64_t token = first + 1; token < last; ++token) {
          float x = value(token, c);
          y[c] = d.kind == PoolKind::mean ? y[c] + x : (x > y[c] ? x : y[c]);
        }
        if (d.kind == PoolKind::mean && first < last) y[c] = y[c] / static_cast<float>(last - first);
      }
      if (d.normalize) l2_normalize(y.data(), d.n);
      for (int64_t c = 0; c < d.n; ++c) store(a.y, d.y, row * d.n + c, y[c], {}, c);
    }
  });
}

const PoolKernel kRows[] = {{{"pool_ref"}, refuse, run}};

}  // namespace

std::span<const PoolKernel> pool_rows() noexcept { return kRows; }

}  // namespace octet::kernels::ref
