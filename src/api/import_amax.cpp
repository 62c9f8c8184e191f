// The `_amax` buffers that pytorch-quantization leaves in a checkpoint, as a calibration of placement qdqbert.
#include <cmath>

#include <octet/import.h>

#include "api/state.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/int8.h"
#include "core/safetensors.h"
#include "hf/pickle.h"
#include "quant/calibration_state.h"
#include "quant/placement.h"
#include "quant/quantize.h"

namespace octet {

Calibration import_amax(const Model& model, const std::filesystem::path& checkpoint) {
  std::map<std::string, Tensor> tensors =
      checkpoint.extension() == ".safetensors" ? read_safetensors(checkpoint).tensors : hf::read_pytorch(checkpoint);
  // By quantizer: a checkpoint may or may not have the family's prefix, and so may the graph.
  std::map<std::string, Tensor> amax;
  auto bare = [](std::string name) {
    for (const char* prefix : {"bert.", "roberta.", "model."})
      if (name.starts_with(prefix)) return name.substr(std::string_view(prefix).size());
    return name;
  };
  for (const auto& [name, tensor] : tensors)
    if (name.ends_with("._amax")) amax[bare(name.substr(0, name.size() - 6))] = tensor;
  if (amax.empty())
    fail(ErrorCode::not_found, {.what = "there are no ranges in " + checkpoint.string(),
                                .expected = "expected tensors that end in ._amax, as pytorch-quantization saves them"});
  auto state = std::make_shared<Calibration::State>();
  state->options = {.placement = "qdqbert", .method = "max", .balance = 0, .float_embeddings = true};
  state->model_hash = model.info().hash;
  state->data_hash = hex(hash_text(checkpoint.filename().string()));
  require_raised(model.state(), "import ranges for");
  Graph placed = model.state().graph;
  place_quantizers(placed, state->options);
  std::string missing, wrong;
  for (const std::string& name : quantizer_names(placed)) {
    auto found = amax.find(bare(name));
    if (found == amax.end()) {  // a quantizer that was disabled has no range
      state->options.states.emplace_back(name, "off");
      continue;
    }
    const auto index = static_cast<size_t>(placed.find_node(name));
    const Node& node = placed.node(index);
    const QuantSpec spec = spec_of(node);
    std::vector<float> scales = found->second.to_f32();
    const bool weight = placed.is_parameter(node.input(0));
    const size_t wanted =
        weight && node.integer("axis", -1) == 0 ? static_cast<size_t>(placed.value(node.input(0)).type.shape.at(0)) : 1;
    bool valid = scales.size() == wanted || (weight && scales.size() == 1);
    for (float& value : scales) {
      valid = valid && std::isfinite(value) && value >= 0;
      value = int8::quant_from_amax(value, spec.bits, spec.is_unsigned, spec.narrow).scale;
    }
    if (!valid) {
      wrong += "\n    " + name + " " + to_string(found->second.shape());
      continue;
    }
    scales.resize(wanted, scales.front());
    amax.erase(found);
    StoredRange& range = state->ranges[name];
    range.tensor = placed.value(node.input(0)).name;
    range.attributes = node.attributes;
    range.method = "imported";
    range.scale = Tensor::from(std::span<const float>(scales),
                               wanted == 1 && !weight ? Shape{} : Shape{static_cast<int64_t>(wanted)});
  }
  if (!wrong.empty() || state->ranges.empty())
    fail(ErrorCode::corrupt, {.what = "the ranges do not fit the model",
                              .expected = wrong.empty() ? "no quantizer of placement qdqbert has one"
                                                        : "finite ranges, one a tensor or row:" + wrong,
                              .where = "in " + checkpoint.string()});
  for (const auto& [pattern, off] : state->options.states) {
    set_state(placed, pattern, false);
    const Node& node = placed.node(static_cast<size_t>(placed.find_node(pattern)));
    StoredRange& range = state->ranges[pattern];
    range.tensor = placed.value(node.input(0)).name;
    range.attributes = node.attributes;
    range.method = "off";
    if (!placed.is_parameter(node.input(0))) range.scale = Tensor::scalar(0.0f);
  }
  return Calibration(std::move(state));
}

}  // namespace octet
