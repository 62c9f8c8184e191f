// The state of an unfinished run in one file, replaced in one step.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace octet::train {

struct Checkpoint {
  int64_t step = 0;                             ///< optimizer steps tried
  int64_t applied = 0;                          ///< without those that the loss scaler skipped
  std::map<std::string, at::Tensor> tensors;    ///< on the CPU: param/NAME, first/NAME, second/NAME, random
  std::map<std::string, std::string> settings;  ///< of the run
  std::map<std::string, double> numbers;        ///< scale of the loss, best value, ...
};

/// CHECKPOINTS/state.safetensors. A crash at any time leaves the old file or the new one.
void save_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint);
/// False when there is none. Throws corrupt.
bool load_checkpoint(const std::filesystem::path& folder, Checkpoint* checkpoint);
/// Best parameters so far, by step: best-STEP.safetensors. Older ones go once the checkpoint does not need them.
void save_best(const std::filesystem::path& folder, int64_t step, const std::map<std::string, at::Tensor>& tensors);
std::map<std::string, at::Tensor> load_best(const std::filesystem::path& folder, int64_t step);
void remove_other_bests(const std::filesystem::path& folder, int64_t step);

}  // namespace octet::train
