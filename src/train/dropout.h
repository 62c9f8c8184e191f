// Where a training pass drops values.
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"

namespace octet::train {

/// Where a forward pass drops values, by name of the value; derived from the graph (dropout_sites).
struct DropoutSites {
  std::map<std::string, double> probability;
};
/// The reference's dropout: after the embeddings' LayerNorm, on the branch of every residual add, on attention
/// probabilities, on the inputs of a classifier.
DropoutSites dropout_sites(const Graph& graph, double hidden, double attention, double classifier);

}  // namespace octet::train
