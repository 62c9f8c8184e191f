// Elementwise operations on vector rows. Arithmetic as in ref/elementwise.cpp. Work is split over tokens, or over rows
// of the batch for fake_quant_row_channel.
#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

template <Isa isa>
const char* refuse(const ElementwiseDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  switch (d.kind) {
    case ElementwiseKind::activation:
    case ElementwiseKind::add:
    case ElementwiseKind::normalize:
    case ElementwiseKind::convert: return is_float(d.x) && is_float(d.y) ? nullptr : "needs float types";
    case ElementwiseKind::quantize: return is_float(d.x) && is_8bit(d.y) ? nullptr : "needs a float x and an 8-bit y";
    case ElementwiseKind::quantize_token:
      return is_float(d.x) && d.y == DType::s8 ? nullptr : "needs a float x and an s8 y";
    case ElementwiseKind::dequantize: return is_8bit(d.x) && is_float(d.y) ? nullptr : "needs an 8-bit x and a float y";
    case ElementwiseKind::fake_quant:
    case ElementwiseKind::fake_quant_token:
    case ElementwiseKind::fake_quant_row_channel: return d.x == DType::f32 && d.y == DType::f32 ? nullptr : "needs f32";
  }
  return "unknown kind";
}

void run_token(const RowOps& ops, const ElementwiseDesc& d, const ElementwiseArgs& a, int64_t i, float* row) {
  int64_t n = d.n;
  const char* x = static_cast<const char*>(a.x) + i * n * size_of(d.x);
  char* y = static_cast<char*>(a.y) + i * n * size_of(d.y);
  const Requant& q = a.requant;
  if (d.kind == ElementwiseKind::fake_quant) {
    ops.fake_quant(reinterpret_cast<const float*>(x), n, reinterpret_cast<float*>(y), q.inv_scale, a.scale, false,
                   q.zero_point, q.lo, q.hi);
    return;
  }
  if (d.kind == ElementwiseKind::quantize_token && d.x == DType::f32) {
    const float* values = reinterpret_cast<const float*>(x);
    DynamicRange range = dynamic_range(ops.amax(values, n));
    a.row_scale[i] = range.scale;
    ops.store_token(values, n, reinterpret_cast<int8_t*>(y), range.inv_scale);
    return;
  }
  ops.load(row, n, x, d.x, a.scale, q.zero_point);
  switch (d.kind) {
    case ElementwiseKind::activation: ops.activate(row, n, d.activation); break;
    case ElementwiseKind::add:
      ops.add(row, n, static_cast<const char*>(a.x2) + i * n * size_of(d.x), d.x, nullptr, 0);
      break;
    case ElementwiseKind::normalize: ops.l2_normalize(row, n); break;
    case ElementwiseKind::quantize_token: {
      DynamicRange range = dynamic_range(ops.amax(row, n));
      a.row_scale[i] = range.scale;
      ops.store_token(row, n, reinterpret_cast<int8_t*>(y), range.inv_scale);
      return;
    }
    case ElementwiseKind::fake_quant_token: {
      DynamicRange range = dynamic_range(ops.amax(row, n), static_cast<float>(q.hi));
      ops.fake_quant(row, n, reinterpret_cast<float*>(y), &range.inv_scale, &range.scale, true, 0, q.lo, q.hi);
      return;
    }
    default: break;
  }
  ops.store(row, n, y, d.y, q);
}

void run_row_channel(const RowOps& ops, const ElementwiseDesc& d, const ElementwiseArgs& a, int64_t first, int64_t last,
                     float* memory) {
  float *top = memory, *inv_scale = memory + d.n, *scale = memory + 2 * d.n;
  const float* x = static_cast<const float*>(a.x);
  std::fill_n(top, d.n, 0.0f);
  for (int64_t i = first; i < last; ++i) ops.amax_channels(top, x + i * d.n, d.n);
  for (int64_t c = 0; c < d.n; ++c) {
    DynamicRange range = dynamic_range(top[c], static_cast<float>(a.requant.hi));
    inv_scale[c] = range.inv_scale;
    scale[c] = range.scale;
  }
  for (int64_t i = first; i < last; ++i)
    ops.fake_quant(x + i * d.n, d.n, static_cast<float*>(a.y) + i * d.n, inv_scale, scale, false, 0, a.requant.lo,
                   a.requant.hi);
}

template <const RowOps& ops>
void run(const ElementwiseDesc& d, const ElementwiseArgs& a, const Launch& launch) noexcept {
  if (d.kind == ElementwiseKind::fake_quant_row_channel) {
    parallel(launch, a.rows, 1, [&](int64_t begin, int64_t end) {
      float* memory = reinterpret_cast<float*>(thread_memory(d.n * 12));
      for (int64_t row = begin; row < end; ++row)
        run_row_channel(ops, d, a, a.offsets[row], a.offsets[row + 1], memory);
    });
    return;
  }
  parallel(launch, a.m, token_grain(launch, a.m, d.n), [&](int64_t begin, int64_t end) {
    float* row = reinterpret_cast<float*>(thread_memory(d.n * 4));
    for (int64_t i = begin; i < end; ++i) run_token(ops, d, a, i, row);
  });
}

const ElementwiseKernel kRows[] = {
    {{"elementwise_avx512"}, refuse<Isa::avx512>, run<avx512::kRowOps>},
    {{"elementwise_avx2"}, refuse<Isa::avx2>, run<avx2::kRowOps>},
};

}  // namespace

std::span<const ElementwiseKernel> elementwise_rows() noexcept { return kRows; }

}  // namespace octet::kernels::cpu
