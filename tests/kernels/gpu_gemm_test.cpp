// GEMM rows of the GPU against the scalar reference: shapes around the tiles, types, epilogues, model shapes.
#include "kernels/gpu_harness.h"

namespace octet::kernels {
namespace {

class GpuGemm : public testing::Test {
 protected:
  void SetUp() override { OCTET_NEEDS_GPU(); }
};

struct Problem {
  GemmDesc d;
  int64_t m;
  Guarded x, w, scale, bias, offset, row_scale, inv_scale;
  Requant requant;

  Problem(GemmDesc desc, int64_t rows, uint32_t seed, bool symmetric) : d(desc), m(rows) {
    Data data(seed);
    x = data.values(d.x, m * d.k);
    w = data.values(d.w, d.n * d.k);
    bool ints = d.w == DType::s8;
    float unit = ints ? 1.0f / (2000.0f * std::sqrt(static_cast<float>(d.k))) : 1.0f;
    scale = data.floats(d.n, 0.5f * unit, 1.5f * unit);
    bias = data.floats(d.n, -1.0f, 1.0f);
    offset = data.ints(d.n, -5000, 5000);
    row_scale = data.floats(m, 0.2f, 2.0f);
    float spread = ints ? 1.0f : std::sqrt(static_cast<float>(d.k));
    inv_scale = data.floats(d.n, 20.0f / spread, 90.0f / spread);
    requant.inv_scale = inv_scale.as<float>();
    if (!symmetric) {
      requant.zero_point = d.y == DType::u8 ? 13 : -3;
      requant.lo = d.y == DType::u8 ? 0 : -127;
      requant.hi = d.y == DType::u8 ? 255 : 127;
    }
  }

  GemmArgs host_args(const unsigned char* packed, Guarded& y) const {
    GemmArgs a;
    a.m = m;
    a.x = x.data();
    a.ldx = d.k;
    a.packed = packed;
    if (d.w == DType::s8) a.scale = scale.as<float>();
    if (d.bias) a.bias = bias.as<float>();
    if (d.column_offset) a.column_offset = offset.as<int32_t>();
    if (d.row_scale) a.row_scale = row_scale.as<float>();
    a.requant = requant;
    a.y = y.data();
    a.ldy = d.n;
    return a;
  }
  Guarded reference() const {
    const GemmKernel& row = reference_of(gemm_kernels(), d);
    Guarded packed(row.packed_bytes(d)), y(m * d.n * size_of(d.y));
    row.pack(d, w.data(), packed.data());
    row.run(d, host_args(packed.data(), y), {.pool = &pool_of(2)});
    return y;
  }
  Guarded run(const GemmKernel& row) const {
    Guarded packed(row.packed_bytes(d)), y(m * d.n * size_of(d.y));
    std::memset(y.data(), 0x5a, static_cast<size_t>(y.bytes()));
    row.pack(d, w.data(), packed.data());
    OnDevice dx(x), dw(packed), ds(scale), db(bias), dof(offset), dr(row_scale), di(inv_scale), dy(y);
    GemmArgs a = host_args(dw.as<unsigned char>(), y);
    a.x = dx.data();
    if (a.scale != nullptr) a.scale = ds.as<float>();
    if (a.bias != nullptr) a.bias = db.as<float>();
    if (a.column_offset != nullptr) a.column_offset = dof.as<int32_t>();
    if (a.row_scale != nullptr) a.row_scale = dr.as<float>();
    a.requant.inv_scale = di.as<float>();
    a.y = dy.data();
    row.run(d, a, {.stream = test_stream()});
    finish_launch(row);
    return dy.read(test_stream());
  }
  void check(bool symmetric) const {
    Guarded want = reference();
    bool ints = d.w == DType::s8;
    double tolerance = d.x == DType::f16 || d.x == DType::bf16 || size_of(d.y) == 2 ? 8e-3 : 1e-4;
    for_each_gpu_row(gemm_kernels(), d, symmetric,
                     [&](const GemmKernel& row) { expect_close(row, d.y, run(row), want, tolerance, ints); });
  }
};

struct Shape {
  int64_t m, n, k;
};
// 1, a tile less one, a tile, a tile more one of every tile in use, primes, shapes of models.
const Shape kShapes[] = {{1, 8, 16},      {1, 768, 768},   {2, 24, 32},      {13, 40, 48},     {16, 64, 64},
                         {17, 72, 80},    {31, 120, 128},  {32, 128, 256},   {33, 136, 272},   {63, 184, 768},
                         {64, 192, 1024}, {65, 200, 1040}, {127, 256, 384},  {128, 264, 400},  {129, 248, 3072},
                         {255, 96, 144},  {257, 776, 784}, {521, 1152, 384}, {1031, 384, 1536}};

TEST_F(GpuGemm, IntegerShapes) {
  uint32_t seed = run_seed();
  for (Shape s : kShapes)
    for (DType y : {DType::s8, DType::f16, DType::f32}) {
      SCOPED_TRACE(::testing::Message() << "m n k " << s.m << " " << s.n << " " << s.k << " -> " << name(y) << " seed "
                                        << seed);
      GemmDesc d{.n = s.n, .k = s.k, .x = DType::s8, .w = DType::s8, .y = y};
      if (y == DType::s8 && seed % 2 == 0) d.activation = Activation::gelu_erf;
      Problem(d, s.m, seed++, true).check(true);
      if (HasFatalFailure()) return;
    }
}

TEST_F(GpuGemm, FloatShapes) {
  uint32_t seed = run_seed() + 1000;
  for (Shape s : kShapes)
    for (DType x : {DType::f16, DType::bf16, DType::f32}) {
      if (s.m > 300 && x == DType::bf16) continue;
      SCOPED_TRACE(::testing::Message() << "m n k " << s.m << " " << s.n << " " << s.k << " of " << name(x) << " seed "
                                        << seed);
      Problem({.n = s.n, .k = s.k, .x = x, .w = x, .y = seed % 2 ? DType::f32 : x}, s.m, seed, true).check(true);
      ++seed;
      if (HasFatalFailure()) return;
    }
}

// Every epilogue on shapes that no tile divides; zero points and narrow ranges go to the general rows.
TEST_F(GpuGemm, Epilogues) {
  uint32_t seed = run_seed() + 2000;
  for (DType x : {DType::s8, DType::u8, DType::f16, DType::bf16, DType::f32})
    for (DType y : {DType::s8, DType::u8, DType::f32, DType::f16, DType::bf16})
      for (Activation activation :
           {Activation::none, Activation::relu, Activation::tanh, Activation::gelu_erf, Activation::gelu_tanh})
        for (int options = 0; options < 8; ++options) {
          bool row_scale = options & 2, column_offset = options & 4, ints = size_of(x) == 1;
          if (!ints && (row_scale || column_offset)) continue;
          if (!ints && size_of(y) == 1) continue;  // no plan asks for it
          SCOPED_TRACE(::testing::Message()
                       << name(x) << " -> " << name(y) << " activation " << static_cast<int>(activation) << " options "
                       << options << " seed " << seed);
          bool even = seed % 2 == 0;
          Problem({.n = even ? 47 : 88,
                   .k = even ? 70 : 112,
                   .x = x,
                   .w = ints ? DType::s8 : x,
                   .y = y,
                   .row_scale = row_scale,
                   .bias = (options & 1) != 0,
                   .column_offset = column_offset,
                   .activation = activation},
                  37, seed, false)
              .check(false);
          ++seed;
          if (HasFatalFailure()) return;
        }
}

TEST_F(GpuGemm, ExtremesAreExact) {
  for (int low_w : {-128, 127})
    for (int value : {-128, 127}) {
      GemmDesc d{.n = 40, .k = 4096, .x = DType::s8, .w = DType::s8, .y = DType::f32, .bias = false};
      Problem p(d, 3, 7, true);
      std::memset(p.x.data(), value, static_cast<size_t>(p.x.bytes()));
      std::memset(p.w.data(), low_w, static_cast<size_t>(p.w.bytes()));
      for (int j = 0; j < 40; ++j) p.scale.as<float>()[j] = 1.0f;
      p.check(true);
      if (HasFatalFailure()) return;
    }
}

// A row of x gives the same bits alone and in any batch, in every row of the table.
TEST_F(GpuGemm, RowsDoNotDependOnTheBatch) {
  for (DType type : {DType::s8, DType::f16, DType::bf16, DType::f32}) {
    bool ints = type == DType::s8;
    GemmDesc d{
        .n = 136, .k = 272, .x = type, .w = type, .y = ints ? DType::s8 : type, .activation = Activation::gelu_erf};
    Problem all(d, 700, 5, true), one(d, 700, 5, true);
    one.m = 1;
    for_each_gpu_row(gemm_kernels(), d, true, [&](const GemmKernel& row) {
      // Float rows: bits may depend on the tile, which depends on the number of rows (docs/numerics.md).
      if (!ints) return;
      Guarded y = all.run(row);
      for (int64_t i : {0, 13, 699}) {
        one.x = Guarded(d.k * size_of(type));
        std::memcpy(one.x.data(), all.x.data() + i * d.k * size_of(type), static_cast<size_t>(d.k * size_of(type)));
        Guarded alone = one.run(row);
        ASSERT_EQ(std::memcmp(alone.data(), y.data() + i * d.n * size_of(d.y), static_cast<size_t>(alone.bytes())), 0)
            << "row " << i;
      }
    });
  }
}

}  // namespace
}  // namespace octet::kernels
