// What prepare() makes: a program with kernels bound and weights where the kernels read them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/aligned.h"
#include "kernels/device.h"
#include "plan/executor.h"

namespace octet {

// Memory of a GPU that was lost and reset is gone: only what belongs to the present generation is released.
struct DeviceDelete {
  uint64_t generation = kernels::device::generation();
  void operator()(void* p) const { kernels::device::release(p, generation); }
};
using DeviceBytes = std::unique_ptr<void, DeviceDelete>;
struct PinnedDelete {
  uint64_t generation = kernels::device::generation();
  void operator()(void* p) const { kernels::device::release_pinned(p, generation); }
};
using PinnedBytes = std::unique_ptr<void, PinnedDelete>;

constexpr int64_t round_up(int64_t value) { return (value + 63) / 64 * 64; }

// A kernel row and its arguments; pointers into the arena are filled by bind.
template <typename Kernel, typename Args>
struct Bound {
  const Kernel* kernel = nullptr;
  Args args;
};
struct Positions {};
using BoundStep =
    std::variant<Bound<kernels::GemmKernel, kernels::GemmArgs>, Bound<kernels::AttentionKernel, kernels::AttentionArgs>,
                 Bound<kernels::NormKernel, kernels::NormArgs>, Bound<kernels::EmbedKernel, kernels::EmbedArgs>,
                 Bound<kernels::PoolKernel, kernels::PoolArgs>,
                 Bound<kernels::ElementwiseKernel, kernels::ElementwiseArgs>,
                 Bound<kernels::ScoresKernel, kernels::ScoresArgs>, Positions>;

struct Prepared {
  std::shared_ptr<const Program> program;
  Target target;
  uint64_t generation = 0;  ///< of the GPU that holds the weights
  std::vector<BoundStep> steps;
  std::vector<AlignedBytes> packed;         ///< by step; empty but for gemm on a CPU
  std::vector<DeviceBytes> device_memory;   ///< weights on a GPU
  std::vector<size_t> first_use, last_use;  ///< by buffer
  bool square = false;                      ///< has buffers of scores, whose size depends on each row

  Prepared(std::shared_ptr<const Program> p, const Target& t);
  bool on_device() const { return target.device == DeviceKind::cuda; }
};

}  // namespace octet
