// PyTorch checkpoints: both formats, strides, and refusal of everything that is not a state dictionary.
#include "hf/pickle.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/json.h"
#include "hf/zip.h"

namespace octet::hf {
namespace {

const std::filesystem::path kData = std::filesystem::path(OCTET_TEST_DATA) / "hf";

MappedFile bytes_of(const std::string& text) {
  auto owner = std::make_shared<std::vector<std::byte>>(text.size());
  if (!text.empty()) std::memcpy(owner->data(), text.data(), text.size());
  return {owner, *owner};
}

std::pair<std::string, std::string> outcome(const std::string& text) {
  try {
    parse_pytorch(bytes_of(text), "test");
    return {"accepted", ""};
  } catch (const Error& error) {
    return {std::string(octet::name(error.code())), error.what()};
  }
}

std::string little(uint64_t value, int bytes) {
  return {reinterpret_cast<const char*>(&value), static_cast<size_t>(bytes)};
}

/// The plain format around one pickle (without its PROTO and STOP) and two storages of four f32.
std::string plain(const std::string& object, const std::string& keys = "](X\x01" + std::string(3, '\0') + "0e") {
  std::string text = std::string("\x80\x02\x8a\x0a", 4) + "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." +
                     "\x80\x02M\xe9\x03." + "\x80\x02}.";
  text += "\x80\x02" + object + ".";
  text += "\x80\x02" + keys + ".";
  float values[4] = {1, 2, 3, 4};
  return text + little(4, 8) + std::string(reinterpret_cast<char*>(values), 16);
}

std::string text_op(const std::string& value) { return "X" + little(value.size(), 4) + value; }

/// {"x": a tensor of storage 0 with these arguments (pickled offset, sizes, strides)}
std::string one_tensor(const std::string& offset, const std::string& sizes, const std::string& strides,
                       const std::string& type = "FloatStorage", const std::string& elements = "K\x04") {
  return "}" + text_op("x") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text_op("storage") + "ctorch\n" + type + "\n" +
         text_op("0") + text_op("cpu") + elements + "tQ" + offset + sizes + strides + "\x89" + "}tRs";
}

TEST(Pickle, TensorsOfTheGoldenCheckpointsAreThoseOfTorch) {
  int files = 0;
  for (const char* folder : {"bert-regression", "bert-pretraining", "roberta-token"}) {
    nlohmann::json golden = read_json(kData / folder / "golden.json")["tensors"];
    std::map<std::string, Tensor> tensors;
    for (const auto& entry : std::filesystem::directory_iterator(kData / folder))
      if (entry.path().extension() == ".bin") {
        tensors.merge(read_pytorch(entry.path()));
        ++files;
      }
    ASSERT_EQ(tensors.size(), golden.size()) << folder;
    for (const auto& [name, expected] : golden.items()) {
      const Tensor& tensor = tensors.at(name);
      EXPECT_EQ(octet::name(tensor.dtype()), expected["dtype"].get<std::string>());
      EXPECT_EQ(tensor.shape(), expected["shape"].get<Shape>());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % static_cast<uintptr_t>(size_of(tensor.dtype())), 0u);
      double sum = 0, dot = 0;
      std::vector<float> values = tensor.to_f32();
      for (size_t i = 0; i < values.size(); ++i) {
        sum += values[i];
        dot += values[i] * static_cast<double>(i % 7 + 1);
      }
      EXPECT_NEAR(sum, expected["sum"].get<double>(), 1e-9 * static_cast<double>(values.size()))
          << folder << " " << name;
      EXPECT_NEAR(dot, expected["dot"].get<double>(), 1e-9 * static_cast<double>(values.size()))
          << folder << " " << name;
    }
  }
  EXPECT_EQ(files, 4);
}

TEST(Pickle, FollowsOffsetsAndStrides) {
  auto values = [](const std::string& object) {
    return parse_pytorch(bytes_of(plain(object)), "test").at("x").to_f32();
  };
  EXPECT_EQ(values(one_tensor("K\x01", "K\x02\x85", "K\x01\x85")), (std::vector<float>{2, 3}));
  EXPECT_EQ(values(one_tensor(std::string("K\0", 2), "K\x02K\x02\x86", "K\x01K\x02\x86")),
            (std::vector<float>{1, 3, 2, 4}));
  EXPECT_EQ(values(one_tensor("K\x01", "K\x02\x85", "K\x02\x85")), (std::vector<float>{2, 4}));
  EXPECT_EQ(values(one_tensor("K\x03", "K\x03\x85", std::string("K\0\x85", 3))), (std::vector<float>{4, 4, 4}));
  EXPECT_EQ(values(one_tensor("K\x03", ")", ")")), (std::vector<float>{4}));
  EXPECT_TRUE(values(one_tensor(std::string("K\0", 2), std::string("K\0\x85", 3), "K\x01\x85")).empty());
}

TEST(Pickle, FindsTheStateDictionaryInATrainersFile) {
  std::string inner = one_tensor("K\x01", "K\x02\x85", "K\x01\x85");
  EXPECT_EQ(parse_pytorch(bytes_of(plain("}" + text_op("model") + inner + "s")), "test").count("x"), 1u);
  EXPECT_EQ(
      parse_pytorch(bytes_of(plain("}" + text_op("epoch") + "K\x01s" + text_op("state_dict") + inner + "s")), "test")
          .count("x"),
      1u);
  EXPECT_EQ(outcome(plain("}" + text_op("other") + inner + "s")).first, "unsupported");
  EXPECT_EQ(outcome(plain("}", "]")).first, "unsupported");
  EXPECT_EQ(outcome(plain("N", "]")).first, "unsupported");
}

struct Bad {
  std::string object;
  const char* code;
  const char* says;
};

TEST(Pickle, RefusesWhatIsNotData) {
  const Bad cases[] = {
      {"cos\nsystem\n" + text_op("true") + "\x85R", "unsupported", "global os.system"},
      {"cbuiltins\neval\n", "unsupported", "global builtins.eval"},
      {text_op("posix") + text_op("system") + "\x93", "unsupported", "global posix.system"},
      {"ctorch\nFloatStorage\n)R", "unsupported", "a call of torch FloatStorage"},
      {"ccollections\nOrderedDict\n)\x81", "unsupported", "an object of collections OrderedDict"},
      {"K\x01}b", "unsupported", "state for an integer"},
      {"(ios\nsystem\n", "unsupported", "0x69 (INST)"},
      {"\x8f", "unsupported", "EMPTY_SET"},
      {"\x82\x01", "unsupported", "EXT1"},
      {"\xff", "unsupported", "0xff (unknown)"},
      {"\x80\x06", "unsupported", "protocol 6"},
      {"K", "corrupt", ""},
      {"0", "corrupt", "stack is empty"},
      {"(0", "corrupt", "stack is empty"},
      {"t", "corrupt", "no mark"},
      {"h\x07", "corrupt", "remembered as 7"},
      {"NK\x01s", "corrupt", "a dictionary"},
      {"NNNs", "corrupt", "a dictionary"},
      {"}(Nu", "corrupt", "pairs"},
      {"NNa", "corrupt", "a list"},
      {"NN", "corrupt", "one value at the end"},
      {"X\xff\xff\xff\xff", "corrupt", "more bytes"},
      {std::string("\x8d\xff\xff\xff\xff\xff\xff\xff\xff", 9), "corrupt", "more bytes"},
      {"NQ", "corrupt", "\"storage\""},
      {"ctorch._utils\n_rebuild_tensor_v2\n)R", "corrupt", "storage, offset"},
      {"ctorch._utils\n_rebuild_parameter\n)R", "corrupt", "a tensor in a parameter"},
      {one_tensor("K\x01", "K\x04\x85", "K\x01\x85"), "corrupt", "got index 4"},
      {one_tensor("K\x01", "K\x02K\x02\x86", "K\x01\x85"), "corrupt", "as many strides"},
      {one_tensor("J\xff\xff\xff\xff", "K\x02\x85", "K\x01\x85"), "corrupt", "offset inside"},
      {one_tensor("K\x01", "J\xff\xff\xff\xff\x85", "K\x01\x85"), "corrupt", "not negative"},
      {one_tensor("K\x01", "K\x02\x85", "J\xff\xff\xff\xff\x85"), "corrupt", "not negative"},
      {one_tensor("K\x01", "J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", "K\x01K\x01\x86"), "corrupt", "overflows"},
      {one_tensor("K\x01", "K\x02\x85", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"), "corrupt", "64 bits"},
      {one_tensor(std::string("K\0", 2), "J\xff\xff\xff\x7f\x85", std::string("K\0\x85", 3)), "unsupported",
       "many times the size"},
      {one_tensor("K\x01", "K\x02\x85", "K\x01\x85", "ComplexFloatStorage"), "unsupported",
       "torch.ComplexFloatStorage"},
      {one_tensor("K\x01", "K\x02\x85", "K\x01\x85", "FloatStorage", "K\x05"), "corrupt", "expected 5 elements, got 4"},
      {one_tensor("K\x01", "K\x02\x85", "K\x01\x85", "DoubleStorage"), "corrupt", "expected 32 bytes"},
      {one_tensor("K\x01", "K\x02\x85", "K\x01\x85", "FloatStorage", "J\xff\xff\xff\xff"), "corrupt", "storage's size"},
  };
  for (const Bad& bad : cases) {
    auto [code, text] = outcome(plain(bad.object));
    EXPECT_EQ(code, bad.code) << testing::PrintToString(bad.object) << text;
    EXPECT_NE(text.find(bad.says), std::string::npos) << testing::PrintToString(bad.object) << "\n" << text;
    EXPECT_NE(text.find("byte "), std::string::npos) << text;
  }
}

TEST(Pickle, RefusesOtherFiles) {
  EXPECT_EQ(outcome("").first, "corrupt");
  EXPECT_EQ(outcome("hello").first, "corrupt");
  EXPECT_EQ(outcome("\x80\x02}.").first, "unsupported");
  EXPECT_EQ(outcome("PK\x03\x04").first, "corrupt");
  EXPECT_EQ(outcome("PK\x05\x06" + std::string(18, '\0')).first, "unsupported");  // an empty archive
  EXPECT_THROW(read_pytorch(kData), Error);
  EXPECT_THROW(read_pytorch(kData / "absent.bin"), Error);
}

TEST(Pickle, RefusesEveryTruncationOfThePlainFormat) {
  std::string whole = plain(one_tensor("K\x01", "K\x02\x85", "K\x01\x85"));
  EXPECT_EQ(outcome(whole).first, "accepted");
  for (size_t size = 0; size < whole.size(); ++size) {
    std::string code = outcome(whole.substr(0, size)).first;
    ASSERT_EQ(code, "corrupt") << size;
  }
  std::string real = read_text(kData / "bert-pretraining" / "pytorch_model.bin");
  for (size_t size = 0; size < real.size(); size += size < 12000 ? 7 : 997)
    ASSERT_NE(outcome(real.substr(0, size)).first, "accepted") << size;
}

TEST(Pickle, RefusesEveryTruncationOfTheZipFormat) {
  std::string whole = read_text(kData / "bert-regression" / "pytorch_model.bin");
  EXPECT_EQ(outcome(whole).first, "accepted");
  for (size_t size = 0; size < whole.size(); size += 61)
    ASSERT_EQ(outcome(whole.substr(0, size)).first, "corrupt") << size;
  for (size_t cut = 1; cut < 200; ++cut)
    ASSERT_EQ(outcome(whole.substr(0, whole.size() - cut)).first, "corrupt") << cut;
}

TEST(Zip, RefusesCompressionEncryptionAndWrongOffsets) {
  const std::string whole = read_text(kData / "bert-regression" / "pytorch_model.bin");
  size_t entry = whole.find("PK\x01\x02");
  ASSERT_NE(entry, std::string::npos);
  auto changed = [&](size_t offset, const std::string& bytes) {
    std::string text = whole;
    text.replace(entry + offset, bytes.size(), bytes);
    return outcome(text);
  };
  EXPECT_NE(changed(10, std::string("\x08\0", 2)).second.find("compressed"), std::string::npos);
  EXPECT_NE(changed(8, std::string("\x01\0", 2)).second.find("encrypted"), std::string::npos);
  EXPECT_EQ(changed(42, "\x01").first, "corrupt");
  EXPECT_EQ(changed(42, "\xfe\xff\xff\xff").first, "corrupt");
  EXPECT_EQ(changed(20, "\xfe\xff\xff\xff\xfe\xff\xff\xff").first, "corrupt");
  EXPECT_EQ(changed(28, "\xff\xff").first, "corrupt");
  EXPECT_EQ(changed(0, "x").first, "corrupt");
}

TEST(Pickle, SurvivesEveryChangedByteOfAHeader) {
  std::string whole = plain(one_tensor("K\x01", "K\x02\x85", "K\x01\x85"));
  for (size_t at = 0; at < whole.size() - 16; ++at)
    for (int value : {0, 1, 0x28, 0x2e, 0x51, 0x52, 0x7f, 0x80, 0xff}) {
      std::string text = whole;
      text[at] = static_cast<char>(value);
      ASSERT_NE(outcome(text).first, "internal") << at << " " << value;
    }
}

}  // namespace
}  // namespace octet::hf
