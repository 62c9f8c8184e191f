// Buckets of relative positions, and the bias that a table gives every distance.
#include "graph/relative_bias.h"

#include <algorithm>
#include <cmath>

namespace octet {

int64_t relative_bucket(int64_t distance, int64_t buckets, int64_t max_distance) noexcept {
  const int64_t side = buckets / 2, exact = side / 2, apart = std::abs(distance), start = distance > 0 ? side : 0;
  if (apart < exact) return start + apart;
  auto log32 = [](float x) { return static_cast<float>(std::log(static_cast<double>(x))); };
  const float grown = log32(static_cast<float>(apart) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact))) *
                      static_cast<float>(side - exact);
  return start + std::min(exact + static_cast<int64_t>(grown), side - 1);
}

std::vector<int64_t> relative_buckets(const Node& node) {
  const int64_t length = node.integer("length", 1), buckets = node.integer("buckets", 32),
                max_distance = node.integer("max_distance", 128);
  std::vector<int64_t> list;
  for (int64_t d = 1 - length; d < length; ++d) list.push_back(relative_bucket(d, buckets, max_distance));
  return list;
}

Tensor relative_bias(const Node& node, const Tensor& table) {
  const std::vector<int64_t> buckets = relative_buckets(node);
  const std::vector<float> rows = table.to_f32();
  const auto heads = static_cast<size_t>(table.dim(1)), width = buckets.size();
  std::vector<float> bias(heads * width);
  for (size_t h = 0; h < heads; ++h)
    for (size_t i = 0; i < width; ++i) bias[h * width + i] = rows[static_cast<size_t>(buckets[i]) * heads + h];
  return Tensor::from(bias, {static_cast<int64_t>(heads), static_cast<int64_t>(width)});
}

}  // namespace octet
