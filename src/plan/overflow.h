// Values that FP16 cannot hold, found by running rows in FP32.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "graph/graph.h"
#include "plan/executor.h"

namespace octet {

/// FP16 ends at 65504; a value is taken to overflow from half of that on, since other rows may be larger.
constexpr double kHalfLimit = 32752;

/// Runs the fused graph in FP32 on `target` and returns the stored values whose magnitude reaches kHalfLimit, with the
/// largest seen: LowerOptions::wide. Values inside a kernel are f32 anyway.
std::map<std::string, double> find_overflow(const Graph& graph, const Target& target,
                                            std::span<const BatchView> batches, std::shared_ptr<ThreadPool> pool);

}  // namespace octet
