// The reference system's histogram and calibrators with all their quirks: what `--method` means in compatible mode.
//
// The first batch fixes edges from its minimum to its maximum; later values below the minimum are dropped, and the bins
// grow in steps of the first width, so the result depends on batching. octet's own statistics (statistics.h) have none
// of this.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/quantizer.h"

namespace octet {

class ReferenceHistogram {
 public:
  explicit ReferenceHistogram(int64_t bins = 2048) : first_bins_(bins) {}

  /// Adds |values|. NaN throws invalid_argument.
  void collect(std::span<const float> values);

  /// counts()[i] values lie in [edges()[i], edges()[i + 1]).
  const std::vector<int64_t>& counts() const noexcept { return counts_; }
  const std::vector<double>& edges() const noexcept { return edges_; }
  int64_t counted() const noexcept;
  int64_t first_bins() const noexcept { return first_bins_; }
  bool operator==(const ReferenceHistogram&) const = default;

  /// Rebuilds from stored parts; throws corrupt with `where` when they do not fit together.
  static ReferenceHistogram restore(int64_t first_bins, std::vector<int64_t> counts, std::vector<double> edges,
                                    const std::string& where);

  /// Left edge of the first bin at which the cumulated share reaches `percent` / 100.
  double percentile(double percent) const;
  /// Least divergence (KL) between the kept distribution and its quantized form.
  double entropy(const QuantSpec& spec = {}, int64_t start_bin = 128, int64_t stride = 1) const;
  /// Least mean squared error of fake quantization (narrow range) over the bin centres.
  double mse(const QuantSpec& spec = {}, int64_t start_bin = 128, int64_t stride = 1) const;

 private:
  void require_data() const;

  int64_t first_bins_ = 2048;
  std::vector<int64_t> counts_;
  std::vector<double> edges_;
};

}  // namespace octet
