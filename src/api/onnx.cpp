// Exporting behind the public API.
#include <octet/onnx.h>

#include <nlohmann/json.hpp>

#include "api/state.h"
#include "core/error.h"
#include "graph/passes.h"
#include "onnx/export.h"
#include "quant/quantize.h"

namespace octet {

void export_onnx(const Model& model, const std::filesystem::path& path, const ExportOptions& options) {
  const Model::State& source = model.state();
  Graph graph = source.graph;
  if (options.calibration) {
    if (options.half)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot export a calibrated model in float16", .hint = "leave out the calibration, or float16"});
    quantize_graph(graph, {.calibration = &*options.calibration,
                           .method = options.method,
                           .float_embeddings = options.float_embeddings,
                           .model_hash = source.info.hash});
    remove_off_quantizers(graph, false);
    graph.remove_dead();
  }
  const ModelInfo& info = source.info;
  nlohmann::json facts{{"family", info.family},         {"task", name(info.task)},
                       {"layers", info.layers},         {"heads", info.heads},
                       {"hidden", info.hidden},         {"intermediate", info.intermediate},
                       {"vocabulary", info.vocabulary}, {"max_length", info.max_length},
                       {"labels", info.labels},         {"problem_type", info.problem_type},
                       {"pooling", info.pooling},       {"normalize", info.normalize},
                       {"pad_id", source.pad_id}};
  onnx::ExportOptions how{.opset = options.opset, .int8_weights = options.int8_weights, .half = options.half};
  how.metadata["octet.model"] = facts.dump();
  onnx::write_file(onnx::export_graph(graph, how), path);
}

}  // namespace octet
