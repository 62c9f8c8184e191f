// Rows of norm, embed, pool and elementwise against the reference: same bits for every type.
#include "kernels/harness.h"

namespace octet::kernels {
namespace {

const DType kTypes[] = {DType::f32, DType::f16, DType::bf16, DType::s8, DType::u8};
const int64_t kWidths[] = {1, 7, 15, 16, 17, 31, 33, 100, 384, 768, 1023};

// Up to two outputs and their scales.
struct Outputs {
  const OutputDesc* desc;
  int count;
  int64_t m, n;
  Guarded y[2], row_scale[2];
  Outputs(int outputs, const OutputDesc* d, int64_t rows, int64_t width) : desc(d), count(outputs), m(rows), n(width) {
    for (int o = 0; o < count; ++o) {
      y[o] = Guarded(m * n * size_of(desc[o].dtype));
      row_scale[o] = Guarded(m * 4);
    }
  }
  void fill(NormOutput* out, const float* inv_scale) const {
    for (int o = 0; o < count; ++o) {
      out[o].y = y[o].data();
      bool is_unsigned = desc[o].dtype == DType::u8;
      out[o].requant = {inv_scale, is_unsigned ? 100 : 5, is_unsigned ? 0 : -128, is_unsigned ? 255 : 127};
      if (desc[o].per_token) out[o].row_scale = row_scale[o].as<float>();
    }
  }
  void expect(const Outputs& want) const {
    for (int o = 0; o < count; ++o) {
      expect_same(desc[o].dtype, y[o], want.y[o]);
      if (desc[o].per_token) expect_same(DType::f32, row_scale[o], want.row_scale[o]);
    }
  }
};

const std::vector<std::vector<OutputDesc>> kOutputs{{{DType::f32}},
                                                    {{DType::s8}},
                                                    {{DType::u8}, {DType::f16}},
                                                    {{DType::bf16}, {DType::s8, true}},
                                                    {{DType::s8, true}},
                                                    {{DType::f32}, {DType::s8}}};

TEST(Norm, RowsEqualTheReference) {
  uint32_t seed = 1;
  for (int64_t n : kWidths)
    for (DType a_type : kTypes)
      for (DType b_type : kTypes)
        for (const auto& outputs : kOutputs) {
          if (n != 33 && a_type != b_type && seed++ % 7 != 0) continue;
          NormDesc d{
              .n = n, .a = a_type, .residual = seed % 3 != 0, .b = b_type, .outputs = static_cast<int>(outputs.size())};
          for (size_t o = 0; o < outputs.size(); ++o) d.y[o] = outputs[o];
          SCOPED_TRACE(::testing::Message()
                       << "n " << n << " a " << name(a_type) << " b " << name(b_type) << " seed " << seed);
          Data data(seed++);
          int64_t m = 5 + data.below(5);
          Guarded a = data.values(a_type, m * n), b = data.values(b_type, m * n),
                  a_scale = data.floats(n, 0.001f, 0.02f), b_scale = data.floats(n, 0.001f, 0.02f),
                  gamma = data.floats(n, 0.5f, 2.0f), beta = data.floats(n), inv_scale = data.floats(n, 10.0f, 90.0f);
          auto run = [&](const NormKernel& row, const Launch& launch) {
            Outputs out(d.outputs, d.y, m, n);
            NormArgs args;
            args.m = m;
            args.a = a.data();
            args.b = b.data();
            args.a_scale = a_scale.as<float>();
            args.b_scale = b_scale.as<float>();
            args.a_zero = 3;
            args.b_zero = -9;
            args.gamma = gamma.as<float>();
            args.beta = beta.as<float>();
            out.fill(args.out, inv_scale.as<float>());
            row.run(d, args, launch);
            return out;
          };
          Outputs want = run(reference_of(norm_kernels(), d), {.pool = &pool_of(1)});
          for_each_row(norm_kernels(), d,
                       [&](const NormKernel& row, const Launch& launch) { run(row, launch).expect(want); });
          if (HasFatalFailure()) return;
        }
}

TEST(Embed, RowsEqualTheReference) {
  uint32_t seed = 1;
  for (int64_t n : kWidths)
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::s8})
      for (const auto& outputs : kOutputs)
        for (int tables : {1, 3}) {
          EmbedDesc d{.n = n, .tables = tables, .norm = seed % 3 != 0, .outputs = static_cast<int>(outputs.size())};
          for (int t = 0; t < tables; ++t) d.table[t] = t == 1 ? DType::s8 : type;
          for (size_t o = 0; o < outputs.size(); ++o) d.y[o] = outputs[o];
          SCOPED_TRACE(::testing::Message()
                       << "n " << n << " table " << name(type) << " tables " << tables << " seed " << seed);
          Data data(seed++);
          int64_t m = 9, rows = 11;
          Guarded table[3], scale[3], index[3];
          for (int t = 0; t < tables; ++t) {
            table[t] = data.values(d.table[t], rows * n);
            scale[t] = data.floats(rows, 0.001f, 0.02f);
            index[t] = data.ints(m, 0, static_cast<int32_t>(rows) - 1);
          }
          Guarded gamma = data.floats(n), beta = data.floats(n), inv_scale = data.floats(n, 10.0f, 90.0f);
          auto run = [&](const EmbedKernel& row, const Launch& launch) {
            Outputs out(d.outputs, d.y, m, n);
            EmbedArgs args;
            args.m = m;
            for (int t = 0; t < tables; ++t) {
              args.index[t] = t == 2 ? nullptr : index[t].as<int32_t>();
              args.table[t] = table[t].data();
              args.table_scale[t] = scale[t].as<float>();
            }
            args.gamma = gamma.as<float>();
            args.beta = beta.as<float>();
            out.fill(args.out, inv_scale.as<float>());
            row.run(d, args, launch);
            return out;
          };
          Outputs want = run(reference_of(embed_kernels(), d), {.pool = &pool_of(1)});
          for_each_row(embed_kernels(), d,
                       [&](const EmbedKernel& row, const Launch& launch) { run(row, launch).expect(want); });
          if (HasFatalFailure()) return;
        }
}

TEST(Pool, RowsEqualTheReference) {
  uint32_t seed = 1;
  const std::vector<int32_t> offsets{0, 1, 3, 3, 10, 47};
  for (int64_t n : kWidths)
    for (DType x_type : kTypes)
      for (DType y_type : {DType::f32, DType::f16, DType::bf16})
        for (PoolKind kind : {PoolKind::first, PoolKind::mean, PoolKind::max})
          for (bool normalize : {false, true}) {
            PoolDesc d{.n = n, .kind = kind, .x = x_type, .normalize = normalize, .y = y_type};
            SCOPED_TRACE(::testing::Message() << "n " << n << " x " << name(x_type) << " kind "
                                              << static_cast<int>(kind) << " seed " << seed);
            Data data(seed++);
            Guarded x = data.values(x_type, offsets.back() * n), scale = data.floats(n, 0.001f, 0.02f);
            auto run = [&](const PoolKernel& row, const Launch& launch) {
              int64_t rows = static_cast<int64_t>(offsets.size()) - 1;
              Guarded y(rows * n * size_of(y_type));
              PoolArgs args{.rows = rows,
                            .offsets = offsets.data(),
                            .x = x.data(),
                            .x_scale = scale.as<float>(),
                            .x_zero = 4,
                            .y = y.data()};
              row.run(d, args, launch);
              return y;
            };
            Guarded want = run(reference_of(pool_kernels(), d), {.pool = &pool_of(1)});
            for_each_row(pool_kernels(), d, [&](const PoolKernel& row, const Launch& launch) {
              expect_same(y_type, run(row, launch), want);
            });
            if (HasFatalFailure()) return;
          }
}

void check_elementwise(const ElementwiseDesc& d, uint32_t seed, float magnitude) {
  const std::vector<int32_t> offsets{0, 4, 4, 5, 23};
  Data data(seed);
  int64_t m = offsets.back(), n = d.n;
  Guarded x = d.x == DType::f32 ? data.floats(m * n, -magnitude, magnitude) : data.values(d.x, m * n),
          x2 = data.values(d.x, m * n);
  if (d.x == DType::f32) std::memset(x.data(), 0, n * 4);  // a token of zeros
  Guarded scale = data.floats(n, 0.001f, 0.02f), inv_scale = data.floats(n, 10.0f, 90.0f);
  bool rows_written = d.kind == ElementwiseKind::quantize_token;
  auto run = [&](const ElementwiseKernel& row, const Launch& launch) {
    std::pair<Guarded, Guarded> out{Guarded(m * n * size_of(d.y)), Guarded(m * 4)};
    ElementwiseArgs args;
    args.m = m;
    args.x = x.data();
    args.x2 = x2.data();
    args.scale = scale.as<float>();
    bool is_unsigned = d.y == DType::u8;
    args.requant = {inv_scale.as<float>(), is_unsigned ? 100 : 5, is_unsigned ? 0 : -128, is_unsigned ? 255 : 127};
    args.row_scale = out.second.as<float>();
    args.rows = static_cast<int64_t>(offsets.size()) - 1;
    args.offsets = offsets.data();
    args.y = out.first.data();
    row.run(d, args, launch);
    return out;
  };
  auto want = run(reference_of(elementwise_kernels(), d), {.pool = &pool_of(1)});
  for_each_row(elementwise_kernels(), d, [&](const ElementwiseKernel& row, const Launch& launch) {
    auto got = run(row, launch);
    expect_same(d.y, got.first, want.first);
    if (rows_written) expect_same(DType::f32, got.second, want.second);
  });
}

TEST(Elementwise, RowsEqualTheReference) {
  uint32_t seed = 1;
  for (int64_t n : kWidths)
    for (int kind = 0; kind <= static_cast<int>(ElementwiseKind::convert); ++kind)
      for (DType x : kTypes)
        for (DType y : kTypes)
          for (float magnitude : {0.5f, 20.0f}) {
            ElementwiseDesc d{.kind = static_cast<ElementwiseKind>(kind), .n = n, .x = x, .y = y};
            Activation activations[] = {Activation::none, Activation::relu, Activation::tanh, Activation::gelu_erf,
                                        Activation::gelu_tanh};
            d.activation = activations[seed % 5];
            bool valid = false;
            for (const ElementwiseKernel& row : elementwise_kernels())
              valid |= row.name == "elementwise_ref" && row.refuse(d, {}) == nullptr;
            if (!valid) continue;
            SCOPED_TRACE(::testing::Message() << "kind " << kind << " n " << n << " " << name(x) << " -> " << name(y)
                                              << " activation " << static_cast<int>(d.activation) << " seed " << seed);
            check_elementwise(d, seed++, magnitude);
            if (HasFatalFailure()) return;
          }
}

// Every activation over a dense range of arguments, ends and special values included.
TEST(Elementwise, ActivationsHaveTheSameBits) {
  for (Activation activation : {Activation::relu, Activation::tanh, Activation::gelu_erf, Activation::gelu_tanh}) {
    ElementwiseDesc d{.kind = ElementwiseKind::activation, .n = 1 << 16, .activation = activation};
    Guarded x(d.n * 4);
    for (int64_t i = 0; i < d.n; ++i) {
      uint32_t bits = static_cast<uint32_t>(i) << 16 | 0x1234u;
      std::memcpy(x.as<float>() + i, &bits, 4);
      if (std::isnan(x.as<float>()[i])) x.as<float>()[i] = 0.0f;
    }
    auto run = [&](const ElementwiseKernel& row, const Launch& launch) {
      Guarded y(d.n * 4);
      ElementwiseArgs args;
      args.m = 1;
      args.x = x.data();
      args.y = y.data();
      row.run(d, args, launch);
      return y;
    };
    Guarded want = run(reference_of(elementwise_kernels(), d), {.pool = &pool_of(1)});
    for_each_row(elementwise_kernels(), d, [&](const ElementwiseKernel& row, const Launch& launch) {
      Guarded got = run(row, launch);
      for (int64_t i = 0; i < d.n; ++i) {
        float g = got.as<float>()[i], w = want.as<float>()[i];
        ASSERT_TRUE(std::memcmp(&g, &w, 4) == 0 || (std::isnan(g) && std::isnan(w)))
            << "x " << x.as<float>()[i] << ": " << g << " for " << w;
      }
    });
  }
}

}  // namespace
}  // namespace octet::kernels
