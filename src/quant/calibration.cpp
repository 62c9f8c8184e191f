// Calibration as a value: options, stored ranges, merging, the summary.
#include <octet/calibration.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/hash.h"
#include "quant/calibration_state.h"
#include "quant/structure.h"

namespace octet {

namespace {

[[noreturn]] void refuse_option(const char* option, const std::string& expected) {
  fail(ErrorCode::invalid_argument,
       {.what = std::string("cannot calibrate with this ") + option, .expected = "expected " + expected});
}

}  // namespace

PlacementOptions placement_of(const CalibrateOptions& options) {
  PlacementOptions placement;
  placement.placement = parse_placement(options.placement);
  placement.heads = options.quantize_head;
  placement.pooler = options.quantize_pooler;
  placement.float_embeddings = options.float_embeddings;
  placement.probabilities = options.probabilities;
  placement.activations = options.activation_type;
  placement.weights = options.weight_type;
  for (const std::string& type : {options.activation_type, options.weight_type})
    if (parse_quant_spec(type, false).is_unsigned) refuse_option("type", "a signed one, s2 to s8, got " + type);
  if (std::isnan(options.balance) || options.balance > 1.0)
    refuse_option("balance", "0 to 1, or a negative number for the default, got " + std::to_string(options.balance));
  if (!options.probabilities.empty() && options.probabilities != "u8" && options.probabilities != "s8")
    refuse_option("type of probabilities", "u8 or s8, got " + options.probabilities);
  const bool by_default =
      placement.placement == Placement::residual_channel || placement.placement == Placement::residual_float;
  placement.balance = options.balance < 0.0 ? by_default : options.balance > 0.0;
  if (placement.placement == Placement::qdqbert && options.balance > 0.0)
    refuse_option("balance", "0 with placement qdqbert, whose tensors have one scale");
  return placement;
}

MethodOptions method_of(const CalibrateOptions& options, const std::string& method) {
  MethodOptions chosen;
  chosen.method = parse_method(method.empty() ? options.method : method);
  chosen.weights = parse_method(options.weight_method);
  if (chosen.weights.kind == Method::Kind::entropy || chosen.weights.kind == Method::Kind::automatic)
    refuse_option("method for weights", "max, percentile:P or mse, got " + options.weight_method);
  if (options.balance > 0.0) chosen.strength = options.balance;
  if (std::isnan(options.clip_gelu) || options.clip_gelu < 0.0)
    refuse_option("bound of GELU outputs", "0 (none) or more, got " + std::to_string(options.clip_gelu));
  chosen.gelu_clip = options.clip_gelu;
  chosen.shared_qkv = options.share_qkv;
  return chosen;
}

MethodOptions method_of(const Calibration::State& state, const std::string& method) {
  MethodOptions chosen = method_of(state.options, method);
  if (method.empty())
    for (const auto& [name, own] : state.methods) chosen.methods[name] = parse_method(own);
  return chosen;
}

void place_quantizers(Graph& graph, const CalibrateOptions& options) {
  place(graph, placement_of(options));
  for (const auto& [pattern, state] : options.states) {
    if (state != "on" && state != "off") refuse_option("state of quantizers", "on or off, got " + state);
    set_state(graph, pattern, state == "on");
  }
}

std::map<std::string, StoredRange> stored_ranges(const Graph& graph,
                                                 const std::map<std::string, std::string>& methods) {
  std::map<std::string, StoredRange> ranges;
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::fake_quant) continue;
    StoredRange& range = ranges[node.name];
    range.tensor = graph.value(node.input(0)).name;
    range.attributes = node.attributes;
    if (node.input(3) != kNone) range.column_scale = graph.parameter(node.input(3));
    if (graph.is_parameter(node.input(0))) continue;
    if (node.input(1) != kNone) range.scale = graph.parameter(node.input(1));
    if (auto it = methods.find(node.name); it != methods.end()) range.method = it->second;
  }
  return ranges;
}

void apply_ranges(Graph& graph, const std::map<std::string, StoredRange>& ranges, const MethodOptions& options) {
  std::string missing;
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    if (graph.node(i).op != Op::fake_quant) continue;
    const std::string name = graph.node(i).name;
    auto it = ranges.find(name);
    bool weight = graph.is_parameter(graph.node(i).input(0));
    bool known = it != ranges.end() && it->second.tensor == graph.value(graph.node(i).input(0)).name &&
                 (weight || !it->second.scale.empty() || it->second.attributes.contains("dynamic"));
    if (!known) {
      missing += (missing.empty() ? "" : ", ") + name;
      continue;
    }
    graph.node(i).attributes = it->second.attributes;
    if (!it->second.scale.empty() && !weight) set_quantizer_input(graph, i, 1, it->second.scale);
    if (!it->second.column_scale.empty()) set_quantizer_input(graph, i, 3, it->second.column_scale);
  }
  if (!missing.empty())
    fail(ErrorCode::invalid_argument,
         {.what = "the calibration has no range for some quantizers", .where = missing, .hint = "calibrate again"});
  verify(graph);  // what a file says of shapes and types is checked here
  set_weight_ranges(graph, options);
  // Ranges of weights that training froze.
  for (size_t i = 0; i < graph.nodes().size(); ++i)
    if (graph.node(i).op == Op::fake_quant && graph.is_parameter(graph.node(i).input(0)))
      if (const StoredRange& range = ranges.at(graph.node(i).name); !range.scale.empty())
        set_quantizer_input(graph, i, 1, range.scale);
  verify(graph);
}

const std::string& Calibration::model_hash() const noexcept { return state_->model_hash; }
const CalibrateOptions& Calibration::options() const noexcept { return state_->options; }
int64_t Calibration::samples() const noexcept { return state_->samples; }
int64_t Calibration::corrected_biases() const noexcept { return static_cast<int64_t>(state_->biases.size()); }
int64_t Calibration::tokens() const noexcept { return state_->tokens; }

std::vector<Calibration::Range> Calibration::ranges() const {
  std::vector<Range> list;
  auto observed = [&](const std::string& tensor) {
    const TensorStatistics* found = state_->statistics.find(tensor);
    return found == nullptr ? 0.0 : static_cast<double>(found->amax());
  };
  for (const auto& [quantizer, stored] : state_->ranges) {
    if (stored.scale.empty() || quantizer.ends_with("_weight_quantizer")) continue;
    Range range{.quantizer = quantizer, .tensor = stored.tensor, .method = stored.method};
    range.type = std::get<std::string>(stored.attributes.at("type"));
    float largest = 0.0f;
    for (float scale : stored.scale.as<float>()) largest = std::max(largest, scale);
    range.lo = static_cast<double>(std::get<int64_t>(stored.attributes.at("lo"))) * largest;
    range.hi = static_cast<double>(std::get<int64_t>(stored.attributes.at("hi"))) * largest;
    range.observed_amax = observed(stored.tensor);
    range.channels = stored.scale.elements();
    list.push_back(std::move(range));
  }
  if (!state_->ranges.empty()) return list;
  for (const auto& [tensor, statistics] : state_->statistics.tensors())
    list.push_back({.tensor = tensor,
                    .method = "chosen when the model is compiled",
                    .observed_amax = statistics.amax(),
                    .channels = statistics.width()});
  return list;
}

Calibration Calibration::merge(const Calibration& a, const Calibration& b) {
  const State &left = a.state(), &right = b.state();
  auto differ = [](const char* what, const std::string& x, const std::string& y) {
    if (x != y)
      fail(ErrorCode::invalid_argument, {.what = std::string("cannot merge calibrations of different ") + what,
                                         .expected = "got " + x + " and " + y});
  };
  differ("models", left.model_hash, right.model_hash);
  differ("placements", left.options.placement, right.options.placement);
  if (left.options.compatible || right.options.compatible)
    fail(ErrorCode::unsupported, {.what = "cannot merge calibrations in compatible mode",
                                  .expected = "its histograms depend on the order of batches",
                                  .hint = "calibrate on all rows at once"});
  auto merged = std::make_shared<State>(left);
  merged->statistics.merge(right.statistics);
  merged->samples += right.samples;
  merged->tokens += right.tokens;
  merged->data_hash = hex(hash_text(right.data_hash, hash_text(left.data_hash)));
  merged->ranges.clear();
  merged->biases.clear();
  return Calibration(std::move(merged));
}

}  // namespace octet
