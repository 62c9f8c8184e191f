// Reads the values of two runs by name, brings them to one grid, and counts how far they are apart.
#include "plan/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "core/int8.h"

namespace octet {

namespace {

using namespace kernels;

bool is_8bit(DType type) { return type == DType::s8 || type == DType::u8; }

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    size_t end = text.find('+', begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

// A value inside a buffer: columns [column, column + width) of it.
struct Place {
  int32_t buffer = -1;
  int64_t column = 0, width = 0;
};

// A run program whose values can be read by name.
class Run {
 public:
  explicit Run(Executor& executor) : executor_(executor), program_(executor.program()) {
    for (size_t s = 0; s < program_.steps.size(); ++s)
      for (const Slot& slot : program_.steps[s].outputs) producer_[slot.buffer] = s;
    for (size_t b = 0; b < program_.buffers.size(); ++b) {
      const Buffer& buffer = program_.buffers[b];
      std::vector<std::string> parts = split(buffer.value);
      // Merged values are the projections of one attention: of one width.
      int64_t width = buffer.width / static_cast<int64_t>(parts.size());
      for (size_t p = 0; p < parts.size(); ++p) {
        Place place{static_cast<int32_t>(b), static_cast<int64_t>(p) * width, width};
        // A value may exist as integers and as float: the integers say more.
        auto [at, fresh] = places_.emplace(parts[p], place);
        if (!fresh && is_8bit(buffer.dtype)) at->second = place;
      }
    }
  }

  Executor& executor() { return executor_; }
  const Program& program() const { return program_; }
  const Buffer& buffer(int32_t id) const { return program_.buffers[static_cast<size_t>(id)]; }

  const Place* find(const std::string& name) const {
    auto found = places_.find(name);
    return found == places_.end() ? nullptr : &found->second;
  }
  /// The step that makes the buffer, or null for inputs.
  const Step* producer(int32_t buffer) const {
    auto found = producer_.find(buffer);
    return found == producer_.end() ? nullptr : &program_.steps[found->second];
  }

  int64_t leading(const Place& place) {
    return executor_.elements(place.buffer) / std::max<int64_t>(buffer(place.buffer).width, 1);
  }

  /// A buffer's content, read from where the executor runs.
  struct Memory {
    std::vector<std::byte> bytes;
    std::vector<float> row_scale;
  };
  const Memory& memory(int32_t id) {
    auto [at, fresh] = memory_.try_emplace(id);
    if (!fresh) return at->second;
    const Buffer& b = buffer(id);
    int64_t elements = executor_.elements(id);
    at->second.bytes.resize(static_cast<size_t>(elements * size_of(b.dtype)));
    if (b.row_scale) at->second.row_scale.resize(static_cast<size_t>(elements / std::max<int64_t>(b.width, 1)));
    executor_.read(id, at->second.bytes.data(), b.row_scale ? at->second.row_scale.data() : nullptr);
    return at->second;
  }
  void write(int32_t id, const std::vector<std::byte>& bytes, const std::vector<float>& row_scale) {
    executor_.write(id, bytes.data(), row_scale.empty() ? nullptr : row_scale.data());
    memory_.erase(id);
  }

  /// The values of `place` as real numbers.
  std::vector<float> real(const Place& place) {
    const Buffer& b = buffer(place.buffer);
    const Memory& m = memory(place.buffer);
    int64_t rows = leading(place);
    const float* scale = b.scale.empty() ? nullptr : program_.weights.at(b.scale).as<float>().data();
    std::vector<float> values(static_cast<size_t>(rows * place.width));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < place.width; ++c) {
        int64_t at = r * b.width + place.column + c;
        float value = 0;
        switch (b.dtype) {
          case DType::s8:
          case DType::u8:
            value = int8::dequantize(integer(m, b.dtype, at),
                                     b.row_scale ? m.row_scale[static_cast<size_t>(r)] : scale[place.column + c],
                                     b.zero_point);
            break;
          case DType::s32: value = static_cast<float>(element<int32_t>(m, at)); break;
          case DType::f16: value = f32_from_f16(element<uint16_t>(m, at)); break;
          case DType::bf16: value = f32_from_bf16(element<uint16_t>(m, at)); break;
          default: value = element<float>(m, at); break;
        }
        values[static_cast<size_t>(r * place.width + c)] = value;
      }
    return values;
  }
  static int32_t integer(const Memory& m, DType dtype, int64_t at) {
    return dtype == DType::u8 ? element<uint8_t>(m, at) : element<int8_t>(m, at);
  }

 private:
  template <typename T>
  static T element(const Memory& m, int64_t at) {
    return reinterpret_cast<const T*>(m.bytes.data())[at];
  }

  Executor& executor_;
  const Program& program_;
  std::map<std::string, Place> places_;
  std::map<int32_t, size_t> producer_;
  std::map<int32_t, Memory> memory_;
};

// The content that a buffer of B would have if it held A's values.
struct Content {
  std::vector<std::byte> bytes;
  std::vector<float> row_scale;
  std::vector<float> real;  ///< A's values, laid out as the buffer
  bool same_grid = true;    ///< A's values are quantized as B's, so integers can be compared
};

class Comparison {
 public:
  Comparison(Run& a, Run& b, ThreadPool& pool) : a_(a), b_(b), pool_(pool) {}

  /// Nothing when A lacks one of the buffer's values. Where A has no such quantizer (a float plan) its value before
  /// quantization serves.
  std::optional<Content> content(int32_t id) {
    const Buffer& b = b_.buffer(id);
    std::optional<Content> found = named(id, split(b.value));
    return found || b.source.empty() ? found : named(id, split(b.source));
  }

  std::optional<Content> named(int32_t id, const std::vector<std::string>& parts) {
    const Buffer& b = b_.buffer(id);
    int64_t rows = b_.leading({id, 0, b.width});
    Content content;
    content.bytes.resize(static_cast<size_t>(rows * b.width * size_of(b.dtype)));
    content.real.resize(static_cast<size_t>(rows * b.width));
    if (b.row_scale) content.row_scale.resize(static_cast<size_t>(rows));
    if (b.row_scale && parts.size() > 1) return std::nullopt;
    int64_t column = 0;
    for (const std::string& part : parts) {
      const Place* place = a_.find(part);
      if (place == nullptr || a_.leading(*place) != rows) return std::nullopt;
      if (column + place->width > b.width || (parts.size() == 1 && place->width != b.width)) return std::nullopt;
      std::vector<float> values = a_.real(*place);
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(values.begin() + r * place->width, place->width, content.real.begin() + r * b.width + column);
      content.same_grid &= is_8bit(a_.buffer(place->buffer).dtype) || is_quantizer(a_.producer(place->buffer));
      column += place->width;
    }
    if (column != b.width) return std::nullopt;
    if (!is_8bit(b.dtype)) encode_plain(b, &content);
    else if (b.row_scale) encode_tokens(*a_.find(parts[0]), b, rows, &content);
    else encode_static(id, b, rows, &content);
    return content;
  }

  /// B's memory of the buffer against A's values.
  DiffRow compare(const Step& step, int32_t id, const Content& want) {
    const Buffer& b = b_.buffer(id);
    DiffRow row{.value = b.value, .step = step.name, .kernel = step.kernel, .arithmetic = arithmetic(step)};
    std::vector<float> got = b_.real({id, 0, b.width});
    row.elements = static_cast<int64_t>(got.size());
    double square = 0, aa = 0, bb = 0, ab = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      double x = want.real[i], y = got[i], d = std::fabs(x - y);
      // A NaN on one side only is as far away as it gets.
      if (std::isnan(x) && std::isnan(y)) d = 0;
      else if (std::isnan(d)) d = INFINITY;
      row.max_abs = std::max(row.max_abs, d);
      square += d * d, aa += x * x, bb += y * y, ab += x * y;
    }
    double n = std::max<double>(1, static_cast<double>(got.size()));
    row.rms = std::sqrt(square / n);
    row.reference_rms = std::sqrt(aa / n);
    row.cosine = aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : aa == bb ? 1 : 0;
    if (is_8bit(b.dtype) ? !want.same_grid : b.dtype != DType::s32) {
      if (rounds_to_half(step)) row.arithmetic = "half";
      return row;
    }
    row.integer = true;
    // A quantizer of values that were rounded to 16 bits on the way.
    if (row.arithmetic != "approximate" && std::holds_alternative<ElementwiseDesc>(step.desc) && rounds_to_half(step))
      row.arithmetic = "half";
    int64_t equal = 0;
    const Run::Memory& memory = b_.memory(id);
    for (int64_t i = 0; i < row.elements; ++i) {
      int64_t steps = 0;
      if (b.dtype == DType::s32)
        steps = static_cast<int64_t>(std::fabs(want.real[static_cast<size_t>(i)] - got[static_cast<size_t>(i)]));
      else steps = std::abs(Run::integer(memory, b.dtype, i) - stored(want, b.dtype, i));
      equal += steps == 0;
      row.max_steps = std::max(row.max_steps, steps);
    }
    row.equal_fraction = static_cast<double>(equal) / n;
    return row;
  }

  /// Puts A's values into B's buffer.
  void restore(int32_t id, const Content& content) { b_.write(id, content.bytes, content.row_scale); }

 private:
  static int32_t stored(const Content& content, DType type, int64_t at) {
    auto value = content.bytes[static_cast<size_t>(at)];
    return type == DType::u8 ? static_cast<int32_t>(value) : static_cast<int32_t>(static_cast<int8_t>(value));
  }
  static bool is_quantizer(const Step* step) {
    const auto* desc = step == nullptr ? nullptr : std::get_if<ElementwiseDesc>(&step->desc);
    return desc != nullptr &&
           (desc->kind == ElementwiseKind::fake_quant || desc->kind == ElementwiseKind::fake_quant_token);
  }

  static void encode_plain(const Buffer& b, Content* content) {
    if (b.dtype == DType::f32) {
      std::memcpy(content->bytes.data(), content->real.data(), content->bytes.size());
      return;
    }
    auto* integers = reinterpret_cast<int32_t*>(content->bytes.data());
    auto* halves = reinterpret_cast<uint16_t*>(content->bytes.data());
    for (size_t i = 0; i < content->real.size(); ++i)
      if (b.dtype == DType::s32) integers[i] = static_cast<int32_t>(content->real[i]);
      else halves[i] = b.dtype == DType::f16 ? f16_from_f32(content->real[i]) : bf16_from_f32(content->real[i]);
  }

  // Values on the grid of a scale come back as its exact integers: the two roundings of q * scale * (1 / scale) move by
  // far less than half a step.
  void encode_static(int32_t id, const Buffer& b, int64_t rows, Content* content) {
    const float* scale = b_.program().weights.at(b.scale).as<float>().data();
    int32_t lo = b.dtype == DType::u8 ? 0 : -128, hi = b.dtype == DType::u8 ? 255 : 127;
    if (const Step* step = b_.producer(id))
      for (size_t o = 0; o < step->outputs.size(); ++o) {
        if (step->outputs[o].buffer != id) continue;
        lo = static_cast<int32_t>(b_.program().number(*step, ("lo" + std::to_string(o)).c_str(), lo));
        hi = static_cast<int32_t>(b_.program().number(*step, ("hi" + std::to_string(o)).c_str(), hi));
      }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < b.width; ++c) {
        auto at = static_cast<size_t>(r * b.width + c);
        int32_t q = int8::quantize(content->real[at], int8::inverse(scale[c]), b.zero_point, lo, hi);
        content->bytes[at] = static_cast<std::byte>(q);
      }
  }

  // One range a token: found from what A's quantizer read, since the range of quantized values may round differently.
  void encode_tokens(const Place& place, const Buffer& b, int64_t rows, Content* content) {
    const Buffer& from = a_.buffer(place.buffer);
    if (is_8bit(from.dtype) && from.row_scale) {
      content->bytes = a_.memory(place.buffer).bytes;
      content->row_scale = a_.memory(place.buffer).row_scale;
      return;
    }
    std::vector<float> raw = content->real;
    const Step* quantizer = a_.producer(place.buffer);
    if (is_quantizer(quantizer)) {
      const Slot& source = quantizer->inputs[0];
      if (a_.buffer(source.buffer).width == b.width) raw = a_.real({source.buffer, 0, b.width});
    }
    ElementwiseDesc desc{.kind = ElementwiseKind::quantize_token, .n = b.width, .x = DType::f32, .y = DType::s8};
    ElementwiseArgs args{
        .m = rows, .x = raw.data(), .row_scale = content->row_scale.data(), .y = content->bytes.data()};
    std::span<const ElementwiseKernel> table = elementwise_kernels();
    table.back().run(desc, args, {.pool = &pool_});
  }

  // Whether 16-bit floats are read or written.
  bool rounds_to_half(const Step& step) const {
    for (const std::vector<Slot>* slots : {&step.inputs, &step.outputs})
      for (const Slot& slot : *slots)
        if (slot.buffer >= 0 && size_of(b_.buffer(slot.buffer).dtype) == 2) return true;
    return false;
  }

  static std::string arithmetic(const Step& step) {
    bool flagged = std::visit([&](const auto& desc) { return approximate_row(step, desc); }, step.desc);
    if (flagged) return "approximate";
    if (const auto* d = std::get_if<GemmDesc>(&step.desc)) {
      if (!is_8bit(d->x)) return "float";
      return d->activation == Activation::none || d->activation == Activation::relu ? "epilogue" : "approximate";
    }
    if (const auto* d = std::get_if<AttentionDesc>(&step.desc)) return is_8bit(d->p) ? "approximate" : "float";
    if (const auto* d = std::get_if<NormDesc>(&step.desc))
      return is_8bit(d->a) || is_8bit(d->y[0].dtype) || is_8bit(d->y[1].dtype) ? "epilogue" : "float";
    if (const auto* d = std::get_if<EmbedDesc>(&step.desc))
      return is_8bit(d->table[0]) || is_8bit(d->y[0].dtype) ? "epilogue" : "float";
    if (const auto* d = std::get_if<PoolDesc>(&step.desc))
      return !is_8bit(d->x) ? "float" : d->kind == PoolKind::mean || d->normalize ? "epilogue" : "integer";
    if (const auto* d = std::get_if<ElementwiseDesc>(&step.desc))
      return is_8bit(d->x) || is_8bit(d->y) ? "integer" : "float";
    return std::holds_alternative<PositionsDesc>(step.desc) ? "integer" : "float";
  }
  template <typename Kernel>
  static bool approximate_in(std::span<const Kernel> table, const std::string& name) {
    const Kernel* row = find_by_name(table, name);
    return row != nullptr && row->approximate;
  }
  static bool approximate_row(const Step& s, const GemmDesc&) { return approximate_in(gemm_kernels(), s.kernel); }
  static bool approximate_row(const Step& s, const AttentionDesc&) {
    return approximate_in(attention_kernels(), s.kernel);
  }
  static bool approximate_row(const Step& s, const NormDesc&) { return approximate_in(norm_kernels(), s.kernel); }
  static bool approximate_row(const Step& s, const EmbedDesc&) { return approximate_in(embed_kernels(), s.kernel); }
  static bool approximate_row(const Step& s, const PoolDesc&) { return approximate_in(pool_kernels(), s.kernel); }
  static bool approximate_row(const Step& s, const ElementwiseDesc&) {
    return approximate_in(elementwise_kernels(), s.kernel);
  }
  static bool approximate_row(const Step& s, const ScoresDesc&) { return approximate_in(scores_kernels(), s.kernel); }
  static bool approximate_row(const Step&, const PositionsDesc&) { return false; }

  Run& a_;
  Run& b_;
  ThreadPool& pool_;
};

}  // namespace

std::vector<DiffRow> compare_steps(Executor& a, Executor& b, const BatchView& batch, bool teacher_forced,
                                   ThreadPool& pool) {
  Run left(a), right(b);
  a.bind(batch);
  a.run();
  b.bind(batch);
  b.run();  // brings a GPU the inputs
  Comparison comparison(left, right, pool);
  std::vector<DiffRow> rows;
  const Program& program = right.program();
  for (size_t s = 0; s < program.steps.size(); ++s) {
    b.run_step(s);
    for (const Slot& slot : program.steps[s].outputs) {
      std::optional<Content> want = comparison.content(slot.buffer);
      if (!want) continue;
      rows.push_back(comparison.compare(program.steps[s], slot.buffer, *want));
      if (teacher_forced) comparison.restore(slot.buffer, *want);
    }
  }
  return rows;
}

bool keeps_promise(const DiffRow& row) {
  if (row.integer) {
    double least = row.arithmetic == "integer"       ? 1.0
                   : row.arithmetic == "approximate" ? 0.99
                   : row.arithmetic == "half"        ? 0.98
                                                     : 0.999;
    return row.equal_fraction >= least && row.max_steps <= 1;
  }
  return row.rms <= (row.arithmetic == "half" ? 1e-2 : 1e-4) * row.reference_rms;
}

}  // namespace octet
