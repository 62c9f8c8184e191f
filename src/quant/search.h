// Which units to leave in float: the combinations worth measuring, and which of the measured ones nothing beats.
//
// Noise of independent quantizers adds up in power, and so do their times, well enough to say which combinations cannot
// be good. What remains is measured, and only measurements are compared.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace octet {

struct SearchUnit {
  double noise = 0;  ///< that quantizing it alone adds
  double cost = 0;   ///< time that leaving it in float adds; may be negative
  double work = 0;   ///< its share of the work of all matrix products
};

/// Combinations (by unit: left in float) that no other beats in predicted cost by having its noise times (1 +
/// tolerance), and that leave at most `most_work` in float. At most `limit`, cheapest first; all quantized is always
/// among them.
std::vector<std::vector<char>> front_candidates(std::span<const SearchUnit> units, double tolerance, size_t limit,
                                                double most_work = 1);

/// Indices of the pairs (cost, loss) that no other equals or beats in both, by rising cost; equal pairs are there once.
std::vector<size_t> pareto_front(std::span<const std::pair<double, double>> points);

}  // namespace octet
