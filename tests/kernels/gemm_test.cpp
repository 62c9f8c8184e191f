// GEMM rows against the reference: shapes around the tiles, types, epilogues, extremes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/harness.h"

namespace octet::kernels {
namespace {

struct Shape {
  int64_t m, n, k;
};

// One problem with all its buffers; outputs are made per row.
struct Problem {
  GemmDesc d;
  int64_t m, ldx, ldy;
  Guarded x, w, scale, bias, offset, row_scale, inv_scale;
  Requant requant;

  Problem(GemmDesc desc, int64_t rows, uint32_t seed, bool strided = false) : d(desc), m(rows) {
    Data data(seed);
    ldx = d.k + (strided ? 5 : 0);
    ldy = d.n + (strided ? 3 : 0);
    x = data.values(d.x, (m - 1) * ldx + d.k);
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
    requant.zero_point = d.y == DType::u8 ? 13 : -3;
    requant.lo = d.y == DType::u8 ? 0 : -127;
    requant.hi = d.y == DType::u8 ? 255 : 127;
  }

  Guarded run(const GemmKernel& row, const Launch& launch) const {
    int64_t bytes = row.packed_bytes(d);
    Guarded packed((bytes + 63) / 64 * 64), y(((m - 1) * ldy + d.n) * size_of(d.y));
    std::memset(y.data(), 0x5a, y.bytes());
    row.pack(d, w.data(), packed.data());
    EXPECT_TRUE(packed.canary_intact());
    GemmArgs a;
    a.m = m;
    a.x = x.data();
    a.ldx = ldx;
    a.packed = packed.data();
    if (d.w == DType::s8) a.scale = scale.as<float>();
    if (d.bias) a.bias = bias.as<float>();
    if (d.column_offset) a.column_offset = offset.as<int32_t>();
    if (d.row_scale) a.row_scale = row_scale.as<float>();
    a.requant = requant;
    a.y = y.data();
    a.ldy = ldy;
    row.run(d, a, launch);
    return y;
  }

  // 8-bit inputs: same bits in every row. Floats: rounding of sums in another order; an 8-bit output may then flip by a
  // step.
  void check() const {
    Guarded want = run(reference_of(gemm_kernels(), d), {.pool = &pool_of(1)});
    double tolerance = d.w == DType::s8 ? 0.0 : size_of(d.y) == 1 ? 0.02 : size_of(d.y) == 2 ? 0.01 : 2e-5;
    for_each_row(gemm_kernels(), d, [&](const GemmKernel& row, const Launch& launch) {
      expect_same(d.y, run(row, launch), want, tolerance);
    });
  }
};

const Shape kShapes[] = {{1, 1, 1},      {1, 32, 4},    {2, 31, 3},     {3, 33, 5},    {5, 16, 17},
                         {6, 17, 64},    {7, 64, 63},   {13, 30, 31},   {14, 32, 32},  {15, 33, 37},
                         {17, 97, 101},  {28, 65, 129}, {29, 127, 255}, {1, 384, 384}, {16, 384, 1536},
                         {43, 96, 1025}, {4, 48, 2048}, {9, 40, 3072},  {101, 70, 257}};

TEST(Gemm, IntegerShapesEqualTheReference) {
  uint32_t seed = 1;
  for (Shape s : kShapes)
    for (DType x : {DType::s8, DType::u8})
      for (DType y : {DType::s8, DType::f32}) {
        SCOPED_TRACE(::testing::Message() << "m n k " << s.m << " " << s.n << " " << s.k << " " << name(x) << " -> "
                                          << name(y) << " seed " << seed);
        Problem({.n = s.n, .k = s.k, .x = x, .w = DType::s8, .y = y}, s.m, seed, seed % 2 == 0).check();
        ++seed;
        if (HasFatalFailure()) return;
      }
}

TEST(Gemm, FloatShapesAgreeWithTheReference) {
  uint32_t seed = 1;
  for (Shape s : kShapes)
    for (DType y : {DType::f32, DType::s8}) {
      SCOPED_TRACE(::testing::Message() << "m n k " << s.m << " " << s.n << " " << s.k << " -> " << name(y) << " seed "
                                        << seed);
      Problem({.n = s.n, .k = s.k, .y = y}, s.m, seed, seed % 2 == 0).check();
      ++seed;
      if (HasFatalFailure()) return;
    }
}

// Rows that add products in 16 bits: weights from those that always fit to those that never do, bell-shaped and not,
// and x at its ends in the directions of each column.
TEST(Gemm, ExtremeSumsEqualTheReference) {
  std::mt19937 random(7);
  for (double deviation : {10.0, 30.0, 45.0, 60.0, 90.0, 1000.0})
    for (DType x : {DType::s8, DType::u8})
      for (Shape s : {Shape{37, 48, 768}, Shape{20, 17, 1030}, Shape{3, 16, 21}}) {
        SCOPED_TRACE(::testing::Message()
                     << deviation << " " << name(x) << " m n k " << s.m << " " << s.n << " " << s.k);
        Problem problem({.n = s.n, .k = s.k, .x = x, .w = DType::s8, .y = DType::f32}, s.m, 900);
        std::normal_distribution<double> normal(0.0, deviation);
        int8_t* w = problem.w.as<int8_t>();
        for (int64_t i = 0; i < s.n * s.k; ++i)
          w[i] = static_cast<int8_t>(std::clamp(std::round(normal(random)), -128.0, 127.0));
        for (int64_t r = 0; r < s.m; ++r) {
          const int8_t* column = w + r / 2 % s.n * s.k;
          for (int64_t k = 0; k < s.k; ++k)
            problem.x.as<uint8_t>()[r * problem.ldx + k] =
                static_cast<uint8_t>((x == DType::s8 ? 0x80 : 0) ^ ((column[k] > 0) == (r % 2 == 0) ? 255 : 0));
        }
        problem.check();
        if (HasFatalFailure()) return;
      }
}

// Zero point 0 and all of s8: the range that most plans have, and one that rows may store by saturation.
TEST(Gemm, WholeRangeEqualsTheReference) {
  uint32_t seed = 400;
  for (Shape s : {Shape{1, 32, 64}, Shape{5, 33, 64}, Shape{14, 64, 40}, Shape{29, 130, 96}})
    for (Activation activation : {Activation::none, Activation::gelu_erf, Activation::gelu_tanh})
      for (bool row_scale : {false, true}) {
        Problem problem({.n = s.n, .k = s.k, .x = DType::s8, .w = DType::s8, .y = DType::s8, .activation = activation},
                        s.m, seed, seed % 2 == 0);
        problem.d.row_scale = row_scale;
        ++seed;
        problem.requant.zero_point = 0;
        problem.requant.lo = -128;
        // Beyond the range on both sides, and no numbers.
        float* bias = problem.bias.as<float>();
        for (int64_t j = 0; j < s.n; ++j)
          if (j % 7 == 3) bias[j] = j % 2 == 0 ? 1e6f : -1e6f;
        bias[0] = std::numeric_limits<float>::quiet_NaN();
        bias[1] = std::numeric_limits<float>::infinity();
        bias[2] = 1e20f;
        if (activation == Activation::none) bias[4] = -std::numeric_limits<float>::infinity();
        problem.check();
        if (HasFatalFailure()) return;
      }
}

TEST(Gemm, EpiloguesEqualTheReference) {
  uint32_t seed = 100;
  for (DType x : {DType::s8, DType::u8, DType::f32})
    for (DType y : {DType::s8, DType::u8, DType::f32, DType::f16, DType::bf16})
      for (Activation activation :
           {Activation::none, Activation::relu, Activation::tanh, Activation::gelu_erf, Activation::gelu_tanh})
        for (int options = 0; options < 8; ++options) {
          bool bias = options & 1, row_scale = options & 2, column_offset = options & 4;
          if (x == DType::f32 && (row_scale || column_offset)) continue;
          SCOPED_TRACE(::testing::Message()
                       << name(x) << " -> " << name(y) << " activation " << static_cast<int>(activation) << " options "
                       << options << " seed " << seed);
          DType w = x == DType::f32 ? DType::f32 : DType::s8;
          Problem({.n = 47,
                   .k = 70,
                   .x = x,
                   .w = w,
                   .y = y,
                   .row_scale = row_scale,
                   .bias = bias,
                   .column_offset = column_offset,
                   .activation = activation},
                  19, seed++)
              .check();
          if (HasFatalFailure()) return;
        }
}

// The largest products in a long sum, where 16-bit intermediate sums would saturate.
TEST(Gemm, ExtremesAreExact) {
  for (DType x : {DType::s8, DType::u8})
    for (int low_w : {-128, 127})
      for (int low_x : {0, 1}) {
        GemmDesc d{.n = 33, .k = 4096, .x = x, .w = DType::s8, .y = DType::f32, .bias = false};
        Problem p(d, 3, 7);
        int value = x == DType::u8 ? 255 : low_x ? -128 : 127;
        std::memset(p.x.data(), value, p.x.bytes());
        std::memset(p.w.data(), low_w, p.w.bytes());
        for (int j = 0; j < 33; ++j) p.scale.as<float>()[j] = 1.0f;
        p.check();
        Guarded y = p.run(reference_of(gemm_kernels(), d), {});
        EXPECT_EQ(y.as<float>()[0], static_cast<float>(value * low_w) * 4096.0f);
        if (HasFatalFailure()) return;
      }
}

// A row of x gives the same bits alone and in any batch.
TEST(Gemm, RowsDoNotDependOnTheBatch) {
  for (DType type : {DType::s8, DType::f32}) {
    GemmDesc d{.n = 61, .k = 130, .x = type, .w = type, .y = DType::f32};
    Problem p(d, 37, 5);
    for_each_row(gemm_kernels(), d, [&](const GemmKernel& row, const Launch& launch) {
      Guarded all = p.run(row, launch);
      Problem one(d, 37, 5);
      one.m = 1;
      for (int64_t i : {0, 13, 36}) {
        one.x = Guarded(d.k * size_of(type));
        std::memcpy(one.x.data(), p.x.data() + i * d.k * size_of(type), d.k * size_of(type));
        Guarded y = one.run(row, launch);
        ASSERT_EQ(std::memcmp(y.data(), all.as<float>() + i * d.n, d.n * 4), 0) << "row " << i;
      }
    });
  }
}

}  // namespace
}  // namespace octet::kernels
