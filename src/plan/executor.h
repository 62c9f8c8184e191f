// Runs a program on the CPU: binds kernels, packs weights, owns the arena.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/threads.h"
#include "plan/program.h"

namespace octet {

/// A ragged batch. type_ids may be empty (all zero). Views must live through the call.
struct BatchView {
  std::span<const int32_t> ids;       ///< [tokens]
  std::span<const int32_t> offsets;   ///< [rows + 1], offsets[0] = 0, increasing (no empty rows), last = tokens
  std::span<const int32_t> type_ids;  ///< [tokens] or empty
};

/// What a tap sees after a step ran: one of its outputs.
struct TapView {
  const Buffer* buffer = nullptr;
  const void* data = nullptr;
  int64_t elements = 0;      ///< of buffer->dtype
  const float* row_scale = nullptr;
};
using Tap = std::function<void(size_t step, const TapView& view)>;

/// One per thread of use; the program must outlive it.
class Executor {
 public:
  /// Packs the weights. `keep_all` gives every buffer its own memory, so that all values of a run can be read afterwards.
  Executor(std::shared_ptr<const Program> program, std::shared_ptr<ThreadPool> pool, const Target& target, bool keep_all = false);
  ~Executor();
  Executor(Executor&&) noexcept;

  /// Checks the batch (invalid_argument: ids out of range, bad offsets, rows longer than the position table) and lays out the arena.
  void bind(const BatchView& batch);
  /// Runs all steps of the bound batch; `tap` sees every output.
  void run(const Tap& tap = {});
  void run_step(size_t step);

  /// Memory of a buffer in the bound batch; valid until the next bind. Elements as Buffer says.
  void* data(int32_t buffer);
  float* row_scale(int32_t buffer);
  /// Elements of the buffer in the bound batch.
  int64_t elements(int32_t buffer) const;

  const Program& program() const noexcept;
  int64_t rows() const noexcept;
  int64_t tokens() const noexcept;
  int64_t arena_bytes() const noexcept;

  /// Milliseconds of each step, median over `repeats` runs of the bound batch.
  std::vector<double> time_steps(int repeats);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace octet
