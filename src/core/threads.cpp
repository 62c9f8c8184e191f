// The thread pool: workers spin briefly, then sleep; ranges are handed out by an atomic counter.
#include "core/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace octet {

int available_cpus() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

struct ThreadPool::State {
  std::mutex callers;  // one loop at a time
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  std::atomic<uint64_t> generation{0};
  std::atomic<int64_t> next{0};
  std::atomic<int> busy{0};
  std::atomic<bool> stop{false};
  int64_t items = 0;
  int64_t grain = 1;
  const std::function<void(int64_t, int64_t)>* body = nullptr;

  void drain() {
    for (;;) {
      int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= items) return;
      (*body)(begin, std::min(items, begin + grain));
    }
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      // The gaps between the kernels of one forward pass are a few microseconds: spinning through them is cheaper
      // than a futex round trip; a longer pause sleeps.
      for (int spin = 0; spin < 4000 && generation.load(std::memory_order_acquire) == seen && !stop; ++spin)
        __builtin_ia32_pause();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen || stop; });
      }
      if (stop) return;
      seen = generation.load(std::memory_order_acquire);
      drain();
      busy.fetch_sub(1, std::memory_order_release);
    }
  }
};

namespace {

// Where the system refuses, the thread stays free.
void pin_to(std::thread& thread, const cpu_set_t& all, int index) {
  index %= std::max(1, CPU_COUNT(&all));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all) || index-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::pthread_setaffinity_np(thread.native_handle(), sizeof(one), &one);
    return;
  }
}

}  // namespace

ThreadPool::ThreadPool(int threads, bool pin) : state_(std::make_unique<State>()) {
  if (threads <= 0) threads = available_cpus();
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get()] { state->work(); });
  cpu_set_t all;
  CPU_ZERO(&all);
  if (!pin || ::sched_getaffinity(0, sizeof(all), &all) != 0) return;
  for (int i = 1; i < threads; ++i) pin_to(state_->workers[static_cast<size_t>(i - 1)], all, i);
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const noexcept { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t items, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (items <= 0) return;
  grain = std::max<int64_t>(1, grain);
  State& state = *state_;
  if (state.workers.empty() || items <= grain) {
    for (int64_t begin = 0; begin < items; begin += grain) body(begin, std::min(items, begin + grain));
    return;
  }
  std::lock_guard caller(state.callers);
  state.items = items;
  state.grain = grain;
  state.body = &body;
  state.next.store(0, std::memory_order_relaxed);
  state.busy.store(static_cast<int>(state.workers.size()), std::memory_order_relaxed);
  {
    std::lock_guard lock(state.mutex);
    state.generation.fetch_add(1, std::memory_order_release);
  }
  state.wake.notify_all();
  state.drain();
  // Workers may hold the last ranges; on a crowded machine they may also be descheduled, so yield now and then.
  for (int spin = 0; state.busy.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin % 256 == 255) std::this_thread::yield();
    else __builtin_ia32_pause();
  }
}

}  // namespace octet
