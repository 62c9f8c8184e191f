// Whole encoders on the GPU: time of graph replays by shape, INT8 beside FP16, the floor, and each step's agreement
// with the CPU.
//
//   octet_bench_gpu FOLDER [--shapes 32x256,1x16] [--repeats N] [--steps] [--check]
//
// FOLDER is a Hugging Face folder; random weights of a real shape do (tools/make_random_model.py). The plans are
// calibrated on random ids.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <octet/octet.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "api/state.h"
#include "core/int8.h"
#include "kernels/device.h"

namespace {

using namespace octet;

struct Batching {
  int64_t batch, length;
};

std::vector<Encoding> random_rows(int64_t batch, int64_t length, int64_t vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Encoding> rows(static_cast<size_t>(batch));
  for (Encoding& row : rows) {
    for (int64_t t = 0; t < length; ++t)
      row.ids.push_back(static_cast<int32_t>(2 + random() % static_cast<uint32_t>(vocabulary - 2)));
    row.type_ids.assign(row.ids.size(), 0);
  }
  return rows;
}

OwnedBatch batch_of(const std::vector<Encoding>& rows) {
  OwnedBatch batch;
  for (const Encoding& row : rows) batch.add(row);
  return batch;
}

double percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1))];
}

// Replays with rotating inputs; milliseconds as the stream sees them.
std::vector<double> replay(Executor& executor, const Batching& shape, int64_t vocabulary, int repeats) {
  std::vector<OwnedBatch> inputs;
  for (uint32_t i = 0; i < 4; ++i)
    inputs.push_back(batch_of(random_rows(shape.batch, shape.length, vocabulary, 100 + i)));
  std::vector<double> samples;
  double busy = 0;
  for (int r = -20; r < repeats || busy < 500; ++r) {
    Batch b = inputs[static_cast<size_t>(r + 20) % inputs.size()].view();
    executor.bind({b.ids, b.offsets, b.type_ids});
    double ms = executor.time_replays(1)[0];
    if (r < 0) continue;
    samples.push_back(ms);
    busy += ms;
  }
  return samples;
}

double tops(const Program& program, const Batching& shape) {
  double macs = 0;
  for (const Step& step : program.steps)
    macs += static_cast<double>(shape.batch) * multiply_accumulates(program, step, shape.length);
  return 2e-12 * macs;
}

void print_steps(Executor& executor, const Batching& shape, int64_t vocabulary, double peak) {
  OwnedBatch batch = batch_of(random_rows(shape.batch, shape.length, vocabulary, 5));
  Batch b = batch.view();
  executor.bind({b.ids, b.offsets, b.type_ids});
  executor.run();
  std::vector<double> times = executor.time_steps(5);
  const Program& program = executor.program();
  double total = 0;
  for (double t : times) total += t;
  fmt::print("  {:<58} {:<24} {:>8} {:>8} {:>7}\n", "step", "kernel", "us", "TOPS", "% peak");
  for (size_t i = 0; i < times.size(); ++i) {
    double work =
        2e-12 * static_cast<double>(shape.batch) * multiply_accumulates(program, program.steps[i], shape.length);
    double rate = work / (times[i] * 1e-3);
    fmt::print("  {:<58.58} {:<24} {:>8.2f} {:>8.0f} {:>7.1f}\n", program.steps[i].name, program.steps[i].kernel,
               1e3 * times[i], rate, 100 * rate / peak);
  }
  fmt::print("  sum of steps alone {:.3f} ms\n", total);
}

// Every step of the GPU plan on the CPU plan's own values: share of equal integers, largest step.
void check_steps(const Plan& gpu, const Plan& cpu, int64_t vocabulary) {
  std::mt19937 random(77);
  OwnedBatch batch;
  for (int64_t length : {1, 3, 16, 17, 40, 64, 65, 100, 128})
    batch.add(random_rows(1, length, vocabulary, random())[0]);
  struct Sum {
    double equal = 0, elements = 0, rms = 0;
    int64_t steps = 0;
  };
  std::map<std::string, Sum> sums;  // by kernel
  for (const DiffRow& row : diff(cpu, gpu, batch.view(), {.teacher_forced = true})) {
    if (!keeps_promise(row))
      fmt::print("  BAD {} [{}, {}]: equal {:.5f}, {} steps, relative rms {:.2e}\n", row.value.substr(0, 60),
                 row.kernel, row.arithmetic, row.equal_fraction, row.max_steps,
                 row.rms / std::max(1e-30, row.reference_rms));
    Sum& sum = sums[row.kernel];
    if (row.reference_rms > 0) sum.rms = std::max(sum.rms, row.rms / row.reference_rms);
    if (!row.integer) continue;
    sum.equal += row.equal_fraction * static_cast<double>(row.elements);
    sum.elements += static_cast<double>(row.elements);
    sum.steps = std::max(sum.steps, row.max_steps);
  }
  for (const auto& [kernel, sum] : sums)
    fmt::print("  {:<28} equal integers {:.6f} of {:.0f}, at most {} steps apart; relative rms {:.2e}\n", kernel,
               sum.elements > 0 ? sum.equal / sum.elements : 1, sum.elements, sum.steps, sum.rms);
}

// A LayerNorm in the epilogue of its GEMM gives the bits of the two kernels: whole outputs, with and without joined
// steps.
void check_joined(const Plan& plan, int64_t vocabulary, std::shared_ptr<ThreadPool> pool) {
  Executor joined(plan.state()->prepared(), pool), apart(plan.state()->prepared(), pool, true);
  for (const Batching& shape : {Batching{32, 256}, {9, 77}, {8, 128}, {31, 131}, {128, 128}, {3, 200}}) {
    OwnedBatch batch = batch_of(random_rows(shape.batch, shape.length, vocabulary, 9));
    Batch b = batch.view();
    for (Executor* e : {&joined, &apart}) {
      e->bind({b.ids, b.offsets, b.type_ids});
      e->run();
    }
    const auto* x = static_cast<const float*>(joined.output(0));
    const auto* y = static_cast<const float*>(apart.output(0));
    const int64_t n = joined.elements(joined.program().outputs[0].second);
    int64_t different = 0;
    for (int64_t i = 0; i < n; ++i) different += !(x[i] == y[i]);
    fmt::print("  {}x{}: {} of {} outputs differ between joined and single steps\n", shape.batch, shape.length,
               different, n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) {
      fmt::print(stderr, "octet_bench_gpu FOLDER [--shapes 32x256,1x16] [--repeats N] [--steps] [--check]\n");
      return 64;
    }
    std::string shapes_text = "32x256,1x16,1x128,1x512,8x128,32x128,128x128,32x512";
    int repeats = 200;
    bool steps = false, check = false;
    for (int i = 2; i < argc; ++i) {
      std::string flag = argv[i];
      if (flag == "--shapes" && i + 1 < argc) shapes_text = argv[++i];
      else if (flag == "--repeats" && i + 1 < argc) repeats = std::atoi(argv[++i]);
      else if (flag == "--steps") steps = true;
      else if (flag == "--check") check = true;
    }
    std::vector<Batching> shapes;
    std::stringstream list(shapes_text);
    for (std::string item; std::getline(list, item, ',');) {
      size_t x = item.find('x');
      shapes.push_back({std::atoll(item.c_str()), std::atoll(item.c_str() + x + 1)});
    }
    const kernels::device::Info& device = kernels::device::find_device();
    fmt::print("{} ({} SMs, driver CUDA {})\n", device.present ? device.name : device.reason, device.target.sm_count,
               device.driver);
    auto begin = std::chrono::steady_clock::now();
    auto seconds = [&] {
      auto now = std::chrono::steady_clock::now();
      double s = std::chrono::duration<double>(now - begin).count();
      begin = now;
      return s;
    };
    Model model = Model::load(argv[1], {.check_finite = false});
    fmt::print("load {:.2f} s\n", seconds());
    int64_t vocabulary = model.info().vocabulary;
    std::vector<Encoding> rows = random_rows(16, 64, vocabulary, 3);
    Calibration calibration = calibrate(model, rows, {.samples = 16});
    fmt::print("calibrate {:.2f} s\n", seconds());
    Plan int8 = compile(model, {.precision = Precision::int8, .device = "cuda", .calibration = calibration});
    fmt::print("compile INT8 {:.2f} s\n", seconds());
    Plan fp16 = compile(model, {.precision = Precision::fp16, .device = "cuda"});
    fmt::print("compile FP16 {:.2f} s\n", seconds());
    if (check) {
      Plan cpu = compile(model, {.precision = Precision::int8, .device = "cpu", .calibration = calibration});
      fmt::print("INT8 against the CPU plan, each step on the CPU's values\n");
      check_steps(int8, cpu, vocabulary);
      Plan cpu_float = compile(model, {.precision = Precision::fp32, .device = "cpu"});
      check_joined(int8, vocabulary, std::make_shared<ThreadPool>(1));
      fmt::print("FP16 against the CPU's FP32 plan, each step on the CPU's values\n");
      check_steps(fp16, cpu_float, vocabulary);
    }
    auto pool = std::make_shared<ThreadPool>(1);
    Executor a(int8.state()->prepared(), pool), b(fp16.state()->prepared(), pool);
    fmt::print("{:<10} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9}\n", "shape", "INT8 ms", "5p", "95p", "FP16 ms",
               "INT8 x", "TOPS", "arena MB");
    for (const Batching& shape : shapes) {
      std::vector<double> x = replay(a, shape, vocabulary, repeats), y = replay(b, shape, vocabulary, repeats);
      double median = percentile(x, 0.5), half = percentile(y, 0.5);
      fmt::print("{:<10} {:>9.4f} {:>9.4f} {:>9.4f} {:>9.4f} {:>8.2f} {:>8.0f} {:>9.1f}\n",
                 fmt::format("{}x{}", shape.batch, shape.length), median, percentile(x, 0.05), percentile(x, 0.95),
                 half, half / median, tops(*int8.state()->program, shape) / (median * 1e-3),
                 static_cast<double>(a.arena_bytes()) / 1e6);
    }
    if (steps)
      for (const Batching& shape : {shapes.front(), shapes.back()}) {
        fmt::print("INT8 {}x{} by step, each alone\n", shape.batch, shape.length);
        print_steps(a, shape, vocabulary, 1979);
        fmt::print("FP16 {}x{} by step, each alone\n", shape.batch, shape.length);
        print_steps(b, shape, vocabulary, 989);
      }
    return 0;
  } catch (const octet::Error& error) {
    fmt::print(stderr, "octet_bench_gpu: {}\n", error.what());
    return error.code() == octet::ErrorCode::internal ? 1 : 2;
  }
}
