// Field lists serve writing and reading alike; `verify` then makes sure that no kernel can read outside its data.
#include "plan/program_json.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/json.h"

namespace octet {

namespace {

using namespace kernels;
using nlohmann::json;

constexpr std::array kExtents{"tokens", "rows", "scores", "offsets"};
constexpr std::array kActivations{"none", "relu", "tanh", "gelu_erf", "gelu_tanh"};
constexpr std::array kPools{"first", "mean", "max"};
constexpr std::array kElementwise{"activation", "add",        "quantize",         "quantize_token",
                                  "dequantize", "fake_quant", "fake_quant_token", "fake_quant_row_channel",
                                  "normalize",  "convert"};
constexpr std::array kScores{"scores", "softmax", "context"};

struct Writer {
  json& out;
  void operator()(const char* key, int64_t& v) { out[key] = v; }
  void operator()(const char* key, int& v) { out[key] = v; }
  void operator()(const char* key, bool& v) { out[key] = v; }
  void operator()(const char* key, std::string& v) { out[key] = v; }
  void operator()(const char* key, DType& v) { out[key] = octet::name(v); }
  template <typename E, size_t N>
  void named(const char* key, E& v, const std::array<const char*, N>& names) {
    out[key] = names[static_cast<size_t>(v)];
  }
};

struct Reader {
  const json& in;
  const std::string& where;
  [[noreturn]] void bad(const char* key) const {
    fail(ErrorCode::corrupt, {.what = std::string("unexpected value of \"") + key + "\"", .where = "in " + where});
  }
  void operator()(const char* key, int64_t& v) {
    v = json_get<int64_t>(in, key, where);
    if (v < -1 || v > int64_t{1} << 31) bad(key);
  }
  void operator()(const char* key, int& v) { v = json_get<int>(in, key, where); }
  void operator()(const char* key, bool& v) { v = json_get<bool>(in, key, where); }
  void operator()(const char* key, std::string& v) { v = json_get<std::string>(in, key, where); }
  void operator()(const char* key, DType& v) {
    auto type = parse_dtype(json_get<std::string>(in, key, where));
    if (!type) bad(key);
    v = *type;
  }
  template <typename E, size_t N>
  void named(const char* key, E& v, const std::array<const char*, N>& names) {
    std::string text = json_get<std::string>(in, key, where);
    for (size_t i = 0; i < N; ++i)
      if (text == names[i]) return void(v = static_cast<E>(i));
    bad(key);
  }
};

template <typename V>
void fields(V& v, GemmDesc& d) {
  v("n", d.n), v("k", d.k), v("x", d.x), v("w", d.w), v("y", d.y), v("row_scale", d.row_scale), v("bias", d.bias);
  v("column_offset", d.column_offset);
  v.named("activation", d.activation, kActivations), v("exact", d.exact);
}
template <typename V>
void fields(V& v, AttentionDesc& d) {
  v("heads", d.heads), v("head_dim", d.head_dim), v("qkv", d.qkv), v("p", d.p), v("y", d.y), v("bias", d.bias),
      v("dynamic", d.dynamic);
}
template <typename V>
void output_fields(V& v, int& outputs, OutputDesc* y) {
  v("outputs", outputs);
  v("y0", y[0].dtype), v("per_token0", y[0].per_token), v("y1", y[1].dtype), v("per_token1", y[1].per_token);
}
template <typename V>
void fields(V& v, NormDesc& d) {
  v("n", d.n), v("a", d.a), v("residual", d.residual), v("b", d.b);
  output_fields(v, d.outputs, d.y);
}
template <typename V>
void fields(V& v, EmbedDesc& d) {
  v("n", d.n), v("tables", d.tables), v("table0", d.table[0]), v("table1", d.table[1]), v("table2", d.table[2]),
      v("norm", d.norm);
  output_fields(v, d.outputs, d.y);
}
template <typename V>
void fields(V& v, PoolDesc& d) {
  v("n", d.n), v.named("pool", d.kind, kPools), v("x", d.x), v("normalize", d.normalize), v("y", d.y);
}
template <typename V>
void fields(V& v, ElementwiseDesc& d) {
  v.named("function", d.kind, kElementwise);
  v("n", d.n), v("x", d.x), v("y", d.y), v.named("activation", d.activation, kActivations);
}
template <typename V>
void fields(V& v, ScoresDesc& d) {
  v.named("part", d.kind, kScores);
  v("heads", d.heads), v("head_dim", d.head_dim), v("bias", d.bias), v("exact", d.exact);
}
template <typename V>
void fields(V& v, PositionsDesc& d) {
  v("start", d.start), v("padding_id", d.padding_id);
}

constexpr std::array kKinds{"gemm", "attention", "norm", "embed", "pool", "elementwise", "scores", "positions"};

template <size_t I = 0>
StepDesc make_desc(size_t index) {
  if constexpr (I + 1 < std::variant_size_v<StepDesc>)
    if (index != I) return make_desc<I + 1>(index);
  return std::variant_alternative_t<I, StepDesc>{};
}

json to_json(const std::vector<Slot>& slots) {
  json array = json::array();
  for (const Slot& slot : slots) array.push_back({slot.buffer, slot.column});
  return array;
}

std::vector<Slot> slots_from(const json& step, const char* key, const Program& program, const std::string& where) {
  std::vector<Slot> slots;
  json array = json_get<json>(step, key, where);
  for (const json& entry : array) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_number_integer() || !entry[1].is_number_integer())
      fail(ErrorCode::corrupt, {.what = std::string("unexpected entry in \"") + key + "\"", .where = "in " + where});
    int64_t buffer = entry[0], column = entry[1];
    if (buffer < -1 || buffer >= static_cast<int64_t>(program.buffers.size()) || column < 0 ||
        (buffer >= 0 && column >= program.buffers[static_cast<size_t>(buffer)].width) || (buffer < 0 && column != 0))
      fail(ErrorCode::corrupt,
           {.what = std::string("a slot in \"") + key + "\" points nowhere", .where = "in " + where});
    slots.push_back({static_cast<int32_t>(buffer), column});
  }
  return slots;
}

// ---------------------------------------------------------------- checking

class Verifier {
 public:
  Verifier(const Program& program, const std::string& where) : program_(program), where_(where) {}

  void run() {
    require(program_.inputs.contains("ids") && program_.inputs.contains("offsets"), "the inputs ids and offsets");
    constexpr int64_t kMost = int64_t{1} << 30;
    for (int64_t limit : {program_.vocabulary, program_.types, program_.positions})
      require(limit >= 0 && limit <= kMost, "sizes up to 2^30");
    // Every buffer has one writer, which runs before its readers: what a kernel takes for an index is then what was
    // checked to be one.
    std::vector<bool> written(program_.buffers.size());
    for (const auto& [name, id] : program_.inputs) {
      require(!written[static_cast<size_t>(id)], "a buffer of its own for input " + name);
      written[static_cast<size_t>(id)] = true;
      const Buffer& b = buffer(id);
      require(
          b.dtype == DType::s32 && b.width == 1 && b.extent == (name == "offsets" ? Extent::offsets : Extent::tokens),
          "input " + name + " of s32");
    }
    require(!program_.outputs.empty(), "an output");
    for (const auto& [name, id] : program_.outputs)
      require(
          buffer(id).dtype == DType::f32 && (buffer(id).extent == Extent::rows || buffer(id).extent == Extent::tokens),
          "output " + name + " of f32");
    for (const Step& step : program_.steps) {
      step_ = &step;
      checked_.clear();
      std::visit([&](const auto& desc) { check(desc); }, step.desc);
      for (const auto& [role, name] : step.params) require(checked_.contains(role), "no weight for " + role);
      for (const auto& [key, number] : step.numbers) {
        bool integer = key.starts_with("lo") || key.starts_with("hi") || key.starts_with("zero") ||
                       key.ends_with("_lo") || key.ends_with("_hi") || key.ends_with("_zero");
        require(std::isfinite(number) && (!integer || (number == std::floor(number) && std::fabs(number) <= 255)),
                "a number in range for " + key);
      }
      for (const Slot& slot : step.inputs)
        require(slot.buffer < 0 || written[static_cast<size_t>(slot.buffer)], "operands that were computed before");
      for (const Slot& slot : step.outputs) {
        require(slot.buffer >= 0 && !written[static_cast<size_t>(slot.buffer)], "a result that nothing else writes");
        written[static_cast<size_t>(slot.buffer)] = true;
      }
    }
    step_ = nullptr;
    for (const auto& [name, id] : program_.outputs)
      require(written[static_cast<size_t>(id)], "output " + name + " to be computed");
  }

 private:
  void require(bool condition, const std::string& what) const {
    if (!condition)
      fail(ErrorCode::corrupt, {.what = "the plan is damaged",
                                .expected = "expected " + what,
                                .where = "in " + where_ + (step_ != nullptr ? ", step " + step_->name : ""),
                                .hint = "compile it again"});
  }
  const Buffer& buffer(int32_t id) const { return program_.buffers[static_cast<size_t>(id)]; }
  const Buffer& slot(const std::vector<Slot>& slots, size_t i, DType dtype, int64_t width) const {
    require(i < slots.size() && slots[i].buffer >= 0, "operand " + std::to_string(i));
    const Buffer& b = buffer(slots[i].buffer);
    require(b.dtype == dtype, "operand " + std::to_string(i) + " of " + std::string(octet::name(dtype)));
    require(width > 0 && slots[i].column + width <= b.width,
            "operand " + std::to_string(i) + " of width " + std::to_string(width));
    return b;
  }
  const Tensor& weight(const std::string& role) const {
    checked_.insert(role);
    auto name = step_->params.find(role);
    require(name != step_->params.end(), "a weight for " + role);
    auto tensor = program_.weights.find(name->second);
    require(tensor != program_.weights.end(), "weight " + name->second);
    return tensor->second;
  }
  void weight(const std::string& role, DType dtype, const Shape& shape) const {
    const Tensor& tensor = weight(role);
    require(tensor.dtype() == dtype && tensor.shape() == shape,
            "weight " + step_->params.at(role) + " of " + std::string(octet::name(dtype)) + to_string(shape));
  }
  bool is_8bit(DType t) const { return t == DType::s8 || t == DType::u8; }
  bool is_float(DType t) const { return t == DType::f32 || t == DType::f16 || t == DType::bf16; }
  void sizes(std::initializer_list<int64_t> values) const {
    for (int64_t v : values) require(v > 0 && v <= int64_t{1} << 24, "sizes between 1 and 2^24");
  }
  void requant(int index, DType y, int64_t n) const {
    if (!is_8bit(y)) return;
    std::string i = std::to_string(index);
    weight("inv_scale" + i, DType::f32, {n});
    double lo = program_.number(*step_, ("lo" + i).c_str(), -128),
           hi = program_.number(*step_, ("hi" + i).c_str(), 127);
    require(lo <= hi && (y == DType::s8 ? lo >= -128 && hi <= 127 : lo >= 0 && hi <= 255), "a range inside the type");
  }
  void outputs(int count, const OutputDesc* y, int64_t n, Extent extent) const {
    require(count >= 1 && count <= 2 && step_->outputs.size() == static_cast<size_t>(count), "one or two outputs");
    for (int i = 0; i < count; ++i) {
      const Buffer& b = slot(step_->outputs, static_cast<size_t>(i), y[i].dtype, n);
      require(b.extent == extent && b.width == n && b.row_scale == y[i].per_token, "an output like its input");
      require(is_float(y[i].dtype) || is_8bit(y[i].dtype), "a float or 8-bit output");
      require(!y[i].per_token || y[i].dtype == DType::s8, "s8 per token");
      if (!y[i].per_token) requant(i, y[i].dtype, n);
    }
  }

  void check(const GemmDesc& d) const {
    sizes({d.n, d.k});
    const Buffer& x = slot(step_->inputs, 0, d.x, d.k);
    const Buffer& y = slot(step_->outputs, 0, d.y, d.n);
    require(x.extent == y.extent && (x.extent == Extent::tokens || x.extent == Extent::rows),
            "input and output of one extent");
    require((is_8bit(d.x) && d.w == DType::s8) || (is_float(d.x) && d.w == d.x), "matching operand types");
    require(x.row_scale == d.row_scale && !y.row_scale && y.width == d.n, "row scales as described");
    require(is_float(d.y) || is_8bit(d.y), "a float or 8-bit result");
    require(is_8bit(d.x) || (!d.row_scale && !d.column_offset), "row scales and column offsets of integers only");
    weight("w", d.w, {d.n, d.k});
    if (is_8bit(d.x)) weight("scale", DType::f32, {d.n});
    if (d.bias) weight("bias", DType::f32, {d.n});
    if (d.column_offset) weight("column_offset", DType::s32, {d.n});
    requant(0, d.y, d.n);
  }
  void check(const AttentionDesc& d) const {
    sizes({d.heads, d.head_dim, d.heads * d.head_dim});
    int64_t width = d.heads * d.head_dim;
    require(step_->inputs.size() == 3, "three operands");
    for (size_t i = 0; i < 3; ++i)
      require(slot(step_->inputs, i, d.qkv, width).extent == Extent::tokens, "operands of tokens");
    const Buffer& y = slot(step_->outputs, 0, d.y, width);
    require(y.extent == Extent::tokens && y.width == width && !y.row_scale, "an output of tokens");
    require(d.dynamic            ? is_float(d.qkv) && is_8bit(d.p)
            : d.qkv == DType::s8 ? is_8bit(d.p)
                                 : is_float(d.qkv) && is_float(d.p),
            "matching operand types");
    weight("score_scale", DType::f32, {d.heads});
    if (is_8bit(d.p)) {
      weight("context_scale", DType::f32, {width});
      double lo = program_.number(*step_, "p_lo", 0), hi = program_.number(*step_, "p_hi", 255);
      require(lo <= hi && (d.p == DType::s8 ? lo >= -128 && hi <= 127 : lo >= 0 && hi <= 255),
              "a probability range inside the type");
    }
    if (d.bias) {
      require_bias(weight("bias"), d.heads);
    }
    requant(0, d.y, width);
  }
  void require_bias(const Tensor& bias, int64_t heads) const {
    const Shape& shape = bias.shape();
    require(bias.dtype() == DType::f32 && shape.size() >= 2 && shape[0] == heads &&
                (shape.size() == 2 ? shape[1] % 2 == 1 : shape.size() == 3 && shape[1] == shape[2]),
            "a bias a head, [heads, L, L] or [heads, 2 L - 1]");
    const int64_t longest = shape.size() == 2 ? (shape[1] + 1) / 2 : shape[1];
    require(program_.positions > 0 && longest >= program_.positions, "a bias as long as the longest text");
  }
  void operand(size_t i, DType type, int64_t n, const char* scale, Extent* extent) const {
    const Buffer& b = slot(step_->inputs, i, type, n);
    require(b.width == n && !b.row_scale && (is_float(type) || is_8bit(type)), "a whole operand");
    require(i == 0 || b.extent == *extent, "operands of one extent");
    *extent = b.extent;
    if (is_8bit(type)) weight(scale, DType::f32, {n});
  }
  void check(const NormDesc& d) const {
    sizes({d.n});
    Extent extent = Extent::tokens;
    operand(0, d.a, d.n, "a_scale", &extent);
    if (d.residual) operand(1, d.b, d.n, "b_scale", &extent);
    weight("gamma", DType::f32, {d.n});
    weight("beta", DType::f32, {d.n});
    outputs(d.outputs, d.y, d.n, extent);
  }
  void check(const EmbedDesc& d) const {
    sizes({d.n});
    require(d.tables >= 1 && d.tables <= kMaxTables && step_->inputs.size() == static_cast<size_t>(d.tables),
            "one to three tables");
    for (int t = 0; t < d.tables; ++t) {
      const Slot& index = step_->inputs[static_cast<size_t>(t)];
      const Tensor& table = weight("table" + std::to_string(t));
      require(table.dtype() == d.table[t] && table.shape().size() == 2 && table.dim(1) == d.n && table.dim(0) > 0,
              "a table of width " + std::to_string(d.n));
      require(is_float(d.table[t]) || d.table[t] == DType::s8, "a float or s8 table");
      if (d.table[t] == DType::s8) weight("table_scale" + std::to_string(t), DType::f32, {table.dim(0)});
      if (index.buffer < 0) continue;
      require(slot(step_->inputs, static_cast<size_t>(t), DType::s32, 1).extent == Extent::tokens, "an index a token");
      require(table.dim(0) >= index_limit(index.buffer), "a table as long as its index may reach");
    }
    if (d.norm) {
      weight("gamma", DType::f32, {d.n});
      weight("beta", DType::f32, {d.n});
    }
    outputs(d.outputs, d.y, d.n, Extent::tokens);
  }
  // One more than the largest index that a run may put into the buffer; the session checks ids and type ids against it.
  int64_t index_limit(int32_t id) const {
    if (id == program_.inputs.at("ids")) return program_.vocabulary > 0 ? program_.vocabulary : INT64_MAX;
    auto types = program_.inputs.find("type_ids");
    if (types != program_.inputs.end() && id == types->second) return program_.types;
    for (const Step& step : program_.steps)
      if (const auto* d = std::get_if<PositionsDesc>(&step.desc);
          d != nullptr && !step.outputs.empty() && step.outputs[0].buffer == id)
        return program_.positions > 0 ? std::max(d->start + program_.positions, d->padding_id + 1) : INT64_MAX;
    return INT64_MAX;
  }
  void check(const PoolDesc& d) const {
    sizes({d.n});
    Extent extent = Extent::tokens;
    operand(0, d.x, d.n, "x_scale", &extent);
    const Buffer& y = slot(step_->outputs, 0, d.y, d.n);
    require(extent == Extent::tokens && y.extent == Extent::rows && y.width == d.n && is_float(d.y),
            "tokens pooled to rows");
  }
  void check(const ElementwiseDesc& d) const {
    sizes({d.n});
    require(!step_->inputs.empty() && !step_->outputs.empty() && step_->inputs[0].buffer >= 0 &&
                step_->outputs[0].buffer >= 0,
            "an operand and a result");
    const Buffer &x = buffer(step_->inputs[0].buffer), &y = buffer(step_->outputs[0].buffer);
    require(x.dtype == d.x && y.dtype == d.y && x.extent == y.extent && x.width == y.width,
            "a result like its operand");
    require(d.n == x.width || (x.extent == Extent::scores && d.n == 1), "whole rows");
    require(step_->inputs[0].column == 0 && step_->outputs[0].column == 0, "whole buffers");
    bool per_token = d.kind == ElementwiseKind::quantize_token;
    require(y.row_scale == per_token && !x.row_scale && (!per_token || d.n == x.width), "row scales as described");
    if (d.kind == ElementwiseKind::add) {
      require(step_->inputs.size() == 2 && step_->inputs[1].buffer >= 0, "two operands");
      const Buffer& x2 = buffer(step_->inputs[1].buffer);
      require(x2.dtype == x.dtype && x2.extent == x.extent && x2.width == x.width && step_->inputs[1].column == 0,
              "operands alike");
    }
    bool fixed = d.kind == ElementwiseKind::quantize || d.kind == ElementwiseKind::fake_quant;
    if (fixed) weight("inv_scale0", DType::f32, {d.n});
    if (d.kind == ElementwiseKind::quantize) requant(0, d.y, d.n);
    if (d.kind == ElementwiseKind::fake_quant || d.kind == ElementwiseKind::dequantize)
      weight("scale", DType::f32, {d.n});
    bool from_int = d.kind == ElementwiseKind::dequantize,
         to_int = d.kind == ElementwiseKind::quantize || d.kind == ElementwiseKind::quantize_token;
    require(from_int ? is_8bit(d.x) : is_float(d.x), "a fitting operand type");
    require(to_int ? is_8bit(d.y) : is_float(d.y), "a fitting result type");
    if (d.kind == ElementwiseKind::fake_quant_row_channel) require(x.extent == Extent::tokens, "tokens");
  }
  void check(const ScoresDesc& d) const {
    sizes({d.heads});
    bool softmax = d.kind == ScoresKind::softmax;
    int64_t width = d.heads * d.head_dim;
    if (!softmax) sizes({d.head_dim, width});
    auto is = [&](const std::vector<Slot>& slots, size_t i, bool scores) {
      const Buffer& b = slot(slots, i, DType::f32, scores ? d.heads : width);
      require(slots[i].column == 0 && b.extent == (scores ? Extent::scores : Extent::tokens) &&
                  b.width == (scores ? d.heads : width),
              "a whole operand");
    };
    is(step_->inputs, 0, d.kind != ScoresKind::scores);
    if (!softmax) is(step_->inputs, 1, false);
    is(step_->outputs, 0, d.kind != ScoresKind::context);
    if (d.bias) {
      require_bias(weight("bias"), d.heads);
    }
  }
  void check(const PositionsDesc& d) const {
    const Buffer& y = slot(step_->outputs, 0, DType::s32, 1);
    require(y.extent == Extent::tokens && y.width == 1 && d.start >= 0, "positions of tokens");
  }

  const Program& program_;
  const std::string& where_;
  const Step* step_ = nullptr;
  mutable std::set<std::string> checked_;  // roles of the step's weights that were checked
};

}  // namespace

json to_json(const Program& program) {
  json out;
  out["vocabulary"] = program.vocabulary;
  out["types"] = program.types;
  out["positions"] = program.positions;
  out["max_tokens"] = program.max_tokens;
  out["max_length"] = program.max_length;
  if (!program.tiles.empty()) out["tiles"] = {{"gpu", program.tiles_gpu}, {"of", program.tiles}};
  out["inputs"] = program.inputs;
  for (const auto& [name, id] : program.outputs) out["outputs"].push_back({name, id});
  for (const Buffer& b : program.buffers)
    out["buffers"].push_back({{"value", b.value},
                              {"source", b.source},
                              {"dtype", octet::name(b.dtype)},
                              {"extent", kExtents[static_cast<size_t>(b.extent)]},
                              {"width", b.width},
                              {"row_scale", b.row_scale},
                              {"scale", b.scale},
                              {"zero_point", b.zero_point}});
  for (const Step& step : program.steps) {
    json s;
    StepDesc desc = step.desc;
    s["kind"] = kKinds[desc.index()];
    Writer writer{s["desc"]};
    std::visit([&](auto& d) { fields(writer, d); }, desc);
    s["name"] = step.name;
    s["inputs"] = to_json(step.inputs);
    s["outputs"] = to_json(step.outputs);
    s["params"] = step.params;
    s["numbers"] = step.numbers;
    s["kernel"] = step.kernel;
    s["note"] = step.note;
    out["steps"].push_back(std::move(s));
  }
  return out;
}

Program program_from_json(const json& in, std::map<std::string, Tensor> weights, const std::string& where) {
  Program program;
  program.weights = std::move(weights);
  program.vocabulary = json_get<int64_t>(in, "vocabulary", where);
  program.types = json_get<int64_t>(in, "types", where);
  program.positions = json_get<int64_t>(in, "positions", where);
  program.max_tokens = json_get<int64_t>(in, "max_tokens", where);
  program.max_length = json_get<int64_t>(in, "max_length", where);
  auto bad = [&](const std::string& what) { fail(ErrorCode::corrupt, {.what = what, .where = "in " + where}); };
  for (const json& b : json_get<json>(in, "buffers", where)) {
    Buffer buffer;
    Reader reader{b, where};
    reader("value", buffer.value), reader("source", buffer.source), reader("dtype", buffer.dtype),
        reader.named("extent", buffer.extent, kExtents);
    reader("width", buffer.width), reader("row_scale", buffer.row_scale), reader("scale", buffer.scale),
        reader("zero_point", buffer.zero_point);
    if (buffer.width < 1 || buffer.width > int64_t{1} << 22) bad("a buffer's width is out of range");
    program.buffers.push_back(std::move(buffer));
  }
  if (in.contains("tiles")) {
    json tiles = json_get<json>(in, "tiles", where), of = json_get<json>(tiles, "of", where);
    program.tiles_gpu = json_get<std::string>(tiles, "gpu", where);
    for (const auto& [shape, tile] : of.items()) {
      if (!tile.is_string()) bad("unexpected entry in \"tiles\"");
      program.tiles[shape] = tile.get<std::string>();
    }
  }
  auto buffer_id = [&](const json& id) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= static_cast<int64_t>(program.buffers.size()))
      bad("an input or output names no buffer");
    return id.get<int32_t>();
  };
  json inputs = json_get<json>(in, "inputs", where);  // items() of a temporary would dangle
  for (const auto& [name, id] : inputs.items()) program.inputs[name] = buffer_id(id);
  for (const json& output : json_get<json>(in, "outputs", where)) {
    if (!output.is_array() || output.size() != 2 || !output[0].is_string()) bad("unexpected entry in \"outputs\"");
    program.outputs.emplace_back(output[0].get<std::string>(), buffer_id(output[1]));
  }
  for (const json& s : json_get<json>(in, "steps", where)) {
    Step step;
    std::string kind = json_get<std::string>(s, "kind", where);
    size_t index = 0;
    while (index < kKinds.size() && kind != kKinds[index]) ++index;
    if (index == kKinds.size()) bad("unknown kind of step \"" + kind + "\"");
    step.desc = make_desc(index);
    json desc = json_get<json>(s, "desc", where);
    Reader reader{desc, where};
    std::visit([&](auto& d) { fields(reader, d); }, step.desc);
    step.name = json_get<std::string>(s, "name", where);
    step.inputs = slots_from(s, "inputs", program, where);
    step.outputs = slots_from(s, "outputs", program, where);
    json params = json_get<json>(s, "params", where), numbers = json_get<json>(s, "numbers", where);
    for (const auto& [role, name] : params.items()) {
      if (!name.is_string()) bad("unexpected entry in \"params\"");
      step.params[role] = name.get<std::string>();
    }
    for (const auto& [key, number] : numbers.items()) {
      if (!number.is_number()) bad("unexpected entry in \"numbers\"");
      step.numbers[key] = number.get<double>();
    }
    step.kernel = json_get<std::string>(s, "kernel", where);
    step.note = json_get<std::string>(s, "note", where);
    program.steps.push_back(std::move(step));
  }
  Verifier(program, where).run();
  return program;
}

}  // namespace octet
