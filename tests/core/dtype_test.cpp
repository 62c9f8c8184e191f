// 16-bit float conversion over every bit pattern and over ties.
#include "core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace octet {
namespace {

TEST(DType, EveryHalfRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    float value = f32_from_f16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f16_from_f32(value), bits);
  }
}

TEST(DType, HalfRoundsToNearestEven) {
  EXPECT_EQ(f16_from_f32(2049.0f), f16_from_f32(2048.0f));
  EXPECT_EQ(f16_from_f32(2051.0f), f16_from_f32(2052.0f));
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(65519.0f), 0x7bff);
}

TEST(DType, EveryBfloat16RoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    float value = f32_from_bf16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(bf16_from_f32(value), bits);
  }
}

}  // namespace
}  // namespace octet
