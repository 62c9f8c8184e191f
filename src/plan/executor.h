// Runs a program on the CPU or on a GPU: binds kernels, packs weights, owns the arena.
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

/// A batch in the memory of the GPU.
struct DeviceBatchView {
  const int32_t* ids = nullptr;       ///< [tokens]
  const int32_t* offsets = nullptr;   ///< [rows + 1]
  const int32_t* type_ids = nullptr;  ///< [tokens], or null: all zero
  int64_t rows = 0, tokens = 0;
  int64_t max_length = 0;  ///< no row is longer
};

/// What a tap sees after a step ran: one of its outputs.
struct TapView {
  const Buffer* buffer = nullptr;
  const void* data = nullptr;
  int64_t elements = 0;  ///< of buffer->dtype
  const float* row_scale = nullptr;
  void* stream = nullptr;  ///< on a GPU: `data` is device memory, whose content is there in the order of this stream
};
using Tap = std::function<void(size_t step, const TapView& view)>;

/// A program with its kernels bound and its weights packed, where they are needed: in host memory, or on the GPU that
/// Target::device asks for. Immutable; executors share it.
struct Prepared;
/// Throws unsupported (no kernel for a step on this target), corrupt (a weight is missing), out_of_memory, device.
std::shared_ptr<const Prepared> prepare(std::shared_ptr<const Program> program, const Target& target);
/// Whether it can be used: false after the GPU that held its weights was lost (which this sets up again).
bool still_stands(const Prepared& prepared);

/// The scratch memory and stream of one thread of use.
///
/// On a GPU a forward pass is one CUDA graph a shape: the batch is rounded up to a bucket (tokens, rows, longest row),
/// whose graph is captured on first use. Rows beyond the batch are empty and tokens beyond it are computed and ignored.
class Executor {
 public:
  /// `keep_all` gives every buffer its own memory, so that all values of a run can be read afterwards.
  Executor(std::shared_ptr<const Prepared> prepared, std::shared_ptr<ThreadPool> pool, bool keep_all = false);
  /// The same for a program that nothing else shares.
  Executor(std::shared_ptr<const Program> program, std::shared_ptr<ThreadPool> pool, const Target& target,
           bool keep_all = false);
  ~Executor();
  Executor(Executor&&) noexcept;
  Executor& operator=(Executor&&) noexcept;

  /// Checks the batch (invalid_argument: ids out of range, bad offsets, rows longer than the position table) and lays
  /// out the arena.
  void bind(const BatchView& batch);
  /// Runs all steps of the bound batch and waits for the result; `tap` sees every output.
  void run(const Tap& tap = {});
  /// run() in two halves: on a GPU start() does not wait, so that the host can prepare another executor's batch
  /// meanwhile (on a CPU it does all the work). finish() waits; output() is valid after it.
  void start();
  void finish();
  /// GPU: runs a batch that lies in device memory on the caller's stream and writes output 0 to `output` (device, f32),
  /// without waiting. What is wrong with ids and offsets is found there: the next enqueue or wait throws.
  void enqueue(const DeviceBatchView& batch, float* output, void* stream);
  /// Waits for the stream, then for complaints about enqueued batches.
  void wait(void* stream);
  /// Runs one step and waits for it.
  void run_step(size_t step);

  /// Result of a run, in host memory, valid until the next bind: program().outputs[output], elements as its Buffer
  /// says.
  const void* output(size_t output);
  /// Memory of a buffer in the bound batch (CPU only); valid until the next bind. Elements as Buffer says.
  void* data(int32_t buffer);
  float* row_scale(int32_t buffer);
  /// Copies a buffer's elements (and row scales, where it has them and the pointer is not null) to or from host memory.
  void read(int32_t buffer, void* values, float* row_scales = nullptr);
  void write(int32_t buffer, const void* values, const float* row_scales = nullptr);
  /// Elements of the buffer in the bound batch.
  int64_t elements(int32_t buffer) const;

  const Program& program() const noexcept;
  int64_t rows() const noexcept;
  int64_t tokens() const noexcept;
  int64_t arena_bytes() const noexcept;

  /// Milliseconds of each step, median over `repeats` runs of the bound batch.
  std::vector<double> time_steps(int repeats);
  /// GPU: milliseconds of a whole forward pass as the stream sees it (graph replays back to back, copies included), one
  /// entry a replay.
  std::vector<double> time_replays(int repeats);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace octet
