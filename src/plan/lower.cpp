// Region forming: walks the graph in order, absorbs what one kernel computes, and records how each value is stored.
#include "plan/lower.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/int8.h"
#include "graph/passes.h"
#include "graph/relative_bias.h"

namespace octet {

namespace {

using namespace kernels;

// A quantizer's parameters, spread over its channels.
struct QuantInfo {
  DType dtype = DType::s8;
  int32_t lo = -128, hi = 127, zero_point = 0;
  std::string dynamic;
  std::vector<float> scale;  // one value, or one a channel; empty when dynamic
};

class Lowering {
 public:
  Lowering(const Graph& graph, const LowerOptions& options) : graph_(graph), options_(options) {
    float_slot_.resize(graph_.values().size());
    int_slot_.resize(graph_.values().size());
    done_.resize(graph_.nodes().size());
  }

  Program run() {
    for (ValueId input : graph_.inputs()) {
      const Value& value = graph_.value(input);
      Buffer buffer{.value = value.name, .dtype = value.type.dtype};
      buffer.extent = value.type.shape.at(0) == kOffsets ? Extent::offsets : Extent::tokens;
      program_.inputs[value.name] = float_slot_[static_cast<size_t>(input)].buffer = add_buffer(buffer);
    }
    note_limits();
    if (options_.fuse) {
      mark_embedding_regions();
      analyse_attention();
    }
    find_wide();
    for (size_t i = 0; i < graph_.nodes().size(); ++i)
      if (!done_[i]) lower_node(i);
    for (const auto& [name, value] : graph_.outputs()) program_.outputs.emplace_back(name, float_of(value).buffer);
    if (!overflowing_.empty())
      fail(ErrorCode::unsupported, {.what = "cannot compile " + graph_.name + " to FP16",
                                    .expected = "FP16 ends at 65504, these weights go beyond it:" + overflowing_,
                                    .hint = "compile with --precision bf16 or fp32"});
    if (!unsupported_.empty())
      fail(ErrorCode::unsupported, {.what = "cannot compile " + graph_.name + " for " + octet::name(options_.target),
                                    .expected = "no kernel accepts these nodes:" + unsupported_,
                                    .hint = "compile for another device or precision"});
    return std::move(program_);
  }

 private:
  // ------------------------------------------------------------ buffers
  int32_t add_buffer(Buffer buffer) {
    program_.buffers.push_back(std::move(buffer));
    return static_cast<int32_t>(program_.buffers.size()) - 1;
  }

  Buffer describe(ValueId value, DType dtype) const {
    const Value& v = graph_.value(value);
    Buffer buffer{.value = v.name, .dtype = dtype};
    if (const Node* quantizer = quantizer_of(value)) buffer.source = graph_.value(quantizer->input(0)).name;
    const Shape& shape = v.type.shape;
    buffer.extent = shape.at(0) == kTokens ? Extent::tokens : shape.at(0) == kRows ? Extent::rows : Extent::scores;
    buffer.width = buffer.extent == Extent::scores ? shape.at(0) : shape.size() > 1 ? shape.at(1) : 1;
    return buffer;
  }

  DType float_type(ValueId value) const {
    if (graph_.value(value).type.dtype != DType::f32) return graph_.value(value).type.dtype;
    return graph_.is_output(value) || wide_.contains(value) ? DType::f32 : options_.float_type;
  }

  // One attention reads q, k and v in one type.
  void find_wide() {
    if (options_.float_type != DType::f16 || options_.wide.empty()) return;
    for (size_t v = 0; v < graph_.values().size(); ++v)
      if (options_.wide.contains(graph_.value(static_cast<ValueId>(v)).name)) wide_.insert(static_cast<ValueId>(v));
    for (const auto& [scores, a] : attentions_)
      if (a.form != AttentionForm::unfused && (wide_.contains(a.q) || wide_.contains(a.k) || wide_.contains(a.v)))
        wide_.insert({a.q, a.k, a.v});
  }
  // Why a step is in f32 where f16 was asked for.
  std::string wide_note(const Step& step) const {
    for (const Slot& slot : step.outputs) {
      const Buffer& buffer = program_.buffers[static_cast<size_t>(slot.buffer)];
      if (buffer.dtype != DType::f32) continue;
      for (const auto& [value, largest] : options_.wide)
        if (("+" + buffer.value + "+").find("+" + value + "+") != std::string::npos)
          return std::string(kWideNote) + "values up to " +
                 std::to_string(static_cast<int64_t>(std::min(largest, 1e18))) + ", fp16 ends at 65504";
    }
    return "";
  }
  // The value in that type, for kernels whose operands must be alike.
  Slot converted(Slot slot, DType dtype) {
    Buffer buffer = program_.buffers[static_cast<size_t>(slot.buffer)];
    if (buffer.dtype == dtype) return slot;
    ElementwiseDesc desc{.kind = ElementwiseKind::convert, .n = buffer.width, .x = buffer.dtype, .y = dtype};
    Step step{.name = buffer.value + " convert", .desc = desc, .inputs = {slot}};
    buffer.dtype = dtype;
    step.outputs = {Slot{add_buffer(buffer), 0}};
    Slot out = step.outputs[0];
    emit(std::move(step));
    return out;
  }

  Slot make_float(ValueId value) {
    Slot slot{add_buffer(describe(value, float_type(value))), 0};
    float_slot_[static_cast<size_t>(value)] = slot;
    return slot;
  }

  Slot make_int(ValueId value, const QuantInfo& quant) {
    Buffer buffer = describe(value, quant.dtype);
    buffer.row_scale = quant.dynamic == "token";
    buffer.zero_point = quant.zero_point;
    if (!buffer.row_scale) buffer.scale = scale_weight(graph_.value(value).name, quant, buffer.width);
    Slot slot{add_buffer(buffer), 0};
    int_slot_[static_cast<size_t>(value)] = slot;
    return slot;
  }

  // The value as float, dequantized if it only exists in 8 bits.
  Slot float_of(ValueId value) {
    Slot& slot = float_slot_[static_cast<size_t>(value)];
    if (slot.buffer >= 0) return slot;
    Slot source = int_slot_[static_cast<size_t>(value)];
    OCTET_CHECK(source.buffer >= 0, "value " + graph_.value(value).name + " is used before it is made");
    const Buffer from = program_.buffers[static_cast<size_t>(source.buffer)];
    OCTET_CHECK(!from.row_scale && source.column == 0 && from.width == describe(value, DType::f32).width,
                "dequantize of a slice");
    ElementwiseDesc desc{.kind = ElementwiseKind::dequantize, .n = from.width, .x = from.dtype, .y = float_type(value)};
    Step step{.name = graph_.value(value).name + " dequantize",
              .desc = desc,
              .inputs = {source},
              .outputs = {make_float(value)}};
    step.params["scale"] = from.scale;
    step.numbers["zero0"] = from.zero_point;
    emit(std::move(step));
    return float_slot_[static_cast<size_t>(value)];
  }

  // ------------------------------------------------------------ weights
  std::string add_weight(const std::string& name, Tensor tensor) {
    program_.weights.insert_or_assign(name, std::move(tensor));
    return name;
  }
  std::string add_weight(const std::string& name, const std::vector<float>& values) {
    return add_weight(name, Tensor::from(values, {static_cast<int64_t>(values.size())}));
  }
  std::string scale_weight(const std::string& value, const QuantInfo& quant, int64_t width) {
    std::vector<float> scale(static_cast<size_t>(width)), inverse(scale.size());
    for (size_t i = 0; i < scale.size(); ++i) {
      scale[i] = quant.scale[quant.scale.size() == 1 ? 0 : i];
      inverse[i] = int8::inverse(scale[i]);
    }
    add_weight(value + ".inv_scale", inverse);
    return add_weight(value + ".scale", scale);
  }
  std::string float_weight(ValueId value, DType dtype) {
    return float_weight(graph_.value(value).name, graph_.parameter(value), dtype);
  }
  std::string float_weight(const std::string& name, const Tensor& tensor, DType dtype) {
    if (dtype == tensor.dtype()) return add_weight(name, tensor);
    std::vector<float> values = tensor.to_f32();
    if (dtype == DType::f32) return add_weight(name, Tensor::from(values, tensor.shape()));
    std::byte* bytes = nullptr;
    Tensor half = Tensor::allocate(dtype, tensor.shape(), &bytes);
    auto* out = reinterpret_cast<uint16_t*>(bytes);
    float largest = 0;
    for (float v : values) largest = std::isfinite(v) ? std::max(largest, std::fabs(v)) : largest;
    if (dtype == DType::f16 && largest > 65504.0f)
      overflowing_ += "\n    " + name + " (up to " + std::to_string(static_cast<int64_t>(largest)) + ")";
    for (size_t i = 0; i < values.size(); ++i)
      out[i] = dtype == DType::f16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
    return add_weight(name + "." + std::string(octet::name(dtype)), half);
  }

  // ------------------------------------------------------------ quantizers
  const Node* node_of(ValueId value) const {
    int64_t index = value == kNone ? -1 : graph_.producer(value);
    return index < 0 ? nullptr : &graph_.nodes()[static_cast<size_t>(index)];
  }
  const Node* quantizer_of(ValueId value) const {
    const Node* node = node_of(value);
    return node != nullptr && node->op == Op::fake_quant ? node : nullptr;
  }

  QuantInfo info(const Node& node) const {
    QuantInfo quant;
    std::string type = node.text("type", "s8");
    quant.dtype = type[0] == 'u' ? DType::u8 : DType::s8;
    quant.lo = static_cast<int32_t>(node.integer("lo", -128));
    quant.hi = static_cast<int32_t>(node.integer("hi", 127));
    quant.dynamic = node.text("dynamic", "");
    if (node.input(1) != kNone) quant.scale = graph_.parameter(node.input(1)).to_f32();
    if (node.input(2) != kNone) {
      auto zeros = graph_.parameter(node.input(2)).as<int32_t>();
      quant.zero_point = zeros.empty() ? 0 : zeros[0];
      for (int32_t zero : zeros)
        if (zero != quant.zero_point)
          fail(ErrorCode::unsupported, {.what = "cannot compile quantizer " + node.name,
                                        .expected = "expected one zero point, got one a channel",
                                        .hint = "quantize symmetrically"});
    }
    if (options_.fuse && quant.dynamic.empty() && quant.scale.empty())
      fail(ErrorCode::invalid_argument,
           {.what = "cannot compile: quantizer " + node.name + " has no range",
            .hint = "calibrate the model first, or compile without a calibration for dynamic ranges"});
    return quant;
  }

  static void set_requant(Step& step, int output, const QuantInfo& quant, const std::string& inv_scale) {
    std::string index = std::to_string(output);
    step.params["inv_scale" + index] = inv_scale;
    step.numbers["zero" + index] = quant.zero_point;
    step.numbers["lo" + index] = quant.lo;
    step.numbers["hi" + index] = quant.hi;
  }

  // The only reader of `value` when it is a static quantizer and the float itself is not needed.
  const Node* only_static_quantizer(ValueId value) const {
    std::vector<size_t> users = graph_.users(value);
    if (users.size() != 1 || graph_.is_output(value)) return nullptr;
    const Node& user = graph_.nodes()[users[0]];
    if (user.op != Op::fake_quant || !info(user).dynamic.empty()) return nullptr;
    return &user;
  }

  const Node* only_user(ValueId value, Op op) const {
    std::vector<size_t> users = graph_.users(value);
    if (users.size() != 1 || graph_.is_output(value)) return nullptr;
    const Node& user = graph_.nodes()[users[0]];
    return user.op == op ? &user : nullptr;
  }

  void mark_done(const Node& node) { done_[static_cast<size_t>(graph_.producer(node.output))] = true; }

  // ------------------------------------------------------------ emitting
  void emit(Step step) {
    if (std::string note = wide_note(step); !note.empty()) step.note = note;
    std::visit([&](const auto& desc) { choose(step, desc); }, step.desc);
    program_.steps.push_back(std::move(step));
  }
  template <typename Kernel>
  void choose_from(Step& step, std::span<const Kernel> table, const typename Kernel::Desc& desc) {
    const Kernel* row = kernels::find(table, desc, options_.target, &step.refused, symmetric(step));
    if (row == nullptr) {
      unsupported_ += "\n    " + step.name;
      for (const Refusal& refusal : step.refused)
        unsupported_ += " [" + std::string(refusal.kernel) + ": " + refusal.reason + "]";
    } else {
      step.kernel = row->name;
    }
  }
  void choose(Step& step, const GemmDesc& d) { choose_from(step, gemm_kernels(), d); }
  void choose(Step& step, const AttentionDesc& d) { choose_from(step, attention_kernels(), d); }
  void choose(Step& step, const NormDesc& d) { choose_from(step, norm_kernels(), d); }
  void choose(Step& step, const EmbedDesc& d) { choose_from(step, embed_kernels(), d); }
  void choose(Step& step, const PoolDesc& d) { choose_from(step, pool_kernels(), d); }
  void choose(Step& step, const ElementwiseDesc& d) { choose_from(step, elementwise_kernels(), d); }
  void choose(Step& step, const ScoresDesc& d) { choose_from(step, scores_kernels(), d); }
  void choose(Step& step, const PositionsDesc&) { step.kernel = "positions"; }

  // ------------------------------------------------------------ nodes
  void note_limits() {
    for (const Node& node : graph_.nodes()) {
      if (node.op != Op::embedding) continue;
      ValueId table = node.input(0);
      if (const Node* quantizer = quantizer_of(table)) table = quantizer->input(0);
      int64_t rows = graph_.value(table).type.shape.at(0);
      const Node* source = node_of(node.input(1));
      const std::string& index = graph_.value(node.input(1)).name;
      if (source != nullptr && source->op == Op::positions) program_.positions = rows - source->integer("start", 0);
      else if (index == "type_ids") program_.types = rows;
      else if (index == "ids") program_.vocabulary = rows;
    }
  }

  void lower_node(size_t index) {
    const Node& node = graph_.nodes()[index];
    done_[index] = true;
    switch (node.op) {
      case Op::positions: {
        Step step{
            .name = node.name,
            .desc = PositionsDesc{.start = node.integer("start", 0), .padding_id = node.integer("padding_id", -1)},
            .inputs = {float_of(node.input(0)), float_of(node.input(1))}};
        step.outputs = {make_float(node.output)};
        return emit(std::move(step));
      }
      case Op::embedding: return lower_embedding({&node}, nullptr);
      case Op::linear: return lower_linear(node);
      case Op::layer_norm: return lower_norm(node);
      case Op::relative_bias: return;  // the attention that reads it has its values as a weight
      case Op::attention_scores: return lower_attention(node);
      case Op::softmax: return lower_scores(node, ScoresKind::softmax);
      case Op::attention_context: return lower_scores(node, ScoresKind::context);
      case Op::select_first: return lower_pool(node, PoolKind::first);
      case Op::pool_mean: return lower_pool(node, PoolKind::mean);
      case Op::pool_max: return lower_pool(node, PoolKind::max);
      case Op::fake_quant: return lower_quantizer(node);
      case Op::gelu:
      case Op::relu:
      case Op::tanh:
      case Op::add:
      case Op::normalize: return lower_elementwise(node);
    }
  }

  static Activation activation_of(const Node& node) {
    if (node.op == Op::relu) return Activation::relu;
    if (node.op == Op::tanh) return Activation::tanh;
    return node.text("approximate", "none") == "tanh" ? Activation::gelu_tanh : Activation::gelu_erf;
  }

  void lower_elementwise(const Node& node) {
    Buffer shape = describe(node.output, DType::f32);
    ElementwiseDesc desc{.n = shape.width};
    Step step{.name = node.name};
    for (ValueId input : node.inputs) step.inputs.push_back(float_of(input));
    // Where one operand needs f32, both do.
    for (const Slot& slot : step.inputs) {
      DType dtype = program_.buffers[static_cast<size_t>(slot.buffer)].dtype;
      if (&slot == &step.inputs[0] || dtype == DType::f32) desc.x = dtype;
    }
    if (step.inputs.size() > 1 && node.op == Op::add)
      for (Slot& slot : step.inputs) slot = converted(slot, desc.x);
    else desc.x = program_.buffers[static_cast<size_t>(step.inputs[0].buffer)].dtype;
    step.outputs = {make_float(node.output)};
    desc.y = program_.buffers[static_cast<size_t>(step.outputs[0].buffer)].dtype;
    if (node.op == Op::add) desc.kind = ElementwiseKind::add;
    else if (node.op == Op::normalize) desc.kind = ElementwiseKind::normalize;
    else desc.kind = ElementwiseKind::activation, desc.activation = activation_of(node);
    step.desc = desc;
    emit(std::move(step));
  }

  // A quantizer that no region took: a step of its own.
  void lower_quantizer(const Node& node) {
    if (graph_.is_parameter(node.input(0))) return;  // its reader quantizes the weight
    QuantInfo quant = info(node);
    if (options_.fuse && strided_.contains(node.input(0)) && !quant.dynamic.empty())
      return;  // the attention kernel does it
    bool awaiting = quant.dynamic.empty() && quant.scale.empty();
    if (awaiting) {
      float_slot_[static_cast<size_t>(node.output)] = float_of(node.input(0));
      return;
    }
    Buffer shape = describe(node.output, DType::f32);
    Step step{.name = node.name, .inputs = {float_of(node.input(0))}};
    ElementwiseDesc desc{.n = shape.extent == Extent::scores ? 1 : shape.width};
    desc.x = program_.buffers[static_cast<size_t>(step.inputs[0].buffer)].dtype;
    bool integer = options_.fuse && shape.extent != Extent::scores && quant.dynamic != "row_channel";
    if (integer) {
      desc.kind = quant.dynamic.empty() ? ElementwiseKind::quantize : ElementwiseKind::quantize_token;
      desc.y = quant.dtype;
      step.outputs = {make_int(node.output, quant)};
      if (quant.dynamic.empty()) set_requant(step, 0, quant, graph_.value(node.output).name + ".inv_scale");
    } else {
      desc.kind = quant.dynamic == "token"         ? ElementwiseKind::fake_quant_token
                  : quant.dynamic == "row_channel" ? ElementwiseKind::fake_quant_row_channel
                                                   : ElementwiseKind::fake_quant;
      if (quant.dynamic.empty()) {
        step.params["scale"] = scale_weight(node.name, quant, desc.n);
        set_requant(step, 0, quant, node.name + ".inv_scale");
      }
      step.outputs = {make_float(node.output)};
      desc.y = float_type(node.output);
    }
    step.desc = desc;
    emit(std::move(step));
  }

  // ------------------------------------------------------------ linear
  // Why the product cannot be computed in integers; empty when it can. `ratio` = input scale over column scale.
  std::string integer_obstacle(const Node& node, float* ratio) const {
    const Node* xq = quantizer_of(node.input(0));
    const Node* wq = quantizer_of(node.input(1));
    if (!options_.fuse) return "not fused";
    if (xq == nullptr && wq == nullptr) return "not quantized by the placement";
    if (xq == nullptr) return "its input is not quantized";
    if (wq == nullptr) return "its weight is not quantized";
    QuantInfo x = info(*xq), w = info(*wq);
    if (!w.dynamic.empty() || x.dynamic == "row_channel") return "its quantizers have no integer form";
    if (w.zero_point != 0 || w.dtype != DType::s8) return "its weight has a zero point";
    std::vector<float> columns;
    if (wq->input(3) != kNone) columns = graph_.parameter(wq->input(3)).to_f32();
    *ratio = 1.0f;
    if (!x.dynamic.empty()) return columns.empty() ? "" : "a dynamic input cannot carry column scales";
    size_t k = std::max(columns.size(), x.scale.size());
    for (size_t i = 0; i < k; ++i) {
      float s = x.scale[x.scale.size() == 1 ? 0 : i], c = columns.empty() ? 1.0f : columns[columns.size() == 1 ? 0 : i];
      float r = s / c;
      if (i == 0) *ratio = r;
      else if (!(std::fabs(r - *ratio) <= 1e-5f * std::fabs(*ratio)))
        return "its input has a scale a channel that is not folded into the weight";
    }
    return "";
  }

  struct Part {  // one linear of a merged product
    const Node* node;
    const Node* activation;  // absorbed, or null
    const Node* quantizer;   // absorbed static quantizer of the result, or null
    ValueId result;          // value before the quantizer
  };

  Part part_of(const Node& node) const {
    Part part{&node, nullptr, nullptr, node.output};
    if (!options_.fuse) return part;
    for (Op op : {Op::gelu, Op::relu, Op::tanh})
      if (const Node* user = only_user(part.result, op)) {
        part.activation = user;
        part.result = user->output;
        break;
      }
    return part;
  }

  // Whether the result may be a slice of a wider buffer: only fused attention reads it.
  bool mergeable(const Part& part) const {
    ValueId stored = part.quantizer != nullptr ? part.quantizer->output : part.result;
    return options_.fuse && part.activation == nullptr && strided_.contains(stored);
  }

  void lower_linear(const Node& node) {
    float ratio = 1.0f;
    std::string obstacle = integer_obstacle(node, &ratio);
    bool integer = obstacle.empty();
    std::vector<Part> parts{part_of(node)};
    if (integer || options_.fuse) parts[0].quantizer = only_static_quantizer(parts[0].result);
    if (!integer) parts[0].quantizer = nullptr;  // float products have float results
    if (mergeable(parts[0])) {
      // Siblings that read the same input and store their results alike become one product.
      for (size_t user : graph_.users(node.input(0))) {
        const Node& other = graph_.nodes()[user];
        if (other.op != Op::linear || done_[user] || &other == &node || other.input(0) != node.input(0)) continue;
        if ((other.input(2) == kNone) != (node.input(2) == kNone)) continue;
        float other_ratio = 1.0f;
        if (integer_obstacle(other, &other_ratio).empty() != integer || (integer && other_ratio != ratio)) continue;
        Part part = part_of(other);
        if (integer) part.quantizer = only_static_quantizer(part.result);
        if (!mergeable(part) || (part.quantizer == nullptr) != (parts[0].quantizer == nullptr)) continue;
        if (part.quantizer != nullptr) {
          QuantInfo a = info(*part.quantizer), b = info(*parts[0].quantizer);
          if (a.dtype != b.dtype || a.lo != b.lo || a.hi != b.hi || a.zero_point != b.zero_point) continue;
        }
        parts.push_back(part);
      }
    }
    emit_linear(parts, integer, ratio, obstacle);
  }

  void emit_linear(const std::vector<Part>& parts, bool integer, float ratio, const std::string& obstacle) {
    const Node& first = *parts[0].node;
    GemmDesc desc;
    desc.bias = first.input(2) != kNone;
    if (parts[0].activation != nullptr) desc.activation = activation_of(*parts[0].activation);
    Step step;
    std::string prefix;
    for (const Part& part : parts) {
      desc.n += graph_.value(part.node->output).type.shape.at(1);
      prefix += (prefix.empty() ? "" : "+") + part.node->name;
      mark_done(*part.node);
      if (part.activation != nullptr) mark_done(*part.activation);
      if (part.quantizer != nullptr) mark_done(*part.quantizer);
    }
    step.name = prefix;

    if (integer) {
      const Node& xq = *quantizer_of(first.input(0));
      Slot x = int_slot_[static_cast<size_t>(xq.output)];
      OCTET_CHECK(x.buffer >= 0, "quantized input of " + first.name + " was not made");
      step.inputs = {x};
      const Buffer& from = program_.buffers[static_cast<size_t>(x.buffer)];
      desc.x = from.dtype;
      desc.k = graph_.value(first.input(0)).type.shape.at(1);
      desc.w = DType::s8;
      desc.row_scale = from.row_scale;
      desc.column_offset = from.zero_point != 0;
      quantize_weights(parts, prefix, ratio, from.zero_point, desc, step);
    } else {
      step.inputs = {float_of(first.input(0))};
      desc.x = program_.buffers[static_cast<size_t>(step.inputs[0].buffer)].dtype;
      desc.w = desc.x;
      desc.k = graph_.value(first.input(0)).type.shape.at(1);
      if (options_.fuse) step.note = obstacle;
      desc.exact = options_.exact;
      concatenate_weights(parts, prefix, desc, step);
    }
    if (desc.bias) {
      std::vector<float> bias;
      for (const Part& part : parts) {
        std::vector<float> values = graph_.parameter(part.node->input(2)).to_f32();
        bias.insert(bias.end(), values.begin(), values.end());
      }
      step.params["bias"] = add_weight(prefix + ".bias", bias);
    }

    // The result: one buffer that the parts share, column after column.
    Buffer result = describe(parts[0].result, DType::f32);
    result.width = desc.n;
    result.value.clear();
    QuantInfo merged;
    merged.scale.clear();
    for (const Part& part : parts) {
      ValueId stored = part.quantizer != nullptr ? part.quantizer->output : part.result;
      result.value += (result.value.empty() ? "" : "+") + graph_.value(stored).name;
      if (part.quantizer == nullptr) continue;
      result.source += (result.source.empty() ? "" : "+") + graph_.value(part.result).name;
      QuantInfo quant = info(*part.quantizer);
      int64_t width = graph_.value(stored).type.shape.at(1);
      std::vector<float> scale = quant.scale;
      if (scale.size() == 1) scale.assign(static_cast<size_t>(width), quant.scale[0]);
      scale.insert(scale.begin(), merged.scale.begin(), merged.scale.end());
      merged = quant;
      merged.scale = std::move(scale);
    }
    bool quantized = parts[0].quantizer != nullptr;
    result.dtype = quantized ? merged.dtype : float_type(parts[0].result);
    for (const Part& part : parts)
      if (!quantized && float_type(part.result) == DType::f32) result.dtype = DType::f32;
    if (quantized) {
      result.zero_point = merged.zero_point;
      result.scale = scale_weight(result.value, merged, desc.n);
      set_requant(step, 0, merged, result.value + ".inv_scale");
    }
    desc.y = result.dtype;
    int32_t buffer = add_buffer(result);
    step.outputs = {Slot{buffer, 0}};
    int64_t column = 0;
    for (const Part& part : parts) {
      if (quantized) int_slot_[static_cast<size_t>(part.quantizer->output)] = {buffer, column};
      else float_slot_[static_cast<size_t>(part.result)] = {buffer, column};
      column += graph_.value(part.result).type.shape.at(1);
    }
    step.desc = desc;
    emit(std::move(step));
  }

  void quantize_weights(const std::vector<Part>& parts, const std::string& prefix, float ratio, int32_t x_zero,
                        const GemmDesc& desc, Step& step) {
    std::byte* bytes = nullptr;
    Tensor tensor = Tensor::allocate(DType::s8, {desc.n, desc.k}, &bytes);
    auto* out = reinterpret_cast<int8_t*>(bytes);
    std::vector<float> scale;
    std::vector<int32_t> offset;
    for (const Part& part : parts) {
      const Node& wq = *quantizer_of(part.node->input(1));
      QuantInfo quant = info(wq);
      std::vector<float> weight = graph_.parameter(wq.input(0)).to_f32();
      std::vector<float> columns;
      if (wq.input(3) != kNone) columns = graph_.parameter(wq.input(3)).to_f32();
      int64_t rows = graph_.value(wq.input(0)).type.shape.at(0);
      for (int64_t n = 0; n < rows; ++n) {
        float s = quant.scale[quant.scale.size() == 1 ? 0 : static_cast<size_t>(n)], inverse = int8::inverse(s);
        int32_t sum = 0;
        for (int64_t k = 0; k < desc.k; ++k) {
          float value = weight[static_cast<size_t>(n * desc.k + k)];
          if (!columns.empty()) value *= columns[columns.size() == 1 ? 0 : static_cast<size_t>(k)];
          int32_t q = int8::quantize(value, inverse, 0, quant.lo, quant.hi);
          sum += q;
          *out++ = static_cast<int8_t>(q);
        }
        scale.push_back(s * ratio);
        offset.push_back(sum * x_zero);
      }
    }
    step.params["w"] = add_weight(prefix + ".weight", tensor);
    step.params["scale"] = add_weight(prefix + ".scale", scale);
    if (desc.column_offset)
      step.params["column_offset"] =
          add_weight(prefix + ".column_offset", Tensor::from(offset, {static_cast<int64_t>(offset.size())}));
  }

  void concatenate_weights(const std::vector<Part>& parts, const std::string& prefix, const GemmDesc& desc,
                           Step& step) {
    std::vector<std::string> names;
    for (const Part& part : parts) {
      ValueId weight = part.node->input(1);
      // A quantized weight of a float product: the value that the quantizer would give.
      const Node* quantizer = quantizer_of(weight);
      std::string name = quantizer != nullptr
                             ? float_weight(graph_.value(weight).name, folded_weight(graph_, *quantizer), desc.w)
                             : float_weight(weight, desc.w);
      if (parts.size() == 1) {
        step.params["w"] = name;
        return;
      }
      names.push_back(name);
    }
    std::byte* bytes = nullptr;
    Tensor tensor = Tensor::allocate(desc.w, {desc.n, desc.k}, &bytes);
    for (const std::string& name : names) {
      const Tensor& part = program_.weights.at(name);
      std::copy(part.data(), part.data() + part.bytes(), bytes);
      bytes += part.bytes();
    }
    for (const std::string& name : names) program_.weights.erase(name);
    step.params["w"] = add_weight(prefix + ".weight", tensor);
  }

  // ------------------------------------------------------------ norm and embeddings
  // Outputs of a region that may store one value twice: float where someone needs it, and one 8-bit form.
  void set_outputs(Step& step, ValueId value, int* count, OutputDesc* outputs) {
    std::vector<const Node*> quantizers;
    bool needs_float = graph_.is_output(value) || !options_.fuse;
    for (size_t user : graph_.users(value)) {
      const Node& node = graph_.nodes()[user];
      if (options_.fuse && node.op == Op::fake_quant && info(node).dynamic != "row_channel")
        quantizers.push_back(&node);
      else needs_float = true;
    }
    if (quantizers.size() > (needs_float ? 1u : 2u)) {
      needs_float = true;
      quantizers.resize(1);
    }
    *count = 0;
    if (needs_float || quantizers.empty()) {
      Slot slot = make_float(value);
      step.outputs.push_back(slot);
      outputs[(*count)++] = {program_.buffers[static_cast<size_t>(slot.buffer)].dtype, false};
    }
    for (const Node* node : quantizers) {
      QuantInfo quant = info(*node);
      step.outputs.push_back(make_int(node->output, quant));
      if (quant.dynamic.empty()) set_requant(step, *count, quant, graph_.value(node->output).name + ".inv_scale");
      outputs[(*count)++] = {quant.dtype, quant.dynamic == "token"};
      mark_done(*node);
    }
  }

  // An operand of a fused region: 8-bit with static scales when it exists so, else float.
  Slot operand(ValueId value, DType* dtype, Step& step, const char* scale_role, const char* zero_number) {
    Slot slot = int_slot_[static_cast<size_t>(value)];
    if (slot.buffer >= 0) {
      const Buffer& buffer = program_.buffers[static_cast<size_t>(slot.buffer)];
      if (!buffer.row_scale && slot.column == 0) {
        *dtype = buffer.dtype;
        step.params[scale_role] = buffer.scale;
        step.numbers[zero_number] = buffer.zero_point;
        return slot;
      }
    }
    slot = float_of(value);
    *dtype = program_.buffers[static_cast<size_t>(slot.buffer)].dtype;
    return slot;
  }

  void lower_norm(const Node& node) {
    auto region = embedding_regions_.find(node.output);
    if (region != embedding_regions_.end()) return lower_embedding(region->second, &node);
    NormDesc desc{.n = graph_.value(node.output).type.shape.at(1)};
    Step step{.name = node.name};
    const Node* add = options_.fuse ? node_of(node.input(0)) : nullptr;
    if (add != nullptr && add->op == Op::add && deferred_adds_.contains(add->output)) {
      desc.residual = true;
      step.inputs = {operand(add->input(0), &desc.a, step, "a_scale", "a_zero"),
                     operand(add->input(1), &desc.b, step, "b_scale", "b_zero")};
    } else {
      step.inputs = {operand(node.input(0), &desc.a, step, "a_scale", "a_zero")};
    }
    step.params["gamma"] = float_weight(node.input(1), DType::f32);
    step.params["beta"] = float_weight(node.input(2), DType::f32);
    step.numbers["epsilon"] = node.number("epsilon", 1e-12);
    set_outputs(step, node.output, &desc.outputs, desc.y);
    step.desc = desc;
    emit(std::move(step));
  }

  // Before anything is lowered: adds that only a LayerNorm reads wait for it, and so do sums of embeddings.
  void mark_embedding_regions() {
    for (const Node& node : graph_.nodes()) {
      if (node.op != Op::layer_norm) continue;
      const Node* add = node_of(node.input(0));
      if (add == nullptr || only_user(add->output, Op::layer_norm) == nullptr) continue;
      std::vector<const Node*> leaves, adds;
      if (collect_embeddings(*add, &leaves, &adds) && leaves.size() <= kMaxTables) {
        for (const Node* inner : leaves) mark_done(*inner);
        for (const Node* inner : adds) mark_done(*inner);
        embedding_regions_[node.output] = leaves;
      } else if (add->op == Op::add) {
        mark_done(*add);
        deferred_adds_.insert(add->output);
      }
    }
  }
  bool collect_embeddings(const Node& node, std::vector<const Node*>* leaves, std::vector<const Node*>* adds) const {
    if (graph_.users(node.output).size() != 1 || graph_.is_output(node.output)) return false;
    if (node.op == Op::embedding) return leaves->push_back(&node), true;
    if (node.op != Op::add) return false;
    adds->push_back(&node);
    for (ValueId input : node.inputs) {
      const Node* inner = node_of(input);
      if (inner == nullptr || !collect_embeddings(*inner, leaves, adds)) return false;
    }
    return true;
  }

  void lower_embedding(const std::vector<const Node*>& leaves, const Node* norm) {
    const Node& last = norm != nullptr ? *norm : *leaves[0];
    EmbedDesc desc{.n = graph_.value(last.output).type.shape.at(1),
                   .tables = static_cast<int>(leaves.size()),
                   .norm = norm != nullptr};
    Step step;
    for (size_t t = 0; t < leaves.size(); ++t) {
      const Node& node = *leaves[t];
      step.name += (t ? "+" : "") + node.name;
      std::string role = std::to_string(t);
      step.inputs.push_back(float_slot_[static_cast<size_t>(node.input(1))]);
      ValueId table = node.input(0);
      const Node* quantizer = quantizer_of(table);
      if (quantizer != nullptr && options_.fuse) {
        desc.table[t] = DType::s8;
        quantize_table(*quantizer, role, step);
      } else {
        desc.table[t] = options_.float_type;
        step.params["table" + role] = float_weight(table, desc.table[t]);
      }
    }
    if (norm != nullptr) {
      step.name += "+" + norm->name;
      step.params["gamma"] = float_weight(norm->input(1), DType::f32);
      step.params["beta"] = float_weight(norm->input(2), DType::f32);
      step.numbers["epsilon"] = norm->number("epsilon", 1e-12);
    }
    set_outputs(step, last.output, &desc.outputs, desc.y);
    step.desc = desc;
    emit(std::move(step));
  }

  void quantize_table(const Node& quantizer, const std::string& role, Step& step) {
    QuantInfo quant = info(quantizer);
    const Tensor& table = graph_.parameter(quantizer.input(0));
    std::vector<float> values = table.to_f32();
    std::byte* bytes = nullptr;
    Tensor tensor = Tensor::allocate(DType::s8, table.shape(), &bytes);
    auto* out = reinterpret_cast<int8_t*>(bytes);
    int64_t rows = table.dim(0), width = table.dim(1);
    std::vector<float> scale(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) {
      scale[static_cast<size_t>(r)] = quant.scale[quant.scale.size() == 1 ? 0 : static_cast<size_t>(r)];
      float inverse = int8::inverse(scale[static_cast<size_t>(r)]);
      for (int64_t c = 0; c < width; ++c)
        *out++ = static_cast<int8_t>(
            int8::quantize(values[static_cast<size_t>(r * width + c)], inverse, 0, quant.lo, quant.hi));
    }
    const std::string& name = graph_.value(quantizer.input(0)).name;
    step.params["table" + role] = add_weight(name, tensor);
    step.params["table_scale" + role] = add_weight(name + ".scale", scale);
  }

  // ------------------------------------------------------------ attention
  void lower_scores(const Node& node, ScoresKind kind) {
    ScoresDesc desc{.kind = kind, .exact = options_.exact};
    Step step{.name = node.name, .inputs = {float_of(node.input(0))}};
    if (kind == ScoresKind::softmax) {
      desc.heads = graph_.value(node.output).type.shape.at(0);
    } else {
      desc.heads = node.integer("heads", 1);
      step.inputs.push_back(float_of(node.input(1)));
      ValueId wide = kind == ScoresKind::context ? node.output : node.input(0);
      desc.head_dim = graph_.value(wide).type.shape.at(1) / desc.heads;
    }
    if (kind == ScoresKind::scores) {
      step.numbers["scale"] = node.number("scale", 1.0);
      desc.bias = node.input(3) != kNone;
      if (desc.bias) step.params["bias"] = score_bias(node.input(3));
    }
    step.outputs = {make_float(node.output)};
    step.desc = desc;
    emit(std::move(step));
  }

  // One weight for all layers that share it.
  std::string score_bias(ValueId value) {
    if (graph_.is_parameter(value)) return float_weight(value, DType::f32);
    const Node* node = node_of(value);
    const Node* quantizer = node != nullptr && node->op == Op::relative_bias ? quantizer_of(node->input(0)) : nullptr;
    if (node == nullptr || node->op != Op::relative_bias || quantizer != nullptr ||
        !graph_.is_parameter(node->input(0)))
      fail(ErrorCode::unsupported, {.what = "cannot compile the bias of scores " + graph_.value(value).name,
                                    .expected = "expected a parameter, or relative_bias of one"});
    return add_weight(graph_.value(value).name, relative_bias(*node, graph_.parameter(node->input(0))));
  }

  // The nodes of one attention and how it can be computed.
  enum class AttentionForm { unfused, real, fixed, dynamic };
  struct Attention {
    AttentionForm form = AttentionForm::unfused;
    const Node *softmax = nullptr, *probabilities = nullptr, *context = nullptr;  // probabilities: their quantizer
    ValueId q = kNone, k = kNone, v = kNone;  // as the kernel reads them: behind dynamic quantizers
    std::string note;
  };

  void analyse_attention() {
    for (const Node& node : graph_.nodes()) {
      if (node.op != Op::attention_scores) continue;
      Attention attention = analyse(node);
      if (attention.form != AttentionForm::unfused)
        for (ValueId value : {attention.q, attention.k, attention.v}) strided_.insert(value);
      attentions_[node.output] = std::move(attention);
    }
  }

  Attention analyse(const Node& scores) const {
    Attention a;
    a.softmax = only_user(scores.output, Op::softmax);
    if (a.softmax == nullptr) return a;
    a.probabilities = only_user(a.softmax->output, Op::fake_quant);
    a.context =
        only_user(a.probabilities != nullptr ? a.probabilities->output : a.softmax->output, Op::attention_context);
    if (a.context == nullptr) return a;
    a.q = scores.input(0), a.k = scores.input(1), a.v = a.context->input(1);
    const Node *q = quantizer_of(a.q), *k = quantizer_of(a.k), *v = quantizer_of(a.v);
    int quantized = (q != nullptr) + (k != nullptr) + (v != nullptr) + (a.probabilities != nullptr);
    if (quantized == 0) {
      a.form = AttentionForm::real;
      a.note = "not quantized by the placement";
      return a;
    }
    if (quantized != 4) {
      a.note = "only some of its four operands are quantized";
      return a;
    }
    QuantInfo qi = info(*q), ki = info(*k), vi = info(*v), pi = info(*a.probabilities);
    if (!pi.dynamic.empty() || pi.scale.size() != 1 || pi.zero_point != 0) {
      a.note = "its probabilities need one fixed scale and no zero point";
    } else if (qi.dynamic == "token" && ki.dynamic == "token" && vi.dynamic == "row_channel") {
      a.form = AttentionForm::dynamic;
      a.q = q->input(0), a.k = k->input(0), a.v = v->input(0);
    } else if (!qi.dynamic.empty() || !ki.dynamic.empty() || !vi.dynamic.empty()) {
      a.note = "some of its operands are dynamic and some are not";
    } else if (qi.dtype != DType::s8 || ki.dtype != DType::s8 || vi.dtype != DType::s8 || qi.zero_point ||
               ki.zero_point || vi.zero_point) {
      a.note = "its operands need symmetric s8";
    } else if (score_scales(scores, qi, ki).empty()) {
      a.note = "the scales of q times k differ within a head";
    } else {
      a.form = AttentionForm::fixed;
    }
    return a;
  }

  static float channel(const std::vector<float>& values, int64_t i) {
    return values[values.size() == 1 ? 0 : static_cast<size_t>(i)];
  }

  // One multiplier a head, or nothing when the channels of a head disagree.
  std::vector<float> score_scales(const Node& scores, const QuantInfo& q, const QuantInfo& k) const {
    int64_t heads = scores.integer("heads", 1), head_dim = graph_.value(scores.input(0)).type.shape.at(1) / heads;
    float scale = static_cast<float>(scores.number("scale", 1.0));
    std::vector<float> result(static_cast<size_t>(heads));
    for (int64_t c = 0; c < heads * head_dim; ++c) {
      float product = channel(q.scale, c) * channel(k.scale, c) * scale;
      float& first = result[static_cast<size_t>(c / head_dim)];
      if (c % head_dim == 0) first = product;
      else if (!(std::fabs(product - first) <= 1e-5f * std::fabs(first))) return {};
    }
    return result;
  }

  void lower_attention(const Node& scores) {
    const Attention a = options_.fuse ? attentions_.at(scores.output) : Attention{};
    if (a.form == AttentionForm::unfused) {
      lower_scores(scores, ScoresKind::scores);
      program_.steps.back().note = a.note;
      return;
    }
    int64_t width = graph_.value(a.context->output).type.shape.at(1);
    AttentionDesc desc{.heads = scores.integer("heads", 1),
                       .bias = scores.input(3) != kNone,
                       .dynamic = a.form == AttentionForm::dynamic};
    desc.head_dim = width / desc.heads;
    Step step{.name = scores.name};
    std::vector<float> score(static_cast<size_t>(desc.heads), static_cast<float>(scores.number("scale", 1.0)));
    for (ValueId value : {a.q, a.k, a.v})
      step.inputs.push_back(a.form == AttentionForm::fixed ? int_slot_[static_cast<size_t>(value)] : float_of(value));
    for (const Slot& slot : step.inputs) OCTET_CHECK(slot.buffer >= 0, "an operand of " + step.name + " was not made");
    desc.qkv = program_.buffers[static_cast<size_t>(step.inputs[0].buffer)].dtype;
    if (a.form == AttentionForm::real) {
      step.note = a.note;
    } else {
      QuantInfo p = info(*a.probabilities);
      std::vector<float> context(static_cast<size_t>(width), p.scale[0]);
      if (a.form == AttentionForm::fixed) {
        score = score_scales(scores, info(*quantizer_of(a.q)), info(*quantizer_of(a.k)));
        QuantInfo v = info(*quantizer_of(a.v));
        for (int64_t c = 0; c < width; ++c) context[static_cast<size_t>(c)] *= channel(v.scale, c);
      }
      desc.p = p.dtype;
      step.params["context_scale"] = add_weight(step.name + ".context_scale", context);
      step.numbers["p_inv_scale"] = int8::inverse(p.scale[0]);
      step.numbers["p_lo"] = p.lo;
      step.numbers["p_hi"] = p.hi;
    }
    step.params["score_scale"] = add_weight(step.name + ".score_scale", score);
    if (desc.bias) step.params["bias"] = score_bias(scores.input(3));
    mark_done(*a.softmax);
    mark_done(*a.context);
    if (a.probabilities != nullptr) mark_done(*a.probabilities);

    const Node* out = a.form == AttentionForm::fixed ? only_static_quantizer(a.context->output) : nullptr;
    if (out != nullptr) {
      QuantInfo quant = info(*out);
      step.outputs = {make_int(out->output, quant)};
      set_requant(step, 0, quant, graph_.value(out->output).name + ".inv_scale");
      desc.y = quant.dtype;
      mark_done(*out);
    } else {
      step.outputs = {make_float(a.context->output)};
      desc.y = float_type(a.context->output);
    }
    step.desc = desc;
    emit(std::move(step));
  }

  // ------------------------------------------------------------ pool
  void lower_pool(const Node& node, PoolKind kind) {
    PoolDesc desc{.n = graph_.value(node.output).type.shape.at(1), .kind = kind};
    Step step{.name = node.name};
    step.inputs = {operand(node.input(0), &desc.x, step, "x_scale", "x_zero")};
    ValueId result = node.output;
    if (const Node* normalize = options_.fuse ? only_user(result, Op::normalize) : nullptr) {
      desc.normalize = true;
      result = normalize->output;
      mark_done(*normalize);
    }
    step.outputs = {make_float(result)};
    desc.y = program_.buffers[static_cast<size_t>(step.outputs[0].buffer)].dtype;
    step.desc = desc;
    emit(std::move(step));
  }

  Graph graph_;
  const LowerOptions& options_;
  Program program_;
  std::vector<Slot> float_slot_, int_slot_;  // by value
  std::vector<bool> done_;                   // by node
  std::map<ValueId, std::vector<const Node*>> embedding_regions_;
  std::set<ValueId> deferred_adds_;
  std::map<ValueId, Attention> attentions_;  // by the value of the scores
  std::set<ValueId> strided_;                // read by fused attention only, which takes a slice of a wider buffer
  std::set<ValueId> wide_;                   // need f32 where the rest is f16
  std::string unsupported_, overflowing_;
};

}  // namespace

Program lower(const Graph& graph, const LowerOptions& options) {
  Graph prepared = graph;
  remove_off_quantizers(prepared, !options.fuse);
  if (options.share) share_quantizers(prepared);
  if (!options.fuse) fold_weight_quantizers(prepared);
  prepared.remove_dead();
  return Lowering(prepared, options).run();
}

}  // namespace octet
