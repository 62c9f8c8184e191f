// Outputs of rows through the graph, without gradients.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <memory>

#include "train/device.h"
#include "train/interpreter.h"
#include "train/loss.h"
#include "train/trainer.h"

namespace octet::train {

std::vector<float> run_rows(const Graph& graph, const std::vector<Example>& rows, const TorchRunOptions& options,
                            const Progress& progress) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Interpreter model(graph, {.device = open_device(options.device, options.threads),
                              .master = master_type(options.precision),
                              .compute = compute_type(options.precision)});
    const at::Device device = model.trainables().at(0).leaf.device();
    std::vector<int64_t> lengths;
    for (const Example& row : rows) lengths.push_back(static_cast<int64_t>(row.ids.size()));
    std::vector<std::vector<float>> parts(rows.size());
    int64_t done = 0;
    for (const std::vector<int64_t>& group : plan_batches(lengths, {.max_tokens = 8192})) {
      Rows flat;
      for (int64_t row : group) flat.add(rows[static_cast<size_t>(row)].ids, rows[static_cast<size_t>(row)].type_ids);
      const Batch batch(flat, device);
      at::Tensor out = answer(model.run({.batch = &batch})).to(at::kCPU).to(at::kFloat).contiguous();
      const bool per_row = out.size(0) == batch.rows;  // rows of one token each: the same
      const float* at = out.const_data_ptr<float>();
      for (int64_t row : group) {
        const int64_t count = (per_row ? 1 : lengths[static_cast<size_t>(row)]) * out.size(1);
        parts[static_cast<size_t>(row)].assign(at, at + count);
        at += count;
      }
      done += static_cast<int64_t>(group.size());
      if (progress) progress("running", done, static_cast<int64_t>(rows.size()));
    }
    std::vector<float> all;
    for (const std::vector<float>& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  });
}

TorchRunner open_graph(const Graph& graph, const TorchRunOptions& options) {
  return guarded([&] {
    const bool autocast = options.autocast && options.precision != "fp32";
    const std::string precision = autocast ? "fp32" : options.precision;
    const at::ScalarType cast = compute_type(options.precision);
    auto model = std::make_shared<Interpreter>(
        graph, Interpreter::Options{.device = open_device(options.device, options.threads),
                                    .master = master_type(precision),
                                    .compute = compute_type(precision)});
    return TorchRunner([model, autocast, cast](std::span<const Encoding> rows, double* ms) {
      return guarded([&] {
        c10::NoGradGuard no_grad;
        const at::Device device = model->trainables().at(0).leaf.device();
        if (autocast) {
          at::autocast::set_autocast_dtype(device.type(), cast);
          at::autocast::set_autocast_enabled(device.type(), true);
        }
        struct Off {
          bool on;
          at::DeviceType type;
          ~Off() {
            if (!on) return;
            at::autocast::clear_cache();
            at::autocast::set_autocast_enabled(type, false);
          }
        } off{autocast, device.type()};
        const auto begin = std::chrono::steady_clock::now();
        Rows flat;
        for (const Encoding& row : rows) flat.add(row.ids, row.type_ids);
        const Batch batch(flat, device);
        at::Tensor out = answer(model->run({.batch = &batch})).to(at::kCPU).to(at::kFloat).contiguous();
        if (ms != nullptr)
          *ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
        const float* at = out.const_data_ptr<float>();
        return std::vector<float>(at, at + out.numel());
      });
    });
  });
}

}  // namespace octet::train
