// Losses of the tasks, and of a student against its teacher.
#include "train/loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace octet::train {

namespace {

at::Tensor host_longs(const std::vector<int64_t>& values) {
  at::Tensor made = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  if (!values.empty()) std::memcpy(made.mutable_data_ptr(), values.data(), values.size() * 8);
  return made;
}

}  // namespace

const at::Tensor& answer(const std::map<std::string, Slot>& outputs) {
  for (const char* name : {"logits", "embedding", "last_hidden_state"})
    if (auto found = outputs.find(name); found != outputs.end()) return found->second.flat;
  OCTET_CHECK(false, "a known output");
}

at::Tensor task_loss(Loss loss, const at::Tensor& logits, const std::vector<Example>& data,
                     const std::vector<int64_t>& rows, const Batch& batch) {
  std::vector<int64_t> labels;
  auto example = [&](int64_t row) -> const Example& { return data[static_cast<size_t>(row)]; };
  auto on_device = [&](const at::Tensor& host) { return host.to(batch.device, /*non_blocking=*/true); };
  switch (loss) {
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
    case Loss::sets: {
      at::Tensor wanted = at::empty(logits.sizes(), at::kFloat);
      auto* out = wanted.mutable_data_ptr<float>();
      for (int64_t row : rows) out = std::copy(example(row).label_set.begin(), example(row).label_set.end(), out);
      return at::binary_cross_entropy_with_logits(logits, on_device(wanted.to(logits.scalar_type())));
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

at::Tensor distillation(const Setup& setup, const at::Tensor& logits, const std::map<std::string, Slot>& mine,
                        const std::map<std::string, Slot>& theirs, const std::set<std::string>& hidden) {
  at::Tensor loss = at::zeros({}, logits.options());
  const double t = setup.temperature;
  if (setup.distill_logits > 0) {
    at::Tensor wanted = answer(theirs).to(logits.scalar_type());
    if (setup.loss == Loss::number) loss = loss + setup.distill_logits * at::mse_loss(logits, wanted);
    else if (setup.loss == Loss::sets)
      loss = loss +
             setup.distill_logits * t * t * at::binary_cross_entropy_with_logits(logits / t, at::sigmoid(wanted / t));
    else
      loss = loss + setup.distill_logits * t * t *
                        at::kl_div(at::log_softmax(logits / t, -1), at::log_softmax(wanted / t, -1), at::Reduction::Sum,
                                   true) /
                        static_cast<double>(logits.size(0));
  }
  for (const std::string& name : hidden)
    loss = loss +
           setup.distill_hidden / static_cast<double>(hidden.size()) *
               at::mse_loss(mine.at(name).flat.to(logits.scalar_type()), theirs.at(name).flat.to(logits.scalar_type()));
  return loss;
}

}  // namespace octet::train
