// Rewrites of a graph, one a file in passes/. Each leaves a graph that verifies and computes the same, unless it says
// otherwise.
#pragma once

#include "graph/graph.h"

namespace octet {

/// Quantizers in state off go. Those that await calibration (no scale, not dynamic) go too when `allow_awaiting`;
/// otherwise they throw invalid_argument with all their names.
void remove_off_quantizers(Graph& graph, bool allow_awaiting);

/// Quantizers that read the same value with equal attributes and equal bytes of scale, zero point and column scale
/// become one: the first keeps its name.
void share_quantizers(Graph& graph);

/// A quantizer of a parameter with a scale becomes a parameter, of the quantizer's name, that holds the quantized and
/// dequantized f32 values: w' = dequantize(quantize(w * c, scale)) / c (core/int8.h). For backends that compute in
/// float.
void fold_weight_quantizers(Graph& graph);

/// What fold_weight_quantizers stores for `quantizer`, a fake_quant of a parameter with a scale.
Tensor folded_weight(const Graph& graph, const Node& quantizer);

/// Whether a fake_quant node computes the identity for want of a scale.
bool awaits_calibration(const Node& node);

}  // namespace octet
