// AdamW over a graph: batches, loss, gradients, schedule, evaluation, checkpoints.
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/file.h"
#include "core/threads.h"
#include "train/checkpoint.h"
#include "train/interpreter.h"

namespace octet::train {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// libtorch_cuda registers itself when it is loaded; the build links only what every machine has. It must be there
/// before torch is asked about CUDA for the first time, since torch remembers the answer.
std::string load_cuda() {
  static const std::string problem = []() -> std::string {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    Dl_info info{};
    if (library == nullptr && dladdr(reinterpret_cast<void*>(&at::set_num_threads), &info) != 0) {
      fs::path path = fs::path(info.dli_fname).parent_path() / "libtorch_cuda.so";
      library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    }
    if (library == nullptr) {
      const char* reason = dlerror();
      return reason == nullptr ? "libtorch_cuda.so cannot be loaded" : reason;
    }
    if (!at::hasCUDA()) return "libtorch_cuda.so was loaded but offers no CUDA";
    if (at::globalContext().getAcceleratorHooksInterface(at::kCUDA).deviceCount() == 0) return "PyTorch sees no GPU";
    at::globalContext().lazyInitDevice(at::kCUDA);
    return "";
  }();
  return problem;
}

at::Device open_device(const std::string& name, int threads) {
  at::set_num_threads(threads > 0 ? threads : available_cpus());
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && name != "auto")
    fail(ErrorCode::invalid_argument, {.what = "unknown device " + name, .expected = "expected auto, cpu or cuda"});
  c10::WarningUtils::set_warnAlways(false);
  // A PyTorch whose CUDA libraries are not here cannot be loaded: that is a machine without a GPU.
  const std::string problem = load_cuda();
  if (problem.empty()) return at::Device(at::kCUDA, 0);
  if (name == "auto") return at::kCPU;
  fail(ErrorCode::device, {.what = "cannot train on a GPU",
                           .expected = problem,
                           .hint = "set OCTET_TORCH to the torch folder of a PyTorch with CUDA, or use --device cpu"});
}

at::ScalarType compute_type(const std::string& precision) {
  if (precision == "fp32") return at::kFloat;
  if (precision == "fp16") return at::kHalf;
  if (precision == "bf16") return at::kBFloat16;
  if (precision == "fp64") return at::kDouble;
  fail(ErrorCode::invalid_argument,
       {.what = "unknown precision " + precision, .expected = "expected fp32, fp16, bf16 or fp64"});
}

at::ScalarType master_type(const std::string& precision) { return precision == "fp64" ? at::kDouble : at::kFloat; }

at::Tensor host_longs(const std::vector<int64_t>& values) {
  at::Tensor made = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  if (!values.empty()) std::memcpy(made.mutable_data_ptr(), values.data(), values.size() * 8);
  return made;
}

/// The graph's first output, flat: [rows or tokens, width].
const at::Tensor& answer(const std::map<std::string, Slot>& outputs) {
  for (const char* name : {"logits", "embedding", "last_hidden_state"})
    if (auto found = outputs.find(name); found != outputs.end()) return found->second.flat;
  OCTET_CHECK(false, "a known output");
}

std::string rows_text(const std::vector<int64_t>& rows) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(rows.size(), 12); ++i) text += (i ? ", " : "") + std::to_string(rows[i] + 1);
  return text + (rows.size() > 12 ? " ..." : "");
}

class Trainer {
 public:
  Trainer(const Setup& setup, const TrainReport& report)
      : setup_(setup),
        options_(setup.options),
        report_(report),
        device_(open_device(setup.options.device, setup.options.threads)),
        model_(setup.graph, {.device = device_,
                             .master = master_type(options_.precision),
                             .compute = compute_type(options_.precision),
                             .flash = options_.fused_attention,
                             .learn_ranges = setup.learn_ranges,
                             .follow_weights = setup.follow_weights}) {
    if (setup.teacher)
      teacher_ = std::make_unique<Interpreter>(*setup.teacher,
                                               Interpreter::Options{.device = device_,
                                                                    .master = master_type(options_.precision),
                                                                    .compute = compute_type(options_.precision)});
    if (setup.distill_hidden > 0) {
      // The last value of every layer: what its output LayerNorm makes.
      for (const Node& node : setup.graph.nodes())
        if (node.op == Op::layer_norm && node.name.ends_with(".output.LayerNorm") &&
            !node.name.ends_with("attention.output.LayerNorm"))
          hidden_.insert(node.name);
    }
    for (const Interpreter::Trainable& t : model_.trainables()) {
      first_.push_back(at::zeros_like(t.master));
      second_.push_back(at::zeros_like(t.master));
      counts_.push_back(at::zeros({}, at::TensorOptions(device_).dtype(at::kFloat)));
    }
    for (const Example& row : setup.train) lengths_.push_back(static_cast<int64_t>(row.ids.size()));
    const auto rows = static_cast<int64_t>(setup.train.size());
    const int64_t micro = (rows + options_.batch - 1) / options_.batch;
    per_epoch_ = (micro + options_.accumulate - 1) / options_.accumulate;
    steps_ = options_.max_steps > 0
                 ? options_.max_steps
                 : std::max<int64_t>(1, std::llround(options_.epochs * static_cast<double>(per_epoch_)));
    evaluate_every_ = options_.evaluate_every > 0 ? options_.evaluate_every : per_epoch_;
    checkpoint_every_ = options_.checkpoint_every > 0 ? options_.checkpoint_every : evaluate_every_;
    scale_ = options_.precision == "fp16" ? 65536.0 : 1.0;
  }

  Trained run() {
    at::manual_seed(options_.seed);
    result_.device = device_.is_cuda() ? "cuda" : "cpu";
    resume();
    trim_log();
    int64_t epoch = -1;
    std::vector<std::vector<int64_t>> batches;
    last_report_ = Clock::now();
    for (; step_ < steps_;) {
      if (int64_t now = step_ / per_epoch_; now != epoch) {
        epoch = now;
        batches = epoch_batches(lengths_, options_.batch, options_.seed, epoch, options_.group_by_length);
      }
      auto begin = static_cast<size_t>((step_ % per_epoch_) * options_.accumulate);
      auto end = std::min(batches.size(), begin + static_cast<size_t>(options_.accumulate));
      auto started = Clock::now();
      one_step({batches.begin() + static_cast<int64_t>(begin), batches.begin() + static_cast<int64_t>(end)});
      ++step_;
      const bool evaluate = !setup_.dev.empty() && (step_ % evaluate_every_ == 0 || step_ == steps_);
      const bool checkpoint = step_ % checkpoint_every_ == 0 && step_ < steps_;
      const bool look = evaluate || checkpoint || step_ == steps_ || step_ % options_.log_every == 0;
      if (look) flush_losses();
      result_.seconds += since(started);
      TrainStep line;
      if (evaluate) evaluation(&line);
      if (look) log(line);
      if (checkpoint && !setup_.checkpoints.empty()) write_checkpoint();
    }
    return finish();
  }

  Gradients all_gradients() {
    std::vector<int64_t> rows(setup_.train.size());
    std::iota(rows.begin(), rows.end(), 0);
    at::Tensor loss = loss_of(setup_.train, rows, true);
    loss.backward();
    Gradients result{.loss = loss.item<double>()};
    for (const Interpreter::Trainable& t : model_.trainables()) {
      if (!t.leaf.grad().defined()) continue;
      at::Tensor flat = t.leaf.grad().to(at::kCPU).to(at::kDouble).contiguous();
      result.values[t.name].assign(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
    }
    return result;
  }

 private:
  void one_step(const std::vector<std::vector<int64_t>>& parts) {
    std::vector<at::Tensor> losses;
    auto& trainables = model_.trainables();
    for (const std::vector<int64_t>& part : parts) {
      try {
        at::Tensor loss = loss_of(setup_.train, part, true) / static_cast<double>(parts.size());
        losses.push_back(loss.detach());
        (scale_ == 1.0 ? loss : loss * scale_).backward();
      } catch (const c10::OutOfMemoryError& error) {
        int64_t tokens = 0;
        for (int64_t row : part) tokens += lengths_[static_cast<size_t>(row)];
        fail(ErrorCode::out_of_memory,
             {.what = "the GPU has no memory for a training step",
              .expected =
                  "the batch has " + std::to_string(part.size()) + " rows with " + std::to_string(tokens) + " tokens",
              .where = "step " + std::to_string(step_ + 1),
              .hint = "use --batch " + std::to_string(std::max<int64_t>(1, options_.batch / 2)) + " --accumulate " +
                      std::to_string(options_.accumulate * 2) + ", or a smaller --max-length"});
      }
      if (parts.size() > 1 && model_.trainables()[0].leaf.scalar_type() != model_.trainables()[0].master.scalar_type())
        collect_gradients();
    }
    c10::NoGradGuard no_grad;
    collect_gradients();
    std::vector<at::Tensor> gradients;
    std::vector<size_t> present;
    for (size_t i = 0; i < trainables.size(); ++i)
      if (gradients_.size() > i && gradients_[i].defined()) gradients.push_back(gradients_[i]), present.push_back(i);
    losses_.push_back(losses.size() == 1 ? losses[0] : at::stack(losses).sum());
    loss_rows_.push_back(parts.front());
    apply(gradients, present);
    for (at::Tensor& gradient : gradients_) gradient = at::Tensor();
  }

  /// Moves gradients of leaves into gradients_, adding, in the master's type.
  void collect_gradients() {
    c10::NoGradGuard no_grad;
    auto& trainables = model_.trainables();
    gradients_.resize(trainables.size());
    std::vector<at::Tensor> from, to;
    for (size_t i = 0; i < trainables.size(); ++i) {
      at::Tensor& leaf = trainables[i].leaf;
      if (!leaf.grad().defined()) continue;
      at::Tensor gradient = leaf.grad();
      leaf.mutable_grad() = at::Tensor();
      if (gradient.scalar_type() == trainables[i].master.scalar_type()) {
        gradients_[i] = gradients_[i].defined() ? gradients_[i].add_(gradient) : gradient;
      } else if (gradients_[i].defined()) {
        gradients_[i].add_(gradient);
      } else {
        gradients_[i] = at::empty_like(trainables[i].master);
        from.push_back(gradient);
        to.push_back(gradients_[i]);
      }
    }
    if (!to.empty()) at::_foreach_copy_(to, from);
  }

  void apply(std::vector<at::Tensor>& gradients, const std::vector<size_t>& present) {
    std::vector<at::Tensor> norms = at::_foreach_norm(gradients, 2);
    norm_ = at::linalg_vector_norm(at::stack(norms)) / scale_;
    bool good = true;
    if (options_.precision == "fp16") {
      good = std::isfinite(norm_.item<double>());
      if (!good) {
        scale_ = std::max(1.0, scale_ / 2);
        good_steps_ = 0;
        ++result_.skipped;
        return;
      }
    }
    if (options_.clip_norm > 0) {
      at::Tensor share = (options_.clip_norm / (norm_ + 1e-6)).clamp_max(1.0) / scale_;
      at::_foreach_mul_(gradients, share.to(gradients[0].scalar_type()));
    } else if (scale_ != 1.0) {
      at::_foreach_mul_(gradients, 1.0 / scale_);
    }
    const double rate = options_.learning_rate * rate_share(options_, applied_, steps_);
    for (bool decay : {true, false}) {
      std::vector<at::Tensor> masters, grads, first, second, counts;
      for (size_t k = 0; k < present.size(); ++k) {
        const size_t i = present[k];
        Interpreter::Trainable& t = model_.trainables()[i];
        if (t.decay != decay) continue;
        masters.push_back(t.master.detach());
        grads.push_back(gradients[k]);
        first.push_back(first_[i]);
        second.push_back(second_[i]);
        counts.push_back(counts_[i]);
      }
      if (masters.empty()) continue;
      at::_foreach_add_(counts, 1);
      at::_fused_adamw_(masters, grads, first, second, {}, counts, rate, options_.beta1, options_.beta2,
                        decay ? options_.weight_decay : 0.0, options_.epsilon, false, false);
    }
    ++applied_;
    if (options_.precision == "fp16" && ++good_steps_ == 2000) scale_ *= 2, good_steps_ = 0;
    model_.refresh();
  }

  at::Tensor loss_of(const std::vector<Example>& data, const std::vector<int64_t>& rows, bool training,
                     at::Tensor* outputs = nullptr) {
    Rows flat;
    for (int64_t row : rows) {
      flat.add(data[static_cast<size_t>(row)].ids, data[static_cast<size_t>(row)].type_ids);
      if (training) tokens_ += static_cast<int64_t>(data[static_cast<size_t>(row)].ids.size());
    }
    if (training) rows_ += static_cast<int64_t>(rows.size());
    const Batch batch(flat, device_);
    const bool drops = training && !setup_.dropout.probability.empty();
    auto made = model_.run({.batch = &batch,
                            .dropout = drops ? &setup_.dropout : nullptr,
                            .keep = training && !hidden_.empty() ? &hidden_ : nullptr});
    at::Tensor logits = answer(made);
    if (logits.scalar_type() == at::kHalf || logits.scalar_type() == at::kBFloat16) logits = logits.to(at::kFloat);
    if (outputs != nullptr) *outputs = logits;
    at::Tensor loss = task_loss(logits, data, rows, batch);
    return training && teacher_ ? loss + distillation(logits, made, batch) : loss;
  }

  at::Tensor task_loss(const at::Tensor& logits, const std::vector<Example>& data, const std::vector<int64_t>& rows,
                       const Batch& batch) const {
    std::vector<int64_t> labels;
    auto example = [&](int64_t row) -> const Example& { return data[static_cast<size_t>(row)]; };
    auto on_device = [&](const at::Tensor& host) { return host.to(device_, /*non_blocking=*/true); };
    switch (setup_.loss) {
      case Loss::classes:
        for (int64_t row : rows) labels.push_back(example(row).label);
        return at::cross_entropy_loss(logits, on_device(host_longs(labels)));
      case Loss::number: {
        at::Tensor wanted = at::empty({static_cast<int64_t>(rows.size())}, at::kDouble);
        for (size_t i = 0; i < rows.size(); ++i) wanted.mutable_data_ptr<double>()[i] = example(rows[i]).number;
        return at::mse_loss(logits.view({-1}), on_device(wanted.to(logits.scalar_type())));
      }
      case Loss::tokens: {
        for (int64_t row : rows)
          labels.insert(labels.end(), example(row).token_labels.begin(), example(row).token_labels.end());
        return at::cross_entropy_loss(logits, on_device(host_longs(labels)), {}, at::Reduction::Mean, -100);
      }
      case Loss::spans: break;
    }
    // Rows are of unequal length: each row's tokens are one distribution for the start, one for the end.
    at::Tensor total;
    for (int64_t r = 0; r < batch.rows; ++r) {
      at::Tensor part =
          logits.slice(0, batch.host.offsets[static_cast<size_t>(r)], batch.host.offsets[static_cast<size_t>(r + 1)]);
      at::Tensor both = at::log_softmax(part, 0);
      const Example& e = example(rows[static_cast<size_t>(r)]);
      at::Tensor one = -(both[e.label][0] + both[e.label_end][1]) / 2;
      total = total.defined() ? total + one : one;
    }
    return total / static_cast<double>(batch.rows);
  }

  at::Tensor distillation(const at::Tensor& logits, const std::map<std::string, Slot>& mine, const Batch& batch) {
    std::map<std::string, Slot> theirs;
    {
      c10::NoGradGuard no_grad;
      theirs = teacher_->run({.batch = &batch, .keep = hidden_.empty() ? nullptr : &hidden_});
    }
    at::Tensor loss = at::zeros({}, logits.options());
    const double t = setup_.temperature;
    if (setup_.distill_logits > 0) {
      at::Tensor wanted = answer(theirs).to(logits.scalar_type());
      if (setup_.loss == Loss::number) loss = loss + setup_.distill_logits * at::mse_loss(logits, wanted);
      else
        loss = loss + setup_.distill_logits * t * t *
                          at::kl_div(at::log_softmax(logits / t, -1), at::log_softmax(wanted / t, -1),
                                     at::Reduction::Sum, true) /
                          static_cast<double>(logits.size(0));
    }
    for (const std::string& name : hidden_)
      loss = loss + setup_.distill_hidden / static_cast<double>(hidden_.size()) *
                        at::mse_loss(mine.at(name).flat.to(logits.scalar_type()),
                                     theirs.at(name).flat.to(logits.scalar_type()));
    return loss;
  }

  void flush_losses() {
    if (losses_.empty()) return;
    at::Tensor all = at::stack(losses_).to(at::kCPU).to(at::kDouble);
    const double* values = all.const_data_ptr<double>();
    for (size_t i = 0; i < losses_.size(); ++i) {
      if (!std::isfinite(values[i]))
        fail(ErrorCode::invalid_argument,
             {.what = "training stopped: the loss is not a number",
              .expected = "got " + std::to_string(values[i]) + " at learning rate " +
                          std::to_string(options_.learning_rate) + " on rows " + rows_text(loss_rows_[i]) +
                          " of the training data",
              .where =
                  "step " + std::to_string(step_ - static_cast<int64_t>(losses_.size()) + static_cast<int64_t>(i) + 1),
              .hint =
                  "lower --lr or use --precision fp32 or bf16; the last checkpoint is kept, --resume goes on from it"});
      result_.losses.push_back(values[i]);
      recent_ += values[i];
      ++recent_count_;
    }
    losses_.clear();
    loss_rows_.clear();
  }

  std::vector<float> outputs_of(const std::vector<Example>& data, double* loss) {
    c10::NoGradGuard no_grad;
    std::vector<int64_t> lengths, first;
    int64_t total = 0;
    const bool per_token = setup_.loss == Loss::tokens || setup_.loss == Loss::spans;
    for (const Example& row : data) {
      lengths.push_back(static_cast<int64_t>(row.ids.size()));
      first.push_back(total);
      total += per_token ? lengths.back() : 1;
    }
    std::vector<float> values;
    double sum = 0;
    for (const std::vector<int64_t>& group : plan_batches(lengths, {.max_rows = 256, .max_tokens = 16384})) {
      at::Tensor out;
      sum += loss_of(data, group, false, &out).item<double>() * static_cast<double>(group.size());
      out = out.to(at::kCPU).to(at::kFloat).contiguous();
      const int64_t width = out.size(1);
      if (values.empty()) values.resize(static_cast<size_t>(total * width));
      const float* at = out.const_data_ptr<float>();
      for (int64_t row : group) {
        const int64_t count = (per_token ? lengths[static_cast<size_t>(row)] : 1) * width;
        std::copy_n(at, count, values.begin() + first[static_cast<size_t>(row)] * width);
        at += count;
      }
    }
    *loss = sum / static_cast<double>(data.size());
    return values;
  }

  void evaluation(TrainStep* line) {
    double loss = 0;
    Evaluation e = setup_.score(outputs_of(setup_.dev, &loss));
    line->evaluated = true;
    line->metric = e.metric;
    line->value = e.value;
    line->metrics = e.metrics;
    line->dev_loss = loss;
    result_.metric = e.metric;
    last_value_ = e.value;
    last_metrics_ = e.metrics;
    if (options_.restore_best && (best_step_ == 0 || e.value > best_value_)) {
      best_value_ = e.value;
      best_step_ = step_;
      best_metrics_ = e.metrics;
      best_.clear();
      for (const Interpreter::Trainable& t : model_.trainables())
        best_[t.name] = t.master.detach().to(at::kCPU, false, true);
      for (const auto& [name, scale] : weight_scales()) best_["scale/" + name] = scale;
    }
  }

  /// Ranges of weights that move with them belong to the state.
  std::map<std::string, at::Tensor> weight_scales() const {
    std::map<std::string, at::Tensor> scales;
    for (const Node& node : model_.graph().nodes())
      if (node.op == Op::fake_quant)
        if (Tensor scale = model_.scale_of(node.name); !scale.empty()) scales[node.name] = to_torch(scale);
    return scales;
  }

  void log(TrainStep line) {
    line.step = step_;
    line.steps = steps_;
    line.epoch = static_cast<double>(step_) / static_cast<double>(per_epoch_);
    line.loss = recent_count_ > 0 ? recent_ / static_cast<double>(recent_count_) : 0;
    recent_ = 0;
    recent_count_ = 0;
    line.learning_rate = options_.learning_rate * rate_share(options_, std::max<int64_t>(applied_ - 1, 0), steps_);
    line.gradient_norm = norm_.defined() ? norm_.item<double>() : 0;
    line.seconds = result_.seconds;
    const auto done = static_cast<double>(step_ - result_.resumed_from);
    line.seconds_left = done > 0 ? result_.seconds / done * static_cast<double>(steps_ - step_) : 0;
    line.rows_per_s = result_.seconds > 0 ? static_cast<double>(rows_) / result_.seconds : 0;
    line.tokens_per_s = result_.seconds > 0 ? static_cast<double>(tokens_) / result_.seconds : 0;
    if (!setup_.log.empty()) {
      nlohmann::ordered_json entry{{"step", line.step},
                                   {"epoch", line.epoch},
                                   {"loss", line.loss},
                                   {"learning_rate", line.learning_rate},
                                   {"gradient_norm", line.gradient_norm},
                                   {"loss_scale", scale_},
                                   {"rows_per_s", line.rows_per_s},
                                   {"tokens_per_s", line.tokens_per_s}};
      if (line.evaluated) {
        entry["metric"] = line.metric;
        entry["value"] = line.value;
        entry["dev_loss"] = line.dev_loss;
        entry["metrics"] = line.metrics;
      }
      std::ofstream(setup_.log, std::ios::app) << entry.dump() << "\n";
    }
    if (report_) report_(line);
  }

  /// A resumed run writes the lines after its checkpoint again.
  void trim_log() const {
    if (setup_.log.empty()) return;
    std::string kept;
    if (step_ > 0) {
      std::ifstream lines(setup_.log);
      for (std::string text; std::getline(lines, text);) {
        nlohmann::json entry = nlohmann::json::parse(text, nullptr, false);
        if (entry.is_object() && entry.value("step", int64_t{0}) <= step_ && entry.contains("step"))
          kept += text + "\n";
      }
    }
    FileWriter file(setup_.log);
    file.write(kept);
    file.commit();
  }

  at::Generator generator(bool cuda) const {
    return cuda ? at::globalContext().defaultGenerator(device_) : at::detail::getDefaultCPUGenerator();
  }

  void write_checkpoint() {
    Checkpoint state{.step = step_, .applied = applied_, .settings = setup_.settings};
    auto& trainables = model_.trainables();
    for (size_t i = 0; i < trainables.size(); ++i) {
      state.tensors["param/" + trainables[i].name] = trainables[i].master.detach();
      state.tensors["first/" + trainables[i].name] = first_[i];
      state.tensors["second/" + trainables[i].name] = second_[i];
    }
    state.tensors["counts"] = at::stack(counts_).to(at::kCPU);
    state.tensors["random"] = generator(device_.is_cuda()).get_state();
    state.numbers = {{"scale", scale_},
                     {"good_steps", static_cast<double>(good_steps_)},
                     {"best_value", best_value_},
                     {"best_step", static_cast<double>(best_step_)},
                     {"skipped", static_cast<double>(result_.skipped)}};
    for (const auto& [name, value] : best_metrics_) state.numbers["best/" + name] = value;
    if (best_step_ > saved_best_) save_best(setup_.checkpoints, best_step_, best_);
    saved_best_ = best_step_;
    save_checkpoint(setup_.checkpoints, state);
    remove_other_bests(setup_.checkpoints, best_step_);
  }

  void resume() {
    if (setup_.checkpoints.empty() || !options_.resume) return;
    Checkpoint state;
    if (!load_checkpoint(setup_.checkpoints, &state)) return;
    std::string differ;
    for (const auto& [key, value] : setup_.settings)
      if (auto found = state.settings.find(key); found == state.settings.end() || found->second != value)
        differ += (differ.empty() ? "" : ", ") + key + " (" + (found == state.settings.end() ? "none" : found->second) +
                  " before, " + value + " now)";
    if (!differ.empty())
      fail(ErrorCode::invalid_argument, {.what = "cannot resume with other settings",
                                         .expected = differ,
                                         .where = "in " + setup_.checkpoints.string(),
                                         .hint = "use the same settings, or start anew in another folder"});
    c10::NoGradGuard no_grad;
    auto& trainables = model_.trainables();
    auto take = [&](const std::string& name, const at::Tensor& into) {
      auto found = state.tensors.find(name);
      if (found == state.tensors.end() || found->second.sizes() != into.sizes())
        fail(ErrorCode::corrupt, {.what = "the checkpoint does not fit the model",
                                  .expected = "expected tensor " + name,
                                  .where = "in " + setup_.checkpoints.string()});
      into.detach().copy_(found->second);
    };
    for (size_t i = 0; i < trainables.size(); ++i) {
      take("param/" + trainables[i].name, trainables[i].master);
      take("first/" + trainables[i].name, first_[i]);
      take("second/" + trainables[i].name, second_[i]);
    }
    at::Tensor counts = at::empty({static_cast<int64_t>(counts_.size())}, at::kFloat);
    take("counts", counts);
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i].copy_(counts[static_cast<int64_t>(i)]);
    generator(device_.is_cuda()).set_state(state.tensors.at("random"));
    scale_ = state.numbers["scale"];
    good_steps_ = static_cast<int64_t>(state.numbers["good_steps"]);
    best_value_ = state.numbers["best_value"];
    best_step_ = saved_best_ = static_cast<int64_t>(state.numbers["best_step"]);
    result_.skipped = static_cast<int64_t>(state.numbers["skipped"]);
    for (const auto& [name, value] : state.numbers)
      if (name.starts_with("best/")) best_metrics_[name.substr(5)] = value;
    if (best_step_ > 0) best_ = load_best(setup_.checkpoints, best_step_);
    step_ = result_.resumed_from = state.step;
    applied_ = state.applied;
    model_.refresh();
  }

  Trained finish() {
    c10::NoGradGuard no_grad;
    Trained trained;
    trained.result = std::move(result_);
    TrainResult& r = trained.result;
    r.steps = step_;
    const bool best = options_.restore_best && best_step_ > 0;
    r.value = best ? best_value_ : last_value_;
    r.metrics = best ? best_metrics_ : last_metrics_;
    r.best_step = best ? best_step_ : step_;
    r.rows_per_s = r.seconds > 0 ? static_cast<double>(rows_) / r.seconds : 0;
    r.tokens_per_s = r.seconds > 0 ? static_cast<double>(tokens_) / r.seconds : 0;
    if (!r.losses.empty()) r.first_loss = r.losses.front(), r.last_loss = r.losses.back();
    for (const Interpreter::Trainable& t : model_.trainables())
      trained.parameters[t.name] = from_torch(best ? best_.at(t.name) : t.master);
    for (const auto& [name, scale] : weight_scales())
      trained.scales[name] = from_torch(best ? best_.at("scale/" + name) : scale);
    return trained;
  }

  const Setup& setup_;
  const TrainOptions& options_;
  const TrainReport report_;
  at::Device device_;
  Interpreter model_;
  std::unique_ptr<Interpreter> teacher_;
  std::set<std::string> hidden_;
  std::vector<at::Tensor> first_, second_, counts_, gradients_;
  std::vector<int64_t> lengths_;
  int64_t per_epoch_ = 1, steps_ = 1, evaluate_every_ = 0, checkpoint_every_ = 0;
  int64_t step_ = 0, applied_ = 0, good_steps_ = 0, rows_ = 0, tokens_ = 0;
  double scale_ = 1;
  at::Tensor norm_;
  std::vector<at::Tensor> losses_;
  std::vector<std::vector<int64_t>> loss_rows_;
  double recent_ = 0;
  int64_t recent_count_ = 0;
  double best_value_ = 0, last_value_ = 0;
  int64_t best_step_ = 0, saved_best_ = 0;
  std::map<std::string, double> best_metrics_, last_metrics_;
  std::map<std::string, at::Tensor> best_;
  Clock::time_point last_report_;
  TrainResult result_;
};

/// Torch's own errors become octet's.
template <typename F>
auto guarded(F f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    fail(ErrorCode::out_of_memory,
         {.what = "the GPU has no memory for the model", .expected = error.what_without_backtrace()});
  } catch (const c10::Error& error) {
    fail(ErrorCode::internal, {.what = std::string("libtorch: ") + error.what_without_backtrace()});
  }
}

}  // namespace

Trained run_training(const Setup& setup, const TrainReport& report) {
  return guarded([&] { return Trainer(setup, report).run(); });
}

Gradients gradients(const Setup& setup) {
  return guarded([&] { return Trainer(setup, {}).all_gradients(); });
}

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

}  // namespace octet::train
