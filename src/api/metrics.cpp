// Accuracy, F1, Matthews correlation, and correlations of ranks and values.
#include "api/metrics.h"

#include <octet/evaluate.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "core/error.h"

namespace octet {

namespace {

// Ranks from 1; equal values share the mean of their ranks.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> result(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) result[order[i]] = (static_cast<double>(begin + end) + 1) / 2;
    begin = end;
  }
  return result;
}

void check_sizes(size_t a, size_t b) {
  if (a != b)
    fail(ErrorCode::invalid_argument, {.what = "cannot compare two lists of different lengths",
                                       .expected = "got " + std::to_string(a) + " and " + std::to_string(b)});
}

}  // namespace

double pearson(std::span<const double> a, std::span<const double> b) {
  check_sizes(a.size(), b.size());
  if (a.empty()) return 0;
  double n = static_cast<double>(a.size());
  double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n, mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    double x = a[i] - mean_a, y = b[i] - mean_b;
    ab += x * y, aa += x * x, bb += y * y;
  }
  // A constant side has no correlation.
  return aa > 0 && bb > 0 ? ab / (std::sqrt(aa) * std::sqrt(bb)) : 0;
}

double spearman(std::span<const double> a, std::span<const double> b) {
  check_sizes(a.size(), b.size());
  return pearson(ranks(a), ranks(b));
}

double accuracy(std::span<const int64_t> predicted, std::span<const int64_t> expected) {
  check_sizes(predicted.size(), expected.size());
  size_t equal = 0;
  for (size_t i = 0; i < predicted.size(); ++i) equal += predicted[i] == expected[i];
  return predicted.empty() ? 0 : static_cast<double>(equal) / static_cast<double>(predicted.size());
}

Confusion confusion(std::span<const int64_t> predicted, std::span<const int64_t> expected, int64_t positive) {
  check_sizes(predicted.size(), expected.size());
  Confusion c;
  for (size_t i = 0; i < predicted.size(); ++i) {
    bool p = predicted[i] == positive, e = expected[i] == positive;
    (p ? (e ? c.true_positive : c.false_positive) : (e ? c.false_negative : c.true_negative)) += 1;
  }
  return c;
}

double f1(const Confusion& c) {
  double errors = c.false_positive + c.false_negative;
  return c.true_positive > 0 ? 2 * c.true_positive / (2 * c.true_positive + errors) : 0;
}

double matthews(std::span<const int64_t> predicted, std::span<const int64_t> expected) {
  check_sizes(predicted.size(), expected.size());
  std::map<int64_t, double> p, e;
  double correct = 0, n = static_cast<double>(predicted.size());
  for (size_t i = 0; i < predicted.size(); ++i) {
    p[predicted[i]] += 1, e[expected[i]] += 1;
    correct += predicted[i] == expected[i];
  }
  double pe = 0, pp = 0, ee = 0;
  for (const auto& [label, count] : p) {
    pp += count * count;
    if (auto found = e.find(label); found != e.end()) pe += count * found->second;
  }
  for (const auto& [label, count] : e) ee += count * count;
  double spread = (n * n - pp) * (n * n - ee);
  return spread > 0 ? (correct * n - pe) / std::sqrt(spread) : 0;
}

double macro_f1(std::span<const int64_t> predicted, std::span<const int64_t> expected) {
  std::set<int64_t> labels(predicted.begin(), predicted.end());
  labels.insert(expected.begin(), expected.end());
  double sum = 0;
  for (int64_t label : labels) sum += f1(confusion(predicted, expected, label));
  return labels.empty() ? 0 : sum / static_cast<double>(labels.size());
}

}  // namespace octet
