// What octet::ClipMonitor costs a server: the same batches with and without it, in turns, by CPU time of the process.
//
//   bench_monitor PLAN.octet [--batches 4096] [--rows 8] [--length 32]
//
// Prints the median over rounds of (time with - time without) / time without, and its spread.
#include <octet/health.h>
#include <octet/octet.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace {

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

int main(int count, char** words) try {
  if (count < 2 || count % 2 != 0) {
    std::cerr << "usage: bench_monitor PLAN.octet [--batches N] [--rows N] [--length N]\n";
    return 64;
  }
  int64_t batches = 4096, rows = 8, length = 32;
  for (int i = 2; i < count; i += 2) {
    const std::string name = words[i];
    const int64_t value = std::atoll(words[i + 1]);
    if (name == "--batches") batches = value;
    else if (name == "--rows") rows = value;
    else if (name == "--length") length = value;
    else throw octet::Error(octet::ErrorCode::invalid_argument, "unknown option " + name);
  }
  const octet::Plan plan = octet::Plan::load(words[1]);
  octet::Session session(plan, {.threads = 1});
  octet::ClipMonitor monitor(session);
  std::mt19937 random(1);
  octet::OwnedBatch batch;
  batch.offsets = {0};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < length; ++t) batch.ids.push_back(static_cast<int32_t>(1000 + random() % 20000));
    batch.offsets.push_back(static_cast<int32_t>(batch.ids.size()));
  }
  batch.type_ids.resize(batch.ids.size(), 0);
  std::vector<double> cost;
  for (int round = 0; round < 9; ++round) {
    double with = 0, without = 0;
    // Sixteen calls of the one, then of the other, so that a slower spell of the machine hits both.
    for (int64_t done = 0; done < batches; done += 16) {
      double begin = cpu_seconds();
      for (int i = 0; i < 16; ++i) monitor.run(batch.view());
      with += cpu_seconds() - begin;
      begin = cpu_seconds();
      for (int i = 0; i < 16; ++i) session.run(batch.view());
      without += cpu_seconds() - begin;
    }
    cost.push_back(100 * (with - without) / without);
  }
  std::sort(cost.begin(), cost.end());
  std::cout << "monitoring costs " << cost[cost.size() / 2] << " % (" << cost.front() << " to " << cost.back() << " in "
            << cost.size() << " rounds of " << batches << " batches); " << monitor.looked_at() << " of "
            << monitor.batches() << " batches looked at\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << "bench_monitor: " << error.what() << "\n";
  return 2;
}
