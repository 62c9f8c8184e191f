// Scalar elementwise operations on [m, n].
//
// quantize, dequantize and fake_quant have a scale a channel. Ranges found here: quantize_token uses 127/amax and
// writes amax/127; fake_quant_token and fake_quant_row_channel take requant.lo and .hi, with hi as the largest integer
// of the symmetric range. Work is split over tokens, or over rows for fake_quant_row_channel.
#include <vector>

#include "kernels/ref/scalar.h"
#include "kernels/rows.h"

namespace octet::kernels::ref {
namespace {

const char* refuse(const ElementwiseDesc& d, const Target&) noexcept {
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

void run_token(const ElementwiseDesc& d, const ElementwiseArgs& a, int64_t i, std::vector<float>& row) noexcept {
  const Requant& q = a.requant;
  bool dequantize = d.kind == ElementwiseKind::dequantize;
  for (int64_t c = 0; c < d.n; ++c)
    row[c] = load(a.x, d.x, i * d.n + c, dequantize ? a.scale[c] : 1.0f, dequantize ? q.zero_point : 0);
  auto requantize = [&](float inv_scale, float scale, int32_t zero_point, int64_t c) {
    return int8::dequantize(int8::quantize(row[c], inv_scale, zero_point, q.lo, q.hi), scale, zero_point);
  };
  switch (d.kind) {
    case ElementwiseKind::activation:
      for (float& x : row) x = activate(d.activation, x);
      break;
    case ElementwiseKind::add:
      for (int64_t c = 0; c < d.n; ++c) row[c] = row[c] + load(a.x2, d.x, i * d.n + c);
      break;
    case ElementwiseKind::quantize_token: {
      DynamicRange range = dynamic_range(row_amax(row.data(), d.n));
      a.row_scale[i] = range.scale;
      for (int64_t c = 0; c < d.n; ++c)
        store_int(a.y, d.y, i * d.n + c, int8::quantize(row[c], range.inv_scale, 0, -127, 127));
      return;
    }
    case ElementwiseKind::fake_quant:
      for (int64_t c = 0; c < d.n; ++c) row[c] = requantize(q.inv_scale[c], a.scale[c], q.zero_point, c);
      break;
    case ElementwiseKind::fake_quant_token: {
      DynamicRange range = dynamic_range(row_amax(row.data(), d.n), static_cast<float>(q.hi));
      for (int64_t c = 0; c < d.n; ++c) row[c] = requantize(range.inv_scale, range.scale, 0, c);
      break;
    }
    case ElementwiseKind::normalize: l2_normalize(row.data(), d.n); break;
    default: break;
  }
  for (int64_t c = 0; c < d.n; ++c) store(a.y, d.y, i * d.n + c, row[c], q, c);
}

void run_row_channel(const ElementwiseDesc& d, const ElementwiseArgs& a, int64_t first, int64_t last) noexcept {
  const float* x = static_cast<const float*>(a.x);
  float* y = static_cast<float*>(a.y);
  for (int64_t c = 0; c < d.n; ++c) {
    float amax = 0.0f;
    for (int64_t i = first; i < last; ++i) {
      float magnitude = fabsf(x[i * d.n + c]);
      amax = magnitude > amax ? magnitude : amax;
    }
    DynamicRange range = dynamic_range(amax, static_cast<float>(a.requant.hi));
    for (int64_t i = first; i < last; ++i)
      y[i * d.n + c] = int8::dequantize(int8::quantize(x[i * d.n + c], range.inv_scale, 0, a.requant.lo, a.requant.hi),
                                        range.scale, 0);
  }
}

void run(const ElementwiseDesc& d, const ElementwiseArgs& a, const Launch& launch) noexcept {
  if (d.kind == ElementwiseKind::fake_quant_row_channel) {
    parallel(launch, a.rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) run_row_channel(d, a, a.offsets[row], a.offsets[row + 1]);
    });
    return;
  }
  parallel(launch, a.m, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(d.n);
    for (int64_t i = begin; i < end; ++i) run_token(d, a, i, row);
  });
}

const ElementwiseKernel kRows[] = {{{"elementwise_ref"}, refuse, run}};

}  // namespace

std::span<const ElementwiseKernel> elementwise_rows() noexcept { return kRows; }

}  // namespace octet::kernels::ref
