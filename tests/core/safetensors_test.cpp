// Safetensors: round trips, layout, and every way a file can be wrong.
#include "core/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "core/error.h"

namespace octet {
namespace {

std::filesystem::path scratch(const std::string& name) {
  auto folder = std::filesystem::temp_directory_path() / ("octet-safetensors-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  return folder / name;
}

MappedFile bytes_of(const std::string& text) {
  // An exact heap block, so that a sanitizer sees a read past the end.
  auto owner = std::make_shared<std::vector<std::byte>>(text.size());
  if (!text.empty()) std::memcpy(owner->data(), text.data(), text.size());
  return {owner, *owner};
}

std::string file_of(const std::string& header, size_t data_bytes) {
  uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), 8);
  return text + header + std::string(data_bytes, '\1');
}

/// The error's code and text, or "accepted".
std::pair<std::string, std::string> outcome(const std::string& text) {
  try {
    parse_safetensors(bytes_of(text), "test");
    return {"accepted", ""};
  } catch (const Error& error) {
    return {std::string(name(error.code())), error.what()};
  }
}

TEST(Safetensors, RoundTripsEveryTypeInAnyOrder) {
  auto path = scratch("all.safetensors");
  std::vector<std::pair<std::string, Tensor>> tensors;
  int index = 0;
  for (DType dtype : {DType::u8, DType::f64, DType::s8, DType::f32, DType::boolean, DType::f16, DType::s16, DType::bf16,
                      DType::s32, DType::s64}) {
    std::byte* bytes = nullptr;
    Tensor tensor = Tensor::allocate(dtype, {3, 1, ++index}, &bytes);
    for (int64_t i = 0; i < tensor.bytes(); ++i) bytes[i] = static_cast<std::byte>(i + index);
    tensors.emplace_back("t/\"" + std::to_string(index) + "\" \xc3\xa9", tensor);
  }
  tensors.emplace_back("scalar", Tensor::scalar(2.5f));
  tensors.emplace_back("none", Tensor::from(std::span<const float>{}, {0, 4}));
  write_safetensors(path, tensors, {{"b", "2\n"}, {"a", "1"}});
  Safetensors read = read_safetensors(path);
  ASSERT_EQ(read.tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const Tensor& other = read.tensors.at(name);
    EXPECT_EQ(other.dtype(), tensor.dtype());
    EXPECT_EQ(other.shape(), tensor.shape());
    EXPECT_FALSE(other.empty());
    EXPECT_EQ(std::memcmp(other.data(), tensor.data(), static_cast<size_t>(tensor.bytes())), 0) << name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(other.data()) % static_cast<uintptr_t>(size_of(tensor.dtype())), 0u) << name;
  }
  EXPECT_EQ(read.metadata, (std::map<std::string, std::string>{{"a", "1"}, {"b", "2\n"}}));
  std::string first = read_text(path);
  write_safetensors(path, tensors, {{"a", "1"}, {"b", "2\n"}});
  EXPECT_EQ(first, read_text(path));
}

TEST(Safetensors, WholeVectorsStartAtMultiplesOf64) {
  auto path = scratch("aligned.safetensors");
  std::vector<float> values(64, 1.0f);
  write_safetensors(path, {{"odd", Tensor::from(std::span(values).first(3), {3})},
                           {"even", Tensor::from(std::span(values), {64})},
                           {"bytes", Tensor::from(std::span<const int8_t>(std::vector<int8_t>(7)), {7})},
                           {"other", Tensor::from(std::span(values).first(16), {16})}});
  Safetensors read = read_safetensors(path);
  for (const char* name : {"even", "other"})
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.tensors.at(name).data()) % 64, 0u) << name;
}

TEST(Safetensors, TensorsOutliveTheStruct) {
  auto path = scratch("alive.safetensors");
  write_safetensors(path, {{"x", Tensor::scalar(7.0f)}});
  Tensor x = read_safetensors(path).tensors.at("x");
  EXPECT_EQ(x.as<float>()[0], 7.0f);
}

TEST(Safetensors, UnalignedDataIsCopied) {
  std::string header = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )";
  while ((8 + header.size()) % 4 != 1) header += ' ';
  Safetensors read = parse_safetensors(bytes_of(file_of(header, 8)), "test");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read.tensors.at("x").data()) % 4, 0u);
  EXPECT_EQ(read.tensors.at("x").to_f32()[1], std::bit_cast<float>(0x01010101u));
}

TEST(Safetensors, EmptyHeaderIsAnEmptyFile) { EXPECT_EQ(outcome(file_of("{}", 0)).first, "accepted"); }

struct Bad {
  const char* header;
  size_t data;
  const char* says;
  const char* code = "corrupt";
};

TEST(Safetensors, RefusesWrongHeaders) {
  const Bad cases[] = {
      {"", 0, "JSON"},
      {"[]", 0, "JSON object"},
      {"{", 0, "byte 9"},
      {R"({"x":1})", 0, "an object with dtype"},
      {R"({"x":{"dtype":"F32","shape":[1]}})", 4, "data_offsets"},
      {R"({"x":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", 4, "dtype to be a string"},
      {R"({"x":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "got F33"},
      {R"({"x":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", 4, "F8_E4M3", "unsupported"},
      {R"({"x":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, "shape"},
      {R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "not negative"},
      {R"({"x":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "not negative"},
      {R"({"x":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4, "not negative"},
      {R"({"x":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})", 4, "not negative"},
      {R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"x":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"x":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "expected 8 bytes"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "begin <= end"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "[begin, end]"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "begin <= end"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551616]}})", 4,
       "begin <= end"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551608,18446744073709551612]}})", 4, "hole"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3, "within 3 bytes"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "expected 4 bytes of data, got 5"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "hole"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "overlaps"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "overlaps"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "twice"},
      {R"({"x":{"dtype":"U8","shape":[4],"shape":[2,2],"data_offsets":[0,4]}})", 4, "twice"},
      {R"({"__metadata__":[]})", 0, "object of strings"},
      {R"({"__metadata__":{"a":1}})", 0, "a string for"},
      {R"({"x":[[[[[[[[[[]]]]]]]]]]})", 0, "nested"},
  };
  for (const Bad& bad : cases) {
    auto [code, text] = outcome(file_of(bad.header, bad.data));
    EXPECT_EQ(code, bad.code) << bad.header;
    EXPECT_NE(text.find(bad.says), std::string::npos) << bad.header << "\n" << text;
  }
}

TEST(Safetensors, RefusesEveryTruncation) {
  auto path = scratch("cut.safetensors");
  std::vector<float> values(5, 1.0f);
  write_safetensors(path, {{"x", Tensor::from(values, {5})}, {"y", Tensor::scalar(1)}}, {{"k", "v"}});
  std::string whole = read_text(path);
  EXPECT_EQ(outcome(whole).first, "accepted");
  for (size_t size = 0; size < whole.size(); ++size) ASSERT_EQ(outcome(whole.substr(0, size)).first, "corrupt") << size;
  EXPECT_EQ(outcome(whole + "x").first, "corrupt");
}

TEST(Safetensors, RefusesALengthBeyondTheFile) {
  std::string text = file_of("{}", 0);
  for (int byte = 2; byte < 8; ++byte) {
    std::string bad = text;
    bad[static_cast<size_t>(byte)] = '\x7f';
    EXPECT_EQ(outcome(bad).first, "corrupt");
  }
}

TEST(Safetensors, NamesWhatIsNotAFile) {
  auto code_of = [](const std::filesystem::path& path) {
    try {
      read_safetensors(path);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code_of(scratch("")), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(scratch("absent")), ErrorCode::not_found);
  std::ofstream(scratch("empty.safetensors"));
  EXPECT_EQ(code_of(scratch("empty.safetensors")), ErrorCode::corrupt);
}

TEST(Safetensors, RefusesToWriteNamesTwiceOrOutsideUtf8) {
  Tensor x = Tensor::scalar(1);
  EXPECT_THROW(write_safetensors(scratch("w"), {{"x", x}, {"x", x}}), Error);
  EXPECT_THROW(write_safetensors(scratch("w"), {{"\xff", x}}), Error);
  EXPECT_THROW(write_safetensors(scratch("w"), {{"__metadata__", x}}), Error);
  EXPECT_FALSE(std::filesystem::exists(scratch("w")));
}

}  // namespace
}  // namespace octet
