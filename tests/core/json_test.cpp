// JSON limits and typed access: what is off is named.
#include "core/json.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace octet {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(Json, NestingHasALimit) {
  EXPECT_NO_THROW(parse_json(std::string(128, '[') + std::string(128, ']'), "x"));
  EXPECT_NE(message_of([] { parse_json(std::string(200, '['), "deep.json"); }).find("deep.json"), std::string::npos);
  // Far beyond what a recursive parser's stack would hold.
  EXPECT_NE(message_of([] { parse_json(std::string(10000000, '['), "x"); }).find("128"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 200; ++i) objects += "{\"a\":";
  message_of([&] { parse_json(objects, "x"); });
}

TEST(Json, MalformedTextIsCorrupt) {
  for (const char* text :
       {"", " ", "{", "[1,", "nul", "{\"a\" 1}", "\"\\ud800\"", "1e999", "\xff", "{} x", "\"\xc3\x28\""})
    EXPECT_NE(message_of([&] { parse_json(text, "some.json"); }).find("some.json"), std::string::npos) << text;
}

TEST(Json, TypedAccessNamesKeyAndFile) {
  nlohmann::json object =
      parse_json(R"({"n": 3, "f": 1.5, "s": "text", "b": true, "z": null, "l": [1, 2], "big": 1e300})", "x");
  EXPECT_EQ(json_get<int64_t>(object, "n", "x"), 3);
  EXPECT_EQ(json_get<double>(object, "f", "x"), 1.5);
  EXPECT_EQ(json_get<float>(object, "n", "x"), 3.0f);
  EXPECT_EQ(json_get<std::string>(object, "s", "x"), "text");
  EXPECT_TRUE(json_get<bool>(object, "b", "x"));
  EXPECT_EQ(json_get<std::vector<int64_t>>(object, "l", "x"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(json_get_or<int>(object, "missing", 7, "x"), 7);
  EXPECT_EQ(json_get_or<int>(object, "z", 7, "x"), 7);
  const std::vector<std::function<void()>> wrong{
      [&] { json_get<int>(object, "missing", "the.json"); },
      [&] { json_get<int>(object, "s", "the.json"); },
      [&] { json_get<int>(object, "f", "the.json"); },
      [&] { json_get<int>(object, "b", "the.json"); },
      [&] { json_get<std::string>(object, "n", "the.json"); },
      [&] { json_get<bool>(object, "n", "the.json"); },
      [&] { json_get_or<int>(object, "s", 7, "the.json"); },
      [&] { json_get<int>(object["l"], "n", "the.json"); },
      [&] { json_get<std::vector<std::string>>(object, "l", "the.json"); },
  };
  for (size_t i = 0; i < wrong.size(); ++i)
    EXPECT_NE(message_of(wrong[i]).find("the.json"), std::string::npos) << "case " << i;
}

TEST(Json, IntegersDoNotWrap) {
  nlohmann::json object = parse_json(R"({"n": 4294967296, "u": 18446744073709551615})", "x");
  message_of([&] { json_get<int>(object, "n", "x"); });
  message_of([&] { json_get<int64_t>(object, "u", "x"); });
  EXPECT_EQ(json_get<int64_t>(object, "n", "x"), 4294967296);
}

}  // namespace
}  // namespace octet
