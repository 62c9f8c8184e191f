// Scalar GEMM: y[m,n] = act(x[m,k] . w[n,k]^T * scale[n] (* row_scale[m]) + bias[n]), requantized when y is 8-bit.
//
// 8-bit: the accumulator is exact in 32 bits; column_offset is subtracted from it; then rescale or rescale_row of
// int8.h with bias 0 where there is none. Floats: products are summed in f64 (float plans agree within rounding), then
// bias is added. Packed weights are the row-major matrix as it is. Work is split over the rows of y.
#include "kernels/ref/scalar.h"
#include "kernels/rows.h"

namespace octet::kernels::ref {
namespace {

const char* refuse_int(const GemmDesc& d, const Target&) noexcept {
  if (!is_8bit(d.x) || d.w != DType::s8) return "needs an 8-bit x and s8 weights";
  return nullptr;
}
const char* refuse_float(const GemmDesc& d, const Target&) noexcept {
  if (!is_float(d.x) || d.w != d.x) return "needs x and weights of one float type";
  if (d.row_scale || d.column_offset) return "row_scale and column_offset belong to 8-bit x";
  return nullptr;
}

int64_t packed_bytes(const GemmDesc& d) noexcept { return d.n * d.k * size_of(d.w); }
void pack(const GemmDesc& d, const void* w, unsigned char* packed) noexcept { std::memcpy(packed, w, packed_bytes(d)); }

template <typename X>
int32_t dot(const X* x, const int8_t* w, int64_t k) noexcept {
  int32_t sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<int32_t>(x[i]) * w[i];
  return sum;
}

void run_int(const GemmDesc& d, const GemmArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.m, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < d.n; ++j) {
        const int8_t* w = reinterpret_cast<const int8_t*>(a.packed) + j * d.k;
        int32_t acc = d.x == DType::u8 ? dot(static_cast<const uint8_t*>(a.x) + i * a.ldx, w, d.k)
                                       : dot(static_cast<const int8_t*>(a.x) + i * a.ldx, w, d.k);
        if (d.column_offset) acc -= a.column_offset[j];
        float bias = d.bias ? a.bias[j] : 0.0f;
        float y = d.row_scale ? int8::rescale_row(acc, a.row_scale[i], a.scale[j], bias)
                              : int8::rescale(acc, a.scale[j], bias);
        store(a.y, d.y, i * a.ldy + j, activate(d.activation, y), a.requant, j);
      }
  });
}

// Sums in f64: the yardstick of the float rows, and of the simulated graph.
double dot(const float* x, const float* w, int64_t k) noexcept {
  double sum = 0.0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * w[i];
  return sum;
}

void run_float(const GemmDesc& d, const GemmArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.m, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < d.n; ++j) {
        double sum = 0.0;
        if (d.x == DType::f32)
          sum =
              dot(static_cast<const float*>(a.x) + i * a.ldx, reinterpret_cast<const float*>(a.packed) + j * d.k, d.k);
        else
          for (int64_t c = 0; c < d.k; ++c)
            sum += static_cast<double>(load(a.x, d.x, i * a.ldx + c)) * load(a.packed, d.w, j * d.k + c);
        if (d.bias) sum += a.bias[j];
        store(a.y, d.y, i * a.ldy + j, activate(d.activation, static_cast<float>(sum)), a.requant, j);
      }
  });
}

const GemmKernel kRows[] = {
    {{"gemm_s8_ref"}, refuse_int, packed_bytes, pack, run_int},
    {{"gemm_float_ref"}, refuse_float, packed_bytes, pack, run_float},
};

}  // namespace

std::span<const GemmKernel> gemm_rows() noexcept { return kRows; }

}  // namespace octet::kernels::ref
