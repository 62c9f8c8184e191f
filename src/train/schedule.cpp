// The order of rows and the learning rate: plain functions of seed, epoch and step.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "train/trainer.h"

namespace octet::train {

namespace {

/// splitmix64.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[next() % i]);
  }
};

}  // namespace

std::vector<std::vector<int64_t>> epoch_batches(const std::vector<int64_t>& lengths, int64_t batch, uint64_t seed,
                                                int64_t epoch, bool by_length) {
  Random random{seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(epoch) * 0xbf58476d1ce4e5b9u + 1};
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(order);
  if (by_length) {
    const auto pool = static_cast<size_t>(batch) * 50;
    for (size_t begin = 0; begin < order.size(); begin += pool)
      std::stable_sort(
          order.begin() + static_cast<int64_t>(begin),
          order.begin() + static_cast<int64_t>(std::min(order.size(), begin + pool)),
          [&](int64_t a, int64_t b) { return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)]; });
  }
  std::vector<std::vector<int64_t>> batches;
  for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(batch))
    batches.emplace_back(
        order.begin() + static_cast<int64_t>(begin),
        order.begin() + static_cast<int64_t>(std::min(order.size(), begin + static_cast<size_t>(batch))));
  // The order of the batches carries no length either.
  if (by_length) random.shuffle(batches);
  return batches;
}

double rate_share(const TrainOptions& options, int64_t step, int64_t steps) {
  const auto at = static_cast<double>(step), all = static_cast<double>(std::max<int64_t>(steps, 1));
  const double warmup = std::ceil(options.warmup < 1 ? options.warmup * all : options.warmup);
  if (at < warmup) return at / std::max(1.0, warmup);
  const double done = std::min(1.0, (at - warmup) / std::max(1.0, all - warmup));
  if (options.schedule == "constant") return 1.0;
  if (options.schedule == "cosine")
    return options.final_rate + (1.0 - options.final_rate) * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  return 1.0 - done;
}

}  // namespace octet::train
