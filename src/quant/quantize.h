// The two entries of quantization: taking statistics of a float graph, and turning a float graph into a quantized one.
#pragma once

#include <octet/calibration.h>
#include <octet/progress.h>

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace octet {

/// One row of token ids.
struct CalibrationRow {
  std::span<const int32_t> ids, type_ids;  ///< type_ids may be empty
};

/// Places quantizers in a copy of `graph`, runs it unfused in float over the rows (plan/executor.h with taps), and
/// chooses ranges. `pad_id` serves include_padding. The result does not depend on threads or on how rows are grouped
/// into batches.
Calibration calibrate_graph(const Graph& graph, std::span<const CalibrationRow> rows, const CalibrateOptions& options,
                            const std::string& model_hash, int64_t pad_id, const Progress& progress);

struct QuantizeOptions {
  const Calibration* calibration = nullptr;  ///< null: dynamic ranges
  std::string method;                        ///< chooses again from statistics; empty keeps the calibration's ranges
  bool float_embeddings = false;
  std::string model_hash;  ///< must equal the calibration's (invalid_argument)
  bool biases = true;      ///< with the calibration's bias corrections, where its own ranges are kept
};

/// Places quantizers with all ranges set. Returns what was done: "static (residual-channel, auto)", "dynamic".
std::string quantize_graph(Graph& graph, const QuantizeOptions& options);

/// Ranges with the strength of channel balancing chosen edge by edge: the one whose product is nearest to float on
/// `rows`. `edges` gets (node, error before, error after, strength), errors as noise over signal in power.
struct BalancedEdge {
  std::string node;
  double before = 0, after = 0, strength = 0;
};
Calibration balance_graph(const Graph& graph, const Calibration& calibration, std::span<const CalibrationRow> rows,
                          std::vector<BalancedEdge>* edges, int threads, const Progress& progress);

/// Ranges with the method chosen edge by edge (inputs of linears; q against k): the one whose product is nearest to
/// float on `rows`. Everything else keeps the calibration's method.
struct ChosenMethod {
  std::string node, method;
  std::vector<std::string> quantizers;
  double first_error = 0, error = 0;  ///< noise over signal in power, by the first method and by the chosen one
};
Calibration choose_methods(const Graph& graph, const Calibration& calibration, std::span<const CalibrationRow> rows,
                           std::span<const std::string> methods, std::vector<ChosenMethod>* list, int threads,
                           const Progress& progress);

/// The calibration with each quantized linear's mean error on `rows` (at most 8,192 tokens of them) as a correction of
/// its bias. `list` gets (linear, root mean square of its correction).
struct CorrectedBias {
  std::string node;
  double size = 0;
};
Calibration correct_graph_biases(const Graph& graph, const Calibration& calibration,
                                 std::span<const CalibrationRow> rows, std::vector<CorrectedBias>* list, int threads,
                                 const Progress& progress);
/// Adds the corrections to the biases of a quantized graph's linears, but for those whose operands are left in float.
void apply_biases(Graph& graph, const std::map<std::string, Tensor>& biases);

}  // namespace octet
