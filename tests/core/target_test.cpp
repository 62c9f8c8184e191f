// Targets by name, their order, and OCTET_TARGET.
#include "core/target.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "core/error.h"

namespace octet {
namespace {

TEST(Target, NamesRoundTrip) {
  for (const char* text :
       {"scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "sm80", "sm86", "sm89", "sm90a", "sm120"}) {
    Target target = parse_target(text);
    EXPECT_EQ(name(target), text);
    EXPECT_EQ(target.device == DeviceKind::cuda, std::string(text).starts_with("sm")) << text;
  }
}

TEST(Target, ACpuNameMeansItAndWhatIsBelow) {
  EXPECT_FALSE(parse_target("scalar").avx2);
  EXPECT_TRUE(parse_target("avxvnni").avx2);
  EXPECT_FALSE(parse_target("avxvnni").avx512);
  EXPECT_FALSE(parse_target("avx512").avx512_vnni);
  EXPECT_TRUE(parse_target("amx").avx512_vnni);
  EXPECT_TRUE(parse_target("amx").amx_int8);
}

TEST(Target, UnknownNamesListTheKnown) {
  try {
    parse_target("avx5");
    FAIL() << "not thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("avx512"), std::string::npos) << error.what();
  }
}

class TargetVariable : public ::testing::Test {
 protected:
  void TearDown() override { ::unsetenv("OCTET_TARGET"); }
};

TEST_F(TargetVariable, ForcesOne) {
  ::setenv("OCTET_TARGET", "scalar", 1);
  EXPECT_EQ(host_target(), parse_target("scalar"));
  ::unsetenv("OCTET_TARGET");
  EXPECT_EQ(host_target(), detect_cpu());
  ::setenv("OCTET_TARGET", "pentium", 1);
  EXPECT_THROW(host_target(), Error);
}

TEST_F(TargetVariable, RefusesWhatTheCpuLacks) {
  if (detect_cpu().amx_int8) GTEST_SKIP() << "this CPU has everything";
  ::setenv("OCTET_TARGET", "amx", 1);
  try {
    host_target();
    FAIL() << "not thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
  }
}

}  // namespace
}  // namespace octet
