// LayerNorm and embedding on vector rows: each token is gathered into an f32 row in the first-level cache, normalized
// there and stored once for each output. Arithmetic and order as in ref/norm.cpp. Work is split over tokens.
#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

const char* refuse_outputs(int outputs, const OutputDesc* y) noexcept {
  if (outputs < 1 || outputs > 2) return "needs one or two outputs";
  for (int o = 0; o < outputs; ++o) {
    if (!is_8bit(y[o].dtype) && !is_float(y[o].dtype)) return "output type";
    if (y[o].per_token && y[o].dtype != DType::s8) return "a range per token needs an s8 output";
  }
  return nullptr;
}

void store_outputs(const RowOps& ops, const float* x, int64_t n, int64_t i, int outputs, const OutputDesc* desc,
                   const NormOutput* out) {
  for (int o = 0; o < outputs; ++o) {
    auto* y = static_cast<unsigned char*>(out[o].y) + i * n * size_of(desc[o].dtype);
    if (!desc[o].per_token) {
      ops.store(x, n, y, desc[o].dtype, out[o].requant);
      continue;
    }
    DynamicRange range = dynamic_range(ops.amax(x, n));
    out[o].row_scale[i] = range.scale;
    ops.store_token(x, n, reinterpret_cast<int8_t*>(y), range.inv_scale);
  }
}

template <Isa isa>
const char* refuse_norm(const NormDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (!is_8bit(d.a) && !is_float(d.a)) return "type of a";
  if (d.residual && !is_8bit(d.b) && !is_float(d.b)) return "type of b";
  return refuse_outputs(d.outputs, d.y);
}

template <const RowOps& ops>
void run_norm(const NormDesc& d, const NormArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.m, token_grain(launch, a.m, d.n), [&](int64_t begin, int64_t end) {
    // Four rows at a time (RowOps::layer_norm).
    float* x = reinterpret_cast<float*>(thread_memory(4 * d.n * 4));
    for (int64_t first = begin; first < end; first += 4) {
      int64_t rows = std::min<int64_t>(4, end - first);
      for (int64_t i = first; i < first + rows; ++i) {
        float* row = x + (i - first) * d.n;
        ops.load(row, d.n, static_cast<const char*>(a.a) + i * d.n * size_of(d.a), d.a, a.a_scale, a.a_zero);
        if (d.residual)
          ops.add(row, d.n, static_cast<const char*>(a.b) + i * d.n * size_of(d.b), d.b, a.b_scale, a.b_zero);
      }
      ops.layer_norm(x, d.n, rows, a.gamma, a.beta, a.epsilon);
      for (int64_t i = first; i < first + rows; ++i)
        store_outputs(ops, x + (i - first) * d.n, d.n, i, d.outputs, d.y, a.out);
    }
  });
}

template <Isa isa>
const char* refuse_embed(const EmbedDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (d.tables < 1 || d.tables > kMaxTables) return "number of tables";
  for (int t = 0; t < d.tables; ++t)
    if (d.table[t] != DType::s8 && !is_float(d.table[t])) return "type of a table";
  return refuse_outputs(d.outputs, d.y);
}

template <const RowOps& ops>
void run_embed(const EmbedDesc& d, const EmbedArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.m, token_grain(launch, a.m, d.n), [&](int64_t begin, int64_t end) {
    float* x = reinterpret_cast<float*>(thread_memory(d.n * 4));
    for (int64_t i = begin; i < end; ++i) {
      for (int t = 0; t < d.tables; ++t) {
        int64_t index = a.index[t] != nullptr ? a.index[t][i] : 0;
        const char* row = static_cast<const char*>(a.table[t]) + index * d.n * size_of(d.table[t]);
        if (d.table[t] == DType::s8)
          ops.load_row_scale(x, d.n, reinterpret_cast<const int8_t*>(row), a.table_scale[t][index], t != 0);
        else (t == 0 ? ops.load : ops.add)(x, d.n, row, d.table[t], nullptr, 0);
      }
      if (d.norm) ops.layer_norm(x, d.n, 1, a.gamma, a.beta, a.epsilon);
      store_outputs(ops, x, d.n, i, d.outputs, d.y, a.out);
    }
  });
}

const NormKernel kNormRows[] = {
    {{"norm_avx512"}, refuse_norm<Isa::avx512>, run_norm<avx512::kRowOps>},
    {{"norm_avx2"}, refuse_norm<Isa::avx2>, run_norm<avx2::kRowOps>},
};
const EmbedKernel kEmbedRows[] = {
    {{"embed_avx512"}, refuse_embed<Isa::avx512>, run_embed<avx512::kRowOps>},
    {{"embed_avx2"}, refuse_embed<Isa::avx2>, run_embed<avx2::kRowOps>},
};

}  // namespace

std::span<const NormKernel> norm_rows() noexcept { return kNormRows; }
std::span<const EmbedKernel> embed_rows() noexcept { return kEmbedRows; }

}  // namespace octet::kernels::cpu
