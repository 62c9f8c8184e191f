// What a Calibration holds, and its file.
#pragma once

#include <octet/calibration.h>

#include <map>
#include <memory>
#include <string>

#include "core/file.h"
#include "core/tensor.h"
#include "graph/graph.h"
#include "quant/placement.h"
#include "quant/ranges.h"
#include "quant/statistics.h"

namespace octet {

/// A quantizer as it was after ranges were chosen. Weights keep their column scale: their scales follow from the
/// model, unless training froze them, which stores them too.
struct StoredRange {
  std::string tensor;  ///< the value that it quantizes
  Attributes attributes;
  std::string method;          ///< how the range was found
  Tensor scale, column_scale;  ///< empty when there is none
};

struct Calibration::State {
  CalibrateOptions options;
  std::string model_hash;
  std::string data_hash;
  int64_t samples = 0, tokens = 0;
  Statistics statistics;
  /// By quantizer. Empty after a merge: ranges are then chosen when the model is compiled.
  std::map<std::string, StoredRange> ranges;
  /// By linear: what is added to its bias, f32 [outputs]. Belongs to `ranges`; gone where ranges are chosen again.
  std::map<std::string, Tensor> biases;
  /// Methods that a search chose for single tensors (MethodOptions::methods); ranges chosen by another method lose
  /// them.
  std::map<std::string, std::string> methods;
};

/// Checks the names and numbers among the options (invalid_argument).
PlacementOptions placement_of(const CalibrateOptions& options);
MethodOptions method_of(const CalibrateOptions& options, const std::string& method);
/// The same with the methods of single tensors, unless `method` replaces all.
MethodOptions method_of(const Calibration::State& state, const std::string& method);
/// Places quantizers as the options say, states included.
void place_quantizers(Graph& graph, const CalibrateOptions& options);

/// Quantizers of a graph with ranges, as they are stored.
std::map<std::string, StoredRange> stored_ranges(const Graph& graph, const std::map<std::string, std::string>& methods);
/// Gives a placed graph the stored ranges and chooses those of its weights. Throws invalid_argument for a quantizer
/// that has none.
void apply_ranges(Graph& graph, const std::map<std::string, StoredRange>& ranges, const MethodOptions& options);

/// Reads a calibration file; throws corrupt (with what is wrong), unsupported (a newer format).
std::shared_ptr<const Calibration::State> parse_calibration(const MappedFile& file, const std::string& where);

}  // namespace octet
