// An ONNX file that was not raised (or is asked for as it stands): its nodes one by one, a text at a time.
#pragma once

#include <octet/plan.h>
#include <octet/session.h>

#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "core/threads.h"

namespace octet {

class AsIs {
 public:
  /// `bytes` is the file without external data. Runs it once to see its outputs. Throws unsupported with all operators
  /// that have no kernel, and for inputs that are no ids, masks, types or positions.
  static std::shared_ptr<const AsIs> open(std::shared_ptr<const void> file, std::string why);
  static std::shared_ptr<const AsIs> from_bytes(const Tensor& bytes, std::string why, const std::string& where);
  ~AsIs();

  /// Why it is not raised: the node and the reason.
  const std::string& why() const noexcept;
  /// The whole file, external data included.
  std::string bytes() const;
  int64_t weight_bytes() const noexcept;
  /// What its output is by names and shapes: fills task, labels, max_length, hidden, vocabulary, hash.
  void describe(ModelInfo* info) const;
  int64_t width() const noexcept;
  bool per_token() const noexcept;

  /// Values of all rows, one after the other. Rows are computed alone: without padding, unless the file fixes a length.
  void run(const Batch& batch, ThreadPool& pool, std::vector<float>* values) const;
  /// Nodes with their times and work at a shape.
  std::vector<ExplainedOp> explain(int64_t rows, int64_t length, int repeats) const;

  struct State;

 private:
  explicit AsIs(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace octet
