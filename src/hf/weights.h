// The tensors of a checkpoint folder, and the account of which of them a model took, missed or left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace octet::hf {

/// All tensors of a folder's model.safetensors or pytorch_model.bin, or of the shards their index names; `files` gets
/// the weight files in order. Throws not_found when there is none (naming what else lies there), corrupt, unsupported,
/// io.
std::map<std::string, Tensor> read_weights(const std::filesystem::path& folder,
                                           std::vector<std::filesystem::path>& files);

/// Hands out tensors by name and shape. What is wrong is collected, so that `finish` can tell everything at once.
class Weights {
 public:
  Weights(std::map<std::string, Tensor> tensors, std::string where);

  bool has(const std::string& name) const { return tensors_.contains(name); }
  const std::map<std::string, Tensor>& tensors() const noexcept { return tensors_; }
  /// The tensor as f32. A missing or mis-shaped one is noted, and a placeholder of that shape given (its values must
  /// not be read).
  Tensor take(const std::string& name, const Shape& shape);
  /// Names that begin so need not be in the checkpoint: they are drawn from N(0, 0.02), biases zero, and replace what
  /// is there.
  void make_fresh(const std::string& name_prefix) { fresh_.push_back(name_prefix); }
  /// Names that begin so may be left over: heads and buffers that the model does without.
  void allow_unused(const std::string& name_prefix) { allowed_.push_back(name_prefix); }

  /// Throws corrupt with everything missing, mis-shaped, unexpected (unless allowed) and, if asked, not finite. Returns
  /// the names of the tensors that were not used.
  std::vector<std::string> finish(bool allow_unexpected, bool check_finite);

 private:
  std::map<std::string, Tensor> tensors_;
  std::string where_;
  std::map<std::string, Tensor> taken_;
  std::vector<std::string> fresh_, allowed_, missing_, wrong_;
};

}  // namespace octet::hf
