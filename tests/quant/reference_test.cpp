// The reference's arithmetic and calibrators against its golden vectors (section A.6.6 of the reference system's
// description).
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "quant/quantizer.h"
#include "quant/reference_histogram.h"

namespace octet {
namespace {

std::vector<float> samples(uint32_t seed, int count) {
  std::vector<float> list;
  uint32_t s = seed;
  for (int i = 0; i < count; ++i) {
    double sum = 0.0;
    for (int k = 0; k < 12; ++k) {
      s = s * 1664525u + 1013904223u;
      sum += s / 4294967296.0;
    }
    sum -= 6.0;
    if (i % 97 == 0) sum *= 8.0;
    list.push_back(static_cast<float>(sum));
  }
  return list;
}

/// Nine significant digits, as the table prints them.
void expect_digits(double got, double wanted) { EXPECT_NEAR(got, wanted, std::fabs(wanted) * 5e-9) << got; }

std::vector<float> fake_quant(std::vector<float> x, std::vector<float> amax, QuantSpec spec, int64_t inner = 1) {
  std::vector<float> y(x.size());
  reference_fake_quant(x, amax, inner, spec, y);
  return y;
}

TEST(ReferenceQuantizer, GoldenLine) {
  std::vector<float> x = {0.5f, 1.5f, 2.5f, -0.5f, 126.5f, 127.6f, -127.6f, -128.6f};
  std::vector<float> full = fake_quant(x, {127.0f}, {});
  EXPECT_EQ(full, (std::vector<float>{0, 2, 2, -0.0f, 126, 127, -128, -128}));
  EXPECT_TRUE(std::signbit(full[3]));
  std::vector<float> narrow = fake_quant(x, {127.0f}, {.narrow = true});
  EXPECT_EQ(narrow[6], -127.0f);
  EXPECT_EQ(narrow[7], -127.0f);
}

TEST(ReferenceQuantizer, TinyRangesUnsignedAndChannels) {
  EXPECT_EQ(fake_quant({1.0f, -2.0f}, {0x1p-24f}, {}), (std::vector<float>{0.0f, -0.0f}));
  EXPECT_EQ(fake_quant({1.0f, 0x1p-23f}, {0x1p-23f}, {})[1], 0x1p-23f);
  EXPECT_EQ(fake_quant({300.0f, 254.5f, 0.4f}, {255.0f}, {.is_unsigned = true}), (std::vector<float>{255, 254, 0}));
  EXPECT_EQ(fake_quant({3.0f, 3.0f, 30.0f, 30.0f}, {3.0f, 7.0f}, {.bits = 3}, 2), (std::vector<float>{3, 3, 7, 7}));
  for (int bits = 2; bits <= 8; ++bits) {
    auto bound = static_cast<float>((1 << (bits - 1)) - 1);
    EXPECT_EQ(fake_quant({-1000.0f, 1000.0f}, {bound}, {.bits = bits}), (std::vector<float>{-bound - 1, bound}));
  }
}

TEST(ReferenceQuantizer, Errors) {
  EXPECT_THROW(fake_quant({1.0f}, {-1.0f}, {}), Error);
  EXPECT_THROW(fake_quant({1.0f}, {NAN}, {}), Error);
  EXPECT_THROW(fake_quant({-1.0f}, {1.0f}, {.is_unsigned = true}), Error);
  EXPECT_THROW(fake_quant({1.0f, 2.0f, 3.0f}, {1.0f, 1.0f}, {}), Error);
  EXPECT_THROW(parse_quant_spec("s9", false), Error);
  EXPECT_THROW(parse_quant_spec("f8", false), Error);
  EXPECT_EQ(parse_quant_spec("u4", false).hi(), 15);
}

struct Golden {
  const char* name;
  std::vector<std::vector<float>> batches;
  size_t bins;
  double edge0, last;
  int64_t counted;
  double percentiles[5];
  double mse, entropy;
};

TEST(ReferenceHistogram, GoldenVectors) {
  std::vector<float> a = samples(12345, 20000), b = samples(777, 20000);
  EXPECT_FLOAT_EQ(a[0], -4.440433025f);
  EXPECT_FLOAT_EQ(a[1], 1.494471431f);
  EXPECT_FLOAT_EQ(a[2], -0.9090954065f);
  std::vector<float> small(a.begin(), a.begin() + 1000);
  for (float& value : small) value *= 0.25f;
  const Golden goldens[] = {
      {"a",
       {a},
       2048,
       2.04745214e-4,
       28.9805107,
       20000,
       {2.98596859, 12.2687225, 22.2024021, 28.9663601, 28.9805107},
       26.355587,
       17.6742287},
      {"a, b",
       {a, b},
       2048,
       2.04745214e-4,
       28.9805107,
       39994,
       {2.98596859, 12.325325, 21.0137558, 28.9663601, 28.9805107},
       23.5679283,
       20.178875},
      {"small, b",
       {small, b},
       14970,
       1.77524867e-4,
       21.0260606,
       20993,
       {2.94983864, 12.1986282, 18.4515684, 20.1763237, 20.1763237},
       18.6151962,
       16.1102271},
  };
  const double percents[] = {99.0, 99.9, 99.99, 99.999, 100.0};
  for (const Golden& golden : goldens) {
    SCOPED_TRACE(golden.name);
    ReferenceHistogram histogram;
    for (const auto& batch : golden.batches) histogram.collect(batch);
    EXPECT_EQ(histogram.counts().size(), golden.bins);
    expect_digits(histogram.edges().front(), golden.edge0);
    expect_digits(histogram.edges().back(), golden.last);
    EXPECT_EQ(histogram.counted(), golden.counted);
    for (int i = 0; i < 5; ++i) expect_digits(histogram.percentile(percents[i]), golden.percentiles[i]);
    expect_digits(histogram.entropy(), golden.entropy);
    // The golden numbers average in another precision, so a neighbouring bin is right as well.
    EXPECT_NEAR(histogram.mse(), golden.mse, 1.01 * (histogram.edges()[1] - histogram.edges()[0]));
  }
}

TEST(ReferenceHistogram, Errors) {
  ReferenceHistogram histogram;
  EXPECT_THROW(histogram.percentile(99.0), Error);
  EXPECT_THROW(histogram.entropy(), Error);
  histogram.collect(std::vector<float>{1.0f, 2.0f});
  EXPECT_THROW(histogram.percentile(101.0), Error);
  EXPECT_THROW(histogram.collect(std::vector<float>{NAN}), Error);
}

}  // namespace
}  // namespace octet
