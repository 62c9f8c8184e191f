// INT8 programs: what they quantize, that they compute what the simulated graph says, that rows do not depend on their
// batch.
#include <gtest/gtest.h>

#include "plan/compare.h"
#include "plan/executor.h"
#include "plan/first_rows.h"
#include "plan/lower.h"
#include "plan/tiny_quantized.h"

namespace octet {
namespace {

struct Case {
  std::string placement;  // empty: dynamic
  std::string target;
  bool relative = false;  // a bias of scores by distance
};
void PrintTo(const Case& c, std::ostream* to) {
  *to << c.placement << ' ' << c.target << (c.relative ? " relative" : "");
}

class Int8 : public testing::TestWithParam<Case> {
 protected:
  test::TinyEncoder tiny{.layers = 2, .hidden = 64, .heads = 2, .intermediate = 128, .relative = GetParam().relative};
  Graph graph = tiny.build();
  Target target = parse_target(GetParam().target);

  void SetUp() override {
    Target here = detect_cpu();
    if ((target.avx2 && !here.avx2) || (target.avx512_vnni && !here.avx512_vnni))
      GTEST_SKIP() << "this CPU has no " << GetParam().target;
    test::quantize_tiny(graph, tiny, GetParam().placement);
  }

  std::vector<float> run(const Program& program, const test::RandomBatch& batch, int threads) {
    Executor executor(std::make_shared<Program>(program), std::make_shared<ThreadPool>(threads), target);
    executor.bind({batch.ids, batch.offsets, batch.types});
    executor.run();
    auto* values = static_cast<const float*>(executor.output(0));
    return {values, values + executor.elements(program.outputs[0].second)};
  }
};

TEST_P(Int8, MatrixProductsAreIntegers) {
  Program program = lower(graph, {.target = target});
  double all = 0, int8 = 0;
  for (const Step& step : program.steps) {
    double macs = multiply_accumulates(program, step, 32);
    all += macs;
    if (precision_of(step) == "int8") int8 += macs;
    else {
      EXPECT_TRUE(macs == 0 || GetParam().placement == "linear-only") << step.name << ": " << step.note;
    }
  }
  if (GetParam().placement != "linear-only") {
    EXPECT_GE(int8 / all, 0.95);
  }
}

TEST_P(Int8, ARowHasTheSameBitsInAnyBatchAndOnAnyThreads) {
  Program program = lower(graph, {.target = target});
  test::RandomBatch together({13, 40, 1, 22, 9}, tiny.vocabulary, 21);
  std::vector<float> one = run(program, together, 1), two = run(program, together, 2);
  EXPECT_EQ(one, two);
  for (size_t r = 0; r + 1 < together.offsets.size(); ++r) {
    test::RandomBatch alone({}, 1, 1);
    auto begin = together.offsets[r], end = together.offsets[r + 1];
    alone.ids.assign(together.ids.begin() + begin, together.ids.begin() + end);
    alone.types.assign(together.types.begin() + begin, together.types.begin() + end);
    alone.offsets = {0, end - begin};
    std::vector<float> row = run(program, alone, 1);
    for (size_t i = 0; i < row.size(); ++i) ASSERT_EQ(row[i], one[r * row.size() + i]) << "row " << r;
  }
}

// An executor that keeps all buffers runs step by step; otherwise LayerNorm and per-token quantizers run inside the
// GEMM before them: with one thread on blocks of rows, with many after it.
TEST_P(Int8, StepsThatRunInsideAGemmGiveTheSameBits) {
  auto program = std::make_shared<Program>(lower(graph, {.target = target}));
  test::RandomBatch batch({30, 40, 1, 38, 9, 40, 33, 40}, tiny.vocabulary, 8);
  Executor apart(program, std::make_shared<ThreadPool>(1), target, true);
  apart.bind({batch.ids, batch.offsets, batch.types});
  apart.run();
  auto* values = static_cast<const float*>(apart.output(0));
  std::vector<float> expected(values, values + apart.elements(program->outputs[0].second));
  for (int threads : {1, 2, 16}) EXPECT_EQ(run(*program, batch, threads), expected) << threads << " threads";
}

// Where only first tokens are read, what follows the last attention runs on those alone.
TEST_P(Int8, FirstTokensAloneGiveTheSameBits) {
  test::TinyEncoder classifier = tiny;
  classifier.first = true;
  for (int64_t layers : {1, 2}) {
    classifier.layers = layers;
    Graph of_first = classifier.build();
    test::quantize_tiny(of_first, classifier, GetParam().placement);
    auto program = std::make_shared<Program>(lower(of_first, {.target = target}));
    EXPECT_TRUE(FirstRows(*prepare(program, target)).any());
    for (const auto& lengths : {std::vector<int>{30, 40, 1, 38, 9, 40, 33, 40}, {2}, {17}, {1}, {1, 1, 3}, {1, 40}}) {
      test::RandomBatch batch(lengths, tiny.vocabulary, 8);
      Executor all(program, std::make_shared<ThreadPool>(1), target, true);
      all.bind({batch.ids, batch.offsets, batch.types});
      all.run();
      auto* values = static_cast<const float*>(all.output(0));
      std::vector<float> expected(values, values + all.elements(program->outputs[0].second));
      for (int threads : {1, 2, 5}) EXPECT_EQ(run(*program, batch, threads), expected) << threads << " threads";
    }
  }
}

// Each step alone, fed the simulated values, against the simulated result.
TEST_P(Int8, EveryStepIsWhatTheSimulatedGraphSays) {
  auto pool = std::make_shared<ThreadPool>(1);
  Executor simulated(std::make_shared<Program>(lower(graph, {.target = target, .fuse = false, .exact = true})), pool,
                     target, true);
  Executor engine(std::make_shared<Program>(lower(graph, {.target = target})), pool, target, true);
  test::RandomBatch batch({13, 40, 1, 22, 9, 30}, tiny.vocabulary, 33);
  int compared = 0;
  for (const DiffRow& row : compare_steps(simulated, engine, {batch.ids, batch.offsets, batch.types}, true, *pool)) {
    ++compared;
    EXPECT_TRUE(keeps_promise(row)) << row.step << " -> " << row.value << " [" << row.kernel << ", " << row.arithmetic
                                    << "]: equal " << row.equal_fraction << ", steps " << row.max_steps << ", rms "
                                    << row.rms << " of " << row.reference_rms;
  }
  EXPECT_GT(compared, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Placements, Int8,
    testing::Values(Case{"residual-channel", "scalar"}, Case{"residual-channel", "avx2"},
                    Case{"residual-channel", "avx512vnni"}, Case{"residual-float", "scalar"},
                    Case{"residual-float", "avx512vnni"}, Case{"qdqbert", "scalar"}, Case{"qdqbert", "avx2"},
                    Case{"linear-only", "scalar"}, Case{"", "scalar"}, Case{"", "avx2"}, Case{"", "avx512vnni"},
                    Case{"residual-channel", "scalar", true}, Case{"residual-channel", "avx2", true},
                    Case{"residual-channel", "avx512vnni", true}, Case{"qdqbert", "avx512vnni", true},
                    Case{"", "avx2", true}, Case{"", "avx512vnni", true}),
    [](const auto& info) {
      std::string name = (info.param.placement.empty() ? "dynamic" : info.param.placement) + "_" + info.param.target +
                         (info.param.relative ? "_relative" : "");
      for (char& c : name)
        if (c == '-') c = '_';
      return name;
    });

}  // namespace
}  // namespace octet
