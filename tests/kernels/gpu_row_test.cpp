// Norm, embed, pool and elementwise rows of the GPU against the scalar reference.
#include "kernels/gpu_harness.h"

namespace octet::kernels {
namespace {

class GpuRows : public testing::Test {
 protected:
  void SetUp() override { OCTET_NEEDS_GPU(); }
};

const DType kTypes[] = {DType::f32, DType::f16, DType::bf16, DType::s8, DType::u8};
const int64_t kWidths[] = {1, 7, 16, 31, 33, 48, 128, 384, 512, 768, 1000, 1023, 1024, 4096};
const int64_t kTokens[] = {1, 7, 37, 300};

double tolerance_of(DType type) { return type == DType::bf16 ? 1e-2 : type == DType::f16 ? 2e-3 : 2e-5; }

struct Outputs {
  const OutputDesc* desc;
  int count;
  Guarded y[2], row_scale[2];
  Outputs(int outputs, const OutputDesc* d, int64_t m, int64_t n) : desc(d), count(outputs) {
    for (int o = 0; o < count; ++o) {
      y[o] = Guarded(m * n * size_of(desc[o].dtype));
      row_scale[o] = Guarded(m * 4);
    }
  }
  void fill(NormOutput* out, const float* inv_scale, bool symmetric, unsigned char* const* data,
            float* const* scales) const {
    for (int o = 0; o < count; ++o) {
      out[o].y = data != nullptr ? data[o] : y[o].data();
      bool is_unsigned = desc[o].dtype == DType::u8;
      if (symmetric) out[o].requant = {inv_scale, 0, -128, 127};
      else out[o].requant = {inv_scale, is_unsigned ? 100 : 5, is_unsigned ? 0 : -128, is_unsigned ? 255 : 127};
      if (desc[o].per_token) out[o].row_scale = scales != nullptr ? scales[o] : row_scale[o].as<float>();
    }
  }
};

// Runs a row of the GPU on device outputs, then hands them to `expect`.
template <typename Kernel, typename Args>
void run_outputs(const Kernel& row, const typename Kernel::Desc& d, Args args, const Outputs& want, int64_t m,
                 int64_t n, const float* inv_scale, bool symmetric, bool bits) {
  Outputs out(d.outputs, d.y, m, n);
  std::unique_ptr<OnDevice> y[2], scale[2];
  unsigned char* data[2] = {};
  float* scales[2] = {};
  for (int o = 0; o < d.outputs; ++o) {
    y[o] = std::make_unique<OnDevice>(out.y[o]);
    scale[o] = std::make_unique<OnDevice>(out.row_scale[o]);
    data[o] = y[o]->template as<unsigned char>();
    scales[o] = scale[o]->template as<float>();
  }
  out.fill(args.out, inv_scale, symmetric, data, scales);
  row.run(d, args, {.stream = test_stream()});
  finish_launch(row);
  for (int o = 0; o < d.outputs; ++o) {
    expect_close(row, d.y[o].dtype, y[o]->read(test_stream()), want.y[o], tolerance_of(d.y[o].dtype), bits);
    if (d.y[o].per_token) expect_close(row, DType::f32, scale[o]->read(test_stream()), want.row_scale[o], 2e-5, bits);
  }
}

const std::vector<std::vector<OutputDesc>> kOutputs{{{DType::f32}},
                                                    {{DType::s8}},
                                                    {{DType::u8}, {DType::f16}},
                                                    {{DType::bf16}, {DType::s8, true}},
                                                    {{DType::s8, true}},
                                                    {{DType::f16}, {DType::s8}}};

bool has_u8(const std::vector<OutputDesc>& outputs) {
  for (const OutputDesc& o : outputs)
    if (o.dtype == DType::u8) return true;
  return false;
}

TEST_F(GpuRows, Norm) {
  uint32_t seed = run_seed() + 6000;
  for (int64_t n : kWidths)
    for (DType a_type : kTypes)
      for (DType b_type : kTypes)
        for (const auto& outputs : kOutputs) {
          ++seed;
          if (n != 384 && seed % 5 != 0) continue;
          NormDesc d{
              .n = n, .a = a_type, .residual = seed % 3 != 0, .b = b_type, .outputs = static_cast<int>(outputs.size())};
          for (size_t o = 0; o < outputs.size(); ++o) d.y[o] = outputs[o];
          bool symmetric = seed % 2 == 0 && !has_u8(outputs) && a_type != DType::u8 && b_type != DType::u8;
          SCOPED_TRACE(::testing::Message() << "n " << n << " a " << name(a_type) << " b " << name(b_type)
                                            << " symmetric " << symmetric << " seed " << seed);
          Data data(seed);
          int64_t m = kTokens[seed % 4];
          Guarded a = data.values(a_type, m * n), b = data.values(b_type, m * n),
                  a_scale = data.floats(n, 0.001f, 0.02f), b_scale = data.floats(n, 0.001f, 0.02f),
                  gamma = data.floats(n, 0.5f, 2.0f), beta = data.floats(n), inv_scale = data.floats(n, 10.0f, 90.0f);
          NormArgs args;
          args.m = m;
          args.a = a.data(), args.b = b.data();
          args.a_scale = a_scale.as<float>(), args.b_scale = b_scale.as<float>();
          if (!symmetric) args.a_zero = 3, args.b_zero = -9;
          args.gamma = gamma.as<float>(), args.beta = beta.as<float>();
          Outputs want(d.outputs, d.y, m, n);
          want.fill(args.out, inv_scale.as<float>(), symmetric, nullptr, nullptr);
          reference_of(norm_kernels(), d).run(d, args, {.pool = &pool_of(2)});
          OnDevice da(a), db(b), das(a_scale), dbs(b_scale), dg(gamma), dbeta(beta), di(inv_scale);
          args.a = da.data(), args.b = db.data();
          args.a_scale = das.as<float>(), args.b_scale = dbs.as<float>();
          args.gamma = dg.as<float>(), args.beta = dbeta.as<float>();
          for_each_gpu_row(norm_kernels(), d, symmetric, [&](const NormKernel& row) {
            run_outputs(row, d, args, want, m, n, di.as<float>(), symmetric, true);
          });
          if (HasFatalFailure()) return;
        }
}

TEST_F(GpuRows, Embed) {
  uint32_t seed = run_seed() + 7000;
  for (int64_t n : kWidths)
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::s8})
      for (const auto& outputs : kOutputs)
        for (int tables : {1, 3}) {
          ++seed;
          if (n != 384 && seed % 3 != 0) continue;
          EmbedDesc d{.n = n, .tables = tables, .norm = seed % 3 != 0, .outputs = static_cast<int>(outputs.size())};
          for (int t = 0; t < tables; ++t) d.table[t] = t == 1 ? DType::s8 : type;
          for (size_t o = 0; o < outputs.size(); ++o) d.y[o] = outputs[o];
          bool symmetric = !has_u8(outputs);
          SCOPED_TRACE(::testing::Message()
                       << "n " << n << " table " << name(type) << " tables " << tables << " seed " << seed);
          Data data(seed);
          int64_t m = kTokens[seed % 4], rows = 11;
          Guarded table[3], scale[3], index[3];
          for (int t = 0; t < tables; ++t) {
            table[t] = data.values(d.table[t], rows * n);
            scale[t] = data.floats(rows, 0.001f, 0.02f);
            index[t] = data.ints(m, 0, static_cast<int32_t>(rows) - 1);
          }
          Guarded gamma = data.floats(n), beta = data.floats(n), inv_scale = data.floats(n, 10.0f, 90.0f);
          EmbedArgs args;
          args.m = m;
          std::unique_ptr<OnDevice> dt[3], ds[3], dx[3];
          for (int t = 0; t < tables; ++t) {
            args.index[t] = index[t].as<int32_t>();
            args.table[t] = table[t].data();
            args.table_scale[t] = scale[t].as<float>();
            dt[t] = std::make_unique<OnDevice>(table[t]);
            ds[t] = std::make_unique<OnDevice>(scale[t]);
            dx[t] = std::make_unique<OnDevice>(index[t]);
          }
          args.gamma = gamma.as<float>(), args.beta = beta.as<float>();
          Outputs want(d.outputs, d.y, m, n);
          want.fill(args.out, inv_scale.as<float>(), symmetric, nullptr, nullptr);
          reference_of(embed_kernels(), d).run(d, args, {.pool = &pool_of(2)});
          OnDevice dg(gamma), db(beta), di(inv_scale);
          for (int t = 0; t < tables; ++t) {
            args.index[t] = dx[t]->as<int32_t>();
            args.table[t] = dt[t]->data();
            args.table_scale[t] = ds[t]->as<float>();
          }
          args.gamma = dg.as<float>(), args.beta = db.as<float>();
          for_each_gpu_row(embed_kernels(), d, symmetric, [&](const EmbedKernel& row) {
            run_outputs(row, d, args, want, m, n, di.as<float>(), symmetric, true);
          });
          if (HasFatalFailure()) return;
        }
}

TEST_F(GpuRows, Pool) {
  uint32_t seed = run_seed() + 8000;
  Guarded offsets(6 * 4);
  const int32_t starts[] = {0, 1, 3, 3, 10, 247};
  std::memcpy(offsets.data(), starts, sizeof starts);
  for (int64_t n : kWidths)
    for (DType x_type : kTypes)
      for (DType y_type : {DType::f32, DType::f16, DType::bf16})
        for (PoolKind kind : {PoolKind::first, PoolKind::mean, PoolKind::max})
          for (bool normalize : {false, true}) {
            ++seed;
            if (n != 384 && seed % 3 != 0) continue;
            PoolDesc d{.n = n, .kind = kind, .x = x_type, .normalize = normalize, .y = y_type};
            bool symmetric = x_type != DType::u8;
            SCOPED_TRACE(::testing::Message() << "n " << n << " x " << name(x_type) << " y " << name(y_type) << " kind "
                                              << static_cast<int>(kind) << " seed " << seed);
            Data data(seed);
            Guarded x = data.values(x_type, 247 * n), scale = data.floats(n, 0.001f, 0.02f),
                    want(5 * n * size_of(y_type)), got(5 * n * size_of(y_type));
            PoolArgs args{.rows = 5,
                          .offsets = offsets.as<int32_t>(),
                          .x = x.data(),
                          .x_scale = scale.as<float>(),
                          .x_zero = symmetric ? 0 : 4,
                          .y = want.data()};
            reference_of(pool_kernels(), d).run(d, args, {.pool = &pool_of(1)});
            OnDevice dof(offsets), dx(x), ds(scale);
            for_each_gpu_row(pool_kernels(), d, symmetric, [&](const PoolKernel& row) {
              OnDevice dy(got);
              PoolArgs on = args;
              on.offsets = dof.as<int32_t>(), on.x = dx.data(), on.x_scale = ds.as<float>(), on.y = dy.data();
              row.run(d, on, {.stream = test_stream()});
              finish_launch(row);
              expect_close(row, y_type, dy.read(test_stream()), want, tolerance_of(y_type), true);
            });
            if (HasFatalFailure()) return;
          }
}

TEST_F(GpuRows, Elementwise) {
  uint32_t seed = run_seed() + 9000;
  Guarded offsets(5 * 4);
  const int32_t starts[] = {0, 4, 4, 5, 23};
  std::memcpy(offsets.data(), starts, sizeof starts);
  const int64_t m = 23;
  for (int64_t n : {1, 7, 16, 33, 384, 1023})
    for (int kind = 0; kind <= static_cast<int>(ElementwiseKind::convert); ++kind)
      for (DType x_type : kTypes)
        for (DType y_type : kTypes) {
          ElementwiseDesc d{.kind = static_cast<ElementwiseKind>(kind), .n = n, .x = x_type, .y = y_type};
          Activation activations[] = {Activation::none, Activation::relu, Activation::tanh, Activation::gelu_erf,
                                      Activation::gelu_tanh};
          d.activation = activations[seed++ % 5];
          bool valid = false;
          for (const ElementwiseKernel& row : elementwise_kernels())
            valid |= row.name == "elementwise_ref" && row.refuse(d, {}) == nullptr;
          if (!valid) continue;
          bool symmetric = seed % 2 == 0 && x_type != DType::u8 && y_type != DType::u8;
          SCOPED_TRACE(::testing::Message() << "kind " << kind << " n " << n << " " << name(x_type) << " -> "
                                            << name(y_type) << " symmetric " << symmetric << " seed " << seed);
          Data data(seed);
          Guarded x = x_type == DType::f32 ? data.floats(m * n, -5.0f, 5.0f) : data.values(x_type, m * n),
                  x2 = data.values(x_type, m * n), scale = data.floats(n, 0.001f, 0.02f),
                  inv_scale = data.floats(n, 10.0f, 90.0f), want(m * n * size_of(y_type)), row_scale(m * 4),
                  got(want.bytes()), got_scale(m * 4);
          if (x_type == DType::f32) std::memset(x.data(), 0, static_cast<size_t>(n * 4));  // a token of zeros
          ElementwiseArgs args;
          args.m = m;
          args.rows = 4;
          bool is_unsigned = y_type == DType::u8;
          args.requant = {inv_scale.as<float>(), 0, -128, 127};
          if (!symmetric)
            args.requant = {inv_scale.as<float>(), is_unsigned ? 100 : 5, is_unsigned ? 0 : -128,
                            is_unsigned ? 255 : 127};
          ElementwiseArgs on = args;
          args.x = x.data(), args.x2 = x2.data(), args.scale = scale.as<float>();
          args.row_scale = row_scale.as<float>(), args.offsets = offsets.as<int32_t>(), args.y = want.data();
          reference_of(elementwise_kernels(), d).run(d, args, {.pool = &pool_of(1)});
          OnDevice dx(x), dx2(x2), ds(scale), di(inv_scale), dof(offsets);
          on.x = dx.data(), on.x2 = dx2.data(), on.scale = ds.as<float>(), on.offsets = dof.as<int32_t>();
          on.requant.inv_scale = di.as<float>();
          for_each_gpu_row(elementwise_kernels(), d, symmetric, [&](const ElementwiseKernel& row) {
            OnDevice dy(got), dr(got_scale);
            on.y = dy.data(), on.row_scale = dr.as<float>();
            row.run(d, on, {.stream = test_stream()});
            finish_launch(row);
            expect_close(row, y_type, dy.read(test_stream()), want, tolerance_of(y_type), true);
            if (d.kind == ElementwiseKind::quantize_token)
              expect_close(row, DType::f32, dr.read(test_stream()), row_scale, 2e-6, true);
          });
          if (HasFatalFailure()) return;
        }
}

}  // namespace
}  // namespace octet::kernels
