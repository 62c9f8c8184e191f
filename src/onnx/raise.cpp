// The interpreter behind raise.h: constants, shapes and masks are computed here; operations on text in raise_text.cpp.
#include "onnx/raise.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/error.h"
#include "onnx/raiser.h"

namespace octet::onnx {

// Of a value's length_power: numbers that depend on the length in another way.
constexpr int kPlaces = 100;

namespace {
// Numbers of a file that is not trusted wrap around instead of overflowing.
int64_t plus(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }
int64_t minus(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
int64_t times(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
}  // namespace

Poly operator+(const Poly& x, const Poly& y) {
  return {plus(x.n, y.n), plus(x.b, y.b), plus(x.l, y.l), plus(x.bl, y.bl)};
}
Poly operator-(const Poly& x, const Poly& y) {
  return {minus(x.n, y.n), minus(x.b, y.b), minus(x.l, y.l), minus(x.bl, y.bl)};
}

bool multiply(const Poly& x, const Poly& y, Poly* out) {
  if (x.constant()) {
    *out = {times(x.n, y.n), times(x.n, y.b), times(x.n, y.l), times(x.n, y.bl)};
  } else if (y.constant()) {
    return multiply(y, x, out);
  } else if (x.n == 0 && y.n == 0 && x.bl == 0 && y.bl == 0 && ((x.b == 0 && y.l == 0) || (x.l == 0 && y.b == 0))) {
    *out = {0, 0, 0, plus(times(x.b, y.l), times(x.l, y.b))};
  } else {
    return false;
  }
  return true;
}

bool divide(const Poly& x, const Poly& y, Poly* out) {
  auto whole = [&](int64_t d) { return d != 0 && x.n % d == 0 && x.b % d == 0 && x.l % d == 0 && x.bl % d == 0; };
  if (y.constant()) {
    if (!whole(y.n)) return false;
    *out = {x.n / y.n, x.b / y.n, x.l / y.n, x.bl / y.n};
    return true;
  }
  if (x == y) return *out = {1}, true;
  if (y.n == 0 && y.bl == 0 && y.l == 0 && x.n == 0 && x.l == 0 && x.b % y.b == 0 && x.bl % y.b == 0)
    return *out = {x.b / y.b, 0, x.bl / y.b, 0}, true;
  if (y.n == 0 && y.bl == 0 && y.b == 0 && x.n == 0 && x.b == 0 && x.l % y.l == 0 && x.bl % y.l == 0)
    return *out = {x.l / y.l, x.bl / y.l, 0, 0}, true;
  if (y.n == 0 && y.b == 0 && y.l == 0 && x.n == 0 && x.b == 0 && x.l == 0 && x.bl % y.bl == 0)
    return *out = {x.bl / y.bl}, true;
  return false;
}

RaiseResult raise(const File& file) {
  int64_t held = 0, bytes = 0;
  for (const TensorData& t : file.graph.initializers) {
    if (t.data.empty()) continue;
    held += t.data.elements();
    bytes += t.data.elements() * size_of(t.data.dtype());
  }
  // 16 MiB: enough for a bias of 16 heads at 512 tokens in a file of any size.
  ArrayLimit limit(std::max<int64_t>(int64_t{1} << 24, 4 * bytes), std::max<int64_t>(int64_t{1} << 26, 24 * held));
  int64_t length = 512;
  for (int attempt = 0; attempt < 12; ++attempt) {
    try {
      Raiser raiser(file, length);
      return {raiser.run(), ""};
    } catch (const NotRaised& why) {
      return {std::nullopt, why.text};
    } catch (const ShorterLength& shorter) {
      if (shorter.length < 1 || shorter.length >= length) return {std::nullopt, "its tables hold no row"};
      length = shorter.length;
    } catch (const std::out_of_range&) {
      return {std::nullopt, "a number of it names an axis or an element that is not there"};
    } catch (const Error& error) {
      if (error.code() == ErrorCode::internal) throw;
      std::string text = error.what();
      std::replace(text.begin(), text.end(), '\n', ' ');
      return {std::nullopt, text};
    }
  }
  return {std::nullopt, "no length fits its tables"};
}

// ---------------------------------------------------------------- values
Value Raiser::known(Array data) const {
  Value v;
  v.kind = Value::Kind::known;
  for (int64_t extent : data.shape) v.shape.push_back({extent});
  v.data = std::move(data);
  return v;
}

Value Raiser::uniform(double number, ElemType type, std::vector<Poly> shape) const {
  Value v;
  v.kind = Value::Kind::known;
  Shape ones(shape.size(), 1);
  if (is_float(type)) {
    float* out = nullptr;
    v.data = Array::make(type, ones, &out);
    *out = static_cast<float>(number);
  } else {
    int64_t* out = nullptr;
    v.data = Array::make(type, ones, &out);
    *out = static_cast<int64_t>(number);
  }
  v.shape = std::move(shape);
  return v;
}

Value Raiser::extents(std::vector<Poly> numbers, bool scalar) const {
  bool constant = std::all_of(numbers.begin(), numbers.end(), [](const Poly& p) { return p.constant(); });
  if (constant) {
    std::vector<int64_t> values;
    for (const Poly& p : numbers) values.push_back(p.n);
    Array a = Array::of(values);
    return known(scalar ? a.reshaped({}) : a);
  }
  Value v;
  v.kind = Value::Kind::extents;
  v.numbers = std::move(numbers);
  v.scalar = scalar;
  return v;
}

int64_t Raiser::concrete(const Poly& p) const { return plus(plus(p.n, p.b), times(plus(p.l, p.bl), length_)); }

bool Raiser::plain(const Value& v) const {
  if (v.kind != Value::Kind::known || v.length_power != 0) return false;
  for (size_t d = 0; d < v.shape.size(); ++d)
    if (!v.shape[d].is(v.data.shape[d])) return false;
  return true;
}

bool Raiser::constant_value(const Value& v, double* number) const {
  if (v.kind != Value::Kind::known || v.length_power != 0 || v.data.count() < 1) return false;
  *number = v.data.at(0);
  if (v.data.count() > 64 && !v.origin.empty()) return false;  // a weight
  for (int64_t i = 1; i < v.data.count(); ++i)
    if (v.data.at(i) != *number && !(std::isnan(v.data.at(i)) && std::isnan(*number))) return false;
  return true;
}

// The data with axis `d` written out.
Array Raiser::whole(const Value& v, size_t d) const {
  int64_t extent = concrete(v.shape[d]);
  if (v.data.shape[d] == extent) return v.data;
  Shape to = v.data.shape;
  to[d] = extent;
  Node node;
  node.op = "Expand";
  return evaluate(node, {v.data, Array::of(to)}, 13)[0];
}
Array Raiser::whole(const Value& v) const {
  Value w = v;
  for (size_t d = 0; d < w.shape.size(); ++d) w.data = whole(w, d);
  return w.data;
}

std::vector<Poly> Raiser::shape_of(const Value& v) const {
  std::vector<Poly> out;
  switch (v.kind) {
    case Value::Kind::known:
      out = v.shape;
      if (v.turned) std::reverse(out.begin(), out.end());
      return out;
    case Value::Kind::extents: return v.scalar ? out : std::vector<Poly>{{static_cast<int64_t>(v.numbers.size())}};
    case Value::Kind::quantized:
    case Value::Kind::dynamic_q: return shape_of(*v.inner);
    default: break;
  }
  for (const Axis& axis : v.axes) out.push_back(extent_of(axis));
  return out;
}

Poly Raiser::extent_of(const Axis& axis) const {
  Poly p{1};
  for (const Atom& atom : axis) {
    Poly e{atom.extent};
    if (atom.kind == 'B') e = batch_;
    if (atom.kind == 'L' || atom.kind == 'K') e = tokens_;
    if (!multiply(p, e, &p)) refuse("an axis has no simple extent");
  }
  return p;
}

/// The integers of a shape-like value.
std::vector<Poly> Raiser::polys(const Value& v) const {
  if (v.kind == Value::Kind::extents) return v.numbers;
  if (v.kind != Value::Kind::known || !plain(v)) refuse("a shape depends on the text");
  std::vector<Poly> out;
  for (int64_t i = 0; i < v.data.count(); ++i) {
    if (!v.data.real()) {
      out.push_back({v.data.i[i]});
      continue;
    }
    double number = v.data.at(i);
    if (v.data.real() && number != std::floor(number)) refuse("a shape is not whole");
    out.push_back({static_cast<int64_t>(number)});
  }
  return out;
}

int64_t Raiser::axis_of(int64_t axis, size_t rank) const {
  if (axis < 0) axis += static_cast<int64_t>(rank);
  if (axis < 0 || axis >= static_cast<int64_t>(std::max<size_t>(rank, 1))) refuse("an axis is outside the shape");
  return axis;
}

std::vector<int64_t> Raiser::constants(const Value& v) const {
  std::vector<int64_t> out;
  for (const Poly& p : polys(v)) {
    if (!p.constant()) refuse("a number depends on the text");
    out.push_back(p.n);
  }
  return out;
}

std::vector<int64_t> Raiser::axes_of(size_t input) const {
  if (has(input)) return constants(*in_[input]);
  return node_->integers("axes");
}

// ---------------------------------------------------------------- running
Raised Raiser::run() {
  const Graph& g = file_.graph;
  const ValueInfo* ids = nullptr;
  auto called = [](const ValueInfo& input, const char* word) { return input.name.find(word) != std::string::npos; };
  for (const ValueInfo& input : g.inputs)
    if (ids == nullptr && called(input, "input_ids") && input.shape.size() == 2) ids = &input;
  for (const ValueInfo& input : g.inputs) {
    bool other = input.name.find("mask") != std::string::npos || input.name.find("type") != std::string::npos ||
                 input.name.find("segment") != std::string::npos || input.name.find("position") != std::string::npos ||
                 called(input, "unique") || (input.has_shape && input.shape.size() != 2);
    if (!other && ids == nullptr && !is_float(input.type)) ids = &input;
  }
  if (ids == nullptr) throw NotRaised{"it has no input of token ids"};
  if (ids->shape.size() != 2) throw NotRaised{"its input " + ids->name + " is not [batch, sequence]"};
  if (ids->shape[0] > 0) batch_ = {ids->shape[0]};
  if (ids->shape[1] > 0) tokens_ = {ids->shape[1]}, length_ = ids->shape[1], fixed_ = true;
  if (batch_.constant() && batch_.n != 1) throw NotRaised{"its batch is fixed at " + std::to_string(batch_.n)};
  EncoderInputs inputs = add_encoder_inputs(graph_, true);
  ids_ = inputs.ids, offsets_ = inputs.offsets, types_ = inputs.type_ids;
  for (const ValueInfo& input : g.inputs) {
    Value v;
    if (&input == ids || input.name.find("type") != std::string::npos ||
        input.name.find("segment") != std::string::npos) {
      v.kind = Value::Kind::index;
      v.input = &input == ids ? "ids" : "type_ids";
      v.axes = {{{'B'}}, {{'L'}}};
    } else if (input.name.find("mask") != std::string::npos) {
      if (input.shape.size() != 2) throw NotRaised{"its mask " + input.name + " is not [batch, sequence]"};
      v = uniform(1, input.type, {batch_, tokens_});
      has_mask_ = true;
    } else if (input.name.find("position") != std::string::npos && input.shape.size() == 2) {
      int64_t* out = nullptr;
      v = known(Array::make(input.type, {1, length_}, &out));
      for (int64_t i = 0; i < length_; ++i) out[i] = i;
      v.shape = {batch_, tokens_};
      notes_.push_back("positions " + input.name + " count from 0");
    } else {
      v.kind = Value::Kind::foreign;
    }
    scope_[input.name] = std::move(v);
  }
  add_initializers(g);
  run_nodes(g, 0);
  finish();
  Raised out;
  out.graph = rebuilt();
  out.max_length = limit_ == INT64_MAX ? 0 : limit_;
  if (fixed_) {
    out.max_length = out.max_length > 0 ? std::min(out.max_length, length_) : length_;
  }
  out.has_mask = has_mask_;
  out.question_answering = question_answering_;
  out.notes = notes_;
  return out;
}

void Raiser::add_initializers(const Graph& g) {
  for (const TensorData& t : g.initializers) {
    if (t.data.empty()) continue;
    Value v = known(Array::from(t));
    v.origin = t.name;
    scope_[t.name] = std::move(v);
  }
}

void Raiser::run_nodes(const Graph& g, int depth) {
  if (depth > 8) throw NotRaised{"its graphs are nested too deeply"};
  for (const Node& node : g.nodes) {
    ++order_;
    if (node.op == "If" && node.domain.empty()) {
      run_if(node, depth);
      continue;
    }
    node_ = &node;
    in_.clear();
    static const Value kAbsent;
    for (const std::string& name : node.inputs) {
      auto found = scope_.find(name);
      if (found == scope_.end() && !name.empty()) refuse("its input " + name + " is not made before it");
      in_.push_back(name.empty() ? &kAbsent : &found->second);
    }
    std::vector<Value> outputs = compute();
    for (size_t i = 0; i < node.outputs.size() && i < outputs.size(); ++i)
      if (!node.outputs[i].empty()) scope_[node.outputs[i]] = std::move(outputs[i]);
  }
}

void Raiser::run_if(const Node& node, int depth) {
  auto found = scope_.find(node.input(0));
  double on = 0;
  node_ = &node;
  if (found == scope_.end() || !constant_value(found->second, &on)) refuse("its condition depends on the text");
  const Attribute* branch = node.find(on != 0 ? "then_branch" : "else_branch");
  if (branch == nullptr || !branch->graph) refuse("it lacks a branch");
  add_initializers(*branch->graph);
  run_nodes(*branch->graph, depth + 1);
  for (size_t i = 0; i < node.outputs.size() && i < branch->graph->outputs.size(); ++i) {
    auto made = scope_.find(branch->graph->outputs[i].name);
    node_ = &node;
    if (made == scope_.end()) refuse("its branch does not make its output");
    Value v = made->second;
    scope_[node.outputs[i]] = std::move(v);
  }
}

void Raiser::refuse(const std::string& why) const {
  throw NotRaised{(node_ == nullptr ? std::string("the graph") : node_->label()) + ": " + why};
}

// ---------------------------------------------------------------- one node
std::vector<Value> Raiser::compute() {
  using Kind = Value::Kind;
  const std::string& op = node_->op;
  if (!node_->domain.empty()) refuse("octet does not know this operator");
  for (const Value* v : in_)
    if (v->kind == Kind::foreign && op != "Identity")
      refuse("it reads an input that is no ids, types, mask or positions");
  if (op == "Shape") return {shape()};
  if (op == "Concat" && in_.size() == 1) return {arg(0)};
  if (op == "Identity" || op == "Dropout" || (op == "Cast" && arg(0).kind != Kind::known && !integers_only(arg(0))))
    return {arg(0)};
  bool all_known = true, any_extents = false;
  for (const Value* v : in_) {
    all_known = all_known && (v->kind == Kind::known || v->kind == Kind::none);
    any_extents = any_extents || v->kind == Kind::extents;
  }
  if (any_extents || op == "Range" || op == "ConstantOfShape") {
    bool done = false;
    std::vector<Value> out = shape_arithmetic(&done);
    if (done) return out;
  }
  if (op == "QuantizeLinear") return {quantize()};
  if (op == "DequantizeLinear") return {dequantize()};
  if (all_known || (op == "Expand" && arg(0).kind == Kind::known) || (op == "Reshape" && arg(0).kind == Kind::known) ||
      (op == "Slice" && arg(0).kind == Kind::known) || (op == "Tile" && arg(0).kind == Kind::known))
    return compute_known();
  return compute_text();
}

bool Raiser::integers_only(const Value& v) { return v.kind == Value::Kind::pad_flag || v.kind == Value::Kind::extents; }

Value Raiser::shape() {
  std::vector<Poly> all = shape_of(arg(0));
  auto rank = static_cast<int64_t>(all.size());
  int64_t start = node_->integer("start", 0), end = node_->integer("end", rank);
  start = std::clamp<int64_t>(start < 0 ? start + rank : start, 0, rank);
  end = std::clamp<int64_t>(end < 0 ? end + rank : end, start, rank);
  return extents({all.begin() + start, all.begin() + end}, false);
}

std::vector<Value> Raiser::shape_arithmetic(bool* done) {
  using Kind = Value::Kind;
  const std::string& op = node_->op;
  *done = true;
  if (op == "Range") {
    std::vector<Poly> a = polys(arg(0)), b = polys(arg(1)), s = polys(arg(2));
    if (a.size() != 1 || b.size() != 1 || s.size() != 1 || !a[0].constant() || !s[0].constant() || s[0].n == 0)
      refuse("a range that octet cannot follow");
    bool real = arg(0).kind == Kind::known && arg(0).data.real();
    Poly count = b[0] - a[0];
    if (count.constant() && !real) count = {std::max<int64_t>(0, (count.n + s[0].n - (s[0].n > 0 ? 1 : -1)) / s[0].n)};
    else if (!s[0].is(1)) refuse("a range that octet cannot follow");
    int64_t n = concrete(count);
    if (!ArrayLimit::fits(n)) refuse("a range that octet cannot follow");
    Value v;
    if (real) {
      float* out = nullptr;
      v = known(Array::make(ElemType::f32, {n}, &out));
      for (int64_t i = 0; i < n; ++i)
        out[i] = static_cast<float>(a[0].n) + static_cast<float>(i) * static_cast<float>(s[0].n);
    } else {
      int64_t* out = nullptr;
      v = known(Array::make(ElemType::s64, {n}, &out));
      for (int64_t i = 0; i < n; ++i)
        out[i] = static_cast<int64_t>(static_cast<uint64_t>(a[0].n) +
                                      static_cast<uint64_t>(i) * static_cast<uint64_t>(s[0].n));
    }
    v.shape = {count};
    v.node_name = node_name(*node_);
    return {v};
  }
  if (op == "ConstantOfShape") {
    Array value = Array::scalar(0.0f);
    if (const Attribute* a = node_->find("value"); a != nullptr) value = Array::from(a->tensor);
    std::vector<Poly> shape = polys(arg(0));
    bool constant = std::all_of(shape.begin(), shape.end(), [](const Poly& p) { return p.constant(); });
    if (constant) return *done = false, std::vector<Value>{};
    return {uniform(value.at(0), value.type, shape)};
  }
  if (op == "Gather" && arg(0).kind == Kind::extents) {
    std::vector<Poly> out;
    auto size = static_cast<int64_t>(arg(0).numbers.size());
    for (int64_t i : constants(arg(1))) out.push_back(arg(0).numbers[static_cast<size_t>(axis_of(i, size))]);
    return {extents(out, arg(1).data.shape.empty())};
  }
  if (op == "Unsqueeze" || op == "Squeeze" || op == "Reshape" || op == "Flatten") {
    if (arg(0).kind != Kind::extents) return *done = false, std::vector<Value>{};
    bool scalar = op == "Squeeze" && arg(0).numbers.size() == 1;
    if (op == "Reshape") scalar = has(1) && arg(1).data.count() == 0;
    return {extents(arg(0).numbers, scalar)};
  }
  if (op == "Split" && arg(0).kind == Kind::extents) {
    auto n = node_->outputs.size();
    std::vector<int64_t> parts = has(1) ? constants(arg(1)) : node_->integers("split");
    const std::vector<Poly>& all = arg(0).numbers;
    if (parts.empty()) parts.assign(n, static_cast<int64_t>((all.size() + n - 1) / std::max<size_t>(n, 1)));
    std::vector<Value> out;
    size_t at = 0;
    for (int64_t part : parts) {
      if (part < 0 || at + static_cast<size_t>(part) > all.size()) refuse("parts that do not fit");
      out.push_back(
          extents({all.begin() + static_cast<int64_t>(at), all.begin() + static_cast<int64_t>(at) + part}, false));
      at += static_cast<size_t>(part);
    }
    return out;
  }
  if (op == "Cast" || op == "Floor" || op == "Ceil") return {arg(0)};
  if (op == "Concat") {
    std::vector<Poly> out;
    for (const Value* v : in_) {
      std::vector<Poly> part = polys(*v);
      out.insert(out.end(), part.begin(), part.end());
    }
    return {extents(out, false)};
  }
  if (op == "Slice" && arg(0).kind == Kind::extents) {
    auto size = static_cast<int64_t>(arg(0).numbers.size());
    std::vector<int64_t> s = has(1) ? constants(arg(1)) : node_->integers("starts");
    std::vector<int64_t> e = has(2) ? constants(arg(2)) : node_->integers("ends");
    if (s.size() != 1 || e.size() != 1) refuse("a slice that octet cannot follow");
    int64_t begin = std::clamp<int64_t>(s[0] < 0 ? s[0] + size : s[0], 0, size);
    int64_t end = std::clamp<int64_t>(e[0] < 0 ? e[0] + size : e[0], begin, size);
    return {extents({arg(0).numbers.begin() + begin, arg(0).numbers.begin() + end}, false)};
  }
  bool sums = op == "Add" || op == "Sub" || op == "Mul" || op == "Div", compares = op == "Equal";
  if (sums || compares) {
    bool knowns = (arg(0).kind == Kind::extents || arg(0).kind == Kind::known) &&
                  (arg(1).kind == Kind::extents || arg(1).kind == Kind::known);
    if (knowns && ((arg(0).kind == Kind::known && !plain(arg(0))) || (arg(1).kind == Kind::known && !plain(arg(1))))) {
      // Numbers of places in a flat mask: only a look-up in what is the same everywhere may read them.
      std::vector<Value> both;
      for (size_t i = 0; i < 2; ++i) {
        if (arg(i).kind == Kind::known) {
          both.push_back(arg(i));
          continue;
        }
        std::vector<int64_t> numbers;
        for (const Poly& p : arg(i).numbers) numbers.push_back(concrete(p));
        Array a = Array::of(numbers);
        both.push_back(known(arg(i).scalar ? a.reshaped({}) : a));
        both.back().length_power = kPlaces;
      }
      in_ = {&both[0], &both[1]};
      return compute_known();
    }
    if (!knowns) return *done = false, std::vector<Value>{};
    std::vector<Poly> a = polys(arg(0)), b = polys(arg(1)), out;
    std::vector<int64_t> flags;
    size_t n = std::max(a.size(), b.size());
    bool scalar = shape_of(arg(0)).empty() && shape_of(arg(1)).empty();
    for (size_t i = 0; i < n; ++i) {
      const Poly &x = a[a.size() == 1 ? 0 : i], &y = b[b.size() == 1 ? 0 : i];
      Poly z;
      bool ok = true;
      if (op == "Add") z = x + y;
      else if (op == "Sub") z = x - y;
      else if (op == "Mul") ok = multiply(x, y, &z);
      else if (op == "Div") ok = divide(x, y, &z);
      else flags.push_back(x == y);
      if (!ok) refuse("an extent that octet cannot follow");
      out.push_back(z);
    }
    if (!compares) return {extents(out, scalar)};
    Array f = Array::of(flags);
    f.type = ElemType::boolean;
    return {known(scalar ? f.reshaped({}) : f)};
  }
  if (op == "Where" && plain(arg(0))) {
    std::vector<Poly> a = polys(arg(1)), b = polys(arg(2)), out;
    auto n = static_cast<int64_t>(std::max({a.size(), b.size(), static_cast<size_t>(arg(0).data.count())}));
    for (int64_t i = 0; i < n; ++i) {
      bool on = arg(0).data.at(arg(0).data.count() == 1 ? 0 : i) != 0;
      const std::vector<Poly>& from = on ? a : b;
      out.push_back(from[from.size() == 1 ? 0 : static_cast<size_t>(i)]);
    }
    return {extents(out, false)};
  }
  if (op == "ReduceProd") {
    Poly all{1};
    for (const Poly& p : polys(arg(0)))
      if (!multiply(all, p, &all)) refuse("an extent that octet cannot follow");
    return {extents({all}, node_->integer("keepdims", 1) == 0)};
  }
  *done = false;
  return {};
}

// ---------------------------------------------------------------- known values
// Shapes broadcast: an extent 1 gives way.
std::vector<Poly> Raiser::broadcast_shapes(const std::vector<const Value*>& values) const {
  size_t rank = 0;
  for (const Value* v : values) rank = std::max(rank, v->shape.size());
  std::vector<Poly> out(rank, {1});
  for (const Value* v : values)
    for (size_t d = 0; d < v->shape.size(); ++d) {
      Poly& to = out[rank - v->shape.size() + d];
      if (to.is(1)) to = v->shape[d];
      else if (!v->shape[d].is(1) && !(to == v->shape[d]) && concrete(to) != concrete(v->shape[d]))
        refuse("its shapes do not broadcast");
    }
  return out;
}

std::vector<Value> Raiser::compute_known() {
  const std::string& op = node_->op;
  static const std::vector<std::string> kElementwise = {
      "Add",     "Sub",        "Mul",         "Div",     "Pow",  "Min",  "Max",  "Mod",
      "Equal",   "Less",       "LessOrEqual", "Greater", "And",  "Or",   "Xor",  "GreaterOrEqual",
      "Where",   "Not",        "Abs",         "Neg",     "Sqrt", "Exp",  "Log",  "Cast",
      "Erf",     "Floor",      "Ceil",        "Round",   "Sign", "Tanh", "Relu", "IsNaN",
      "Sigmoid", "Reciprocal", "Sin",         "Cos"};
  std::vector<Value> turned_back;
  for (const Value* v : in_)
    if (v->turned && !(op == "Transpose")) turned_back.push_back(straight(*v));
  std::vector<const Value*> inputs = in_;
  size_t next = 0;
  for (const Value*& v : inputs)
    if (v->turned && op != "Transpose") v = &turned_back[next++];
  bool elementwise = std::find(kElementwise.begin(), kElementwise.end(), op) != kElementwise.end() || op == "Clip";
  if (elementwise) {
    int power = 0;
    std::vector<Array> data;
    for (const Value* v : inputs) {
      if (v->length_power != 0 && v->length_power < kPlaces &&
          !(op == "Cast" || op == "Clip" || op == "Max" || op == "Mul"))
        refuse("it counts tokens in a way that octet cannot follow");
      power += v->length_power;
      data.push_back(v->data);
    }
    if (power >= kPlaces) power = kPlaces;
    else if (op == "Max" || op == "Clip") power = std::min(power, 1);
    std::vector<const Value*> shaped;
    for (const Value* v : inputs)
      if (v->kind == Value::Kind::known) shaped.push_back(v);
    Value out;
    out.kind = Value::Kind::known;
    if (op == "Clip") shaped.resize(1);
    out.shape = broadcast_shapes(shaped);
    out.data = evaluate(*node_, data, file_.opset())[0];
    out.length_power = power;
    note_columns(inputs, &out);
    return {out};
  }
  double same = 0;
  if (op == "GatherElements" && constant_value(*inputs[0], &same))
    return {uniform(same, inputs[0]->data.type, inputs[1]->shape)};
  bool all_plain = true;
  for (const Value* v : inputs) all_plain = all_plain && (v->kind == Value::Kind::none || plain(*v));
  if (op == "Transpose" && arg(0).shape.size() == 2 && !arg(0).origin.empty() && all_plain) {
    std::vector<int64_t> perm = node_->integers("perm", {1, 0});
    Value v = arg(0);
    if (perm == std::vector<int64_t>{1, 0}) v.turned = !v.turned;
    return {v};
  }
  if (op == "Transpose" && arg(0).turned) {
    turned_back = {straight(arg(0))};
    inputs[0] = &turned_back[0];
  }
  if (all_plain && op != "Gather") {
    std::vector<Array> data;
    for (const Value* v : inputs) data.push_back(v->data);
    std::vector<Value> out;
    for (Array& a : evaluate(*node_, data, file_.opset())) out.push_back(known(std::move(a)));
    if (op == "Constant" && !out.empty()) out[0].origin = node_->outputs.empty() ? "" : node_->outputs[0];
    return out;
  }
  return {known_shaping(inputs)};
}

Value Raiser::straight(const Value& v) const {
  if (!v.turned) return v;
  Node node;
  node.op = "Transpose";
  Value out = known(evaluate(node, {v.data}, 13)[0]);
  out.quant = v.quant;
  if (v.quant) refuse("a quantized weight is used in a way that octet cannot follow");
  return out;
}

// A weight times a vector, on its way to a quantizer.
void Raiser::note_columns(const std::vector<const Value*>& inputs, Value* out) const {
  if (node_->op != "Mul" && node_->op != "Div") return;
  if (inputs.size() != 2 || inputs[0]->shape.size() != 2 || inputs[1]->shape.size() != 1 || !plain(*inputs[0]) ||
      !plain(*inputs[1]) || inputs[1]->data.count() != inputs[0]->data.shape[1])
    return;
  if (node_->op == "Mul") {
    if (inputs[0]->origin.empty() || inputs[0]->quant) return;
    out->plain = std::make_shared<Value>(*inputs[0]);
    out->column_name = inputs[1]->origin;
    out->rows = nullptr;
    out->scale = inputs[1]->data;
  } else if (inputs[0]->quant && inputs[0]->quant->column.empty()) {
    const Value& w = *inputs[0];
    if (w.plain && (w.scale.count() != inputs[1]->data.count() ||
                    !std::equal(w.scale.f.data(), w.scale.f + w.scale.count(), inputs[1]->data.f.data())))
      return;
    auto quant = std::make_shared<WeightQuant>(*w.quant);
    quant->column = inputs[1]->data;
    quant->column_name = inputs[1]->origin;
    if (w.plain) {
      out->data = w.plain->data;
      out->origin = w.plain->origin;
    } else {
      out->origin = w.origin;
    }
    out->quant = std::move(quant);
  }
}

Value Raiser::known_shaping(const std::vector<const Value*>& inputs) {
  const std::string& op = node_->op;
  const Value& x = *inputs[0];
  Value out = x;
  out.origin.clear();
  if (op == "Unsqueeze" || op == "Squeeze") {
    std::vector<int64_t> axes = axes_of(1);
    size_t rank = x.shape.size() + (op == "Unsqueeze" ? axes.size() : 0);
    for (int64_t& a : axes) a = axis_of(a, rank);
    std::sort(axes.begin(), axes.end());
    if (op == "Squeeze") std::reverse(axes.begin(), axes.end());
    for (int64_t a : axes) {
      if (op == "Unsqueeze") {
        out.shape.insert(out.shape.begin() + a, {1});
        out.data.shape.insert(out.data.shape.begin() + a, 1);
      } else {
        if (!out.shape[static_cast<size_t>(a)].is(1)) refuse("it squeezes an axis that is not 1");
        out.shape.erase(out.shape.begin() + a);
        out.data.shape.erase(out.data.shape.begin() + a);
      }
    }
    return out;
  }
  if (op == "Flatten") {
    int64_t axis = node_->integer("axis", 1);
    if (axis < 0) axis += static_cast<int64_t>(x.shape.size());
    std::vector<Poly> to{{1}, {1}};
    for (size_t d = 0; d < x.shape.size(); ++d) {
      Poly& p = to[static_cast<int64_t>(d) < axis ? 0 : 1];
      if (!multiply(p, x.shape[d], &p)) refuse("an extent that octet cannot follow");
    }
    return known_reshape(x, to);
  }
  if (op == "Transpose") {
    std::vector<int64_t> perm = node_->integers("perm");
    if (perm.size() != x.shape.size()) refuse("a permutation of other axes");
    out.data = evaluate(*node_, {x.data}, file_.opset())[0];
    for (size_t d = 0; d < perm.size(); ++d) out.shape[d] = x.shape[static_cast<size_t>(perm[d])];
    return out;
  }
  if (op == "Expand") {
    Value to = uniform(0, ElemType::s64, polys(*inputs[1]));
    out.shape = broadcast_shapes({&x, &to});
    while (out.data.shape.size() < out.shape.size()) out.data.shape.insert(out.data.shape.begin(), 1);
    for (size_t d = 0; d < out.shape.size(); ++d)
      if (out.shape[d].constant()) out.data = whole(out, d);
    return out;
  }
  if (op == "Tile") {
    std::vector<Poly> counts = polys(*inputs[1]);
    for (size_t d = 0; d < counts.size(); ++d) {
      if (counts[d].is(1)) continue;
      if (!x.shape[d].is(1)) refuse("it repeats an axis that is not 1");
      out.shape[d] = counts[d];
      if (counts[d].constant()) out.data = whole(out, d);
    }
    return out;
  }
  if (op == "Reshape") return known_reshape(x, polys(*inputs[1]));
  if (op == "Slice") return known_slice(inputs);
  if (op == "Gather") return known_gather(inputs);
  if (op == "CumSum") {
    auto d = static_cast<size_t>(axis_of(constants(*inputs[1])[0], x.shape.size()));
    out.data = evaluate(*node_, {whole(x, d), inputs[1]->data}, file_.opset())[0];
    return out;
  }
  if (op == "Concat") {
    auto axis = static_cast<size_t>(axis_of(node_->integer("axis", 0), x.shape.size()));
    std::vector<Array> parts;
    Poly total;
    for (const Value* v : inputs) {
      Value part = *v;
      for (size_t d = 0; d < part.shape.size(); ++d)
        if (d == axis || v->shape[d].constant()) part.data = whole(part, d);
      parts.push_back(part.data);
      total = total + v->shape[axis];
    }
    // Axes that some parts write out and others do not.
    for (size_t d = 0; d < x.shape.size(); ++d) {
      bool any = std::any_of(parts.begin(), parts.end(), [&](const Array& a) { return a.shape[d] != 1; });
      if (!any || d == axis) continue;
      for (size_t k = 0; k < parts.size(); ++k) {
        Value part = *inputs[k];
        part.data = parts[k];
        parts[k] = whole(part, d);
      }
    }
    out.data = evaluate(*node_, parts, file_.opset())[0];
    out.shape[axis] = total;
    return out;
  }
  if (op.starts_with("Reduce")) return known_reduce(x);
  if (op == "MatMul" || op == "Softmax" || op == "Trilu" || op == "Split" || op == "NonZero" || op == "ScatterND" ||
      op == "GatherND" || op == "GatherElements") {
    // Computed at the longest length: right where every element depends on its own place alone.
    if (op == "Trilu") {
      out.data = evaluate(*node_, {whole(x), inputs.size() > 1 ? inputs[1]->data : Array()}, file_.opset())[0];
      return out;
    }
    if (op == "NonZero" && x.shape.size() == 1 && x.data.count() == 1 && x.data.at(0) != 0) {
      // All places, counted: how a range was written before there was an operator for it.
      int64_t n = concrete(x.shape[0]);
      int64_t* to = nullptr;
      if (!ArrayLimit::fits(n)) refuse("a range that octet cannot follow");
      Value places = known(Array::make(ElemType::s64, {1, n}, &to));
      for (int64_t i = 0; i < n; ++i) to[i] = i;
      places.shape = {{1}, x.shape[0]};
      places.node_name = node_name(*node_);
      return places;
    }
    if (op == "GatherND" && inputs[1]->kind == Value::Kind::known) return known_gather_nd(x, *inputs[1]);
  }
  refuse("octet cannot follow it on a value that depends on the length");
}

// Masks looked up by pairs of places: [places..., depth] into a mask that is the same everywhere.
Value Raiser::known_gather_nd(const Value& x, const Value& index) {
  if (x.data.count() != 1) refuse("octet cannot follow it on a value that depends on the length");
  int64_t depth = index.shape.back().n;
  std::vector<Poly> shape(index.shape.begin(), index.shape.end() - 1);
  shape.insert(shape.end(), x.shape.begin() + node_->integer("batch_dims", 0) + depth, x.shape.end());
  return uniform(x.data.at(0), x.data.type, shape);
}

Value Raiser::known_reshape(const Value& x, std::vector<Poly> to) {
  Value out = x;
  out.origin.clear();
  Poly total{1}, given{1};
  for (const Poly& p : x.shape)
    if (!multiply(total, p, &total)) refuse("an extent that octet cannot follow");
  int64_t open = -1;
  for (size_t d = 0; d < to.size(); ++d) {
    if (to[d].is(0) && d < x.shape.size() && node_->integer("allowzero", 0) == 0) to[d] = x.shape[d];
    if (to[d].is(-1)) open = static_cast<int64_t>(d);
    else if (!multiply(given, to[d], &given)) refuse("an extent that octet cannot follow");
  }
  if (open >= 0 && !divide(total, given, &to[static_cast<size_t>(open)])) refuse("an extent that octet cannot follow");
  out.shape = to;
  if (x.data.count() == 1) {
    out.data = x.data.reshaped(Shape(to.size(), 1));
    return out;
  }
  // The axes that are not 1 stay what they are, one after the other.
  std::vector<std::pair<Poly, int64_t>> axes;
  for (size_t d = 0; d < x.shape.size(); ++d)
    if (!x.shape[d].is(1)) axes.emplace_back(x.shape[d], x.data.shape[d]);
  size_t next = 0;
  Shape shape;
  bool kept = true;
  for (const Poly& p : to) {
    if (p.is(1)) {
      shape.push_back(1);
    } else if (next < axes.size() && axes[next].first == p) {
      shape.push_back(axes[next++].second);
    } else {
      kept = false;
      break;
    }
  }
  if (kept && next == axes.size()) {
    out.data = x.data.reshaped(shape);
    return out;
  }
  shape.clear();
  for (const Poly& p : to) shape.push_back(concrete(p));
  Array all = whole(x);
  if (batch_.constant() ? count(shape) != all.count()
                        : std::any_of(x.shape.begin(), x.shape.end(), [](const Poly& p) { return p.b || p.bl; }))
    refuse("a reshape that octet cannot follow");
  out.data = all.reshaped(shape);
  return out;
}

Value Raiser::known_slice(const std::vector<const Value*>& inputs) {
  Value out = *inputs[0];
  bool input_form = file_.opset() >= 10;
  auto list = [&](size_t i, const char* name) {
    if (input_form && i < inputs.size() && inputs[i]->kind != Value::Kind::none) return polys(*inputs[i]);
    std::vector<Poly> v;
    for (int64_t n : node_->integers(name)) v.push_back({n});
    return v;
  };
  std::vector<Poly> starts = list(1, "starts"), ends = list(2, "ends"), axes = list(3, "axes"),
                    steps = list(4, "steps");
  for (size_t k = 0; k < starts.size(); ++k) {
    auto d = static_cast<size_t>(axis_of(axes.empty() ? static_cast<int64_t>(k) : axes.at(k).n, out.shape.size()));
    Poly step = steps.empty() ? Poly{1} : steps.at(k), extent = out.shape[d], end = ends.at(k), start = starts[k];
    if (!step.is(1)) refuse("a slice with steps along a length");
    if (start.constant() && start.n < 0) start = extent + start;
    if (end.constant() && end.n < 0) end = extent + end;
    bool to_end = end.constant() && (end.n >= (int64_t{1} << 31) - 1 || (extent.constant() && end.n > extent.n));
    if (to_end) end = extent;
    if (extent.constant() && !end.constant() && concrete(end) > extent.n)
      throw ShorterLength{length_ - (concrete(end) - extent.n)};
    if (extent.constant() && !end.constant()) limit_ = std::min(limit_, extent.n - (end.n));
    if (!start.constant() && !(start == end)) refuse("a slice from a place that depends on the length");
    Poly size = end - start;
    if (size == extent && start.is(0)) continue;
    if (out.data.shape[d] != 1 || extent.is(1)) {
      Node node;
      node.op = "Slice";
      out.data = evaluate(node,
                          {whole(out, d), Array::of({concrete(start)}), Array::of({concrete(end)}),
                           Array::of({static_cast<int64_t>(d)})},
                          13)[0];
    }
    out.shape[d] = size;
    out.origin.clear();
  }
  if (out.shape.size() == 2 && !inputs[0]->origin.empty() && plain(*inputs[0]) && out.shape[0].l == 1 &&
      out.data.real() && out.shape[1] == inputs[0]->shape[1] && starts[0].constant()) {
    // Rows of a table cut out without a look-up.
    out.rows = std::make_shared<TableRows>(TableRows{inputs[0]->origin, inputs[0]->data, inputs[0]->quant, starts[0].n,
                                                     true, node_name(*node_), "", order_});
    out.quant = nullptr;
  }
  return out;
}

Value Raiser::known_gather(const std::vector<const Value*>& inputs) {
  const Value &x = *inputs[0], &index = *inputs[1];
  auto axis = static_cast<size_t>(axis_of(node_->integer("axis", 0), x.shape.size()));
  Value out;
  out.kind = Value::Kind::known;
  out.node_name = index.node_name;
  if (index.length_power != 0) {
    if (axis != 0 || x.data.count() != 1) refuse("it looks up by places that octet cannot follow");
    std::vector<Poly> shape = index.shape;
    shape.insert(shape.end(), x.shape.begin() + 1, x.shape.end());
    return uniform(x.data.at(0), x.data.type, shape);
  }
  Array table = x.shape.empty() ? x.data : whole(x, axis);
  if (x.shape.empty()) refuse("it looks up in a number");
  int64_t rows = table.shape[axis], highest = -1;
  for (int64_t i = 0; i < index.data.count(); ++i) highest = std::max(highest, index.data.i[i]);
  bool along = std::any_of(index.shape.begin(), index.shape.end(), [](const Poly& p) { return !p.constant(); });
  if (highest >= rows && along) throw ShorterLength{length_ - (highest - rows + 1)};
  out.data = evaluate(*node_, {table, index.data}, file_.opset())[0];
  out.shape.assign(x.shape.begin(), x.shape.begin() + static_cast<int64_t>(axis));
  out.shape.insert(out.shape.end(), index.shape.begin(), index.shape.end());
  out.shape.insert(out.shape.end(), x.shape.begin() + static_cast<int64_t>(axis) + 1, x.shape.end());
  out.length_power = x.length_power;
  if (axis == 1 && x.shape.size() == 2) out.columns_of = x.origin;
  if (axis == 0 && x.shape.size() == 2 && x.data.real() && !x.origin.empty() && index.data.count() > 0) {
    // Remember the table: a sum with text then looks it up itself.
    int64_t start = index.data.i[0];
    bool counts = true;
    for (int64_t i = 0; i < index.data.count(); ++i) counts = counts && index.data.i[i] == start + i;
    bool one = index.data.count() == 1;
    bool by_length = !index.shape.empty() && (index.shape.back().l == 1 || (fixed_ && index.shape.back().is(length_)));
    if (counts && (one || by_length))
      out.rows =
          std::make_shared<TableRows>(TableRows{x.origin, x.data, x.quant, start, !one || (by_length && length_ == 1),
                                                node_name(*node_), index.node_name, order_});
  }
  return out;
}

Value Raiser::known_reduce(const Value& x) {
  const std::string& op = node_->op;
  std::vector<int64_t> axes = axes_of(1);
  bool keep = node_->integer("keepdims", 1) != 0;
  if (axes.empty())
    for (size_t d = 0; d < x.shape.size(); ++d) axes.push_back(static_cast<int64_t>(d));
  Value out = x;
  out.origin.clear();
  std::vector<size_t> gone;
  for (int64_t a : axes) gone.push_back(static_cast<size_t>(axis_of(a, x.shape.size())));
  std::sort(gone.rbegin(), gone.rend());
  for (size_t d : gone) {
    bool same = out.data.shape[d] == 1;
    if (op == "ReduceSum" && same && out.shape[d] == tokens_ && !tokens_.constant()) {
      ++out.length_power;
    } else if (!(same && (op == "ReduceMean" || op == "ReduceMax" || op == "ReduceMin"))) {
      if (!out.shape[d].constant()) refuse("it reduces along the length");
      Node node;
      node.op = op;
      Attribute a;
      a.kind = Attribute::Kind::integers, a.name = "axes", a.integers = {static_cast<int64_t>(d)};
      node.attributes = {a};
      out.data = evaluate(node, {whole(out, d)}, 11)[0];
    }
    out.shape[d] = {1};
    if (!keep) {
      out.shape.erase(out.shape.begin() + static_cast<int64_t>(d));
      out.data.shape.erase(out.data.shape.begin() + static_cast<int64_t>(d));
    }
  }
  return out;
}

}  // namespace octet::onnx
