// INT8 programs: what they quantize, that they compute what the simulated graph says, that rows do not depend on their
// batch.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/int8.h"
#include "plan/executor.h"
#include "plan/lower.h"
#include "plan/tiny_encoder.h"
#include "quant/quantize.h"

namespace octet {
namespace {

struct Case {
  std::string placement;  // empty: dynamic
  std::string target;
};

class Int8 : public testing::TestWithParam<Case> {
 protected:
  test::TinyEncoder tiny{.layers = 2, .hidden = 64, .heads = 2, .intermediate = 128};
  Graph graph = tiny.build();
  Target target = parse_target(GetParam().target);

  void SetUp() override {
    Target here = detect_cpu();
    if ((target.avx2 && !here.avx2) || (target.avx512_vnni && !here.avx512_vnni))
      GTEST_SKIP() << "this CPU has no " << GetParam().target;
    if (GetParam().placement.empty()) {
      quantize_graph(graph, {});
      return;
    }
    test::RandomBatch rows({20, 31, 7, 40, 12, 25, 33, 18}, tiny.vocabulary, 5);
    std::vector<CalibrationRow> views;
    std::span<const int32_t> ids(rows.ids), types(rows.types);
    for (size_t r = 0; r + 1 < rows.offsets.size(); ++r) {
      auto begin = static_cast<size_t>(rows.offsets[r]), size = static_cast<size_t>(rows.offsets[r + 1]) - begin;
      views.push_back({ids.subspan(begin, size), types.subspan(begin, size)});
    }
    Calibration calibration = calibrate_graph(graph, views, {.placement = GetParam().placement}, "hash", 0, {});
    quantize_graph(graph, {.calibration = &calibration, .model_hash = "hash"});
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
  if (GetParam().placement != "linear-only") EXPECT_GE(int8 / all, 0.95);
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

// Each step alone, fed the simulated values, against the simulated result.
TEST_P(Int8, EveryStepIsWhatTheSimulatedGraphSays) {
  auto engine = std::make_shared<Program>(lower(graph, {.target = target}));
  auto simulated = std::make_shared<Program>(lower(graph, {.target = target, .fuse = false, .exact = true}));
  auto pool = std::make_shared<ThreadPool>(1);
  Executor a(simulated, pool, target, true), b(engine, pool, target, true);
  test::RandomBatch batch({13, 40, 1, 22, 9, 30}, tiny.vocabulary, 33);
  a.bind({batch.ids, batch.offsets, batch.types});
  b.bind({batch.ids, batch.offsets, batch.types});
  a.run();
  std::map<std::string, int32_t> value;
  for (size_t i = 0; i < simulated->buffers.size(); ++i) value[simulated->buffers[i].value] = static_cast<int32_t>(i);

  // Copies between the simulated floats and the engine's buffers, value by value of merged ones.
  auto parts = [&](const Buffer& buffer, auto&& visit) {
    size_t begin = 0;
    int64_t column = 0;
    while (begin <= buffer.value.size()) {
      size_t end = std::min(buffer.value.find('+', begin), buffer.value.size());
      auto found = value.find(buffer.value.substr(begin, end - begin));
      if (found == value.end()) return false;
      visit(found->second, column);
      column += simulated->buffers[static_cast<size_t>(found->second)].width;
      begin = end + 1;
    }
    return true;
  };
  int compared = 0;
  for (size_t s = 0; s < engine->steps.size(); ++s) {
    const Step& step = engine->steps[s];
    bool fed = true;
    for (const Slot& slot : step.inputs) {
      if (slot.buffer < 0) continue;
      const Buffer& buffer = engine->buffers[static_cast<size_t>(slot.buffer)];
      if (buffer.dtype == DType::s32) continue;
      if (buffer.row_scale) {
        fed = false;  // dynamic scales are compared end to end below
        continue;
      }
      fed = fed && parts(buffer, [&](int32_t id, int64_t column) {
              auto* from = static_cast<const float*>(a.data(id));
              int64_t width = simulated->buffers[static_cast<size_t>(id)].width, rows = a.elements(id) / width;
              for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < width; ++c) {
                  float x = from[r * width + c];
                  int64_t at = r * buffer.width + column + c;
                  if (buffer.dtype == DType::f32) static_cast<float*>(b.data(slot.buffer))[at] = x;
                  else {
                    float scale = engine->weights.at(buffer.scale).as<float>()[static_cast<size_t>(column + c)];
                    static_cast<int8_t*>(b.data(slot.buffer))[at] =
                        static_cast<int8_t>(scale > 0 ? std::lrint(x / scale) + buffer.zero_point : 0);
                  }
                }
            });
    }
    b.run_step(s);
    if (!fed) continue;
    for (const Slot& slot : step.outputs) {
      const Buffer& buffer = engine->buffers[static_cast<size_t>(slot.buffer)];
      if (buffer.row_scale || buffer.dtype == DType::s32) continue;
      int64_t equal = 0, all = 0;
      double largest = 0, magnitude = 0;
      bool known = parts(buffer, [&](int32_t id, int64_t column) {
        auto* expected = static_cast<const float*>(a.data(id));
        int64_t width = simulated->buffers[static_cast<size_t>(id)].width, rows = a.elements(id) / width;
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < width; ++c) {
            float x = expected[r * width + c];
            int64_t at = r * buffer.width + column + c;
            ++all;
            magnitude = std::max(magnitude, std::fabs(double{x}));
            if (buffer.dtype == DType::f32) {
              double d = std::fabs(double{x} - static_cast<float*>(b.data(slot.buffer))[at]);
              largest = std::max(largest, d);
              equal += d <= 1e-4;
            } else {
              float scale = engine->weights.at(buffer.scale).as<float>()[static_cast<size_t>(column + c)];
              double q = scale > 0 ? std::rint(x / scale) + buffer.zero_point : 0;
              double d = std::fabs(q - static_cast<int8_t*>(b.data(slot.buffer))[at]);
              largest = std::max(largest, d);
              equal += d == 0;
            }
          }
      });
      if (!known) continue;
      ++compared;
      EXPECT_GE(static_cast<double>(equal), 0.995 * static_cast<double>(all))
          << step.name << " -> " << buffer.value << " [" << step.kernel << "]";
      if (buffer.dtype != DType::f32) {
        EXPECT_LE(largest, 1) << step.name;
      }
    }
  }
  EXPECT_GT(compared, GetParam().placement.empty() ? 3 : 10);
}

INSTANTIATE_TEST_SUITE_P(Placements, Int8,
                         testing::Values(Case{"residual-channel", "scalar"}, Case{"residual-channel", "avx2"},
                                         Case{"residual-channel", "avx512vnni"}, Case{"residual-float", "scalar"},
                                         Case{"residual-float", "avx512vnni"}, Case{"qdqbert", "scalar"},
                                         Case{"qdqbert", "avx2"}, Case{"linear-only", "scalar"}, Case{"", "scalar"},
                                         Case{"", "avx2"}, Case{"", "avx512vnni"}),
                         [](const auto& info) {
                           std::string name = (info.param.placement.empty() ? "dynamic" : info.param.placement) + "_" +
                                              info.param.target;
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

}  // namespace
}  // namespace octet
