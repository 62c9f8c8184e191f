// Calibration files: safetensors with stats/<tensor>.* and range/<quantizer>.*, and the rest as JSON in the metadata.
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "quant/calibration_state.h"

namespace octet {

namespace {

using nlohmann::json;

constexpr int64_t kFormat = 1, kFormatWithBiases = 2;  // older versions must not overlook corrections
constexpr const char* kKey = "octet_calibration";

json to_json(const CalibrateOptions& options) {
  return {{"placement", options.placement},
          {"method", options.method},
          {"balance", options.balance},
          {"samples", options.samples},
          {"max_length", options.max_length},
          {"compatible", options.compatible},
          {"include_padding", options.include_padding},
          {"quantize_head", options.quantize_head},
          {"quantize_pooler", options.quantize_pooler},
          {"float_embeddings", options.float_embeddings},
          {"share_qkv", options.share_qkv},
          {"clip_gelu", options.clip_gelu},
          {"bias_rows", options.bias_rows},
          {"probabilities", options.probabilities},
          {"states", options.states},
          {"activation_type", options.activation_type},
          {"weight_type", options.weight_type},
          {"weight_method", options.weight_method}};
}

CalibrateOptions options_from(const json& object, const std::string& where) {
  CalibrateOptions options;
  options.placement = json_get<std::string>(object, "placement", where);
  options.method = json_get<std::string>(object, "method", where);
  options.balance = json_get<double>(object, "balance", where);
  options.samples = json_get<int64_t>(object, "samples", where);
  options.max_length = json_get<int64_t>(object, "max_length", where);
  options.compatible = json_get<bool>(object, "compatible", where);
  options.include_padding = json_get<bool>(object, "include_padding", where);
  options.quantize_head = json_get<bool>(object, "quantize_head", where);
  options.quantize_pooler = json_get<bool>(object, "quantize_pooler", where);
  options.float_embeddings = json_get<bool>(object, "float_embeddings", where);
  options.share_qkv = json_get<bool>(object, "share_qkv", where);
  options.clip_gelu = json_get<double>(object, "clip_gelu", where);
  options.bias_rows = json_get_or<int64_t>(object, "bias_rows", 0, where);
  options.probabilities = json_get<std::string>(object, "probabilities", where);
  options.activation_type = json_get<std::string>(object, "activation_type", where);
  options.weight_type = json_get<std::string>(object, "weight_type", where);
  options.weight_method = json_get<std::string>(object, "weight_method", where);
  const json states = json_get<json>(object, "states", where);
  for (const json& entry : states) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_string())
      fail(ErrorCode::corrupt, {.what = "unexpected entry in \"states\"", .where = "in " + where});
    options.states.emplace_back(entry[0].get<std::string>(), entry[1].get<std::string>());
  }
  try {
    placement_of(options);
    method_of(options, "");
  } catch (const Error& error) {
    fail(ErrorCode::corrupt, {.what = error.what(), .where = "in " + where});
  }
  return options;
}

json to_json(const Attributes& attributes) {
  json object = json::object();
  for (const auto& [key, value] : attributes) {
    if (const auto* integer = std::get_if<int64_t>(&value)) object[key] = *integer;
    else if (const auto* text = std::get_if<std::string>(&value)) object[key] = *text;
  }
  return object;
}

/// Attributes of a fake_quant node, checked as far as that goes without its graph.
Attributes attributes_from(const json& object, const std::string& where) {
  Attributes attributes;
  attributes["type"] = json_get<std::string>(object, "type", where);
  attributes["lo"] = json_get<int64_t>(object, "lo", where);
  attributes["hi"] = json_get<int64_t>(object, "hi", where);
  if (object.contains("axis")) attributes["axis"] = json_get<int64_t>(object, "axis", where);
  for (const char* key : {"dynamic", "state"})
    if (object.contains(key)) attributes[key] = json_get<std::string>(object, key, where);
  return attributes;
}

template <typename T>
Tensor wide(DType dtype, const std::vector<T>& values) {
  static_assert(sizeof(T) == 8);
  std::byte* bytes = nullptr;
  Tensor tensor = Tensor::allocate(dtype, {static_cast<int64_t>(values.size())}, &bytes);
  if (!values.empty()) std::memcpy(bytes, values.data(), values.size() * 8);
  return tensor;
}

class Reader {
 public:
  Reader(const Safetensors& file, const std::string& where) : file_(file), where_(where) {}

  bool has(const std::string& name) const { return file_.tensors.contains(name); }
  const Tensor& tensor(const std::string& name, DType dtype) const {
    auto it = file_.tensors.find(name);
    if (it == file_.tensors.end())
      fail(ErrorCode::corrupt, {.what = "there is no tensor " + name, .where = "in " + where_});
    if (it->second.dtype() != dtype)
      fail(ErrorCode::corrupt, {.what = "tensor " + name + " has another type",
                                .expected = "expected " + std::string(octet::name(dtype)) + ", got " +
                                            std::string(octet::name(it->second.dtype())),
                                .where = "in " + where_});
    return it->second;
  }
  template <typename T>
  std::vector<T> list(const std::string& name, DType dtype) const {
    const Tensor& found = tensor(name, dtype);
    if (found.shape().size() != 1)
      fail(ErrorCode::corrupt, {.what = "tensor " + name + " is no list", .where = "in " + where_});
    std::vector<T> values(static_cast<size_t>(found.elements()));
    if (!values.empty()) std::memcpy(values.data(), found.data(), values.size() * sizeof(T));
    return values;
  }
  /// A scale: f32, scalar or list, positive or zero, finite.
  Tensor scale(const std::string& name) const {
    const Tensor& found = tensor(name, DType::f32);
    bool valid = found.shape().size() <= 1 && found.elements() > 0;
    if (valid)
      for (float value : found.as<float>()) valid = valid && value >= 0.0f && value <= 3.4e38f;
    if (!valid) fail(ErrorCode::corrupt, {.what = "tensor " + name + " holds no scales", .where = "in " + where_});
    return found;
  }

 private:
  const Safetensors& file_;
  const std::string& where_;
};

}  // namespace

void Calibration::save(const std::filesystem::path& path) const {
  const State& state = *state_;
  std::vector<std::pair<std::string, Tensor>> tensors;
  json stats = json::object(), ranges = json::object();
  for (const auto& [name, statistics] : state.statistics.tensors()) {
    stats[name] = {{"exponent", statistics.bin_exponent()},
                   {"elements", statistics.elements()},
                   {"nonfinite", statistics.nonfinite()}};
    tensors.emplace_back("stats/" + name + ".bins", wide(DType::s64, statistics.bins()));
    tensors.emplace_back("stats/" + name + ".minimum",
                         Tensor::from(std::span<const float>(statistics.minimum()), {statistics.width()}));
    tensors.emplace_back("stats/" + name + ".maximum",
                         Tensor::from(std::span<const float>(statistics.maximum()), {statistics.width()}));
    if (const ReferenceHistogram* reference = state.statistics.find_reference(name)) {
      stats[name]["reference_bins"] = reference->first_bins();
      tensors.emplace_back("stats/" + name + ".reference_counts", wide(DType::s64, reference->counts()));
      tensors.emplace_back("stats/" + name + ".reference_edges", wide(DType::f64, reference->edges()));
    }
  }
  for (const auto& [name, range] : state.ranges) {
    json entry = to_json(range.attributes);
    entry["tensor"] = range.tensor;
    entry["method"] = range.method;
    ranges[name] = std::move(entry);
    if (!range.scale.empty()) tensors.emplace_back("range/" + name + ".scale", range.scale);
    if (!range.column_scale.empty()) tensors.emplace_back("range/" + name + ".column_scale", range.column_scale);
  }
  json biases = json::array();
  for (const auto& [node, correction] : state.biases) {
    biases.push_back(node);
    tensors.emplace_back("bias/" + node, correction);
  }
  json header{{"format", biases.empty() ? kFormat : kFormatWithBiases},
              {"octet", OCTET_VERSION},
              {"model", state.model_hash},
              {"data", state.data_hash},
              {"samples", state.samples},
              {"tokens", state.tokens},
              {"options", to_json(state.options)},
              {"stats", std::move(stats)},
              {"ranges", std::move(ranges)},
              {"biases", std::move(biases)},
              {"methods", state.methods}};
  write_safetensors(path, tensors, {{kKey, header.dump()}});
}

std::shared_ptr<const Calibration::State> parse_calibration(const MappedFile& bytes, const std::string& where) {
  Safetensors file = parse_safetensors(bytes, where);
  auto metadata = file.metadata.find(kKey);
  if (metadata == file.metadata.end())
    fail(ErrorCode::corrupt, {.what = "this is no calibration file",
                              .expected = std::string("expected metadata ") + kKey,
                              .where = "in " + where,
                              .hint = "octet calibrate writes them"});
  const json header = parse_json(metadata->second, where);
  auto format = json_get<int64_t>(header, "format", where);
  if (format != kFormat && format != kFormatWithBiases)
    fail(ErrorCode::unsupported,
         {.what = "cannot read this calibration file",
          .expected =
              "expected format " + std::to_string(kFormatWithBiases) + " or older, got " + std::to_string(format),
          .where = "in " + where,
          .hint = "it was written by octet " + json_get_or<std::string>(header, "octet", "of another version", where)});
  auto state = std::make_shared<Calibration::State>();
  state->model_hash = json_get<std::string>(header, "model", where);
  state->data_hash = json_get<std::string>(header, "data", where);
  state->samples = json_get<int64_t>(header, "samples", where);
  state->tokens = json_get<int64_t>(header, "tokens", where);
  constexpr int64_t kMost = int64_t{1} << 60;  // sums of such counts cannot overflow
  if (state->samples < 0 || state->tokens < 0 || state->samples > kMost || state->tokens > kMost)
    fail(ErrorCode::corrupt, {.what = "a count is out of range", .where = "in " + where});
  state->options = options_from(json_get<json>(header, "options", where), where);

  Reader reader(file, where);
  const json stats = json_get<json>(header, "stats", where), ranges = json_get<json>(header, "ranges", where);
  if (!stats.is_object() || !ranges.is_object())
    fail(ErrorCode::corrupt, {.what = "stats and ranges are no objects", .where = "in " + where});
  for (const auto& [name, entry] : stats.items()) {
    const std::string at = "stats/" + name, here = at + " in " + where;
    auto exponent = json_get<int64_t>(entry, "exponent", here);
    if (exponent < -200 || exponent > 200)
      fail(ErrorCode::corrupt, {.what = "an exponent is out of range", .where = here});
    state->statistics.set(
        name, TensorStatistics::restore(static_cast<int>(exponent), reader.list<uint64_t>(at + ".bins", DType::s64),
                                        json_get<int64_t>(entry, "elements", here),
                                        json_get<int64_t>(entry, "nonfinite", here),
                                        reader.list<float>(at + ".minimum", DType::f32),
                                        reader.list<float>(at + ".maximum", DType::f32), here));
    if (entry.contains("reference_bins"))
      state->statistics.set_reference(
          name, ReferenceHistogram::restore(json_get<int64_t>(entry, "reference_bins", here),
                                            reader.list<int64_t>(at + ".reference_counts", DType::s64),
                                            reader.list<double>(at + ".reference_edges", DType::f64), here));
  }
  for (const auto& [name, entry] : ranges.items()) {
    const std::string at = "range/" + name, here = at + " in " + where;
    StoredRange& range = state->ranges[name];
    range.attributes = attributes_from(entry, here);
    range.tensor = json_get<std::string>(entry, "tensor", here);
    range.method = json_get<std::string>(entry, "method", here);
    if (reader.has(at + ".scale")) range.scale = reader.scale(at + ".scale");
    if (reader.has(at + ".column_scale")) range.column_scale = reader.scale(at + ".column_scale");
  }
  if (header.contains("methods")) {
    const json methods = json_get<json>(header, "methods", where);
    for (const auto& [name, entry] : methods.items()) {
      const auto method = json_get<std::string>(methods, name.c_str(), where);
      try {
        parse_method(method);
      } catch (const Error& error) {
        fail(ErrorCode::corrupt, {.what = error.what(), .where = "methods in " + where});
      }
      state->methods[name] = method;
    }
  }
  if (header.contains("biases")) {
    for (const std::string& node : json_get<std::vector<std::string>>(header, "biases", where)) {
      const Tensor& correction = reader.tensor("bias/" + node, DType::f32);
      bool valid = correction.shape().size() == 1;
      for (float value : correction.as<float>()) valid = valid && std::isfinite(value);
      if (!valid)
        fail(ErrorCode::corrupt, {.what = "tensor bias/" + node + " holds no correction", .where = "in " + where});
      state->biases[node] = correction;
    }
  }
  return state;
}

Calibration Calibration::load(const std::filesystem::path& path) {
  return Calibration(parse_calibration(map_file(path), path.string()));
}

}  // namespace octet
