// Signatures of all operations and the type that each makes of its inputs.
#include <array>

#include "core/error.h"
#include "graph/signature.h"

namespace octet {

namespace {

using Kind = AttributeKind;
constexpr AttributeSignature kPositions[] = {{"start", Kind::integer}, {"padding_id", Kind::integer}};
constexpr AttributeSignature kLayerNorm[] = {{"epsilon", Kind::number, true}};
constexpr AttributeSignature kGelu[] = {{"approximate", Kind::text}};
constexpr AttributeSignature kRelativeBias[] = {
    {"length", Kind::integer, true}, {"buckets", Kind::integer, true}, {"max_distance", Kind::integer, true}};
constexpr AttributeSignature kScores[] = {{"heads", Kind::integer, true}, {"scale", Kind::number, true}};
constexpr AttributeSignature kContext[] = {{"heads", Kind::integer, true}};
constexpr AttributeSignature kFakeQuant[] = {{"type", Kind::text, true},  {"lo", Kind::integer, true},
                                             {"hi", Kind::integer, true}, {"axis", Kind::integer},
                                             {"dynamic", Kind::text},     {"state", Kind::text}};

// In the order of the enum.
constexpr std::array<Signature, 17> kSignatures = {{
    {Op::positions, "positions", 2, 2, kPositions},
    {Op::embedding, "embedding", 2, 2, {}},
    {Op::add, "add", 2, 2, {}},
    {Op::layer_norm, "layer_norm", 3, 3, kLayerNorm},
    {Op::linear, "linear", 2, 3, {}},
    {Op::gelu, "gelu", 1, 1, kGelu},
    {Op::relu, "relu", 1, 1, {}},
    {Op::tanh, "tanh", 1, 1, {}},
    {Op::relative_bias, "relative_bias", 1, 1, kRelativeBias},
    {Op::attention_scores, "attention_scores", 3, 4, kScores},
    {Op::softmax, "softmax", 1, 1, {}},
    {Op::attention_context, "attention_context", 3, 3, kContext},
    {Op::select_first, "select_first", 2, 2, {}},
    {Op::pool_mean, "pool_mean", 2, 2, {}},
    {Op::pool_max, "pool_max", 2, 2, {}},
    {Op::normalize, "normalize", 1, 1, {}},
    {Op::fake_quant, "fake_quant", 1, 4, kFakeQuant},
}};

constexpr int64_t kMaxBiasLength = 1 << 20;

/// The checks of one node, with its name in every message.
class Inference {
 public:
  Inference(const Graph& graph, const Node& node) : graph_(graph), node_(node) {}

  ValueType run() {
    check_inputs();
    switch (node_.op) {
      case Op::positions:
        integers(0, "ids");
        offsets(1);
        require(rank(0) == 1, "ids of one dimension");
        return type(0);
      case Op::embedding:
        floats(0, "table");
        integers(1, "indices");
        require(rank(0) == 2 && rank(1) == 1, "a table [V, H] and indices of one dimension");
        return {DType::f32, {type(1).shape[0], type(0).shape[1]}};
      case Op::add:
        floats(0, "a");
        floats(1, "b");
        require(type(0).shape == type(1).shape, "two inputs of one shape");
        return type(0);
      case Op::layer_norm:
        floats(0, "x");
        floats(1, "gamma");
        floats(2, "beta");
        require(rank(0) >= 1 && type(1).shape == Shape{last(0)} && type(2).shape == Shape{last(0)},
                "gamma and beta as wide as x");
        require(node_.number("epsilon", 0.0) >= 0.0, "epsilon >= 0");
        return type(0);
      case Op::linear: return linear();
      case Op::gelu: {
        floats(0, "x");
        std::string approximate = node_.text("approximate", "none");
        require(approximate == "none" || approximate == "tanh", "approximate none or tanh");
        return type(0);
      }
      case Op::relu:
      case Op::tanh: floats(0, "x"); return type(0);
      case Op::relative_bias: return relative_bias();
      case Op::attention_scores: return scores();
      case Op::softmax:
        floats(0, "scores");
        require(rank(0) >= 1, "scores of one or more dimensions");
        return type(0);
      case Op::attention_context: return context();
      case Op::select_first:
      case Op::pool_mean:
      case Op::pool_max:
        floats(0, "x");
        offsets(1);
        require(rank(0) == 2 && type(0).shape[0] == kTokens, "x [tokens, H]");
        return {DType::f32, {kRows, type(0).shape[1]}};
      case Op::normalize:
        floats(0, "x");
        require(rank(0) == 2, "x of two dimensions");
        return type(0);
      case Op::fake_quant: return fake_quant();
    }
    return {};
  }

 private:
  void require(bool condition, const std::string& expected) const {
    if (condition) return;
    std::string got;
    for (ValueId input : node_.inputs)
      got += (got.empty() ? "" : ", ") + (input == kNone ? "none" : to_string(graph_.value(input).type));
    for (const auto& [key, value] : node_.attributes) {
      if (const auto* text = std::get_if<std::string>(&value)) got += ", " + key + " " + *text;
      if (const auto* integer = std::get_if<int64_t>(&value)) got += ", " + key + " " + std::to_string(*integer);
    }
    fail(ErrorCode::invalid_argument,
         {.what = "cannot infer the type of node " + node_.name,
          .expected = "expected " + expected + ", got " + got,
          .where = "operation " + std::string(name(node_.op)) + " in graph " + graph_.name});
  }

  void check_inputs() const {
    const Signature& takes = signature(node_.op);
    auto count = static_cast<ValueId>(graph_.values().size());
    for (ValueId input : node_.inputs)
      if (input != kNone && (input < 0 || input >= count))
        fail(ErrorCode::invalid_argument,
             {.what = "node " + node_.name + " reads a value that does not exist",
              .expected = "value ids below " + std::to_string(count) + ", got " + std::to_string(input)});
    bool enough = node_.inputs.size() <= takes.inputs;
    for (size_t i = 0; i < takes.required_inputs; ++i) enough = enough && node_.input(i) != kNone;
    std::string wanted = std::to_string(takes.required_inputs);
    if (takes.inputs != takes.required_inputs) wanted += " to " + std::to_string(takes.inputs);
    require(enough, wanted + " inputs");
    for (const AttributeSignature& attribute : takes.attributes) {
      auto it = node_.attributes.find(std::string(attribute.key));
      if (it == node_.attributes.end()) {
        require(!attribute.required, "the attribute " + std::string(attribute.key));
        continue;
      }
      bool matches = attribute.kind == Kind::integer  ? std::holds_alternative<int64_t>(it->second)
                     : attribute.kind == Kind::number ? !std::holds_alternative<std::string>(it->second)
                                                      : std::holds_alternative<std::string>(it->second);
      const char* kinds[] = {"an integer", "a number", "text"};
      require(matches,
              std::string(kinds[static_cast<int>(attribute.kind)]) + " as attribute " + std::string(attribute.key));
    }
  }

  const ValueType& type(size_t input) const { return graph_.value(node_.inputs[input]).type; }
  size_t rank(size_t input) const { return type(input).shape.size(); }
  int64_t last(size_t input) const { return type(input).shape.back(); }

  void floats(size_t input, const char* what) const {
    DType dtype = type(input).dtype;
    require(dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16, std::string(what) + " of a float type");
  }
  void integers(size_t input, const char* what) const {
    require(type(input).dtype == DType::s32, std::string(what) + " of type s32");
  }
  void offsets(size_t input) const {
    require(type(input) == ValueType{DType::s32, {kOffsets}}, "offsets s32[offsets]");
  }

  ValueType linear() const {
    floats(0, "x");
    floats(1, "weight");
    require(rank(0) >= 1 && rank(1) == 2 && type(1).shape[1] == last(0), "x [., K] and a weight [N, K]");
    if (node_.input(2) != kNone) {
      floats(2, "bias");
      require(type(2).shape == Shape{type(1).shape[0]}, "a bias [N]");
    }
    ValueType made{DType::f32, type(0).shape};
    made.shape.back() = type(1).shape[0];
    return made;
  }

  int64_t heads(int64_t width) const {
    int64_t heads = node_.integer("heads", 0);
    require(heads > 0 && width > 0 && width % heads == 0, "heads that divide the width " + std::to_string(width));
    return heads;
  }

  ValueType relative_bias() const {
    floats(0, "table");
    int64_t length = node_.integer("length", 0), buckets = node_.integer("buckets", 0);
    require(rank(0) == 2 && buckets <= type(0).shape[0], "a table of a row a bucket");
    require(length >= 1 && length <= kMaxBiasLength, "length 1 to " + std::to_string(kMaxBiasLength));
    // Half of the buckets for each direction, half of those for single distances.
    require(buckets >= 4 && buckets % 2 == 0 && node_.integer("max_distance", 0) > buckets / 4,
            "an even number of buckets, and max_distance over a quarter of it");
    return {DType::f32, {type(0).shape[1], 2 * length - 1}};
  }

  ValueType scores() const {
    floats(0, "q");
    floats(1, "k");
    offsets(2);
    require(rank(0) == 2 && type(0).shape[0] == kTokens && type(0).shape == type(1).shape, "q and k [tokens, H]");
    int64_t heads = this->heads(last(0));
    if (node_.input(3) != kNone) {
      floats(3, "bias");
      const Shape& bias = type(3).shape;
      require((bias.size() == 3 && bias[0] == heads && bias[1] == bias[2]) ||
                  (bias.size() == 2 && bias[0] == heads && bias[1] % 2 == 1),
              "a bias [heads, L, L] or [heads, 2 L - 1]");
    }
    return {DType::f32, {heads, kLength, kLength}};
  }

  ValueType context() const {
    floats(0, "p");
    floats(1, "v");
    offsets(2);
    require(rank(1) == 2 && type(1).shape[0] == kTokens, "v [tokens, H]");
    require(type(0).shape == Shape{heads(last(1)), kLength, kLength}, "p [heads, length, length]");
    return type(1);
  }

  ValueType fake_quant() const {
    floats(0, "x");
    QuantType quant = parse_quant_type(node_.text("type", ""));
    require(quant.bits != 0, "a type s2..s8 or u2..u8");
    int64_t lo = node_.integer("lo", 0), hi = node_.integer("hi", 0);
    int64_t top = (int64_t{1} << (quant.bits - (quant.is_unsigned ? 0 : 1))) - 1;
    require((quant.is_unsigned ? 0 : -top - 1) <= lo && lo < hi && hi <= top, "lo < hi inside the type");
    std::string dynamic = node_.text("dynamic", ""), state = node_.text("state", "on");
    require(dynamic.empty() || dynamic == "token" || dynamic == "row_channel", "dynamic token or row_channel");
    require(dynamic.empty() || node_.input(1) == kNone, "no scale beside dynamic");
    require(state == "on" || state == "off", "state on or off");
    Shape ranges;
    if (node_.attributes.contains("axis")) {
      int64_t axis = node_.integer("axis", 0);
      require(axis >= 0 && axis < static_cast<int64_t>(rank(0)) && type(0).shape[static_cast<size_t>(axis)] >= 0,
              "an axis of known extent");
      ranges = {type(0).shape[static_cast<size_t>(axis)]};
    }
    if (node_.input(1) != kNone)
      require(type(1) == ValueType{DType::f32, ranges}, "a scale " + to_string(ValueType{DType::f32, ranges}));
    if (node_.input(2) != kNone) {
      require(node_.input(1) != kNone, "a scale beside the zero point");
      require(type(2) == ValueType{DType::s32, ranges}, "a zero point " + to_string(ValueType{DType::s32, ranges}));
    }
    if (node_.input(3) != kNone)
      require(rank(0) == 2 && type(3) == ValueType{DType::f32, {last(0)}}, "a column scale f32[K] for a weight [N, K]");
    return type(0);
  }

  const Graph& graph_;
  const Node& node_;
};

}  // namespace

const Signature& signature(Op op) noexcept { return kSignatures[static_cast<size_t>(op)]; }

std::string_view name(Op op) noexcept { return signature(op).name; }

std::optional<Op> parse_op(std::string_view text) noexcept {
  for (const Signature& known : kSignatures)
    if (known.name == text) return known.op;
  return std::nullopt;
}

QuantType parse_quant_type(std::string_view text) noexcept {
  if (text.size() != 2 || (text[0] != 's' && text[0] != 'u') || text[1] < '2' || text[1] > '8') return {};
  return {text[1] - '0', text[0] == 'u'};
}

ValueType infer_type(const Graph& graph, const Node& node) { return Inference(graph, node).run(); }

}  // namespace octet
