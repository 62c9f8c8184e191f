// Median, spread and percentiles of measured times.
#include "bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace octet::bench {

double percentile(std::span<const double> sorted, double p) {
  double index = static_cast<double>(sorted.size() - 1) * p / 100.0;
  auto below = static_cast<size_t>(index);
  size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (index - static_cast<double>(below));
}

Summary summarize(std::span<const double> samples) {
  Summary s;
  s.count = static_cast<int64_t>(samples.size());
  if (samples.empty()) return s;
  std::vector<double> sorted(samples.begin(), samples.end());
  std::sort(sorted.begin(), sorted.end());
  double n = static_cast<double>(sorted.size());
  for (double x : sorted) s.mean += x;
  s.mean /= n;
  for (double x : sorted) s.sd += (x - s.mean) * (x - s.mean);
  s.sd = std::sqrt(s.sd / n);
  s.min = sorted.front();
  s.max = sorted.back();
  s.median = percentile(sorted, 50);
  s.p95 = percentile(sorted, 95);
  s.p99 = percentile(sorted, 99);
  return s;
}

std::string timing_line(const std::string& name, const Summary& s) {
  char text[256];
  std::snprintf(text, sizeof text,
                "mean=%.2fms, sd=%.2fms, min=%.2fms, max=%.2fms, median=%.2fms, 95p=%.2fms, 99p=%.2fms", s.mean, s.sd,
                s.min, s.max, s.median, s.p95, s.p99);
  return "[" + name + "] " + text;
}

}  // namespace octet::bench
