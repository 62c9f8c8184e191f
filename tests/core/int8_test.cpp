// The arithmetic of core/int8.h: rounding, ranges, NaN, and the error bounds that docs/numerics.md states.
#include "core/int8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace octet::int8 {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Section A.6.2 of the reference description: amax 127, so that a step is 1.
TEST(Int8, FakeQuantOfTheReference) {
  const float x[] = {0.5f, 1.5f, 2.5f, -0.5f, 126.5f, 127.6f, -127.6f, -128.6f};
  const float full[] = {0, 2, 2, -0.0f, 126, 127, -128, -128};
  const float narrow[] = {0, 2, 2, -0.0f, 126, 127, -127, -127};
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(fake_quant(x[i], quant_from_amax(127, 8, false, false)), full[i]) << x[i];
    EXPECT_EQ(fake_quant(x[i], quant_from_amax(127, 8, false, true)), narrow[i]) << x[i];
  }
}

TEST(Int8, RangesOfEveryWidth) {
  struct Row {
    int bits;
    bool is_unsigned, narrow;
    int lo, hi;
  };
  const std::vector<Row> rows{{8, false, false, -128, 127}, {8, false, true, -127, 127}, {8, true, false, 0, 255},
                              {7, false, false, -64, 63},   {5, true, false, 0, 31},     {4, false, false, -8, 7},
                              {4, false, true, -7, 7},      {2, false, false, -2, 1},    {2, false, true, -1, 1},
                              {2, true, false, 0, 3}};
  for (const Row& row : rows) {
    Quant p = quant_from_amax(3.0f, row.bits, row.is_unsigned, row.narrow);
    EXPECT_EQ(p.lo, row.lo);
    EXPECT_EQ(p.hi, row.hi);
    EXPECT_EQ(p.zero_point, 0);
    EXPECT_EQ(p.scale, 3.0f / static_cast<float>(row.hi));
    EXPECT_EQ(quantize(1e30f, inverse(p.scale), 0, p.lo, p.hi), row.hi);
    EXPECT_EQ(quantize(-1e30f, inverse(p.scale), 0, p.lo, p.hi), row.lo);
  }
}

TEST(Int8, TinyRangesQuantizeToZero) {
  for (float amax : {0.0f, 0x1p-24f, 0x1p-60f}) {
    Quant p = quant_from_amax(amax, 8, false, false);
    EXPECT_EQ(p.scale, 0.0f);
    for (float x : {0.0f, 1.0f, -1e30f}) EXPECT_EQ(fake_quant(x, p), 0.0f);
  }
  EXPECT_GT(quant_from_amax(std::nextafter(0x1p-24f, 1.0f), 8, false, false).scale, 0.0f);
}

TEST(Int8, QuantizeTies) {
  struct Row {
    float x;
    int32_t q;
  };
  for (const Row& row : {Row{0.5f, 0},
                         {1.5f, 2},
                         {2.5f, 2},
                         {3.5f, 4},
                         {-0.5f, 0},
                         {-1.5f, -2},
                         {-2.5f, -2},
                         {126.5f, 126},
                         {0.49999997f, 0},
                         {0.50000006f, 1},
                         {-127.5f, -128},
                         {127.5f, 127}})
    EXPECT_EQ(quantize(row.x, 1.0f, 0, -128, 127), row.q) << row.x;
}

TEST(Int8, SaturationZeroPointNanInf) {
  struct Row {
    float x;
    int32_t zero_point, lo, hi, q;
  };
  for (const Row& row : {Row{kNaN, 0, -128, 127, -128},
                         {kNaN, 5, 0, 255, 0},
                         {kInf, 0, -128, 127, 127},
                         {-kInf, 0, -128, 127, -128},
                         {0.0f, 7, 0, 255, 7},
                         {-0.0f, 0, -128, 127, 0},
                         {300.0f, 7, 0, 255, 255},
                         {-8.0f, 7, 0, 255, 0},
                         {-7.0f, 7, 0, 255, 0},
                         {-6.0f, 7, 0, 255, 1},
                         {1e20f, 0, -127, 127, 127}})
    EXPECT_EQ(quantize(row.x, 1.0f, row.zero_point, row.lo, row.hi), row.q) << row.x;
  // A zero scale has inverse 0: everything finite becomes the zero point.
  EXPECT_EQ(inverse(0.0f), 0.0f);
  EXPECT_EQ(inverse(-1.0f), 0.0f);
  EXPECT_EQ(inverse(kNaN), 0.0f);
  EXPECT_EQ(quantize(5.0f, inverse(0.0f), 3, 0, 255), 3);
}

TEST(Int8, QuantizingTwiceChangesNothing) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  for (int i = 0; i < 20000; ++i) {
    Quant p = quant_from_amax(std::fabs(normal(random)) + 0.01f, 8, i % 2 == 0, false);
    float once = fake_quant(normal(random), p);
    EXPECT_EQ(fake_quant(once, p), once);
  }
}

TEST(Int8, HalfAStepInsideTheRange) {
  Quant p = quant_from_amax(2.0f, 8, false, false);
  for (int i = -200000; i <= 200000; ++i) {
    float x = static_cast<float>(i) * 1e-5f;
    ASSERT_LE(std::fabs(fake_quant(x, p) - x), 0.5f * p.scale * 1.0001f) << x;
  }
}

TEST(Int8, RescaleRoundsOnce) {
  EXPECT_EQ(rescale(1 << 24, 0x1p-24f, 1.0f), 2.0f);
  // The product is not rounded before the addition: 3 * (1 + 2^-23) - 3 = 3 * 2^-23 exactly.
  EXPECT_EQ(rescale(3, 1.0f + 0x1p-23f, -3.0f), 3 * 0x1p-23f);
  EXPECT_EQ(rescale_row(3, 0.5f, 2.0f, 1.0f), 4.0f);
}

TEST(Int8, ExpErrorBound) {
  double worst = 0;
  for (int i = 0; i <= 2000000; ++i) {
    float x = -86.999f * static_cast<float>(i) / 2000000.0f;
    double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(exp_negative(x) - exact) / exact);
  }
  EXPECT_LT(worst, 3e-7);
  EXPECT_EQ(exp_negative(0.0f), 1.0f);
  EXPECT_EQ(exp_negative(-0.0f), 1.0f);
  for (float x : {-87.0f, -1000.0f, -kInf, kNaN}) EXPECT_EQ(exp_negative(x), 0.0f) << x;
}

TEST(Int8, ErfErrorBound) {
  double worst = 0;
  for (int i = -3000000; i <= 3000000; ++i) {
    float x = static_cast<float>(i) * 2e-6f;
    worst = std::max(worst, std::fabs(erf_rational(x) - std::erf(static_cast<double>(x))));
  }
  EXPECT_LT(worst, 5e-7);
  EXPECT_EQ(erf_rational(0.0f), 0.0f);
  for (float x : {0.3f, 1.7f, 3.9f, 100.0f, kInf}) EXPECT_EQ(erf_rational(-x), -erf_rational(x)) << x;
}

TEST(Int8, GeluErrorBounds) {
  double worst_erf = 0, worst_tanh = 0;
  for (int i = -2000000; i <= 2000000; ++i) {
    float x = static_cast<float>(i) * 5e-6f;
    double wide = x;
    double erf = 0.5 * wide * (1 + std::erf(wide * std::sqrt(0.5)));
    double tanh = 0.5 * wide * (1 + std::tanh(std::sqrt(2 / M_PI) * (wide + 0.044715 * wide * wide * wide)));
    double scale = std::max(1.0, std::fabs(wide));
    worst_erf = std::max(worst_erf, std::fabs(gelu_erf(x) - erf) / scale);
    worst_tanh = std::max(worst_tanh, std::fabs(gelu_tanh(x) - tanh) / scale);
  }
  EXPECT_LT(worst_erf, 5e-7);
  EXPECT_LT(worst_tanh, 5e-7);
  EXPECT_EQ(gelu_erf(100.0f), 100.0f);
  EXPECT_EQ(gelu_tanh(100.0f), 100.0f);
}

TEST(Int8, TanhErrorBound) {
  double worst = 0;
  for (int i = -2000000; i <= 2000000; ++i) {
    float x = static_cast<float>(i) * 1e-5f;
    worst = std::max(worst, std::fabs(tanh_exp(x) - std::tanh(static_cast<double>(x))));
  }
  EXPECT_LT(worst, 3e-7);
  EXPECT_EQ(tanh_exp(0.0f), 0.0f);
  EXPECT_EQ(tanh_exp(50.0f), 1.0f);
  EXPECT_EQ(tanh_exp(-50.0f), -1.0f);
}

TEST(Int8, LanesFoldInHalves) {
  // Powers of two far apart show the order: any other order loses other bits.
  float lanes[kLanes];
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (float& lane : lanes) lane = normal(random) * std::exp2(static_cast<float>(random() % 20));
  float tree[kLanes];
  std::copy(lanes, lanes + kLanes, tree);
  for (int l = 0; l < 8; ++l) tree[l] += tree[l + 8];
  for (int l = 0; l < 4; ++l) tree[l] += tree[l + 4];
  float expected = (tree[0] + tree[2]) + (tree[1] + tree[3]);
  EXPECT_EQ(fold_lanes(lanes), expected);
}

}  // namespace
}  // namespace octet::int8
