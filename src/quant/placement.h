// Where quantizers go: named placements over the structure of a graph, and edits of single quantizers by name.
//
// Names are the reference system's, whatever the placement: P.query._input_quantizer and ._weight_quantizer for a
// linear; for an attention whose q is made by P.query: P.matmul_q_input_quantizer, _k_, _a_ (probabilities), _v_; for a
// residual add whose branch is made by P.dense: P.add_local_input_quantizer, P.add_residual_input_quantizer;
// E._weight_quantizer for the table of embedding E.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "quant/quantizer.h"

namespace octet {

enum class Placement : uint8_t {
  qdqbert,  ///< the reference's 20 a layer: linears, attention operands, both operands of residual adds; one scale a
            ///< tensor
  linear_only,       ///< inputs and weights of linears
  residual_float,    ///< linears and attention operands; residual adds in float
  residual_channel,  ///< the same and residual adds with a scale a channel; everything shared between a linear and a
                     ///< residual add
};
std::string_view name(Placement placement) noexcept;
/// Throws invalid_argument with the known names.
Placement parse_placement(std::string_view text);

struct PlacementOptions {
  Placement placement = Placement::residual_channel;
  bool heads = false;   ///< linears behind the encoder (classifiers)
  bool pooler = false;  ///< the pooler's linear
  bool float_embeddings =
      false;  ///< leave embedding tables in float (they get a scale a row otherwise; qdqbert leaves them by itself)
  /// Inputs of linears, q, k and v with a scale a channel (folded into the weights; within a head q times k stays one
  /// scale). Not for qdqbert.
  bool balance = true;
  std::string activations = "s8";  ///< type of activations: s2..s8
  std::string weights = "s8";      ///< type of weights: s2..s8
  /// "u8" has the fixed scale 1/255 and needs no calibration; "s8" is calibrated; empty: s8 for qdqbert, u8 for the
  /// others.
  std::string probabilities;
};

/// Inserts quantizers that await calibration, weights included; the fixed ones are ready. A graph that holds quantizers
/// throws invalid_argument.
void place(Graph& graph, const PlacementOptions& options);

/// Quantizers that need no calibration at all: inputs of linears, q and k with a range a token, v with a range a
/// channel of each row, probabilities u8 with 1/255, weights with ranges from their maxima.
void place_dynamic(Graph& graph, const PlacementOptions& options);

/// Names of all quantizers, in the order of the graph.
std::vector<std::string> quantizer_names(const Graph& graph);
/// Whether `name` is `pattern`, lies in the module `pattern` ("encoder.layer.1" holds encoder.layer.1.x but not
/// encoder.layer.10.x), or fits its wildcards: * for any characters, ? for one.
bool name_matches(std::string_view name, std::string_view pattern) noexcept;

/// Turns the quantizers that match on or off and returns how many there were; none throws not_found with the nearest
/// names.
int64_t set_state(Graph& graph, std::string_view pattern, bool on);
/// Gives them another type; their ranges must be chosen again.
int64_t set_type(Graph& graph, std::string_view pattern, const QuantSpec& spec);

/// Attributes of a quantizer; axis -1: one scale.
Attributes quantizer_attributes(const QuantSpec& spec, int64_t axis, const std::string& dynamic = "");
/// The spec in a fake_quant node's attributes.
QuantSpec spec_of(const Node& node);

/// Tensors whose statistics any placement may ask for: inputs of linears, attention operands, branches of residual
/// adds. (value, channels) with channels 1 for scores.
std::vector<std::pair<ValueId, int64_t>> observed_values(const Graph& graph);

}  // namespace octet
