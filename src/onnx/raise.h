// An encoder's ONNX graph becomes octet's graph of coarse operations over ragged batches.
//
// Every value is interpreted: constants and shapes are computed, masks are those of a text without padding, reshapes
// and transposes move axes of a view instead of data, and the arithmetic of LayerNorm, GELU, attention and pooling is
// recognised by what it computes, whatever nodes an exporter spelled it with.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "onnx/file.h"

namespace octet::onnx {

struct Raised {
  octet::Graph graph;
  int64_t max_length = 0;  ///< by position tables, biases or a fixed extent; 0: no bound found
  bool has_mask = false;
  bool question_answering = false;  ///< the output's columns were two outputs: start and end
  std::vector<std::string> notes;   ///< what was understood in a way that a reader should know
};

struct RaiseResult {
  std::optional<Raised> raised;
  std::string obstacle;  ///< why it was not: the node and the reason
};

/// Throws corrupt for graphs that are not valid.
RaiseResult raise(const File& file);

}  // namespace octet::onnx
