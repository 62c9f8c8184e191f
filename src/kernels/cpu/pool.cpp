// Pooling on vector rows. Arithmetic and order as in ref/pool.cpp. Work is split over rows of the batch.
#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

template <Isa isa>
const char* refuse(const PoolDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (!is_8bit(d.x) && !is_float(d.x)) return "type of x";
  if (!is_float(d.y)) return "type of y";
  return nullptr;
}

template <const RowOps& ops>
void run(const PoolDesc& d, const PoolArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.rows, 1, [&](int64_t begin, int64_t end) {
    float* y = reinterpret_cast<float*>(thread_memory(d.n * 4));
    for (int64_t row = begin; row < end; ++row) {
      int64_t first = a.offsets[row], last = a.offsets[row + 1];
      auto token = [&](int64_t i) { return static_cast<const char*>(a.x) + i * d.n * size_of(d.x); };
      if (first == last) std::fill_n(y, d.n, 0.0f);
      else ops.load(y, d.n, token(first), d.x, a.x_scale, a.x_zero);
      if (d.kind != PoolKind::first)
        for (int64_t i = first + 1; i < last; ++i)
          (d.kind == PoolKind::mean ? ops.add : ops.max)(y, d.n, token(i), d.x, a.x_scale, a.x_zero);
      if (d.kind == PoolKind::mean && first < last) ops.divide(y, d.n, static_cast<float>(last - first));
      if (d.normalize) ops.l2_normalize(y, d.n);
      ops.store(y, d.n, static_cast<char*>(a.y) + row * d.n * size_of(d.y), d.y, {});
    }
  });
}

const PoolKernel kRows[] = {
    {{"pool_avx512"}, refuse<Isa::avx512>, run<avx512::kRowOps>},
    {{"pool_avx2"}, refuse<Isa::avx2>, run<avx2::kRowOps>},
};

}  // namespace

std::span<const PoolKernel> pool_rows() noexcept { return kRows; }

}  // namespace octet::kernels::cpu
