// Which values of a program FP16 cannot hold, found by running rows in FP32.
#include "plan/overflow.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "plan/lower.h"

namespace octet {

std::map<std::string, double> find_overflow(const Graph& graph, const Target& target,
                                            std::span<const BatchView> batches, std::shared_ptr<ThreadPool> pool) {
  auto program = std::make_shared<Program>(lower(graph, {.target = target}));
  Executor executor(program, std::move(pool), target);
  std::map<std::string, double> found;
  std::vector<float> values;
  auto look = [&](size_t, const TapView& view) {
    const Buffer& buffer = *view.buffer;
    if (buffer.dtype != DType::f32) return;
    values.resize(static_cast<size_t>(view.elements));
    executor.read(static_cast<int32_t>(view.buffer - program->buffers.data()), values.data());
    double largest = 0;
    for (float v : values)
      largest =
          std::max(largest, std::isfinite(v) ? std::fabs(static_cast<double>(v)) : std::numeric_limits<double>::max());
    if (largest < kHalfLimit) return;
    // One buffer may hold several values side by side, named "a+b".
    for (size_t begin = 0; begin <= buffer.value.size();) {
      size_t end = std::min(buffer.value.find('+', begin), buffer.value.size());
      double& most = found[buffer.value.substr(begin, end - begin)];
      most = std::max(most, largest);
      begin = end + 1;
    }
  };
  for (const BatchView& batch : batches) {
    executor.bind(batch);
    executor.run(look);
  }
  return found;
}

}  // namespace octet
