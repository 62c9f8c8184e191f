// The metrics of GLUE, on plain arrays.
#pragma once

#include <cstdint>
#include <span>

namespace octet {

/// Counts of a binary decision, label 1 being the positive one.
struct Confusion {
  double true_positive = 0, false_positive = 0, true_negative = 0, false_negative = 0;
};

/// Share of equal entries; 0 for no rows.
double accuracy(std::span<const int64_t> predicted, std::span<const int64_t> expected);
/// `positive` against all other labels.
Confusion confusion(std::span<const int64_t> predicted, std::span<const int64_t> expected, int64_t positive = 1);
/// Harmonic mean of precision and recall; 0 when there is no true positive.
double f1(const Confusion& counts);
/// Matthews correlation of any number of labels (Gorodkin's form); 0 when one side has a single label.
double matthews(std::span<const int64_t> predicted, std::span<const int64_t> expected);
/// Mean of f1 over the labels that occur on either side.
double macro_f1(std::span<const int64_t> predicted, std::span<const int64_t> expected);

}  // namespace octet
