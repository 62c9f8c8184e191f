// Scalar LayerNorm and embedding.
//
// norm: x = dequantize(a) (+ dequantize(b)), one f32 addition. embed: x = (t0 + t1) + t2, an s8 table through its row's
// scale. LayerNorm, two passes: mean = sum/n; var = sum(d*d)/n with d = x - mean and d*d added by fma; rstd =
// 1/sqrt(var + epsilon); y = fma(d * rstd, gamma, beta). Sums run in 16 interleaved lanes. Per-token outputs: amax over
// the token, q = rint(y * (127/amax)), row_scale = amax/127, both 0 when amax <= 2^-24. Work is split over tokens.
#include <vector>

#include "kernels/ref/scalar.h"
#include "kernels/rows.h"

namespace octet::kernels::ref {
namespace {

const char* refuse_outputs(int outputs, const OutputDesc* y) noexcept {
  if (outputs < 1 || outputs > 2) return "needs one or two outputs";
  for (int o = 0; o < outputs; ++o) {
    if (!is_8bit(y[o].dtype) && !is_float(y[o].dtype)) return "output type";
    if (y[o].per_token && y[o].dtype != DType::s8) return "a range per token needs an s8 output";
  }
  return nullptr;
}

const char* refuse_norm(const NormDesc& d, const Target&) noexcept {
  if (!is_8bit(d.a) && !is_float(d.a)) return "type of a";
  if (d.residual && !is_8bit(d.b) && !is_float(d.b)) return "type of b";
  return refuse_outputs(d.outputs, d.y);
}

void run_norm(const NormDesc& d, const NormArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.m, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(d.n);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < d.n; ++c) {
        row[c] = load(a.a, d.a, i * d.n + c, is_8bit(d.a) ? a.a_scale[c] : 1.0f, a.a_zero);
        if (d.residual) row[c] = row[c] + load(a.b, d.b, i * d.n + c, is_8bit(d.b) ? a.b_scale[c] : 1.0f, a.b_zero);
      }
      layer_norm(row.data(), d.n, a.gamma, a.beta, a.epsilon);
      store_outputs(row.data(), d.n, i, d.outputs, d.y, a.out);
    }
  });
}

const char* refuse_embed(const EmbedDesc& d, const Target&) noexcept {
  if (d.tables < 1 || d.tables > kMaxTables) return "number of tables";
  for (int t = 0; t < d.tables; ++t)
    if (d.table[t] != DType::s8 && !is_float(d.table[t])) return "type of a table";
  return refuse_outputs(d.outputs, d.y);
}

void run_embed(const EmbedDesc& d, const EmbedArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.m, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> row(d.n);
    for (int64_t i = begin; i < end; ++i) {
      for (int t = 0; t < d.tables; ++t) {
        int64_t index = a.index[t] != nullptr ? a.index[t][i] : 0;
        float scale = d.table[t] == DType::s8 ? a.table_scale[t][index] : 1.0f;
        for (int64_t c = 0; c < d.n; ++c) {
          float value = load(a.table[t], d.table[t], index * d.n + c, scale);
          row[c] = t == 0 ? value : row[c] + value;
        }
      }
      if (d.norm) layer_norm(row.data(), d.n, a.gamma, a.beta, a.epsilon);
      store_outputs(row.data(), d.n, i, d.outputs, d.y, a.out);
    }
  });
}

const NormKernel kNormRows[] = {{{"norm_ref"}, refuse_norm, run_norm}};
const EmbedKernel kEmbedRows[] = {{{"embed_ref"}, refuse_embed, run_embed}};

}  // namespace

std::span<const NormKernel> norm_rows() noexcept { return kNormRows; }
std::span<const EmbedKernel> embed_rows() noexcept { return kEmbedRows; }

}  // namespace octet::kernels::ref
