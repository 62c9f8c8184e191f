// Whole programs on the GPU: every step against the simulated graph, rows alone and in batches, many ragged runs,
// errors.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "kernels/device.h"
#include "plan/compare.h"
#include "plan/device_observer.h"
#include "plan/executor.h"
#include "plan/lower.h"
#include "plan/overflow.h"
#include "plan/program_json.h"
#include "plan/tiny_quantized.h"
#include "quant/calibration_state.h"

namespace octet {
namespace {

using kernels::device::find_device;

struct Case {
  std::string precision;  // fp32, fp16, bf16, or a placement (dynamic: no calibration)
  std::string target;     // empty: the GPU that is here
  bool relative = false;  // a bias of scores by distance
};
void PrintTo(const Case& c, std::ostream* to) {
  *to << c.precision << ' ' << c.target << (c.relative ? " relative" : "");
}

class Gpu : public testing::TestWithParam<Case> {
 protected:
  test::TinyEncoder tiny{.layers = 2, .hidden = 128, .heads = 2, .intermediate = 256, .relative = GetParam().relative};
  Graph graph = tiny.build();
  Target target;
  DType floats = DType::f32;
  bool integer = false;

  void SetUp() override {
    if (!find_device().present) GTEST_SKIP() << find_device().reason;
    target = GetParam().target.empty() ? find_device().target : parse_target(GetParam().target);
    const std::string& precision = GetParam().precision;
    if (precision == "fp16") floats = DType::f16;
    else if (precision == "bf16") floats = DType::bf16;
    else if (precision != "fp32") {
      integer = true;
      floats = DType::f16;
      test::quantize_tiny(graph, tiny, precision == "dynamic" ? "" : precision);
    }
  }
  std::shared_ptr<Program> compile() const {
    return std::make_shared<Program>(lower(graph, {.target = target, .float_type = floats}));
  }
  static std::vector<float> run(Executor& executor, const test::RandomBatch& batch) {
    executor.bind({batch.ids, batch.offsets, batch.types});
    executor.run();
    auto* values = static_cast<const float*>(executor.output(0));
    return {values, values + executor.elements(executor.program().outputs[0].second)};
  }
};

TEST_P(Gpu, EveryStepIsWhatTheSimulatedGraphSays) {
  auto pool = std::make_shared<ThreadPool>(2);
  Target cpu = parse_target("scalar");
  Executor simulated(std::make_shared<Program>(lower(graph, {.target = cpu, .fuse = false, .exact = integer})), pool,
                     cpu, true);
  Executor engine(compile(), pool, target, true);
  test::RandomBatch batch({13, 40, 1, 22, 9, 30, 16, 17}, tiny.vocabulary, 33);
  int compared = 0;
  for (const DiffRow& row : compare_steps(simulated, engine, {batch.ids, batch.offsets, batch.types}, true, *pool)) {
    ++compared;
    EXPECT_TRUE(keeps_promise(row)) << row.step << " -> " << row.value << " [" << row.kernel << ", " << row.arithmetic
                                    << "]: equal " << row.equal_fraction << ", steps " << row.max_steps << ", rms "
                                    << row.rms << " of " << row.reference_rms;
  }
  EXPECT_GT(compared, 10);
}

TEST_P(Gpu, ARowHasTheSameBitsInAnyBatch) {
  Executor executor(compile(), std::make_shared<ThreadPool>(1), target);
  test::RandomBatch together({13, 40, 1, 22, 9}, tiny.vocabulary, 21);
  std::vector<float> all = run(executor, together);
  for (size_t r = 0; r + 1 < together.offsets.size(); ++r) {
    test::RandomBatch alone({}, 1, 1);
    auto begin = together.offsets[r], end = together.offsets[r + 1];
    alone.ids.assign(together.ids.begin() + begin, together.ids.begin() + end);
    alone.types.assign(together.types.begin() + begin, together.types.begin() + end);
    alone.offsets = {0, end - begin};
    std::vector<float> row = run(executor, alone);
    for (size_t i = 0; i < row.size(); ++i) {
      if (integer) ASSERT_EQ(row[i], all[r * row.size() + i]) << "row " << r;
      else ASSERT_NEAR(row[i], all[r * row.size() + i], 2e-2) << "row " << r;
    }
  }
}

// OCTET_GPU_RUNS runs (default 200) of random ragged batches: no error, the same bits for the same input, no more
// memory.
TEST_P(Gpu, ManyRaggedRuns) {
  const char* wanted = std::getenv("OCTET_GPU_RUNS");
  int runs = wanted != nullptr ? std::atoi(wanted) : 200;
  const char* given = std::getenv("OCTET_TEST_SEED");
  uint32_t seed = given != nullptr ? static_cast<uint32_t>(std::atol(given)) : static_cast<uint32_t>(time(nullptr));
  SCOPED_TRACE("OCTET_TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  Executor executor(compile(), std::make_shared<ThreadPool>(1), target);
  std::vector<test::RandomBatch> kept;
  std::vector<std::vector<float>> results;
  auto batch = [&](int most) {
    std::vector<int> lengths(1 + random() % static_cast<uint32_t>(most));
    for (int& length : lengths) length = 1 + static_cast<int>(random() % 40);
    return test::RandomBatch(lengths, tiny.vocabulary, random());
  };
  kept.push_back(test::RandomBatch(std::vector<int>(48, 40), tiny.vocabulary, random()));  // the largest arena
  for (int i = 0; i < 7; ++i) kept.push_back(batch(48));
  for (const test::RandomBatch& b : kept) results.push_back(run(executor, b));
  int64_t before = 0;
  for (int i = 0; i < runs; ++i) {
    if (i % 5 == 0) {
      size_t k = random() % kept.size();
      ASSERT_EQ(run(executor, kept[k]), results[k]) << "run " << i;
    } else {
      for (float value : run(executor, batch(48))) ASSERT_TRUE(std::isfinite(value)) << "run " << i;
    }
    // Graphs of new shapes take memory until all buckets were seen.
    if (i == runs / 2) before = kernels::device::free_memory();
  }
  EXPECT_GE(kernels::device::free_memory() + (int64_t{64} << 20), before);
}

INSTANTIATE_TEST_SUITE_P(Precisions, Gpu,
                         testing::Values(Case{"residual-channel", ""}, Case{"residual-channel", "sm80"},
                                         Case{"residual-float", ""}, Case{"qdqbert", ""}, Case{"qdqbert", "sm80"},
                                         Case{"linear-only", ""}, Case{"dynamic", ""}, Case{"dynamic", "sm80"},
                                         Case{"fp32", ""}, Case{"fp16", ""}, Case{"fp16", "sm80"}, Case{"bf16", ""},
                                         Case{"residual-channel", "", true}, Case{"residual-channel", "sm80", true},
                                         Case{"dynamic", "", true}, Case{"fp32", "", true}, Case{"fp16", "", true}),
                         [](const auto& info) {
                           std::string name = info.param.precision + "_" +
                                              (info.param.target.empty() ? "here" : info.param.target) +
                                              (info.param.relative ? "_relative" : "");
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

// ---------------------------------------------------------------- calibration, device batches, errors

class GpuEngine : public testing::Test {
 protected:
  test::TinyEncoder tiny{.layers = 2, .hidden = 128, .heads = 2, .intermediate = 256};
  Graph graph = tiny.build();
  void SetUp() override {
    if (!find_device().present) GTEST_SKIP() << find_device().reason;
  }
  std::shared_ptr<Program> int8() {
    Graph quantized = graph;
    test::quantize_tiny(quantized, tiny, "residual-channel");
    return std::make_shared<Program>(lower(quantized, {.target = find_device().target, .float_type = DType::f16}));
  }
};

TEST_F(GpuEngine, CalibratesAsTheCpuDoes) {
  Calibration here = test::calibrate_tiny(graph, tiny, "residual-channel", "cuda"),
              cpu = test::calibrate_tiny(graph, tiny, "residual-channel");
  const auto &a = here.state().statistics.tensors(), &b = cpu.state().statistics.tensors();
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [tensor, statistics] : a) {
    const TensorStatistics& other = b.at(tensor);
    EXPECT_EQ(statistics.elements(), other.elements()) << tensor;
    EXPECT_EQ(statistics.nonfinite(), 0) << tensor;
    EXPECT_EQ(statistics.width(), other.width()) << tensor;
    EXPECT_NEAR(statistics.amax(), other.amax(), 1e-4 * other.amax()) << tensor;
    if (statistics.bin_exponent() == other.bin_exponent()) {
      EXPECT_NEAR(statistics.percentile(99), other.percentile(99), 2 * other.bin_width()) << tensor;
    }
    uint64_t sum = 0;
    for (uint64_t bin : statistics.bins()) sum += bin;
    EXPECT_EQ(sum, static_cast<uint64_t>(statistics.elements())) << tensor;
  }
  auto x = here.ranges(), y = cpu.ranges();
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i].hi, y[i].hi, 0.02 * std::fabs(y[i].hi)) << x[i].quantizer;
}

// The device's histogram equals the CPU's bit for bit on values in several portions, special ones included.
TEST_F(GpuEngine, HistogramsAreThoseOfTheCpu) {
  namespace device = kernels::device;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (int64_t channels : {1, 3, 64, 300}) {
    TensorStatistics want;
    device::Histogram* histogram = device::create_histogram(channels);
    void* memory = device::allocate(4 * 1000 * channels);
    uint64_t generation = device::generation();
    for (float scale : {1e-3f, 0.0f, 2.0f, 0.5f, 300.0f}) {
      std::vector<float> values(static_cast<size_t>(1000 * channels));
      for (float& v : values) v = scale * normal(random);
      if (scale == 2.0f) values[5] = INFINITY, values[7] = -NAN, values[9] = -0.0f;
      want.collect(values, channels);
      device::to_device(memory, values.data(), static_cast<int64_t>(values.size()) * 4, nullptr);
      device::collect(histogram, static_cast<const float*>(memory), static_cast<int64_t>(values.size()), nullptr);
      device::synchronize(nullptr);
    }
    device::HistogramValues got = device::read(histogram, nullptr);
    EXPECT_EQ(TensorStatistics::restore(got.exponent, got.bins, got.elements, got.nonfinite, got.minimum, got.maximum,
                                        "test"),
              want)
        << channels;
    device::release(memory, generation);
    device::destroy_histogram(histogram);
  }
}

TEST_F(GpuEngine, BatchesInDeviceMemory) {
  namespace device = kernels::device;
  Executor executor(int8(), std::make_shared<ThreadPool>(1), find_device().target);
  test::RandomBatch batch({13, 40, 1, 22, 9}, tiny.vocabulary, 21);
  executor.bind({batch.ids, batch.offsets, batch.types});
  executor.run();
  int64_t elements = executor.elements(executor.program().outputs[0].second);
  auto* values = static_cast<const float*>(executor.output(0));
  std::vector<float> want(values, values + elements), got(want.size());
  uint64_t generation = device::generation();
  auto upload = [&](const std::vector<int32_t>& from) {
    void* memory = device::allocate(static_cast<int64_t>(from.size()) * 4);
    device::to_device(memory, from.data(), static_cast<int64_t>(from.size()) * 4, nullptr);
    return static_cast<int32_t*>(memory);
  };
  int32_t *ids = upload(batch.ids), *offsets = upload(batch.offsets), *types = upload(batch.types);
  auto* out = static_cast<float*>(device::allocate(elements * 4));
  device::synchronize(nullptr);
  void* stream = device::create_stream();
  DeviceBatchView view{.ids = ids,
                       .offsets = offsets,
                       .type_ids = types,
                       .rows = 5,
                       .tokens = static_cast<int64_t>(batch.ids.size()),
                       .max_length = 40};
  for (int repeat = 0; repeat < 3; ++repeat) {
    device::clear(out, elements * 4, stream);
    executor.enqueue(view, out, stream);
    executor.wait(stream);
    device::to_host(got.data(), out, elements * 4, stream);
    device::synchronize(stream);
    EXPECT_EQ(got, want);
  }
  // An id outside the vocabulary is found on the device.
  std::vector<int32_t> bad = batch.ids;
  bad[3] = 5000;
  device::to_device(ids, bad.data(), static_cast<int64_t>(bad.size()) * 4, stream);
  executor.enqueue(view, out, stream);
  try {
    executor.wait(stream);
    ADD_FAILURE() << "a bad id was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("refused by the device"), std::string::npos) << error.what();
  }
  view.max_length = 41;
  EXPECT_THROW(executor.enqueue(view, out, stream), Error);
  for (void* memory :
       {static_cast<void*>(ids), static_cast<void*>(offsets), static_cast<void*>(types), static_cast<void*>(out)})
    device::release(memory, generation);
  device::destroy_stream(stream);
}

// A layer whose results FP16 cannot hold: found by running rows, computed in f32, listed; without that the result is
// lost.
TEST_F(GpuEngine, ValuesThatOverflowInHalfAreComputedInFloat) {
  auto pool = std::make_shared<ThreadPool>(1);
  test::RandomBatch batch({13, 40, 1, 22, 9}, tiny.vocabulary, 21);
  BatchView view{batch.ids, batch.offsets, batch.types};
  Graph planted = graph;
  for (size_t v = 0; v < planted.values().size(); ++v) {
    auto id = static_cast<ValueId>(v);
    const std::string& name = planted.value(id).name;
    if (name != "encoder.layer.0.output.dense.weight" && name != "encoder.layer.1.attention.self.value.weight")
      continue;
    std::vector<float> values = planted.parameter(id).to_f32();
    for (float& value : values) value *= 1e5f;
    planted.set_parameter(id, Tensor::from(values, planted.parameter(id).shape()));
  }
  std::map<std::string, double> wide = find_overflow(planted, find_device().target, std::span(&view, 1), pool),
                                on_cpu = find_overflow(planted, host_target(), std::span(&view, 1), pool);
  EXPECT_TRUE(wide.contains("encoder.layer.0.output.dense")) << wide.size();
  EXPECT_TRUE(wide.contains("encoder.layer.1.attention.self.value"));
  EXPECT_LT(wide.size(), 8u);
  EXPECT_EQ(wide.size(), on_cpu.size());
  auto outputs = [&](const Program& program, const Target& target) {
    Executor executor(std::make_shared<Program>(program), pool, target);
    executor.bind(view);
    executor.run();
    auto* values = static_cast<const float*>(executor.output(0));
    return std::vector<float>(values, values + executor.elements(executor.program().outputs[0].second));
  };
  std::vector<float> want = outputs(lower(planted, {.target = host_target()}), host_target());
  for (const char* target : {"", "sm80"}) {
    Target gpu = *target ? parse_target(target) : find_device().target;
    Program islands = lower(planted, {.target = gpu, .float_type = DType::f16, .wide = wide});
    int noted = 0;
    for (const Step& step : islands.steps) noted += step.note.starts_with(kWideNote);
    EXPECT_GE(noted, 2);
    std::vector<float> with = outputs(islands, gpu),
                       without = outputs(lower(planted, {.target = gpu, .float_type = DType::f16}), gpu);
    double worst = 0, lost = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      worst = std::max(worst, std::fabs(static_cast<double>(with[i]) - want[i]));
      lost += !(std::fabs(without[i] - want[i]) < 2e-2f);
    }
    EXPECT_LT(worst, 1e-2) << target;
    EXPECT_GT(lost, 0) << target;
  }
}

TEST_F(GpuEngine, WeightsThatOverflowInHalfAreRefused) {
  Graph planted = graph;
  for (size_t v = 0; v < planted.values().size(); ++v)
    if (auto id = static_cast<ValueId>(v); planted.value(id).name == "encoder.layer.0.output.dense.weight") {
      std::vector<float> values = planted.parameter(id).to_f32();
      values[3] = 1e5f;
      planted.set_parameter(id, Tensor::from(values, planted.parameter(id).shape()));
    }
  try {
    lower(planted, {.target = parse_target("sm90a"), .float_type = DType::f16});
    ADD_FAILURE() << "compiled";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("encoder.layer.0.output.dense.weight (up to 100000)"), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("bf16"), std::string::npos);
  }
}

TEST_F(GpuEngine, ExceedingTheLimitsIsRefused) {
  auto program = int8();
  program->max_tokens = 20;
  program->max_length = 12;
  Executor executor(program, std::make_shared<ThreadPool>(1), find_device().target);
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

TEST_F(GpuEngine, OutOfMemoryIsAnErrorThatPasses) {
  namespace device = kernels::device;
  auto program = int8();
  Executor executor(program, std::make_shared<ThreadPool>(1), find_device().target);
  uint64_t generation = device::generation();
  std::vector<void*> taken;
  for (int64_t size = device::free_memory(); size > (1 << 20); size /= 2) try {
      taken.push_back(device::allocate(size));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    }
  std::vector<int> lengths(20000, 40);
  test::RandomBatch batch(lengths, tiny.vocabulary, 3);
  try {
    executor.bind({batch.ids, batch.offsets, batch.types});
    ADD_FAILURE() << "memory was found";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("smaller batches"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("cudaErrorMemoryAllocation"), std::string::npos) << error.what();
  }
  for (void* memory : taken) device::release(memory, generation);
  executor.bind({batch.ids, batch.offsets, batch.types});
  executor.run();
}

// Last, for it takes the device down and sets it up again.
TEST_F(GpuEngine, XALostDeviceIsAnErrorAndCanBeSetUpAgain) {
  namespace device = kernels::device;
  if (std::getenv("NV_SANITIZER_INJECTION_PORT_BASE") != nullptr) GTEST_SKIP() << "a sanitizer would report the fault";
  auto program = int8();
  auto prepared = prepare(program, find_device().target);
  auto pool = std::make_shared<ThreadPool>(1);
  Executor executor(prepared, pool);
  test::RandomBatch batch({13, 40, 1, 22, 9}, tiny.vocabulary, 21);
  executor.bind({batch.ids, batch.offsets, batch.types});
  executor.run();
  auto* values = static_cast<const float*>(executor.output(0));
  std::vector<float> want(values, values + executor.elements(program->outputs[0].second));
  // A kernel that reads where nothing is.
  kernels::ElementwiseDesc desc{.kind = kernels::ElementwiseKind::add, .n = 8};
  kernels::ElementwiseArgs args{
      .m = 1, .x = reinterpret_cast<void*>(64), .x2 = reinterpret_cast<void*>(64), .y = reinterpret_cast<void*>(64)};
  const auto* row = kernels::find(kernels::elementwise_kernels(), desc, find_device().target);
  ASSERT_NE(row, nullptr);
  row->run(desc, args, {.stream = nullptr});
  try {
    executor.run();
    device::synchronize(nullptr);
    ADD_FAILURE() << "the fault went unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device) << error.what();
    EXPECT_NE(std::string(error.what()).find("CUDA says"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("make a new session"), std::string::npos) << error.what();
  }
  try {
    device::recover();
  } catch (const Error& error) {  // some drivers give a process no second context after a fault
    EXPECT_NE(std::string(error.what()).find("start the program again"), std::string::npos) << error.what();
    // Which is the way back there: a new process finds the GPU in order.
    std::string again = "'" + std::filesystem::read_symlink("/proc/self/exe").string() +
                        "' --gtest_filter=Precisions/Gpu.ARowHasTheSameBitsInAnyBatch/residual_channel_here >/dev/null";
    EXPECT_EQ(std::system(again.c_str()), 0);
    return;
  }
  EXPECT_FALSE(still_stands(*prepared));
  EXPECT_THROW(executor.run(), Error);
  Executor again(prepare(program, find_device().target), pool);
  again.bind({batch.ids, batch.offsets, batch.types});
  again.run();
  values = static_cast<const float*>(again.output(0));
  EXPECT_EQ(std::vector<float>(values, values + want.size()), want);
}

TEST(ProgramFile, KeepsTheTilesOfItsGpu) {
  Program program = lower(test::TinyEncoder{.layers = 1}.build(), {.target = parse_target("scalar")});
  program.tiles_gpu = "a GPU";
  program.tiles = {{"128x64x64 f16 f16", "stream_f16_256x192_c2x1"}, {"128x64x64 s8 s8 norm", "apart"}};
  Program again = program_from_json(to_json(program), program.weights, "a test");
  EXPECT_EQ(again.tiles_gpu, program.tiles_gpu);
  EXPECT_EQ(again.tiles, program.tiles);
}

TEST(GpuAbsence, IsAnErrorWithItsReason) {
  if (find_device().present) GTEST_SKIP() << "there is a GPU here";
  try {
    gpu_target();
    ADD_FAILURE() << "a GPU was found";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device);
    EXPECT_NE(std::string(error.what()).find(find_device().reason), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace octet
