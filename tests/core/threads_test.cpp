// The pool covers every item exactly once, whatever the sizes, and several callers may share it.
#include "core/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace octet {
namespace {

TEST(Threads, EveryItemOnceWithinTheGrain) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t items : {0, 1, 2, 7, 64, 1000}) {
      for (int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
        std::atomic<bool> within{true};
        pool.parallel_for(items, grain, [&](int64_t begin, int64_t end) {
          if (end <= begin || end - begin > std::max<int64_t>(1, grain)) within = false;
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        EXPECT_TRUE(within) << items << " " << grain;
        for (const auto& count : seen) ASSERT_EQ(count, 1) << threads << " " << items << " " << grain;
      }
    }
  }
}

// Workers are asleep, spinning, or still leaving the previous loop when the next one starts.
TEST(Threads, PinnedWorkersStayOnOneCpu) {
  const std::thread::id caller = std::this_thread::get_id();
  const int before = available_cpus();
  ThreadPool pool(3, true);
  std::atomic<int> free_workers{0};
  for (int round = 0; round < 200; ++round)
    pool.parallel_for(64, 1, [&](int64_t, int64_t) {
      if (std::this_thread::get_id() != caller && available_cpus() != 1) ++free_workers;
    });
  EXPECT_LE(free_workers, 0);
  EXPECT_EQ(available_cpus(), before);
}

TEST(Threads, ManyShortLoops) {
  ThreadPool pool(4);
  int64_t total = 0;
  for (int round = 0; round < 3000; ++round) {
    std::atomic<int64_t> sum{0};
    pool.parallel_for(16, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum += i;
    });
    total += sum;
    if (round % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(total, 3000 * 120);
}

TEST(Threads, CallersQueueUp) {
  ThreadPool pool(3);
  std::vector<int64_t> sums(4);
  std::vector<std::thread> callers;
  for (size_t c = 0; c < sums.size(); ++c)
    callers.emplace_back([&, c] {
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> sum{0};
        pool.parallel_for(50, 4, [&](int64_t begin, int64_t end) { sum += end - begin; });
        sums[c] += sum;
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (int64_t sum : sums) EXPECT_EQ(sum, 200 * 50);
}

TEST(Threads, DefaultIsWhatTheProcessMayUse) {
  EXPECT_GE(available_cpus(), 1);
  EXPECT_EQ(ThreadPool().threads(), available_cpus());
}

}  // namespace
}  // namespace octet
