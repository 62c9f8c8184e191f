// Selection is a pure function of descriptor and target: which row each target gets, without the hardware.
#include <gtest/gtest.h>

#include "kernels/kernels.h"

namespace octet::kernels {
namespace {

template <typename Kernel>
std::string selected(std::span<const Kernel> table, const typename Kernel::Desc& desc, const char* target) {
  const Kernel* row = find(table, desc, parse_target(target));
  return row == nullptr ? "none" : std::string(row->name);
}

TEST(Selection, Gemm) {
  GemmDesc s8{.n = 384, .k = 384, .x = DType::s8, .w = DType::s8, .y = DType::s8}, f32{.n = 384, .k = 384};
  GemmDesc bf16{.n = 8, .k = 8, .x = DType::bf16, .w = DType::bf16, .y = DType::bf16};
  EXPECT_EQ(selected(gemm_kernels(), s8, "scalar"), "gemm_s8_ref");
  EXPECT_EQ(selected(gemm_kernels(), s8, "avx2"), "gemm_s8_avx2_6x16");
  EXPECT_EQ(selected(gemm_kernels(), s8, "avxvnni"), "gemm_s8_avxvnni_6x16");
  EXPECT_EQ(selected(gemm_kernels(), s8, "avx512"), "gemm_s8_avx512_12x32");
  EXPECT_EQ(selected(gemm_kernels(), s8, "avx512vnni"), "gemm_s8_avx512vnni_14x32");
  EXPECT_EQ(selected(gemm_kernels(), s8, "amx"), "gemm_s8_amx_32x32");
  EXPECT_EQ(selected(gemm_kernels(), f32, "scalar"), "gemm_float_ref");
  EXPECT_EQ(selected(gemm_kernels(), f32, "avx2"), "gemm_f32_avx2_6x16");
  EXPECT_EQ(selected(gemm_kernels(), f32, "avx512vnni"), "gemm_f32_avx512_14x32");
  EXPECT_EQ(selected(gemm_kernels(), bf16, "avx512vnni"), "gemm_float_ref");
}

TEST(Selection, Attention) {
  AttentionDesc s8{.heads = 12, .head_dim = 32, .qkv = DType::s8, .p = DType::u8, .y = DType::s8},
      f32{.heads = 12, .head_dim = 32};
  AttentionDesc dynamic{.heads = 12, .head_dim = 32, .p = DType::u8, .dynamic = true};
  EXPECT_EQ(selected(attention_kernels(), s8, "scalar"), "attention_ref");
  EXPECT_EQ(selected(attention_kernels(), s8, "avx2"), "attention_s8_avx2_6x16");
  EXPECT_EQ(selected(attention_kernels(), s8, "avxvnni"), "attention_s8_avxvnni_6x16");
  EXPECT_EQ(selected(attention_kernels(), s8, "avx512"), "attention_s8_avx512_12x32");
  EXPECT_EQ(selected(attention_kernels(), s8, "avx512vnni"), "attention_s8_avx512vnni_14x32");
  EXPECT_EQ(selected(attention_kernels(), s8, "amx"), "attention_s8_amx_32x32");
  EXPECT_EQ(selected(attention_kernels(), dynamic, "avx512vnni"), "attention_s8_avx512vnni_14x32");
  EXPECT_EQ(selected(attention_kernels(), f32, "avx512vnni"), "attention_f32_avx512_14x32");
  EXPECT_EQ(selected(attention_kernels(), f32, "avx2"), "attention_f32_avx2_6x16");
}

TEST(Selection, RowOperations) {
  for (auto [target, suffix] :
       {std::pair{"scalar", "ref"}, {"avx2", "avx2"}, {"avxvnni", "avx2"}, {"avx512", "avx512"}, {"amx", "avx512"}}) {
    std::string ending = std::string("_") + suffix;
    EXPECT_EQ(selected(norm_kernels(), {.n = 384}, target), "norm" + ending);
    EXPECT_EQ(selected(embed_kernels(), {.n = 384}, target), "embed" + ending);
    EXPECT_EQ(selected(pool_kernels(), {.n = 384}, target), "pool" + ending);
    EXPECT_EQ(selected(elementwise_kernels(), {.n = 384}, target), "elementwise" + ending);
  }
  EXPECT_EQ(selected(scores_kernels(), {.heads = 1, .head_dim = 8}, "avx512"), "scores_f32_avx512_14x32");
}

TEST(Selection, RefusalsGiveReasons) {
  std::vector<Refusal> refused;
  GemmDesc s8{.n = 384, .k = 384, .x = DType::s8, .w = DType::s8, .y = DType::s8};
  ASSERT_NE(find(gemm_kernels(), s8, parse_target("avx2"), &refused), nullptr);
  ASSERT_EQ(refused.size(), 4u);
  EXPECT_EQ(refused[1].kernel, "gemm_s8_avx512vnni_14x32");
  EXPECT_EQ(refused[1].reason, "needs AVX512-VNNI");
}

TEST(Selection, NamesAreUniqueAndEveryTableEndsWithItsReference) {
  auto check = [](auto table) {
    ASSERT_FALSE(table.empty());
    EXPECT_TRUE(table.back().name.ends_with("_ref"));
    for (const auto& row : table) EXPECT_EQ(find_by_name(table, row.name), &row) << row.name;
  };
  check(gemm_kernels());
  check(attention_kernels());
  check(norm_kernels());
  check(embed_kernels());
  check(pool_kernels());
  check(elementwise_kernels());
  check(scores_kernels());
}

}  // namespace
}  // namespace octet::kernels
