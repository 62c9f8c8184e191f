// The processes that train one model together: sums over all of them, through torch's gloo, or NCCL between GPUs.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace octet::train {

class Processes {
 public:
  /// Meets the others at `meeting` ("address:port" of process 0, which listens there). Throws invalid_argument for a
  /// bad address, io when the others do not come.
  static std::unique_ptr<Processes> join(int count, int index, const std::string& meeting, const at::Device& device);
  virtual ~Processes() = default;

  /// Replaces each tensor by its sum over all processes: the same bits in every process. All processes call this with
  /// tensors of the same shapes, in the same order.
  void sum(const std::vector<at::Tensor>& tensors);
  int count() const noexcept { return count_; }
  int index() const noexcept { return index_; }
  virtual const char* transport() const noexcept = 0;

 protected:
  Processes(int count, int index) : count_(count), index_(index) {}
  virtual void sum_flat(at::Tensor& flat) = 0;

 private:
  int count_, index_;
};

}  // namespace octet::train
