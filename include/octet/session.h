// Running a plan.
#pragma once

#include <octet/plan.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace octet {

/// Texts as flat token ids: row r is ids[offsets[r] .. offsets[r+1]). No padding. Views must live through the call.
struct Batch {
  std::span<const int32_t> ids;       ///< [tokens]
  std::span<const int32_t> offsets;   ///< [rows + 1], from 0 to tokens, every row at least one token
  std::span<const int32_t> type_ids;  ///< [tokens], or empty for all 0
};

/// The same, owned: built row by row from encodings.
struct OwnedBatch {
  std::vector<int32_t> ids, offsets{0}, type_ids;
  void add(const Encoding& row);
  void clear();
  int64_t rows() const noexcept { return static_cast<int64_t>(offsets.size()) - 1; }
  Batch view() const noexcept { return {ids, offsets, type_ids}; }
};

/// A batch in the memory of the GPU: for programs whose token ids are there already.
struct DeviceBatch {
  const int32_t* ids = nullptr;       ///< [tokens]
  const int32_t* offsets = nullptr;   ///< [rows + 1], as in Batch
  const int32_t* type_ids = nullptr;  ///< [tokens], or null for all 0
  int64_t rows = 0, tokens = 0;
  int64_t max_length = 0;  ///< no row is longer; a bound close to the truth is faster
};

/// A result: `rows` vectors of `width`. A view that is valid until the session's next run.
struct Output {
  int64_t rows = 0;  ///< texts, or tokens for the tasks that answer per token
  int64_t width = 0;
  std::span<const float> values;  ///< [rows, width]
  std::span<const float> operator[](int64_t row) const {
    return values.subspan(static_cast<size_t>(row * width), static_cast<size_t>(width));
  }
};

struct SessionOptions {
  int threads = 0;    ///< CPU: 0 = one per CPU that this process may use
  bool pin = false;   ///< CPU: each thread but the caller's stays on one CPU
  int in_flight = 1;  ///< batches that may be under way at once (submit); each has scratch memory of its own
};

/// Scratch memory and threads (CPU) or a stream (CUDA) for running a plan; move-only, one per thread of use. Many
/// sessions may share a plan. After a device error (the GPU was lost) make a new session of the same plan: it sets the
/// GPU up again, and all older sessions of the process refuse to run.
class Session {
 public:
  explicit Session(const Plan& plan, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Throws invalid_argument (ids out of range, a text longer than the model's positions, an empty batch),
  /// out_of_memory, device.
  Output run(const Batch& batch);

  /// Starts a batch and returns its ticket; on a GPU without waiting, so that the host prepares the next batch while
  /// this one runs. Takes up to SessionOptions::in_flight batches that were not collected yet (invalid_argument beyond
  /// that); `batch` is no longer needed when it returns. Throws as run does.
  uint64_t submit(const Batch& batch);
  /// Waits for a submitted batch, whichever order they are asked for in. The view is valid until the next submit or
  /// run.
  Output collect(uint64_t ticket);

  /// CUDA: runs a batch that lies in device memory on the caller's stream (a cudaStream_t as an opaque handle) and
  /// writes the answer, f32 [rows or tokens, width], to `output` in device memory, without waiting. One stream at a
  /// time uses a session. Throws invalid_argument where shapes exceed the plan's; what is wrong with ids or offsets is
  /// found on the device: that batch computes nothing and the next enqueue or wait throws invalid_argument.
  void enqueue(const DeviceBatch& batch, float* output, void* stream);
  /// Waits for the stream. Throws device, or invalid_argument for an enqueued batch with ids or offsets out of range.
  void wait(void* stream);
  /// Values of an answer: a text's, or a token's for the tasks that answer per token.
  int64_t width() const noexcept;

  const Plan& plan() const noexcept;

  struct State;  ///< opaque
  State& state() noexcept { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace octet
