// AdamW over a graph: batches, loss, gradients, schedule, evaluation, checkpoints.
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/file.h"
#include "train/checkpoint.h"
#include "train/device.h"
#include "train/interpreter.h"
#include "train/loss.h"
#include "train/processes.h"

namespace octet::train {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

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
    if (options_.processes > 1)
      processes_ = Processes::join(options_.processes, options_.process, options_.meeting, device_);
    for (const Interpreter::Trainable& t : model_.trainables()) {
      first_.push_back(at::zeros_like(t.master));
      second_.push_back(at::zeros_like(t.master));
      counts_.push_back(at::zeros({}, at::TensorOptions(device_).dtype(at::kFloat)));
    }
    for (const Example& row : setup.train) lengths_.push_back(static_cast<int64_t>(row.ids.size()));
    const auto rows = static_cast<int64_t>(setup.train.size());
    const int64_t micro = (rows + options_.batch - 1) / options_.batch;
    per_step_ = options_.accumulate * options_.processes;
    per_epoch_ = (micro + per_step_ - 1) / per_step_;
    steps_ = options_.max_steps > 0
                 ? options_.max_steps
                 : std::max<int64_t>(1, std::llround(options_.epochs * static_cast<double>(per_epoch_)));
    evaluate_every_ = options_.evaluate_every > 0 ? options_.evaluate_every : per_epoch_;
    checkpoint_every_ = options_.checkpoint_every > 0 ? options_.checkpoint_every : evaluate_every_;
    scale_ = options_.precision == "fp16" ? 65536.0 : 1.0;
  }

  Trained run() {
    seed();
    result_.device = device_.is_cuda() ? "cuda" : "cpu";
    if (processes_) result_.transport = processes_->transport();
    if (leads()) resume();
    if (processes_) share_state();
    if (leads()) trim_log();
    int64_t epoch = -1;
    std::vector<std::vector<int64_t>> batches;
    for (; step_ < steps_;) {
      if (int64_t now = step_ / per_epoch_; now != epoch) {
        epoch = now;
        batches = epoch_batches(lengths_, options_.batch, options_.seed, epoch, options_.group_by_length);
      }
      auto begin = static_cast<size_t>((step_ % per_epoch_) * per_step_);
      auto end = std::min(batches.size(), begin + static_cast<size_t>(per_step_));
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
      if (checkpoint && !setup_.checkpoints.empty()) {
        if (leads()) write_checkpoint();
        if (processes_) seed();  // a resumed run draws the same from here on
      }
    }
    return finish();
  }

  Gradients all_gradients() {
    std::vector<int64_t> rows(setup_.train.size());
    std::iota(rows.begin(), rows.end(), 0);
    at::Tensor loss = loss_of(setup_.train, rows, true);
    loss.backward();
    model_.clip_weight_gradients();
    Gradients result{.loss = loss.item<double>()};
    for (const Interpreter::Trainable& t : model_.trainables()) {
      if (!t.leaf.grad().defined()) continue;
      at::Tensor flat = t.leaf.grad().to(at::kCPU).to(at::kDouble).contiguous();
      result.values[t.name].assign(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
    }
    return result;
  }

 private:
  /// Process 0 writes, reports and reads checkpoints.
  bool leads() const { return options_.process == 0; }

  /// Processes drop different values. A lone one goes on from the state of the generator, which its checkpoints hold.
  void seed() {
    const auto process = static_cast<uint64_t>(options_.process), step = static_cast<uint64_t>(step_);
    at::manual_seed(options_.seed + process * 0x9e3779b97f4a7c15u + (processes_ ? step * 0xbf58476d1ce4e5b9u : 0));
  }

  /// Everything that process 0 may have read from a checkpoint goes to the others.
  void share_state() {
    std::vector<at::Tensor> tensors;
    for (size_t i = 0; i < model_.trainables().size(); ++i) {
      tensors.insert(tensors.end(), {model_.trainables()[i].master.detach(), first_[i], second_[i], counts_[i]});
    }
    double* numbers[] = {&scale_, &best_value_};
    int64_t* counts[] = {&step_, &applied_, &good_steps_, &best_step_, &result_.skipped, &result_.resumed_from};
    at::Tensor rest = at::empty({8}, at::TensorOptions(device_).dtype(at::kDouble));
    for (int64_t i = 0; i < 8; ++i) rest[i] = i < 2 ? *numbers[i] : static_cast<double>(*counts[i - 2]);
    tensors.push_back(rest);
    if (!leads())
      for (at::Tensor& tensor : tensors) tensor.zero_();
    processes_->sum(tensors);
    for (int64_t i = 0; i < 8; ++i) {
      const double value = rest[i].item<double>();
      if (i < 2) *numbers[i] = value;
      else *counts[i - 2] = static_cast<int64_t>(value);
    }
    model_.refresh();
    seed();
  }

  void one_step(const std::vector<std::vector<int64_t>>& all) {
    // A process takes its share of the step's batches, which may be none at the end of an epoch.
    const auto share = static_cast<size_t>(options_.accumulate), from = share * static_cast<size_t>(options_.process);
    const std::vector<std::vector<int64_t>> parts(
        all.begin() + static_cast<int64_t>(std::min(all.size(), from)),
        all.begin() + static_cast<int64_t>(std::min(all.size(), from + share)));
    std::vector<at::Tensor> losses;
    auto& trainables = model_.trainables();
    for (const std::vector<int64_t>& part : parts) {
      try {
        at::Tensor loss = loss_of(setup_.train, part, true) / static_cast<double>(all.size());
        losses.push_back(loss.detach());
        (scale_ == 1.0 ? loss : loss * scale_).backward();
      } catch (const std::exception& error) {
        if (!is_out_of_memory(error)) throw;
        int64_t tokens = 0;
        for (int64_t row : part) tokens += lengths_[static_cast<size_t>(row)];
        fail(ErrorCode::out_of_memory,
             {.what = std::string(device_.is_cuda() ? "the GPU" : "the machine") + " has no memory for a training step",
              .expected =
                  "the batch has " + std::to_string(part.size()) + " rows with " + std::to_string(tokens) + " tokens",
              .where = "step " + std::to_string(step_ + 1),
              .hint = "use --batch " + std::to_string(std::max<int64_t>(1, options_.batch / 2)) + " --accumulate " +
                      std::to_string(options_.accumulate * 2) + ", or a smaller --max-length"});
      }
      // 16-bit gradients are added in the masters' type.
      if (parts.size() > 1 && compute_type(options_.precision) != master_type(options_.precision)) collect_gradients();
    }
    c10::NoGradGuard no_grad;
    collect_gradients();
    if (processes_) sum_gradients();
    std::vector<at::Tensor> gradients;
    std::vector<size_t> present;
    for (size_t i = 0; i < trainables.size(); ++i)
      if (gradients_.size() > i && gradients_[i].defined()) gradients.push_back(gradients_[i]), present.push_back(i);
    losses_.push_back(losses.empty()       ? at::zeros({}, at::TensorOptions(device_).dtype(loss_type()))
                      : losses.size() == 1 ? losses[0]
                                           : at::stack(losses).sum());
    loss_rows_.push_back(parts.empty() ? all.front() : parts.front());
    apply(gradients, present);
    for (at::Tensor& gradient : gradients_) gradient = at::Tensor();
  }

  at::ScalarType loss_type() const { return options_.precision == "fp64" ? at::kDouble : at::kFloat; }

  /// Parameters without a gradient in one process (a share of no rows) may have one in another.
  void sum_gradients() {
    gradients_.resize(model_.trainables().size());
    for (size_t i = 0; i < gradients_.size(); ++i)
      if (!gradients_[i].defined()) gradients_[i] = at::zeros_like(model_.trainables()[i].master);
    processes_->sum(gradients_);
  }

  /// Moves gradients of leaves into gradients_, adding, in the master's type.
  void collect_gradients() {
    c10::NoGradGuard no_grad;
    model_.clip_weight_gradients();
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
    at::Tensor loss = task_loss(setup_.loss, logits, data, rows, batch);
    if (!training || !teacher_) return loss;
    std::map<std::string, Slot> theirs;
    {
      c10::NoGradGuard no_grad;
      theirs = teacher_->run({.batch = &batch, .keep = hidden_.empty() ? nullptr : &hidden_});
    }
    return loss + distillation(setup_, logits, made, theirs, hidden_);
  }

  void flush_losses() {
    if (losses_.empty()) return;
    at::Tensor all = at::stack(losses_);
    if (processes_) processes_->sum({all});
    all = all.to(at::kCPU).to(at::kDouble);
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
    // fp16 leaves such a step out; elsewhere it has reached the parameters, which no checkpoint may hold.
    if (options_.precision != "fp16" && norm_.defined() && !std::isfinite(norm_.item<double>()))
      fail(ErrorCode::invalid_argument,
           {.what = "training stopped: the gradient is not a number",
            .expected = "got " + std::to_string(norm_.item<double>()) + " at learning rate " +
                        std::to_string(options_.learning_rate) + " on rows " + rows_text(loss_rows_.back()) +
                        " of the training data",
            .where = "step " + std::to_string(step_),
            .hint = "lower --lr; the last checkpoint is kept, --resume goes on from it"});
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
    int64_t turn = 0;
    for (const std::vector<int64_t>& group : plan_batches(lengths, {.max_rows = 256, .max_tokens = 16384})) {
      if (turn++ % options_.processes != options_.process) continue;
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
    if (processes_) {  // each process has filled in its groups
      at::Tensor width = at::zeros({options_.processes}, at::TensorOptions(device_).dtype(at::kLong));
      width[options_.process] = static_cast<int64_t>(values.size());
      at::Tensor total_loss = at::full({}, sum, at::TensorOptions(device_).dtype(at::kDouble));
      processes_->sum({width, total_loss});
      values.resize(static_cast<size_t>(width.max().item<int64_t>()));
      at::Tensor shared = at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kFloat).to(device_);
      processes_->sum({shared});
      shared = shared.to(at::kCPU);
      std::copy_n(shared.const_data_ptr<float>(), values.size(), values.begin());
      sum = total_loss.item<double>();
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
    if (processes_) line.rows_per_s *= options_.processes, line.tokens_per_s *= options_.processes;
    if (!leads()) return;
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
    const bool best = options_.restore_best && best_step_ > 0 && leads();
    r.value = best ? best_value_ : last_value_;
    r.metrics = best ? best_metrics_ : last_metrics_;
    r.best_step = best ? best_step_ : step_;
    const double all = r.seconds > 0 ? options_.processes / r.seconds : 0;
    r.rows_per_s = static_cast<double>(rows_) * all;
    r.tokens_per_s = static_cast<double>(tokens_) * all;
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
  std::unique_ptr<Processes> processes_;  // null: this one alone
  std::set<std::string> hidden_;
  std::vector<at::Tensor> first_, second_, counts_, gradients_;
  std::vector<int64_t> lengths_;
  int64_t per_step_ = 1, per_epoch_ = 1, steps_ = 1, evaluate_every_ = 0, checkpoint_every_ = 0;
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
  TrainResult result_;
};

}  // namespace

Trained run_training(const Setup& setup, const TrainReport& report) {
  return guarded([&] { return Trainer(setup, report).run(); });
}

Gradients gradients(const Setup& setup) {
  return guarded([&] { return Trainer(setup, {}).all_gradients(); });
}

}  // namespace octet::train
