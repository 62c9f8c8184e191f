// Programs run: fused equals unfused, rows do not depend on their batch, bad batches are refused.
#include "plan/executor.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "plan/lower.h"
#include "plan/program_json.h"
#include "plan/tiny_encoder.h"

#include <nlohmann/json.hpp>

namespace octet {
namespace {

Target scalar() { return parse_target("scalar"); }

std::vector<float> run(const Program& program, const BatchView& batch, int threads, const Target& target) {
  Executor executor(std::make_shared<Program>(program), std::make_shared<ThreadPool>(threads), target);
  executor.bind(batch);
  executor.run();
  int32_t out = program.outputs[0].second;
  auto* values = static_cast<const float*>(executor.data(out));
  return {values, values + executor.elements(out)};
}

TEST(Executor, FusedEqualsUnfused) {
  Graph graph = test::TinyEncoder{}.build();
  Program fused = lower(graph, {.target = scalar()}), plain = lower(graph, {.target = scalar(), .fuse = false});
  EXPECT_LT(fused.steps.size(), plain.steps.size());
  test::RandomBatch batch({5, 1, 17, 40}, 50, 7);
  auto a = run(fused, {batch.ids, batch.offsets, batch.types}, 1, scalar()),
       b = run(plain, {batch.ids, batch.offsets, batch.types}, 2, scalar());
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << i;
}

TEST(Executor, HostTargetEqualsScalar) {
  Graph graph = test::TinyEncoder{}.build();
  test::RandomBatch batch({5, 1, 17, 40}, 50, 9);
  auto a = run(lower(graph, {.target = scalar()}), {batch.ids, batch.offsets, batch.types}, 1, scalar());
  auto b = run(lower(graph, {.target = host_target()}), {batch.ids, batch.offsets, batch.types}, 2, host_target());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << i;
}

// One executor, batches of changing shape, taps in between.
TEST(Executor, FirstTokensAloneGiveTheSameBitsInFloat) {
  Graph graph = test::TinyEncoder{.first = true}.build();
  for (const Target& target : {scalar(), host_target()}) {
    auto program = std::make_shared<Program>(lower(graph, {.target = target}));
    auto pool = std::make_shared<ThreadPool>(2);
    Executor lean(program, pool, target), all(program, pool, target, true);
    int32_t out = program->outputs[0].second;
    for (const auto& lengths : {std::vector<int>{5, 1, 17, 40}, {3}, {1, 1}, {40, 40, 40, 40, 40}, {2, 2}}) {
      test::RandomBatch batch(lengths, 50, 9);
      auto result = [&](Executor& executor, const Tap& tap) {
        executor.bind({batch.ids, batch.offsets, batch.types});
        executor.run(tap);
        auto* values = static_cast<const float*>(executor.output(0));
        return std::vector<float>(values, values + executor.elements(out));
      };
      std::vector<float> expected = result(all, {});
      EXPECT_EQ(result(lean, {}), expected);
      EXPECT_EQ(result(lean, [](size_t, const TapView&) {}), expected);
    }
  }
}

TEST(Executor, ProgramSurvivesJson) {
  Graph graph = test::TinyEncoder{}.build();
  Program program = lower(graph, {.target = scalar()});
  Program again = program_from_json(to_json(program), program.weights, "test");
  test::RandomBatch batch({3, 9}, 50, 11);
  EXPECT_EQ(run(program, {batch.ids, batch.offsets, batch.types}, 1, scalar()),
            run(again, {batch.ids, batch.offsets, batch.types}, 1, scalar()));
}

struct BadBatch {
  const char* what;
  std::vector<int32_t> ids, offsets, types;
  const char* message;
};

TEST(Executor, RefusesBadBatches) {
  Graph graph = test::TinyEncoder{}.build();
  auto program = std::make_shared<Program>(lower(graph, {.target = scalar()}));
  Executor executor(program, std::make_shared<ThreadPool>(1), scalar());
  std::vector<int32_t> longest(41, 1);
  for (const BadBatch& bad :
       {BadBatch{"no rows", {}, {0}, {}, "empty batch"}, BadBatch{"no offsets", {}, {}, {}, "empty batch"},
        BadBatch{"empty row", {1}, {0, 0, 1}, {}, "at least one token"},
        BadBatch{"late start", {1, 2}, {1, 2}, {}, "start at 0"},
        BadBatch{"short offsets", {1, 2}, {0, 1}, {}, "number of ids"},
        BadBatch{"id too large", {50}, {0, 1}, {}, "outside the vocabulary of 50"},
        BadBatch{"negative id", {-1}, {0, 1}, {}, "outside the vocabulary"},
        BadBatch{"type too large", {1}, {0, 1}, {2}, "outside 0..1"},
        BadBatch{"types too short", {1, 2}, {0, 2}, {0}, "type ids"},
        BadBatch{"too long", longest, {0, 41}, {}, "40 positions"}}) {
    try {
      executor.bind({bad.ids, bad.offsets, bad.types});
      ADD_FAILURE() << bad.what << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(error.what()).find(bad.message), std::string::npos) << bad.what << ": " << error.what();
    }
  }
}

TEST(Executor, KeepsToThePlansLimits) {
  Program program = lower(test::TinyEncoder{}.build(), {.target = scalar()});
  program.max_tokens = 20;
  program.max_length = 12;
  program = program_from_json(to_json(program), program.weights, "test");
  Executor executor(std::make_shared<Program>(program), std::make_shared<ThreadPool>(1), scalar());
  auto message = [&](const std::vector<int>& lengths) -> std::string {
    test::RandomBatch batch(lengths, 50, 3);
    try {
      executor.bind({batch.ids, batch.offsets, batch.types});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({12, 8}), "");
  EXPECT_NE(message({12, 9}).find("at most 20 tokens, got 21"), std::string::npos);
  EXPECT_NE(message({13}).find("13 tokens, the plan takes 12"), std::string::npos);
}

}  // namespace
}  // namespace octet
