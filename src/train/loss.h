// Losses of the tasks, and of a student against its teacher.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "train/interpreter.h"
#include "train/trainer.h"

namespace octet::train {

/// The graph's first output, flat: [rows or tokens, width].
const at::Tensor& answer(const std::map<std::string, Slot>& outputs);

/// Mean over the batch, whose rows are data[rows[0]], data[rows[1]] ...
at::Tensor task_loss(Loss loss, const at::Tensor& logits, const std::vector<Example>& data,
                     const std::vector<int64_t>& rows, const Batch& batch);

/// Divergence of softened logits and squared difference of the values `hidden`, weighted as the setup says.
at::Tensor distillation(const Setup& setup, const at::Tensor& logits, const std::map<std::string, Slot>& mine,
                        const std::map<std::string, Slot>& theirs, const std::set<std::string>& hidden);

}  // namespace octet::train
