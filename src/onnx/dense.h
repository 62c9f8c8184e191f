// A whole ONNX graph run node by node on dense tensors by the reference kernels: what is not raised to octet's own
// operations, and the yardstick of what is.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "onnx/array.h"

namespace octet::onnx {

class Dense {
 public:
  /// Throws unsupported with every operator that has no kernel, all at once, with node names and the opset.
  explicit Dense(std::shared_ptr<const File> file);
  /// Outputs in the order of the file. Inputs by name; a missing one throws invalid_argument.
  std::vector<Array> run(const std::map<std::string, Array>& inputs) const;
  const File& file() const noexcept { return *file_; }

 private:
  using Scope = std::map<std::string, Array>;
  void run_nodes(const Graph& graph, Scope& scope, int depth) const;

  std::shared_ptr<const File> file_;
  Scope constants_;
};

/// Every operator of `graph` without a kernel: "Op (domain, n nodes: a, b, ...)", one a line; empty when there is none.
std::string missing_operators(const File& file);

}  // namespace octet::onnx
