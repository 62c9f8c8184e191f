// The form of messages, error codes, and the search for near names.
#include "core/error.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace octet {
namespace {

Error caught(ErrorCode code, const ErrorText& text) {
  try {
    fail(code, text);
  } catch (const Error& error) {
    return error;
  }
}

TEST(ErrorForm, PartsComeALineEach) {
  struct Row {
    ErrorText text;
    std::string message;
  };
  const std::vector<Row> rows{
      {{.what = "cannot read x"}, "cannot read x"},
      {{.what = "cannot read x", .hint = "try y"}, "cannot read x\n  hint: try y"},
      {{.what = "cannot read tensor x",
        .expected = "expected 768 values, got 3072",
        .where = "in model.safetensors, byte 128",
        .hint = "download the file again"},
       "cannot read tensor x\n  expected 768 values, got 3072\n  in model.safetensors, byte 128\n  hint: download the "
       "file again"},
  };
  for (const Row& row : rows) EXPECT_EQ(std::string(caught(ErrorCode::corrupt, row.text).what()), row.message);
}

TEST(ErrorForm, EveryCodeHasItsName) {
  const std::vector<std::pair<ErrorCode, std::string>> rows{{ErrorCode::not_found, "not_found"},
                                                            {ErrorCode::corrupt, "corrupt"},
                                                            {ErrorCode::unsupported, "unsupported"},
                                                            {ErrorCode::invalid_argument, "invalid_argument"},
                                                            {ErrorCode::device, "device"},
                                                            {ErrorCode::out_of_memory, "out_of_memory"},
                                                            {ErrorCode::io, "io"},
                                                            {ErrorCode::internal, "internal"}};
  for (const auto& [code, text] : rows) {
    EXPECT_EQ(name(code), text);
    EXPECT_EQ(caught(code, {.what = "x"}).code(), code);
  }
}

TEST(ErrorForm, OurOwnBugAsksForAReport) {
  try {
    OCTET_CHECK(1 + 1 == 3, "arithmetic is off");
    FAIL() << "not thrown";
  } catch (const Error& error) {
    std::string text = error.what();
    EXPECT_EQ(error.code(), ErrorCode::internal);
    for (const char* part : {"arithmetic is off", "1 + 1 == 3", "error_test.cpp:", "report"})
      EXPECT_NE(text.find(part), std::string::npos) << part;
  }
}

TEST(NearestNames, ListsTheClosest) {
  const std::vector<std::string> known{"qdqbert", "linear-only", "residual-float", "residual-channel"};
  struct Row {
    std::string wanted, answer;
  };
  const std::vector<Row> rows{
      {"qdqbrt", "did you mean qdqbert"},
      {"residual-flat", "did you mean residual-float"},
      {"zzzzzzzzzzz", ""},
      {"", ""},
  };
  for (const Row& row : rows) EXPECT_EQ(nearest_names(row.wanted, known), row.answer) << row.wanted;
  EXPECT_EQ(nearest_names("ab", std::vector<std::string>{"aa", "ac", "ad", "ae"}), "did you mean aa, ac or ad");
  EXPECT_EQ(nearest_names("x", std::vector<std::string>{}), "");
}

}  // namespace
}  // namespace octet
