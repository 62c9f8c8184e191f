// What Op::relative_bias computes: T5's buckets of distances between tokens, as MPNet uses them.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace octet {

/// Bucket of distance = key - query: half of the buckets for each direction; half of those hold one distance each, the
/// others grow by a constant factor up to max_distance. In f32 steps as the original, so that no distance changes
/// sides.
int64_t relative_bucket(int64_t distance, int64_t buckets, int64_t max_distance) noexcept;

/// Buckets of the distances -(L-1) .. L-1 of a relative_bias node.
std::vector<int64_t> relative_buckets(const Node& node);

/// The node's value for this table: [heads, 2L-1].
Tensor relative_bias(const Node& node, const Tensor& table);

}  // namespace octet
