// Statistics of repeated measurements, as the reference system defines them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace octet::bench {

/// Milliseconds of one call over many calls. sd divides by n; percentiles interpolate linearly at index (n - 1) p /
/// 100.
struct Summary {
  double median = 0, mean = 0, sd = 0, min = 0, max = 0, p95 = 0, p99 = 0;
  int64_t count = 0;
};
/// All zero for no samples.
Summary summarize(std::span<const double> samples);

/// Percentile `p` (0..100) of sorted samples, of which there is at least one.
double percentile(std::span<const double> sorted, double p);

/// "[NAME] mean=1.23ms, sd=...ms, min=...ms, max=...ms, median=...ms, 95p=...ms, 99p=...ms".
std::string timing_line(const std::string& name, const Summary& summary);

}  // namespace octet::bench
