// The small encoder with quantizers: calibrated on a few random rows, or dynamic.
#pragma once

#include <string>
#include <vector>

#include "plan/tiny_encoder.h"
#include "quant/quantize.h"

namespace octet::test {

/// `placement` empty: dynamic ranges. `device`: where the calibration pass runs.
inline Calibration calibrate_tiny(const Graph& graph, const TinyEncoder& tiny, const std::string& placement,
                                  const std::string& device = "cpu") {
  RandomBatch rows({20, 31, 7, 40, 12, 25, 33, 18}, tiny.vocabulary, 5);
  std::vector<CalibrationRow> views;
  std::span<const int32_t> ids(rows.ids), types(rows.types);
  for (size_t r = 0; r + 1 < rows.offsets.size(); ++r) {
    auto begin = static_cast<size_t>(rows.offsets[r]), size = static_cast<size_t>(rows.offsets[r + 1]) - begin;
    views.push_back({ids.subspan(begin, size), types.subspan(begin, size)});
  }
  return calibrate_graph(graph, views, {.placement = placement, .device = device}, "hash", 0, {});
}

inline void quantize_tiny(Graph& graph, const TinyEncoder& tiny, const std::string& placement) {
  if (placement.empty()) {
    quantize_graph(graph, {});
    return;
  }
  Calibration calibration = calibrate_tiny(graph, tiny, placement);
  quantize_graph(graph, {.calibration = &calibration, .model_hash = "hash"});
}

}  // namespace octet::test
