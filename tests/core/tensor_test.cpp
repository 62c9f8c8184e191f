// Tensors: construction, typed views, conversion to f32 from unaligned bytes.
#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/error.h"

namespace octet {
namespace {

TEST(Tensor, CountsAndPrintsShapes) {
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({3, 0, 2}), 0);
  EXPECT_EQ(count({2, 3}), 6);
  EXPECT_EQ(to_string({2, 3}), "[2, 3]");
  EXPECT_EQ(to_string(Shape{}), "[]");
}

TEST(Tensor, HoldsWhatItWasGiven) {
  std::vector<float> values{1, 2, 3, 4, 5, 6};
  Tensor tensor = Tensor::from(values, {2, 3});
  values[0] = 9;
  EXPECT_EQ(tensor.as<float>()[0], 1.0f);
  EXPECT_EQ(tensor.bytes(), 24);
  EXPECT_EQ(tensor.reshape({3, 2}).as<float>()[5], 6.0f);
  EXPECT_EQ(tensor.reshape({6}).data(), tensor.data()) << "reshape shares the bytes";
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % 64, 0u);
  EXPECT_EQ(Tensor::scalar(2.5f).as<float>()[0], 2.5f);
  EXPECT_TRUE(Tensor().empty());
}

TEST(Tensor, AnotherTypeIsOurBug) {
  Tensor tensor = Tensor::scalar(1.0f);
  EXPECT_THROW(tensor.as<int8_t>(), Error);
  EXPECT_THROW(tensor.reshape({2}), Error);
}

TEST(Tensor, ConvertsUnalignedBytes) {
  auto bytes = std::make_shared<std::vector<std::byte>>(64);
  const uint16_t halves[] = {0x3c00, 0xc000, 0x3555};
  const uint16_t brains[] = {0x3f80, 0xc000, 0x3eab};
  const double doubles[] = {1.0, -2.0, 0.5};
  struct Row {
    DType type;
    const void* source;
    float third;
  };
  for (const Row& row :
       {Row{DType::f16, halves, 0x1.554p-2f}, Row{DType::bf16, brains, 0x1.56p-2f}, Row{DType::f64, doubles, 0.5f}}) {
    std::memcpy(bytes->data() + 1, row.source, static_cast<size_t>(3 * size_of(row.type)));
    Tensor tensor(row.type, {3}, bytes, bytes->data() + 1);
    EXPECT_EQ(tensor.to_f32(), (std::vector<float>{1.0f, -2.0f, row.third})) << name(row.type);
  }
  EXPECT_THROW(Tensor::from(std::vector<int32_t>{1}, {1}).to_f32(), Error);
}

TEST(Tensor, DeferredIsMadeOnceWhenRead) {
  int calls = 0;
  Tensor tensor = Tensor::deferred(DType::f32, {4, 2}, [&](int64_t begin, int64_t end, std::byte* out) {
    ++calls;
    for (int64_t i = 2 * begin; i < 2 * end; ++i) {
      auto value = static_cast<float>(i);
      std::memcpy(out + 4 * (i - 2 * begin), &value, 4);
    }
  });
  EXPECT_FALSE(tensor.empty());
  EXPECT_EQ(tensor.bytes(), 32);
  std::vector<std::byte> scratch(16);
  float part[4];
  std::memcpy(part, tensor.rows(1, 3, scratch.data()), 16);
  EXPECT_EQ(part[0], 2.0f);
  EXPECT_EQ(part[3], 5.0f);
  Tensor flat = tensor.reshape({8});
  EXPECT_EQ(flat.identity(), tensor.identity());
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(flat.as<float>()[7], 7.0f);
  EXPECT_EQ(tensor.to_f32()[3], 3.0f);
  EXPECT_EQ(tensor.rows(1, 2, nullptr), tensor.data() + 8) << "what is made is read where it lies";
  EXPECT_EQ(calls, 2);
}

TEST(Tensor, UnalignedIsAViewOrMadeWhenRead) {
  auto bytes = std::make_shared<std::vector<std::byte>>(64);
  const float values[] = {1, 2, 3, 4};
  std::memcpy(bytes->data() + 3, values, 16);
  Tensor tensor = Tensor::unaligned(DType::f32, {2, 2}, bytes, bytes->data() + 3);
  EXPECT_EQ(tensor.rows(1, 2, nullptr), bytes->data() + 11);
  EXPECT_EQ(tensor.as<float>()[2], 3.0f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % 4, 0u);
  Tensor view = Tensor::unaligned(DType::f32, {2}, bytes, bytes->data() + 8);
  EXPECT_EQ(view.data(), bytes->data() + 8);
}

}  // namespace
}  // namespace octet
