// A whole ONNX graph run node by node on dense tensors by the reference kernels: what is not raised to octet's own
// operations, and the yardstick of what is.
#pragma once

#include <functional>
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
  /// Sees every node with what it read and made, and its milliseconds.
  using Observer =
      std::function<void(const Node&, const std::vector<Array>& inputs, const std::vector<Array>& outputs, double ms)>;
  /// Outputs in the order of the file. Inputs by name; a missing one throws invalid_argument. From several threads at
  /// once.
  std::vector<Array> run(const std::map<std::string, Array>& inputs, const Observer& observer = {}) const;
  const File& file() const noexcept { return *file_; }

 private:
  using Scope = std::map<std::string, Array>;
  void run_nodes(const Graph& graph, Scope& scope, int depth, const Observer& observer) const;

  std::shared_ptr<const File> file_;
  Scope constants_;
};

/// Every operator of `graph` without a kernel: "Op (domain, n nodes: a, b, ...)", one a line; empty when there is none.
std::string missing_operators(const File& file);

}  // namespace octet::onnx
