// What calibration records of a tensor: a histogram of magnitudes and each channel's extremes, exact and independent of
// batching.
//
// The histogram starts at zero. With 2^k <= max|x| < 2^(k+1) its bins are 2^(k-11) wide, so between 2048 and 4096 are
// in use; when the maximum doubles, neighbouring bins merge. Every value therefore ends in the same bin whatever came
// before it: collecting in any order, in any batches, on any threads and merging give the same statistics.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/quantizer.h"
#include "quant/reference_histogram.h"

namespace octet {

class TensorStatistics {
 public:
  /// Adds values of `width` channels, channel-minor: a multiple of `width` (1: one channel). The width is fixed by the
  /// first call.
  void collect(std::span<const float> values, int64_t width);
  void merge(const TensorStatistics& other);

  int64_t elements() const noexcept { return elements_; }    ///< finite values counted
  int64_t nonfinite() const noexcept { return nonfinite_; }  ///< NaN and infinities, which enter nothing else
  int64_t width() const noexcept { return static_cast<int64_t>(minimum_.size()); }
  /// By channel; 0 where nothing was seen.
  const std::vector<float>& minimum() const noexcept { return minimum_; }
  const std::vector<float>& maximum() const noexcept { return maximum_; }
  /// Largest magnitude by channel, and of all.
  std::vector<float> channel_amax() const;
  float amax() const;

  /// bins()[i] magnitudes lie in [i, i + 1) * bin_width().
  const std::vector<uint64_t>& bins() const noexcept { return bins_; }
  double bin_width() const;
  int bin_exponent() const noexcept { return exponent_; }

  // Ranges, all at most amax(). They throw invalid_argument when nothing was collected.
  /// The smallest bin end that covers `percent` of the values.
  float percentile(double percent) const;
  /// Least divergence between the distribution and its quantized form.
  float entropy(const QuantSpec& spec) const;
  /// Least mean of |error|^power under quantization, over bin centres; power 2 is the mean squared error.
  float least_error(const QuantSpec& spec, double power) const;
  /// The mean of |error|^power with range `amax`.
  double error(float amax, const QuantSpec& spec, double power) const;

  /// Rebuilds from stored parts; throws corrupt with `where` when they do not fit together.
  static TensorStatistics restore(int exponent, std::vector<uint64_t> bins, int64_t elements, int64_t nonfinite,
                                  std::vector<float> minimum, std::vector<float> maximum, const std::string& where);
  bool operator==(const TensorStatistics&) const = default;

 private:
  void require_data() const;
  void grow(int exponent);
  void count(std::span<const float> values);

  int exponent_ = 0;  ///< bins are 2^exponent wide; meaningless while bins_ is empty
  std::vector<uint64_t> bins_;
  int64_t elements_ = 0, nonfinite_ = 0;
  std::vector<float> minimum_, maximum_;
};

/// Statistics of many tensors by name. One thread at a time; merge the parts of several threads.
class Statistics {
 public:
  void collect(std::string_view tensor, std::span<const float> values, int64_t width);
  /// Compatible mode: the reference's histogram beside ours. Depends on the batches.
  void collect_reference(std::string_view tensor, std::span<const float> values);
  /// Adds `other`, but not its reference histograms.
  void merge(const Statistics& other);
  /// nullptr when the tensor was not collected.
  const TensorStatistics* find(std::string_view tensor) const;
  const std::map<std::string, TensorStatistics, std::less<>>& tensors() const noexcept { return tensors_; }
  void set(const std::string& tensor, TensorStatistics statistics) {
    tensors_.insert_or_assign(tensor, std::move(statistics));
  }
  const ReferenceHistogram* find_reference(std::string_view tensor) const;
  void set_reference(const std::string& tensor, ReferenceHistogram histogram) {
    reference_.insert_or_assign(tensor, std::move(histogram));
  }
  bool operator==(const Statistics&) const = default;

 private:
  std::map<std::string, TensorStatistics, std::less<>> tensors_;
  std::map<std::string, ReferenceHistogram, std::less<>> reference_;
};

}  // namespace octet
