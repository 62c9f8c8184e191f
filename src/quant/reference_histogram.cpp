// Collection and calibrators as the reference runs them (numpy semantics, including where numpy works in f32 and where
// in f64).
#include "quant/reference_histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace octet {

void ReferenceHistogram::collect(std::span<const float> values) {
  if (values.empty()) return;
  float low = std::numeric_limits<float>::infinity(), high = 0.0f;
  for (float value : values) {
    if (std::isnan(value)) fail(ErrorCode::invalid_argument, {.what = "cannot take a histogram of NaN"});
    low = std::min(low, std::fabs(value));
    high = std::max(high, std::fabs(value));
  }
  if (edges_.empty()) {
    // linspace: computed in f64, stored in f32. A constant batch is widened by a half on both sides.
    double first = low, last = high;
    if (low == high) first -= 0.5, last += 0.5;
    double step = (last - first) / static_cast<double>(first_bins_);
    for (int64_t i = 0; i <= first_bins_; ++i)
      edges_.push_back(static_cast<float>(static_cast<double>(i) * step + first));
    edges_.back() = static_cast<float>(last);
    counts_.assign(static_cast<size_t>(first_bins_), 0);
  } else if (high > edges_.back()) {
    // arange(last + width, high + width, width): length and first step from f32 (f64 once edges are), the rest in f64.
    double width = edges_[1] - edges_[0];
    if (counts_.size() == static_cast<size_t>(first_bins_)) width = static_cast<float>(width);
    double start = edges_.back() + width, stop = static_cast<double>(high) + width;
    double next = start + width, length = std::ceil((stop - start) / width);
    if (counts_.size() == static_cast<size_t>(first_bins_)) {
      start = static_cast<float>(start), stop = static_cast<float>(stop);
      next = static_cast<float>(start + width);
      length = std::ceil(static_cast<float>(static_cast<float>(stop - start) / static_cast<float>(width)));
    }
    double delta = next - start;
    for (int64_t i = 0; i < static_cast<int64_t>(length); ++i) edges_.push_back(start + static_cast<double>(i) * delta);
    counts_.resize(edges_.size() - 1, 0);
  }
  for (float value : values) {
    double x = std::fabs(value);
    if (x < edges_.front() || x > edges_.back()) continue;
    auto above = std::upper_bound(edges_.begin(), edges_.end(), x) - edges_.begin();
    ++counts_[std::min(static_cast<size_t>(above) - 1, counts_.size() - 1)];
  }
}

ReferenceHistogram ReferenceHistogram::restore(int64_t first_bins, std::vector<int64_t> counts,
                                               std::vector<double> edges, const std::string& where) {
  bool valid = first_bins > 1 && counts.size() >= static_cast<size_t>(first_bins) && edges.size() == counts.size() + 1;
  int64_t sum = 0;
  for (size_t i = 0; valid && i < counts.size(); ++i) {
    valid = counts[i] >= 0 && counts[i] <= std::numeric_limits<int64_t>::max() - sum && std::isfinite(edges[i]) &&
            edges[i] <= edges[i + 1];
    sum += valid ? counts[i] : 0;
  }
  if (!valid || !std::isfinite(edges.back()))
    fail(ErrorCode::corrupt, {.what = "a histogram does not fit together", .where = where, .hint = "calibrate again"});
  ReferenceHistogram made(first_bins);
  made.counts_ = std::move(counts);
  made.edges_ = std::move(edges);
  return made;
}

int64_t ReferenceHistogram::counted() const noexcept {
  return std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
}

void ReferenceHistogram::require_data() const {
  if (counted() == 0) fail(ErrorCode::invalid_argument, {.what = "cannot choose a range: no value was collected"});
}

double ReferenceHistogram::percentile(double percent) const {
  require_data();
  if (!(percent >= 0.0 && percent <= 100.0))
    fail(ErrorCode::invalid_argument,
         {.what = "there is no such percentile", .expected = "expected 0 to 100, got " + std::to_string(percent)});
  auto total = static_cast<double>(counted());
  double sum = 0.0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    sum += static_cast<double>(counts_[i]) / total;
    if (sum >= percent / 100.0) return edges_[i];
  }
  return edges_.back();
}

double ReferenceHistogram::entropy(const QuantSpec& spec, int64_t start_bin, int64_t stride) const {
  require_data();
  std::vector<double> bins(counts_.begin(), counts_.end());
  auto size = static_cast<int64_t>(bins.size());
  if (size > 1) bins[0] = bins[1];
  const int64_t levels = int64_t{1} << (spec.bits - (spec.is_unsigned ? 0 : 1));
  std::vector<double> after(bins.size() + 1, 0.0);  // after[i]: everything from bin i on
  for (int64_t i = size - 1; i >= 0; --i)
    after[static_cast<size_t>(i)] = after[static_cast<size_t>(i) + 1] + bins[static_cast<size_t>(i)];
  double least = std::numeric_limits<double>::infinity();
  int64_t best = std::min(start_bin, size);
  std::vector<double> sums(static_cast<size_t>(levels)), filled(static_cast<size_t>(levels));
  for (int64_t kept = start_bin; kept <= size; kept += stride) {
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(filled.begin(), filled.end(), 0.0);
    for (int64_t j = 0; j < kept; ++j) {
      if (bins[static_cast<size_t>(j)] == 0.0) continue;
      auto group = static_cast<size_t>(j * levels / kept);
      sums[group] += bins[static_cast<size_t>(j)];
      filled[group] += 1.0;
    }
    double outliers = after[static_cast<size_t>(kept)];
    double p_total = after[0];
    double q_total = p_total - outliers;
    double divergence = q_total == 0.0 ? std::numeric_limits<double>::infinity() : 0.0;
    for (int64_t j = 0; j < kept && divergence < std::numeric_limits<double>::infinity(); ++j) {
      double bin = bins[static_cast<size_t>(j)];
      double p = bin + (j == kept - 1 ? outliers : 0.0);
      if (p == 0.0) continue;
      if (bin == 0.0) {
        divergence = std::numeric_limits<double>::infinity();
        break;
      }
      auto group = static_cast<size_t>(j * levels / kept);
      p /= p_total;
      divergence += p * std::log(p / (sums[group] / filled[group] / q_total));
    }
    if (divergence <= least) {
      least = divergence;
      best = kept;
    }
  }
  return edges_[static_cast<size_t>(best)];
}

double ReferenceHistogram::mse(const QuantSpec& spec, int64_t start_bin, int64_t stride) const {
  require_data();
  auto size = static_cast<int64_t>(counts_.size());
  std::vector<float> centres(counts_.size());
  for (size_t i = 0; i < centres.size(); ++i) centres[i] = static_cast<float>((edges_[i] + edges_[i + 1]) / 2.0);
  const auto bound = static_cast<float>(spec.bound());
  double least = std::numeric_limits<double>::infinity();
  float best = centres.back();
  for (int64_t i = start_bin; i < size; i += stride) {
    float amax = centres[static_cast<size_t>(i)], scale = bound / amax;
    double error = 0.0;
    for (size_t j = 0; j < centres.size(); ++j) {
      if (counts_[j] == 0) continue;
      float q = std::min(std::rint(centres[j] * scale), bound);
      float difference = q / scale - centres[j];
      error += static_cast<double>(counts_[j]) * static_cast<double>(difference * difference);
    }
    if (error < least) {
      least = error;
      best = amax;
    }
  }
  return best;
}

}  // namespace octet
