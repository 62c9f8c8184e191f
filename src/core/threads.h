// A pool of worker threads for loops over independent ranges.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace octet {

/// Runs loops on `threads` threads, the caller's included. One loop at a time; calls from several threads queue up.
/// A pool of one thread runs everything in the caller.
class ThreadPool {
 public:
  /// 0 means one thread per CPU that this process may use. `pin`: worker i stays on CPU i of the caller's affinity
  /// mask, counted from 0 and around; the caller, thread 0, is left alone.
  explicit ThreadPool(int threads = 0, bool pin = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept;

  /// Calls body(begin, end) on disjoint ranges that cover [0, items), each at most `grain` long, on any thread, and
  /// returns when all are done. `body` must not throw.
  void parallel_for(int64_t items, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// CPUs that this process may use (its affinity mask).
int available_cpus() noexcept;

}  // namespace octet
