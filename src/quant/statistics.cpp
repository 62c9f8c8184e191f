// Collection in vectorisable passes, and the ranges that a histogram gives.
#include "quant/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace octet {

namespace {

constexpr int kBinBits = 11;           // bins below the leading power of two
constexpr int kLowestExponent = -111;  // 2^k with k < -100 does not refine further: such tensors are zero
constexpr int kCopies =
    4;  // tables that neighbouring values take in turn, so that equal bins do not wait for each other
constexpr size_t kBlock = 1024;
constexpr uint32_t kInfinity = 0x7f800000u;

uint32_t magnitude_bits(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffffu; }

/// Exponent of the bin width for a largest magnitude of these bits.
int bin_exponent_of(uint32_t bits) { return std::max(static_cast<int>(bits >> 23) - 127 - kBinBits, kLowestExponent); }

uint32_t largest_bits(std::span<const float> values) {
  int32_t largest = 0;  // signed: the baseline instruction set has no unsigned comparison
  for (float value : values) {
    auto bits = static_cast<int32_t>(magnitude_bits(value));
    largest = bits > largest ? bits : largest;
  }
  return static_cast<uint32_t>(largest);
}

}  // namespace

void TensorStatistics::require_data() const {
  if (elements_ == 0) fail(ErrorCode::invalid_argument, {.what = "cannot choose a range: no value was collected"});
}

void TensorStatistics::grow(int exponent) {
  if (bins_.empty()) exponent_ = exponent;
  if (exponent > exponent_) {
    int shift = std::min(exponent - exponent_, 62);
    std::vector<uint64_t> merged(((bins_.size() - 1) >> shift) + 1, 0);
    for (size_t i = 0; i < bins_.size(); ++i) merged[i >> shift] += bins_[i];
    bins_ = std::move(merged);
    exponent_ = exponent;
  }
}

void TensorStatistics::count(std::span<const float> values) {
  static thread_local std::vector<uint32_t> tables;
  constexpr size_t kBins = size_t{2} << kBinBits;
  tables.assign(kBins * kCopies, 0);
  // |x| / 2^exponent_ in two exact steps: the factor alone may leave the range of f32.
  const float first = std::ldexp(1.0f, -exponent_ / 2), second = std::ldexp(1.0f, -exponent_ - (-exponent_ / 2));
  int32_t index[kBlock];
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    size_t block = std::min(kBlock, values.size() - begin);
    const float* x = values.data() + begin;
    for (size_t i = 0; i < block; ++i) index[i] = static_cast<int32_t>(std::fabs(x[i]) * first * second);
    size_t i = 0;
    for (; i + kCopies <= block; i += kCopies)
      for (size_t copy = 0; copy < kCopies; ++copy) ++tables[copy * kBins + static_cast<size_t>(index[i + copy])];
    for (; i < block; ++i) ++tables[static_cast<size_t>(index[i])];
  }
  size_t used = kBins;
  auto total = [](size_t bin) {
    uint64_t sum = 0;
    for (size_t copy = 0; copy < kCopies; ++copy) sum += tables[copy * kBins + bin];
    return sum;
  };
  while (used > 0 && total(used - 1) == 0) --used;
  if (bins_.size() < used) bins_.resize(used, 0);
  for (size_t bin = 0; bin < used; ++bin) bins_[bin] += total(bin);
  elements_ += static_cast<int64_t>(values.size());
}

void TensorStatistics::collect(std::span<const float> values, int64_t width) {
  if (values.empty()) return;
  OCTET_CHECK(width > 0 && values.size() % static_cast<size_t>(width) == 0, "values do not fill whole rows");
  if (minimum_.empty()) {
    minimum_.assign(static_cast<size_t>(width), 0.0f);
    maximum_.assign(static_cast<size_t>(width), 0.0f);
    // Until a channel has a value of its own its extremes must not pretend to be zero.
    if (elements_ == 0) {
      std::fill(minimum_.begin(), minimum_.end(), std::numeric_limits<float>::infinity());
      std::fill(maximum_.begin(), maximum_.end(), -std::numeric_limits<float>::infinity());
    }
  }
  OCTET_CHECK(this->width() == width, "a tensor changed its width");

  uint32_t largest = largest_bits(values);
  std::vector<float> finite;
  std::span<const float> counted = values;
  if (largest >= kInfinity) {
    for (float value : values)
      if (magnitude_bits(value) < kInfinity) finite.push_back(value);
    nonfinite_ += static_cast<int64_t>(values.size() - finite.size());
    counted = finite;
    largest = largest_bits(counted);
    for (size_t i = 0; i < values.size(); ++i) {
      if (magnitude_bits(values[i]) >= kInfinity) continue;
      float &low = minimum_[i % static_cast<size_t>(width)], &high = maximum_[i % static_cast<size_t>(width)];
      low = values[i] < low ? values[i] : low;
      high = values[i] > high ? values[i] : high;
    }
  } else if (width == 1) {
    // Partial extremes, so that the loop has no chain of dependent comparisons.
    constexpr size_t kLanes = 16;
    float low[kLanes], high[kLanes];
    std::fill(low, low + kLanes, minimum_[0]);
    std::fill(high, high + kLanes, maximum_[0]);
    size_t i = 0;
    for (; i + kLanes <= values.size(); i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane) {
        float value = values[i + lane];
        low[lane] = value < low[lane] ? value : low[lane];
        high[lane] = value > high[lane] ? value : high[lane];
      }
    for (; i < values.size(); ++i) {
      low[0] = values[i] < low[0] ? values[i] : low[0];
      high[0] = values[i] > high[0] ? values[i] : high[0];
    }
    minimum_[0] = *std::min_element(low, low + kLanes);
    maximum_[0] = *std::max_element(high, high + kLanes);
  } else {
    float *low = minimum_.data(), *high = maximum_.data();
    for (size_t row = 0; row < values.size(); row += static_cast<size_t>(width)) {
      const float* x = values.data() + row;
      for (int64_t c = 0; c < width; ++c) low[c] = x[c] < low[c] ? x[c] : low[c];
      for (int64_t c = 0; c < width; ++c) high[c] = x[c] > high[c] ? x[c] : high[c];
    }
  }
  if (counted.empty()) return;
  grow(bin_exponent_of(largest));
  // The tables hold 32-bit counts.
  constexpr size_t kChunk = size_t{1} << 30;
  for (size_t begin = 0; begin < counted.size(); begin += kChunk)
    count(counted.subspan(begin, std::min(kChunk, counted.size() - begin)));
}

void TensorStatistics::merge(const TensorStatistics& other) {
  if (other.minimum_.empty()) return;
  if (minimum_.empty()) {
    *this = other;
    return;
  }
  if (width() != other.width())
    fail(ErrorCode::invalid_argument,
         {.what = "cannot merge statistics of different widths",
          .expected = "expected " + std::to_string(width()) + " channels, got " + std::to_string(other.width())});
  for (size_t c = 0; c < minimum_.size(); ++c) {
    minimum_[c] = std::min(minimum_[c], other.minimum_[c]);
    maximum_[c] = std::max(maximum_[c], other.maximum_[c]);
  }
  elements_ += other.elements_;
  nonfinite_ += other.nonfinite_;
  if (other.bins_.empty()) return;
  grow(other.exponent_);
  int shift = std::min(exponent_ - other.exponent_, 62);
  bins_.resize(std::max(bins_.size(), ((other.bins_.size() - 1) >> shift) + 1), 0);
  for (size_t i = 0; i < other.bins_.size(); ++i) bins_[i >> shift] += other.bins_[i];
}

std::vector<float> TensorStatistics::channel_amax() const {
  std::vector<float> amax(minimum_.size(), 0.0f);
  for (size_t c = 0; c < amax.size(); ++c)
    if (minimum_[c] <= maximum_[c]) amax[c] = std::max(std::fabs(minimum_[c]), std::fabs(maximum_[c]));
  return amax;
}

float TensorStatistics::amax() const {
  float largest = 0.0f;
  for (float value : channel_amax()) largest = std::max(largest, value);
  return largest;
}

double TensorStatistics::bin_width() const { return std::ldexp(1.0, exponent_); }

float TensorStatistics::percentile(double percent) const {
  require_data();
  if (!(percent >= 0.0 && percent <= 100.0))
    fail(ErrorCode::invalid_argument,
         {.what = "there is no such percentile", .expected = "expected 0 to 100, got " + std::to_string(percent)});
  double wanted = percent / 100.0 * static_cast<double>(elements_);
  uint64_t sum = 0;
  for (size_t i = 0; i < bins_.size(); ++i) {
    sum += bins_[i];
    if (static_cast<double>(sum) >= wanted)
      return std::min(static_cast<float>(static_cast<double>(i + 1) * bin_width()), amax());
  }
  return amax();
}

float TensorStatistics::entropy(const QuantSpec& spec) const {
  require_data();
  const auto size = bins_.size();
  const size_t levels = static_cast<size_t>(spec.bound()) + 1;
  // D(i) for the first i bins, the rest added to bin i - 1:
  //   sum p ln p - sum p ln q, and all bins of a group share q = their mean, so a candidate costs one step a group.
  std::vector<double> sums(size + 1, 0.0), logs(size + 1, 0.0), filled(size + 1, 0.0);
  auto x_log_x = [](double x) { return x > 0.0 ? x * std::log(x) : 0.0; };
  for (size_t i = 0; i < size; ++i) {
    auto bin = static_cast<double>(bins_[i]);
    sums[i + 1] = sums[i] + bin;
    logs[i + 1] = logs[i] + x_log_x(bin);
    filled[i + 1] = filled[i] + (bin > 0.0 ? 1.0 : 0.0);
  }
  double total = sums[size], least = std::numeric_limits<double>::infinity();
  size_t best = size;
  for (size_t kept = std::min(levels, size); kept <= size; ++kept) {
    double outliers = total - sums[kept], last = static_cast<double>(bins_[kept - 1]);
    if (sums[kept] == 0.0 || (outliers > 0.0 && last == 0.0)) continue;  // p > 0 where q = 0
    double value = logs[kept] - x_log_x(last) + x_log_x(last + outliers);
    size_t begin = 0;
    for (size_t group = 0; group < levels; ++group) {
      size_t end = ((group + 1) * kept + levels - 1) / levels;
      double sum = sums[end] - sums[begin], count = filled[end] - filled[begin];
      double p = end == kept ? sum + outliers : sum;
      if (sum > 0.0) value -= p * std::log(sum / count);
      begin = end;
    }
    double divergence = value / total + std::log(sums[kept] / total);
    if (divergence <= least) {
      least = divergence;
      best = kept;
    }
  }
  return std::min(static_cast<float>(static_cast<double>(best) * bin_width()), amax());
}

double TensorStatistics::error(float amax, const QuantSpec& spec, double power) const {
  const double bound = spec.bound(), scale = static_cast<double>(amax) / bound, width = bin_width();
  double sum = 0.0;
  for (size_t i = 0; i < bins_.size(); ++i) {
    if (bins_[i] == 0) continue;
    double x = (static_cast<double>(i) + 0.5) * width;
    double q = scale > 0.0 ? std::min(std::nearbyint(x / scale), bound) : 0.0;
    double difference = std::fabs(q * scale - x);
    sum += static_cast<double>(bins_[i]) * (power == 2.0 ? difference * difference : std::pow(difference, power));
  }
  return sum / static_cast<double>(elements_);
}

float TensorStatistics::least_error(const QuantSpec& spec, double power) const {
  require_data();
  constexpr int kSteps = 128;  // candidates: amax * i / 128
  double least = std::numeric_limits<double>::infinity();
  float largest = amax(), best = largest;
  for (int i = kSteps; i >= kSteps / 32; --i) {
    float candidate = largest * static_cast<float>(i) / static_cast<float>(kSteps);
    double found = error(candidate, spec, power);
    if (found < least) {
      least = found;
      best = candidate;
    }
  }
  return best;
}

TensorStatistics TensorStatistics::restore(int exponent, std::vector<uint64_t> bins, int64_t elements,
                                           int64_t nonfinite, std::vector<float> minimum, std::vector<float> maximum,
                                           const std::string& where) {
  TensorStatistics made;
  uint64_t sum = 0;
  constexpr int64_t kMost = int64_t{1} << 60;  // sums of such counts cannot overflow
  bool valid = minimum.size() == maximum.size() && elements >= 0 && nonfinite >= 0 && elements <= kMost &&
               nonfinite <= kMost && bins.size() <= (size_t{2} << kBinBits);
  for (uint64_t bin : bins) {
    valid = valid && bin <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) - sum;
    if (!valid) break;
    sum += bin;
  }
  valid = valid && sum == static_cast<uint64_t>(elements) && (bins.empty() || bins.back() != 0);
  for (size_t c = 0; valid && c < minimum.size(); ++c) valid = !std::isnan(minimum[c]) && !std::isnan(maximum[c]);
  made.exponent_ = exponent;
  made.bins_ = std::move(bins);
  made.elements_ = elements;
  made.nonfinite_ = nonfinite;
  made.minimum_ = std::move(minimum);
  made.maximum_ = std::move(maximum);
  // The bins must be those that the largest magnitude asks for.
  if (valid && !made.bins_.empty()) {
    float largest = made.amax();
    valid = std::isfinite(largest) && exponent == bin_exponent_of(magnitude_bits(largest)) &&
            made.bins_.size() == static_cast<size_t>(std::ldexp(static_cast<double>(largest), -exponent)) + 1;
  }
  if (!valid)
    fail(ErrorCode::corrupt,
         {.what = "the statistics of a tensor do not fit together", .where = where, .hint = "calibrate again"});
  return made;
}

void Statistics::collect(std::string_view tensor, std::span<const float> values, int64_t width) {
  auto it = tensors_.find(tensor);
  if (it == tensors_.end()) it = tensors_.emplace(tensor, TensorStatistics()).first;
  it->second.collect(values, width);
}

void Statistics::collect_reference(std::string_view tensor, std::span<const float> values) {
  auto it = reference_.find(tensor);
  if (it == reference_.end()) it = reference_.emplace(tensor, ReferenceHistogram()).first;
  it->second.collect(values);
}

const ReferenceHistogram* Statistics::find_reference(std::string_view tensor) const {
  auto it = reference_.find(tensor);
  return it == reference_.end() ? nullptr : &it->second;
}

void Statistics::merge(const Statistics& other) {
  for (const auto& [tensor, statistics] : other.tensors_) tensors_[tensor].merge(statistics);
}

const TensorStatistics* Statistics::find(std::string_view tensor) const {
  auto it = tensors_.find(tensor);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace octet
