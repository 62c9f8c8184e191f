// Statistics do not depend on batching, order or threads; ranges behave; how fast collection is.
#include "quant/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "core/error.h"

namespace octet {
namespace {

/// Heavy tails over many powers of two, with zeros and subnormals.
std::vector<float> heavy(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> list(count);
  for (float& value : list) value = std::ldexp(normal(random), static_cast<int>(random() % 24) - 18);
  list[count / 2] = 0.0f;
  list[count / 3] = 1e-42f;
  return list;
}

TEST(Statistics, DoNotDependOnBatching) {
  const int64_t width = 6;
  std::vector<float> values = heavy(1, 6 * 3000);
  TensorStatistics whole;
  whole.collect(values, width);
  EXPECT_EQ(whole.elements(), static_cast<int64_t>(values.size()));
  EXPECT_EQ(std::accumulate(whole.bins().begin(), whole.bins().end(), uint64_t{0}), values.size());
  EXPECT_GT(whole.bins().size(), 2048u);
  EXPECT_LE(whole.bins().size(), 4096u);
  std::mt19937 random(2);
  for (int round = 0; round < 20; ++round) {
    // Random cuts, spread over three collectors in random order, then merged in random order.
    std::vector<size_t> cuts = {0, 3000};
    for (int i = 0; i < 12; ++i) cuts.push_back(random() % 3001);
    std::sort(cuts.begin(), cuts.end());
    std::vector<std::pair<size_t, size_t>> parts;
    for (size_t i = 1; i < cuts.size(); ++i) parts.emplace_back(cuts[i - 1], cuts[i]);
    std::shuffle(parts.begin(), parts.end(), random);
    TensorStatistics collectors[3];
    for (auto [begin, end] : parts)
      collectors[random() % 3].collect(std::span(values).subspan(begin * width, (end - begin) * width), width);
    TensorStatistics merged;
    size_t order[] = {0, 1, 2};
    std::shuffle(order, order + 3, random);
    for (size_t i : order) merged.merge(collectors[i]);
    ASSERT_TRUE(merged == whole) << round;
  }
}

TEST(Statistics, BinsHoldWhatTheySay) {
  std::vector<float> values = heavy(3, 5000);
  TensorStatistics statistics;
  for (float value : values) statistics.collect({&value, 1}, 1);
  std::vector<uint64_t> bins(statistics.bins().size(), 0);
  for (float value : values)
    ++bins.at(static_cast<size_t>(std::fabs(static_cast<double>(value)) / statistics.bin_width()));
  EXPECT_EQ(bins, statistics.bins());
}

TEST(Statistics, ExtremesByChannelAndNonFinite) {
  TensorStatistics statistics;
  statistics.collect(std::vector<float>{1.0f, -2.0f, NAN, 3.0f, -5.0f, INFINITY}, 3);
  statistics.collect(std::vector<float>{2.0f, -3.0f, NAN}, 3);
  EXPECT_EQ(statistics.minimum()[0], 1.0f);
  EXPECT_EQ(statistics.maximum()[1], -2.0f);
  EXPECT_EQ(statistics.channel_amax(), (std::vector<float>{3.0f, 5.0f, 0.0f}));
  EXPECT_EQ(statistics.amax(), 5.0f);
  EXPECT_EQ(statistics.elements(), 6);
  EXPECT_EQ(statistics.nonfinite(), 3);
}

TEST(Statistics, ExtremeMagnitudes) {
  for (float value : {1e-45f, 1e-40f, 1.2e-38f, 0x1p-24f, 1.0f, 3e38f}) {
    TensorStatistics statistics;
    statistics.collect(std::vector<float>{value, -value, 0.0f, value / 2}, 1);
    EXPECT_EQ(statistics.amax(), value);
    EXPECT_EQ(statistics.elements(), 4);
    EXPECT_EQ(statistics.percentile(100.0), value);
    EXPECT_LE(statistics.least_error({}, 2.0), value);
  }
  TensorStatistics zero;
  zero.collect(std::vector<float>(10, 0.0f), 2);
  EXPECT_EQ(zero.amax(), 0.0f);
  EXPECT_EQ(zero.percentile(99.0), 0.0f);
  EXPECT_EQ(zero.entropy({}), 0.0f);
  EXPECT_THROW(TensorStatistics().percentile(99.0), Error);
}

TEST(Statistics, Ranges) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> values(200000);
  for (float& value : values) value = normal(random);
  values[17] = 40.0f;  // an outlier
  TensorStatistics statistics;
  statistics.collect(values, 1);
  std::vector<float> sorted = values;
  for (float& value : sorted) value = std::fabs(value);
  std::sort(sorted.begin(), sorted.end());
  for (double percent : {50.0, 99.0, 99.9, 99.99, 100.0}) {
    auto rank = static_cast<size_t>(std::ceil(percent / 100.0 * static_cast<double>(values.size()))) - 1;
    float exact = sorted[rank], got = statistics.percentile(percent);
    EXPECT_GE(got, exact);
    EXPECT_LE(got, exact + static_cast<float>(statistics.bin_width()));
  }
  EXPECT_EQ(statistics.percentile(100.0), 40.0f);
  float entropy = statistics.entropy({}), mse = statistics.least_error({}, 2.0),
        quartic = statistics.least_error({}, 4.0);
  EXPECT_GT(entropy, 2.0f);
  EXPECT_LT(entropy, 21.0f);
  EXPECT_GT(mse, 2.0f);
  EXPECT_LT(mse, 21.0f);
  EXPECT_GE(quartic, mse);  // a higher power clips less
  EXPECT_LE(statistics.error(mse, {}, 2.0), statistics.error(40.0f, {}, 2.0));
  // Fewer bits ask for a smaller range.
  EXPECT_LE(statistics.least_error({.bits = 4}, 2.0), mse);
  EXPECT_THROW(statistics.percentile(-1.0), Error);
}

TEST(Statistics, EntropyEqualsItsDefinition) {
  std::vector<float> values = heavy(5, 20000);
  TensorStatistics statistics;
  statistics.collect(values, 1);
  std::vector<double> bins(statistics.bins().begin(), statistics.bins().end());
  double least = INFINITY, total = static_cast<double>(values.size());
  size_t best = bins.size();
  for (size_t kept = 128; kept <= bins.size(); ++kept) {
    std::vector<double> sums(128, 0.0), filled(128, 0.0);
    double inside = 0.0;
    for (size_t j = 0; j < kept; ++j) {
      sums[j * 128 / kept] += bins[j];
      filled[j * 128 / kept] += bins[j] > 0.0;
      inside += bins[j];
    }
    double divergence = 0.0;
    for (size_t j = 0; j < kept; ++j) {
      double p = bins[j] + (j + 1 == kept ? total - inside : 0.0);
      if (p == 0.0) continue;
      double q = bins[j] > 0.0 ? sums[j * 128 / kept] / filled[j * 128 / kept] / inside : 0.0;
      divergence += p / total * std::log(p / total / q);
    }
    if (divergence <= least) least = divergence, best = kept;
  }
  EXPECT_NEAR(statistics.entropy({}), static_cast<double>(best) * statistics.bin_width(),
              1.01 * statistics.bin_width());
}

TEST(Statistics, RestoreRefusesWhatDoesNotFit) {
  TensorStatistics good;
  good.collect(heavy(6, 600), 3);
  auto restore = [&](auto edit) {
    int exponent = good.bin_exponent();
    std::vector<uint64_t> bins = good.bins();
    std::vector<float> low = good.minimum(), high = good.maximum();
    int64_t elements = good.elements();
    edit(exponent, bins, elements, low, high);
    return TensorStatistics::restore(exponent, bins, elements, 0, low, high, "test");
  };
  using Bins = std::vector<uint64_t>;
  using Floats = std::vector<float>;
  EXPECT_TRUE(restore([](int&, Bins&, int64_t&, Floats&, Floats&) {}) == good);
  EXPECT_THROW(restore([](int& e, Bins&, int64_t&, Floats&, Floats&) { ++e; }), Error);
  EXPECT_THROW(restore([](int&, Bins& b, int64_t&, Floats&, Floats&) { ++b[0]; }), Error);
  EXPECT_THROW(restore([](int&, Bins& b, int64_t&, Floats&, Floats&) { b[0] = UINT64_MAX; }), Error);
  EXPECT_THROW(restore([](int&, Bins& b, int64_t&, Floats&, Floats&) { b.push_back(0); }), Error);
  EXPECT_THROW(restore([](int&, Bins&, int64_t&, Floats& low, Floats&) { low.pop_back(); }), Error);
  EXPECT_THROW(restore([](int&, Bins&, int64_t&, Floats&, Floats& high) { high[0] = NAN; }), Error);
  EXPECT_THROW(restore([](int&, Bins&, int64_t&, Floats&, Floats& high) { high[0] = 1e30f; }), Error);
}

TEST(Statistics, CollectsGigabytesPerSecond) {
  std::vector<float> values = heavy(7, 384 * 8192);
  TensorStatistics statistics;
  statistics.collect(values, 384);
  auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 8; ++i) statistics.collect(values, 384);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("statistics: %.2f GB/s\n", 8.0 * 4.0 * static_cast<double>(values.size()) / seconds / 1e9);
}

}  // namespace
}  // namespace octet
