// Range selection over the graph's structure.
#include "quant/ranges.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/int8.h"
#include "quant/placement.h"
#include "quant/structure.h"

namespace octet {

namespace {

/// Channels this far below the largest one do not get finer scales: they hold nothing, and the inverse must stay
/// finite.
constexpr float kFloor = 1e-6f;

float with_floor(float value, float largest) { return std::max({value, largest * kFloor, int8::kTinyAmax}); }

float scale_of(float amax, const QuantSpec& spec) {
  return int8::quant_from_amax(amax, spec.bits, spec.is_unsigned, spec.narrow).scale;
}

class Chooser {
 public:
  Chooser(Graph& graph, const Statistics& statistics, const MethodOptions& options)
      : graph_(graph), statistics_(statistics), options_(options) {}

  std::map<std::string, std::string> run() {
    sort_quantizers();
    if (!missing_.empty())
      fail(ErrorCode::invalid_argument, {.what = "cannot choose ranges: the calibration does not cover every quantizer",
                                         .where = missing_,
                                         .hint = "calibrate again with this placement"});
    for (const auto& [value, nodes] : by_value_) tensor(value, nodes);
    for (size_t scores : scores_) query_and_key(scores);
    if (options_.shared_qkv) share_attention_ranges();
    set_weight_ranges(graph_, options_);
    return std::move(how_);
  }

 private:
  const Node& node(size_t index) const { return graph_.node(index); }
  const Method& method_of(const std::string& name) const {
    auto own = options_.methods.find(name);
    return own == options_.methods.end() ? options_.method : own->second;
  }
  bool per_channel(size_t index) const { return node(index).integer("axis", -1) == 1; }

  bool reads(size_t quantizer, Op op, size_t input) const {
    for (size_t user : graph_.users(node(quantizer).output))
      if (node(user).op == op && node(user).input(input) == node(quantizer).output) return true;
    return false;
  }

  void sort_quantizers() {
    for (size_t i = 0; i < graph_.nodes().size(); ++i) {
      if (node(i).op == Op::attention_scores) scores_.push_back(i);
      if (node(i).op != Op::fake_quant || !node(i).text("dynamic", "").empty()) continue;
      ValueId value = node(i).input(0);
      if (graph_.is_parameter(value)) continue;
      QuantSpec spec = spec_of(node(i));
      int64_t maker = graph_.producer(value);
      if (spec.is_unsigned && maker >= 0 && node(static_cast<size_t>(maker)).op == Op::softmax) {
        // Probabilities fill [0, 1] whatever the data.
        set_quantizer_input(graph_, i, 1, Tensor::scalar(1.0f / static_cast<float>(spec.bound())));
        how_[node(i).name] = "fixed";
        continue;
      }
      const std::string& name = graph_.value(value).name;
      const TensorStatistics* found = statistics_.find(name);
      std::string fault;
      if (found == nullptr || found->elements() + found->nonfinite() == 0) fault = "no statistics";
      else if (found->nonfinite() > 0) fault = "NaN or infinite values";
      else if (per_channel(i) && found->width() != graph_.value(value).type.shape.at(1))
        fault = "another number of channels";
      if (!fault.empty()) missing_ += (missing_.empty() ? "" : "\n  ") + node(i).name + " (" + name + "): " + fault;
      by_value_[value].push_back(i);
    }
  }

  const TensorStatistics& statistics(ValueId value) const { return *statistics_.find(graph_.value(value).name); }

  const ReferenceHistogram* reference(ValueId value) const {
    return statistics_.find_reference(graph_.value(value).name);
  }

  float clip(ValueId value, float range) const {
    int64_t maker = graph_.producer(value);
    bool gelu = maker >= 0 && node(static_cast<size_t>(maker)).op == Op::gelu;
    return gelu && options_.gelu_clip > 0.0 ? std::min(range, static_cast<float>(options_.gelu_clip)) : range;
  }

  /// Each channel's range: its maximum, at most the tensor's range, and at least the median of all channels: what
  /// calibration saw of a quiet channel is no bound for what it may do, and resolution beyond the median's gains
  /// nothing. But where what the channel is multiplied with (`other`, by channel) stands out by more than kLoud, its
  /// resolution matters as much more, and the bound falls by as much.
  std::vector<float> channel_ranges(ValueId value, const QuantSpec& spec, const Method& method, std::string* how,
                                    const std::vector<float>& other = {}) const {
    const TensorStatistics& known = statistics(value);
    bool automatic = method.kind == Method::Kind::automatic;
    float limit =
        clip(value, tensor_range(known, reference(value), spec, automatic ? Method{Method::Kind::max} : method, how));
    std::vector<float> ranges = known.channel_amax();
    for (float& range : ranges) range = std::min(range, limit);
    const float middle = median(ranges), usual = other.size() == ranges.size() ? median(other) : 0.0f;
    constexpr float kLoud = 8.0f;
    for (size_t c = 0; c < ranges.size(); ++c) {
      const bool loud = usual > 0.0f && other[c] > kLoud * usual;
      ranges[c] = std::max(ranges[c], loud ? middle * usual / other[c] : middle);
    }
    return ranges;
  }
  static float median(std::vector<float> values) {
    auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  /// All static quantizers of one activation.
  void tensor(ValueId value, const std::vector<size_t>& quantizers) {
    std::map<std::string, std::vector<size_t>> channelled;  // by type: quantizers of one type share a vector
    for (size_t i : quantizers) {
      QuantSpec spec = spec_of(node(i));
      if (!per_channel(i)) {
        std::string how;
        float range =
            clip(value, tensor_range(statistics(value), reference(value), spec, method_of(node(i).name), &how));
        set_quantizer_input(graph_, i, 1, Tensor::scalar(scale_of(range, spec)));
        how_[node(i).name] = how;
      } else if (!reads(i, Op::attention_scores, 0) && !reads(i, Op::attention_scores, 1)) {
        channelled[spec.name() + (spec.narrow ? "n" : "")].push_back(i);
      }
    }
    for (const auto& [type, group] : channelled) channels(value, group);
  }

  void channels(ValueId value, const std::vector<size_t>& group) {
    QuantSpec spec = spec_of(node(group.front()));
    std::string how;
    // Weights whose columns take the vector in.
    std::set<std::string> weights;
    std::vector<float> columns(static_cast<size_t>(statistics(value).width()), 0.0f);
    for (size_t i : group) {
      for (size_t user : graph_.users(node(i).output)) {
        if (node(user).op != Op::linear || node(user).input(0) != node(i).output) continue;
        int64_t quantizer = graph_.producer(node(user).input(1));
        if (quantizer >= 0 && node(static_cast<size_t>(quantizer)).op == Op::fake_quant)
          weights.insert(node(static_cast<size_t>(quantizer)).name);
        std::vector<float> weight = graph_.parameter(behind_quantizers(graph_, node(user).input(1))).to_f32();
        for (size_t w = 0; w < weight.size(); ++w)
          columns[w % columns.size()] = std::max(columns[w % columns.size()], std::fabs(weight[w]));
      }
    }
    if (weights.empty()) columns = columns_behind_attention(group, columns.size());
    std::vector<float> ranges = channel_ranges(value, spec, method_of(node(group.front()).name), &how, columns);
    float largest = *std::max_element(ranges.begin(), ranges.end());
    for (float& range : ranges) range = with_floor(range, largest);
    std::vector<float> vector = ranges;
    if (!weights.empty()) {
      double strength = options_.strength;
      for (size_t i : group)
        if (auto own = options_.strengths.find(node(i).name); own != options_.strengths.end()) strength = own->second;
      float widest = *std::max_element(columns.begin(), columns.end());
      std::vector<double> shape(ranges.size());
      double stretch = 0.0;  // the least factor that lets every channel reach its range
      for (size_t c = 0; c < ranges.size(); ++c) {
        shape[c] = std::pow(static_cast<double>(ranges[c]), strength) /
                   std::pow(static_cast<double>(with_floor(columns[c], widest)), 1.0 - strength);
        stretch = std::max(stretch, static_cast<double>(ranges[c]) / shape[c]);
      }
      for (size_t c = 0; c < ranges.size(); ++c) vector[c] = static_cast<float>(shape[c] * stretch);
      how += ", balanced";
    }
    for (float& range : vector) range /= static_cast<float>(spec.bound());
    Tensor scale = Tensor::from(std::span<const float>(vector), {static_cast<int64_t>(vector.size())});
    for (size_t i : group) {
      set_quantizer_input(graph_, i, 1, scale);
      how_[node(i).name] = how + ", per channel";
    }
    for (const std::string& weight : weights)
      set_quantizer_input(graph_, static_cast<size_t>(graph_.find_node(weight)), 3, scale);
  }

  /// The largest weight that meets each channel of v behind the attention, whose context has v's channels; zeros where
  /// that is unknown.
  std::vector<float> columns_behind_attention(const std::vector<size_t>& group, size_t width) const {
    std::vector<float> columns(width, 0.0f);
    auto take = [&](ValueId value) {
      for (size_t reader : graph_.users(value)) {
        if (node(reader).op != Op::linear || node(reader).input(0) != value) continue;
        const std::vector<float> weight = graph_.parameter(behind_quantizers(graph_, node(reader).input(1))).to_f32();
        for (size_t w = 0; w < weight.size(); ++w)
          columns[w % width] = std::max(columns[w % width], std::fabs(weight[w]));
      }
    };
    for (size_t i : group)
      for (size_t user : graph_.users(node(i).output)) {
        if (node(user).op != Op::attention_context || node(user).input(1) != node(i).output) continue;
        take(node(user).output);
        for (size_t reader : graph_.users(node(user).output))
          if (node(reader).op == Op::fake_quant) take(node(reader).output);
      }
    return columns;
  }

  /// q and k with a scale a channel: within a head the products q scale * k scale are one number, and each channel's
  /// share of it follows its two ranges.
  void query_and_key(size_t scores) {
    const int64_t heads = node(scores).integer("heads", 1);
    struct Side {
      int64_t quantizer = -1;
      QuantSpec spec;
      std::string how;
      std::vector<float> ranges;
    } sides[2];
    for (size_t s = 0; s < 2; ++s) {
      Side& side = sides[s];
      side.quantizer = graph_.producer(node(scores).input(s));
      if (side.quantizer >= 0 && (node(static_cast<size_t>(side.quantizer)).op != Op::fake_quant ||
                                  !per_channel(static_cast<size_t>(side.quantizer)) ||
                                  !node(static_cast<size_t>(side.quantizer)).text("dynamic", "").empty()))
        side.quantizer = -1;
      if (side.quantizer < 0) continue;
      side.spec = spec_of(node(static_cast<size_t>(side.quantizer)));
      const int64_t facing = graph_.producer(node(scores).input(1 - s));
      std::vector<float> other;
      if (facing >= 0 && node(static_cast<size_t>(facing)).op == Op::fake_quant)
        if (const TensorStatistics* seen =
                statistics_.find(graph_.value(node(static_cast<size_t>(facing)).input(0)).name))
          other = seen->channel_amax();
      side.ranges = channel_ranges(node(static_cast<size_t>(side.quantizer)).input(0), side.spec,
                                   method_of(node(scores).name), &side.how, other);
      float largest = *std::max_element(side.ranges.begin(), side.ranges.end());
      for (float& range : side.ranges) range = with_floor(range, largest);
    }
    const bool both = sides[0].quantizer >= 0 && sides[1].quantizer >= 0;
    const auto own_strength = options_.strengths.find(node(scores).name);
    const double share = both && own_strength != options_.strengths.end() ? own_strength->second : 0.5;
    for (size_t s = 0; s < 2; ++s) {
      Side& side = sides[s];
      if (side.quantizer < 0) continue;
      const size_t width = side.ranges.size(), head = width / static_cast<size_t>(heads);
      std::vector<float> scale(width);
      for (size_t begin = 0; begin < width; begin += head) {
        if (share != 0.5) {
          lean_to(share, s == 0, side.ranges, sides[1 - s].ranges, begin, head, side.spec, &scale);
          continue;
        }
        double reach = 0.0;
        for (size_t c = begin; c < begin + head; ++c) {
          double own = side.ranges[c], other = both ? sides[1 - s].ranges[c] : own;
          reach = std::max(reach, std::sqrt(own * other));
        }
        // own / sqrt(own / other) = sqrt(own * other): `reach` is what the widest channel needs.
        for (size_t c = begin; c < begin + head; ++c) {
          double lean =
              both ? std::sqrt(static_cast<double>(side.ranges[c]) / static_cast<double>(sides[1 - s].ranges[c])) : 1.0;
          scale[c] = static_cast<float>(lean * reach / side.spec.bound());
        }
      }
      auto index = static_cast<size_t>(side.quantizer);
      set_quantizer_input(graph_, index, 1, Tensor::from(std::span<const float>(scale), {static_cast<int64_t>(width)}));
      how_[node(index).name] = side.how + (both ? ", balanced" : "") + ", per channel";
    }
  }

  /// The shares of a head's channels where q takes own^share / other^(1 - share), and k the inverse of that.
  static void lean_to(double share, bool query, const std::vector<float>& own, const std::vector<float>& other,
                      size_t begin, size_t count, const QuantSpec& spec, std::vector<float>* scale) {
    auto lean = [&](size_t c) {
      const double q = query ? own[c] : other[c], k = query ? other[c] : own[c];
      const double l = std::pow(q, share) / std::pow(k, 1.0 - share);
      return query ? l : 1.0 / l;
    };
    double reach = 0.0;
    for (size_t c = begin; c < begin + count; ++c) reach = std::max(reach, own[c] / lean(c));
    for (size_t c = begin; c < begin + count; ++c) (*scale)[c] = static_cast<float>(lean(c) * reach / spec.bound());
  }

  void share_attention_ranges() {
    for (const AttentionSite& site : find_structure(graph_).attentions) {
      const Node &scores = node(static_cast<size_t>(graph_.find_node(site.scores))),
                 &context = node(static_cast<size_t>(graph_.find_node(site.context)));
      std::vector<size_t> operands;
      float largest = 0.0f;
      for (ValueId value : {scores.input(0), scores.input(1), context.input(1)}) {
        int64_t quantizer = graph_.producer(value);
        if (quantizer < 0) continue;
        auto index = static_cast<size_t>(quantizer);
        if (node(index).op != Op::fake_quant || per_channel(index) || node(index).input(1) == kNone) continue;
        operands.push_back(index);
        largest = std::max(largest, graph_.parameter(node(index).input(1)).as<float>()[0] *
                                        static_cast<float>(spec_of(node(index)).bound()));
      }
      for (size_t index : operands) {
        set_quantizer_input(graph_, index, 1, Tensor::scalar(scale_of(largest, spec_of(node(index)))));
        how_[node(index).name] += ", shared by q, k and v";
      }
    }
  }

  Graph& graph_;
  const Statistics& statistics_;
  const MethodOptions& options_;
  std::map<ValueId, std::vector<size_t>> by_value_;
  std::vector<size_t> scores_;
  std::map<std::string, std::string> how_;
  std::string missing_;
};

/// Range of some weights that share a scale.
float weight_range(std::span<const float> values, std::vector<float>& scratch, const QuantSpec& spec,
                   const Method& method) {
  float amax = 0.0f;
  for (float value : values) amax = std::max(amax, std::fabs(value));
  if (method.kind == Method::Kind::percentile) {
    scratch.assign(values.begin(), values.end());
    for (float& value : scratch) value = std::fabs(value);
    auto rank = static_cast<int64_t>(std::ceil(method.percent / 100.0 * static_cast<double>(scratch.size()))) - 1;
    auto at = scratch.begin() + std::clamp<int64_t>(rank, 0, static_cast<int64_t>(scratch.size()) - 1);
    std::nth_element(scratch.begin(), at, scratch.end());
    return *at;
  }
  if (method.kind == Method::Kind::mse) {
    constexpr int kSteps = 64;
    double least = HUGE_VAL;
    float best = amax;
    for (int i = kSteps; i >= kSteps / 4; --i) {
      float candidate = amax * static_cast<float>(i) / kSteps;
      int8::Quant quant = int8::quant_from_amax(candidate, spec.bits, spec.is_unsigned, spec.narrow);
      double error = 0.0;
      for (float value : values) {
        float difference = int8::fake_quant(value, quant) - value;
        error += static_cast<double>(difference) * difference;
      }
      if (error < least) least = error, best = candidate;
    }
    return best;
  }
  return amax;
}

}  // namespace

std::string Method::name() const {
  switch (kind) {
    case Kind::max: return "max";
    case Kind::entropy: return "entropy";
    case Kind::mse: return "mse";
    case Kind::automatic: return "auto";
    case Kind::percentile: {
      char buffer[40];
      auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), percent);
      return "percentile:" + std::string(buffer, end);
    }
  }
  return {};
}

Method parse_method(std::string_view text) {
  if (text == "max") return {Method::Kind::max};
  if (text == "entropy") return {Method::Kind::entropy};
  if (text == "mse") return {Method::Kind::mse};
  if (text == "auto") return {Method::Kind::automatic};
  if (text.starts_with("percentile:")) {
    std::string_view digits = text.substr(11);
    double percent = 0.0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), percent);
    if (error == std::errc() && end == digits.data() + digits.size() && percent > 0.0 && percent <= 100.0)
      return {Method::Kind::percentile, percent};
  }
  fail(ErrorCode::invalid_argument, {.what = "there is no calibration method '" + std::string(text) + "'",
                                     .expected = "expected max, percentile:P (0 < P <= 100), entropy, mse or auto"});
}

float tensor_range(const TensorStatistics& statistics, const ReferenceHistogram* reference, const QuantSpec& spec,
                   const Method& method, std::string* how) {
  if (reference != nullptr && method.kind != Method::Kind::max) {
    const Method chosen = method.kind == Method::Kind::automatic ? Method{Method::Kind::percentile, 99.99} : method;
    if (how != nullptr) *how = chosen.name() + ", compatible";
    if (chosen.kind == Method::Kind::entropy) return static_cast<float>(reference->entropy(spec));
    if (chosen.kind == Method::Kind::mse) return static_cast<float>(reference->mse(spec));
    return static_cast<float>(reference->percentile(chosen.percent));
  }
  if (how != nullptr) *how = method.kind == Method::Kind::automatic ? "least error" : method.name();
  switch (method.kind) {
    case Method::Kind::max: return statistics.amax();
    case Method::Kind::percentile: return statistics.percentile(method.percent);
    case Method::Kind::entropy: return statistics.entropy(spec);
    case Method::Kind::mse: return statistics.least_error(spec, 2.0);
    case Method::Kind::automatic: return statistics.least_error(spec, kAutoPower);
  }
  return statistics.amax();
}

void set_quantizer_input(Graph& graph, size_t node, size_t input, Tensor tensor) {
  constexpr const char* kSuffixes[] = {"", ".scale", ".zero_point", ".column_scale"};
  std::string name = graph.node(node).name + kSuffixes[input];
  ValueId value = graph.find_value(name);
  if (value == kNone) value = graph.add_parameter(name, std::move(tensor));
  else graph.set_parameter(value, std::move(tensor));
  graph.set_input(node, input, value);
}

void set_weight_ranges(Graph& graph, const MethodOptions& options) {
  if (options.weights.kind == Method::Kind::entropy || options.weights.kind == Method::Kind::automatic)
    fail(ErrorCode::invalid_argument,
         {.what = "weights have no method " + options.weights.name(), .expected = "expected max, percentile:P or mse"});
  std::vector<float> values, scratch;
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op != Op::fake_quant || !graph.is_parameter(node.input(0)) || !node.text("dynamic", "").empty()) continue;
    values = graph.parameter(node.input(0)).to_f32();
    const Shape shape = graph.value(node.input(0)).type.shape;
    const int64_t axis = node.integer("axis", -1);
    if (axis > 0)
      fail(ErrorCode::invalid_argument, {.what = "cannot quantize the weight of " + node.name,
                                         .expected = "expected axis 0 or none, got " + std::to_string(axis)});
    if (node.input(3) != kNone) {
      std::span<const float> columns = graph.parameter(node.input(3)).as<float>();
      for (size_t w = 0; w < values.size(); ++w) values[w] *= columns[w % columns.size()];
    }
    const QuantSpec spec = spec_of(node);
    const size_t rows = axis == 0 ? static_cast<size_t>(shape.at(0)) : 1, length = rows == 0 ? 0 : values.size() / rows;
    std::vector<float> scales(rows);
    for (size_t row = 0; row < rows; ++row)
      scales[row] =
          scale_of(weight_range(std::span(values).subspan(row * length, length), scratch, spec, options.weights), spec);
    Shape ranges;
    if (axis == 0) ranges.push_back(static_cast<int64_t>(rows));
    set_quantizer_input(graph, i, 1, Tensor::from(std::span<const float>(scales), ranges));
  }
}

std::map<std::string, std::string> choose_ranges(Graph& graph, const Statistics& statistics,
                                                 const MethodOptions& options) {
  return Chooser(graph, statistics, options).run();
}

}  // namespace octet
