// The parts of an encoder graph that quantization knows: linears, attentions, residual adds, embedding tables.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace octet {

enum class Where : uint8_t { encoder, pooler, head };

// Nodes are held by name: inserting quantizers moves indices.
struct LinearSite {
  std::string node;
  Where where = Where::encoder;
};
struct AttentionSite {
  std::string prefix;  ///< "encoder.layer.0.attention.self."
  std::string scores, context;
};
struct ResidualSite {
  std::string prefix;  ///< "encoder.layer.0.attention.output."
  std::string add;
  size_t local = 0;  ///< which input is the branch (made by a linear)
};
struct Structure {
  std::vector<LinearSite> linears;  ///< with a weight that is a parameter
  std::vector<AttentionSite> attentions;
  std::vector<ResidualSite> residuals;
  std::vector<std::string> embeddings;
};

/// Looks through fake_quant nodes, so it finds the same in a graph with quantizers. A linear belongs to the encoder
/// when an attention or a residual add depends on it; the others are the pooler (by name) and heads.
Structure find_structure(const Graph& graph);

/// The value behind quantizers.
ValueId behind_quantizers(const Graph& graph, ValueId value);

}  // namespace octet
