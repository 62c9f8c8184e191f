// An ONNX file that cannot be raised runs node by node through the whole API.
#include <gtest/gtest.h>
#include <octet/error.h>
#include <octet/onnx.h>
#include <octet/session.h>

#include <filesystem>

namespace octet {
namespace {

namespace fs = std::filesystem;

TEST(AsIs, TheSameAnswersAsRaised) {
  fs::path path = fs::path(OCTET_TEST_DATA) / "onnx" / "legacy-bert-cls" / "model.onnx";
  Model raised = Model::load(path), as_is = Model::load(path, {.as_is = true});
  EXPECT_FALSE(raised.as_is());
  ASSERT_TRUE(as_is.as_is());
  EXPECT_EQ(as_is.info().task, raised.info().task);
  EXPECT_EQ(as_is.info().labels.size(), raised.info().labels.size());
  EXPECT_EQ(as_is.info().vocabulary, raised.info().vocabulary);
  Plan plan = compile(as_is, {.precision = Precision::fp32});
  fs::path file = fs::path(testing::TempDir()) / "as_is.octet";
  plan.save(file);
  Plan again = Plan::load(file);
  std::vector<int32_t> ids{5, 6, 7, 9, 10, 11, 12, 13}, offsets{0, 3, 8};
  Batch batch{.ids = ids, .offsets = offsets, .type_ids = {}};
  Plan reference = compile(raised, {.precision = Precision::fp32});
  Session a(reference, {.threads = 1}), b(plan, {.threads = 2}), c(again, {.threads = 1});
  Output x = a.run(batch), y = b.run(batch), z = c.run(batch);
  ASSERT_EQ(x.values.size(), y.values.size());
  ASSERT_EQ(y.values.size(), z.values.size());
  for (size_t i = 0; i < x.values.size(); ++i) {
    EXPECT_NEAR(x.values[i], y.values[i], 1e-5);
    EXPECT_EQ(y.values[i], z.values[i]);
  }
  Explanation e = again.explain({.batch = 1, .length = 8, .repeats = 1});
  EXPECT_GT(e.ops.size(), 20u);
  for (const ExplainedOp& op : e.ops) EXPECT_TRUE(op.kernel.starts_with("primitive_")) << op.kernel;
}

TEST(AsIs, WhatItIsNotForIsSaid) {
  fs::path path = fs::path(OCTET_TEST_DATA) / "onnx" / "legacy-bert-cls" / "model.onnx";
  Model model = Model::load(path, {.as_is = true});
  EXPECT_THROW(compile(model, {.precision = Precision::int8}), Error);
  EXPECT_THROW(export_onnx(model, fs::path(testing::TempDir()) / "x.onnx"), Error);
}

TEST(AsIs, AFileThatIsNotRaisedTakesThisWay) {
  fs::path path = fs::path(OCTET_SHARED) / "onnx" / "bert_like_vespa" / "model.onnx";
  if (!fs::exists(path)) GTEST_SKIP() << "no " << path;
  Model model = Model::load(path);
  ASSERT_TRUE(model.as_is());
  ASSERT_FALSE(model.notes().empty());
  EXPECT_NE(model.notes().front().find("Add_1"), std::string::npos);
  Session session(compile(model, {.precision = Precision::fp32}), {.threads = 1});
  std::vector<int32_t> ids{1, 2, 3}, offsets{0, 3};
  EXPECT_EQ(session.run({.ids = ids, .offsets = offsets, .type_ids = {}}).rows, 3);
}

}  // namespace
}  // namespace octet
