// Summaries of samples against values computed by hand, and the reference's line.
#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <vector>

namespace octet::bench {
namespace {

TEST(Statistics, OfKnownSamples) {
  std::vector<double> samples{4, 1, 3, 2};
  Summary s = summarize(samples);
  EXPECT_EQ(s.count, 4);
  EXPECT_DOUBLE_EQ(s.mean, 2.5);
  EXPECT_DOUBLE_EQ(s.median, 2.5);
  EXPECT_DOUBLE_EQ(s.sd, 1.118033988749895);  // ddof 0
  EXPECT_DOUBLE_EQ(s.min, 1);
  EXPECT_DOUBLE_EQ(s.max, 4);
  EXPECT_DOUBLE_EQ(s.p95, 3.85);  // index 3 * 0.95 = 2.85
  EXPECT_DOUBLE_EQ(s.p99, 3.97);
}

TEST(Statistics, OfOneSampleAndOfNone) {
  Summary one = summarize(std::vector<double>{2});
  EXPECT_EQ(one.median, 2);
  EXPECT_EQ(one.p99, 2);
  EXPECT_EQ(one.sd, 0);
  EXPECT_EQ(summarize({}).count, 0);
}

TEST(Statistics, LineOfTheReference) {
  EXPECT_EQ(timing_line("ORT", {.median = 3, .mean = 1.234, .sd = 0.5, .min = 1, .max = 10, .p95 = 9.5, .p99 = 9.994}),
            "[ORT] mean=1.23ms, sd=0.50ms, min=1.00ms, max=10.00ms, median=3.00ms, 95p=9.50ms, 99p=9.99ms");
}

}  // namespace
}  // namespace octet::bench
