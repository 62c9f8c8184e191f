// ONNX files: what is written is read again, and damage is refused with its place.
#include "onnx/file.h"

#include <gtest/gtest.h>
#include <octet/error.h>

#include <cstring>

namespace octet::onnx {
namespace {

MappedFile bytes_of(const std::string& text) {
  auto bytes = std::shared_ptr<std::byte[]>(new std::byte[text.size()]);
  std::memcpy(bytes.get(), text.data(), text.size());
  return {bytes, {bytes.get(), text.size()}};
}

File small_file() {
  File file;
  file.producer = "octet";
  file.opsets[""] = 13;
  file.metadata["key"] = "value";
  file.graph.name = "g";
  Node node;
  node.op = "Softmax", node.name = "n", node.inputs = {"x"}, node.outputs = {"y"};
  Attribute axis;
  axis.kind = Attribute::Kind::integer, axis.name = "axis", axis.integer = -1;
  node.attributes = {axis};
  file.graph.nodes.push_back(node);
  std::vector<float> values(300, 0.5f);
  file.graph.initializers.push_back({"w", ElemType::f32, Tensor::from(values, {3, 100})});
  file.graph.inputs.push_back({"x", ElemType::f32, true, {-1, 4}, {"batch", ""}});
  file.graph.outputs.push_back({"y", ElemType::f32, true, {-1, 4}, {"batch", ""}});
  return file;
}

TEST(OnnxFile, WritesAndReadsTheSame) {
  std::string bytes = serialize(small_file());
  File read = parse_file(bytes_of(bytes), "small.onnx", ".");
  EXPECT_EQ(read.opset(), 13);
  EXPECT_EQ(read.metadata.at("key"), "value");
  ASSERT_EQ(read.graph.nodes.size(), 1u);
  EXPECT_EQ(read.graph.nodes[0].integer("axis", 7), -1);
  ASSERT_EQ(read.graph.initializers.size(), 1u);
  EXPECT_EQ(read.graph.initializers[0].data.shape(), (Shape{3, 100}));
  EXPECT_EQ(read.graph.initializers[0].data.as<float>()[299], 0.5f);
  EXPECT_EQ(read.graph.inputs[0].symbols[0], "batch");
  EXPECT_EQ(serialize(read), bytes);
}

TEST(OnnxFile, ExternalDataComesBack) {
  auto folder = std::filesystem::path(testing::TempDir()) / "onnx_external";
  std::filesystem::create_directories(folder);
  write_file(small_file(), folder / "m.onnx", 100);
  EXPECT_TRUE(std::filesystem::exists(folder / "m.onnx.data"));
  File read = read_file(folder / "m.onnx");
  EXPECT_EQ(read.graph.initializers[0].data.as<float>()[7], 0.5f);
  std::filesystem::resize_file(folder / "m.onnx.data", 600);
  EXPECT_THROW(read_file(folder / "m.onnx"), Error);
}

TEST(OnnxFile, CutFilesAreRefused) {
  std::string bytes = serialize(small_file());
  for (size_t size = 0; size < bytes.size(); size += 7) {
    try {
      parse_file(bytes_of(bytes.substr(0, size)), "cut.onnx", ".");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt) << error.what();
    }
  }
}

}  // namespace
}  // namespace octet::onnx
