// A graph becomes an ONNX file, float or QDQ.
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"
#include "onnx/file.h"

namespace octet::onnx {

struct ExportOptions {
  int64_t opset = 13;         ///< 13 to 23; from 17 on LayerNormalization, from 20 on Gelu are one node
  bool int8_weights = false;  ///< quantized weights as int8 initializers (a quarter of the size), not as float + Q
  bool half = false;          ///< float16 weights and products, LayerNorm and softmax in float32; not with quantizers
  std::map<std::string, std::string> metadata;
};

/// Inputs input_ids, attention_mask and token_type_ids (where the graph reads it) are int64 [batch, sequence]; values a
/// token become [batch, sequence, width], values a text [batch, width]. Nodes are called "module.path/Op", initializers
/// like the graph's parameters. Throws unsupported with all quantizers that QDQ cannot express.
File export_graph(const octet::Graph& graph, const ExportOptions& options);

}  // namespace octet::onnx
