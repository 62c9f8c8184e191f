// Nodes and parameters of octet's graph: names, weights with their quantizers, products when they are read, and the
// order of the result.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/file.h"
#include "onnx/raiser.h"

namespace octet::onnx {

namespace {

using Kind = Value::Kind;

Tensor tensor_of(const Array& a) {
  OCTET_CHECK(a.real(), "a parameter of integers");
  if (a.f.held() != nullptr) return a.f.held()->reshape(a.shape);
  return {DType::f32, a.shape, a.owner, reinterpret_cast<const std::byte*>(static_cast<const float*>(a.f))};
}

// [K, N] as [N, K], made when it is first read.
Array transposed(const Array& a) {
  const int64_t k = a.shape[0], n = a.shape[1];
  return Array::of(Tensor::deferred(DType::f32, {n, k}, [a, k, n](int64_t begin, int64_t end, std::byte* bytes) {
    const Tensor source = tensor_of(a);
    const std::byte* from = source.rows(0, k, nullptr);
    // Blocks of a line by a line, and through a buffer: rows that lie powers of two apart share lines of the cache.
    constexpr int64_t kBlock = 16;
    float block[kBlock][kBlock];
    for (int64_t j = begin; j < end; j += kBlock)
      for (int64_t i = 0; i < k; i += kBlock) {
        const int64_t width = std::min(kBlock, end - j), height = std::min(kBlock, k - i);
        for (int64_t p = 0; p < height; ++p) {
          float row[kBlock];
          std::memcpy(row, from + 4 * ((i + p) * n + j), static_cast<size_t>(4 * width));
          for (int64_t q = 0; q < width; ++q) block[q][p] = row[q];
        }
        for (int64_t q = 0; q < width; ++q)
          std::memcpy(bytes + 4 * ((j - begin + q) * k + i), block[q], static_cast<size_t>(4 * height));
      }
    if (begin == 0 && end == n) release_pages(from, static_cast<size_t>(4 * k * n));
  }));
}

}  // namespace

// ---------------------------------------------------------------- names
// "/encoder/layer.0/query/MatMul" and "encoder.layer.0.query/MatMul_1" are encoder.layer.0.query.
std::string Raiser::node_name(const Node& node) const {
  std::string text = !node.name.empty() ? node.name : node.outputs.empty() ? node.op : node.outputs[0];
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    size_t slash = std::min(text.find('/', at), text.size());
    if (slash > at) parts.push_back(text.substr(at, slash - at));
    at = slash + 1;
  }
  if (parts.size() > 1) parts.pop_back();
  std::string name;
  for (const std::string& part : parts) name += (name.empty() ? "" : ".") + part;
  // The text form of graphs takes these characters in names.
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '_';
  return name.empty() ? "node" : name;
}

void Raiser::name_by(const std::string& parameter, const char* suffix, std::string* name) {
  std::string end(suffix);
  if (name->find('.') == std::string::npos && parameter.ends_with(end) && parameter.size() > end.size())
    *name = parameter.substr(0, parameter.size() - end.size());
}

std::string Raiser::positions_name(const std::string& maker) {
  return maker.ends_with("positions") ? maker : maker.empty() ? "positions" : maker + ".positions";
}

std::string Raiser::unique(const std::string& name, const std::set<std::string>& taken) const {
  std::string out = name;
  for (int i = 1; taken.contains(out) || value_names_.contains(out); ++i) out = name + "_" + std::to_string(i);
  return out;
}

ValueId Raiser::emit(octet::Op op, const std::string& name, std::vector<ValueId> inputs, Attributes attributes,
                     int order) {
  std::string own = unique(name, node_names_);
  node_names_.insert(own);
  value_names_.insert(own);
  order_of_[own] = order;
  return graph_.add(op, own, std::move(inputs), std::move(attributes));
}

ValueId Raiser::parameter(const std::string& name, Tensor tensor) {
  auto known = parameter_by_name_.find(name);
  if (known != parameter_by_name_.end() && known->second.first == tensor.identity()) return known->second.second;
  std::string own = unique(name, node_names_);
  value_names_.insert(own);
  const void* data = tensor.identity();
  ValueId id = graph_.add_parameter(own, std::move(tensor));
  parameter_by_name_[name] = {data, id};
  return id;
}
ValueId Raiser::parameter(const std::string& name, const Array& array) { return parameter(name, tensor_of(array)); }

// ---------------------------------------------------------------- weights
ValueId Raiser::weight(const Value& w, const std::string& name, const std::vector<int64_t>& rows, int order,
                       bool table) {
  Array data = w.data;
  int64_t n = data.shape[0], width = data.shape[1];
  if (!rows.empty()) {
    float* out = nullptr;
    Array part = Array::make(ElemType::f32, {static_cast<int64_t>(rows.size()), width}, &out);
    for (size_t i = 0; i < rows.size(); ++i)
      std::copy(data.f + rows[i] * width, data.f + (rows[i] + 1) * width, out + static_cast<int64_t>(i) * width);
    data = part;
  }
  ValueId id = parameter(rows.empty() && !w.origin.empty() ? w.origin : name + ".weight", data);
  if (!w.quant) return id;
  const WeightQuant& q = *w.quant;
  if (q.type != ElemType::s8 && q.type != ElemType::u8) refuse("a weight of " + onnx::name(q.type));
  if (q.axis > 0) refuse("a weight has scales along its inputs");
  bool shift = q.type == ElemType::u8 && !q.zero.empty() &&
               std::all_of(q.zero.i, q.zero.i + q.zero.count(), [](int64_t z) { return z == 128; });
  bool any = false;
  for (int64_t i = 0; !q.zero.empty() && i < q.zero.count() && !shift; ++i) any = any || q.zero.i[i] != 0;
  if (table && (any || (q.type == ElemType::u8 && !shift))) {
    // Tables have one form of integers; others stay what they dequantize to.
    Node round;
    round.op = "QuantizeLinear";
    Attribute axis;
    axis.kind = Attribute::Kind::integer, axis.name = "axis", axis.integer = std::max<int64_t>(q.axis, 0);
    round.attributes = {axis};
    Array ints = evaluate(round, {data, q.scale, q.zero}, 13)[0];
    round.op = "DequantizeLinear";
    return parameter(name + ".dequantized", evaluate(round, {ints, q.scale, q.zero}, 13)[0]);
  }
  bool is_signed = q.type == ElemType::s8 || shift;
  auto pick = [&](const auto* from, int64_t count) {
    std::vector<std::decay_t<decltype(*from)>> out;
    if (count == 1) return out.assign(1, from[0]), out;
    if (rows.empty()) out.assign(from, from + count);
    for (int64_t r : rows) out.push_back(from[r]);
    return out;
  };
  bool each = q.axis == 0 && q.scale.count() == n;
  if (q.axis == 0 && !each && q.scale.count() != 1) refuse("a weight has scales of another number");
  Attributes attributes{{"type", std::string(is_signed ? "s8" : "u8")},
                        {"lo", int64_t{is_signed ? -128 : 0}},
                        {"hi", int64_t{is_signed ? 127 : 255}}};
  std::vector<float> scale = pick(q.scale.f.data(), q.scale.count());
  Shape shape;
  if (each) attributes["axis"] = int64_t{0}, shape = {data.shape[0]};
  std::string own = unique(q.name.empty() ? name + "._weight_quantizer" : q.name, node_names_);
  std::vector<ValueId> inputs{id, parameter(own + ".scale", Tensor::from(scale, shape))};
  if (any) {
    std::vector<int32_t> zeros;
    for (int64_t z : pick(q.zero.i, q.zero.count())) zeros.push_back(static_cast<int32_t>(z));
    zeros.resize(scale.size(), zeros.empty() ? 0 : zeros[0]);
    inputs.push_back(parameter(own + ".zero_point", Tensor::from(zeros, shape)));
  }
  if (!q.column.empty()) {
    if (inputs.size() == 2) inputs.push_back(kNone);
    inputs.push_back(parameter(q.column_name.empty() ? own + ".column_scale" : q.column_name, q.column));
  }
  return emit(octet::Op::fake_quant, own, inputs, attributes, q.order > 0 ? q.order : order);
}

Value Raiser::standing(const Product& p) const {
  Value w = p.weight;
  if (w.turned) {
    w.turned = false;
    return w;
  }
  // [K, N] in the file.
  w.data = transposed(w.data);
  w.origin.clear();
  if (w.quant) {
    auto quant = std::make_shared<WeightQuant>(*w.quant);
    if (!quant->column.empty()) refuse("a weight's column scales lie along its outputs");
    if (quant->axis >= 0) quant->axis = 1 - quant->axis;
    w.quant = quant;
  }
  return w;
}

// ---------------------------------------------------------------- products
ValueId Raiser::settle(const Value& x) {
  if (x.kind != Kind::view) refuse("it reads what octet cannot follow");
  if (x.sum_length != 0) refuse("it reads a sum over tokens");
  std::vector<Atom> atoms = features(x);
  if (!x.product) {
    int64_t width = graph_.value(x.id).type.shape.back(), stride = 1;
    if (x.form == 's') return x.id;
    for (size_t i = atoms.size(); i-- > 0;) {
      if (atoms[i].stride != stride) refuse("features in an order that octet cannot follow");
      stride *= atoms[i].extent;
    }
    if (stride != width) refuse("a part of features that are no product's");
    return x.id;
  }
  Product& p = *x.product;
  if (p.is_scores) refuse("it reads scores before their softmax");
  std::vector<int64_t> columns{x.offset};
  for (const Atom& a : atoms) {
    std::vector<int64_t> next;
    for (int64_t c : columns)
      for (int64_t i = 0; i < a.extent; ++i) next.push_back(c + i * a.stride);
    columns = std::move(next);
  }
  bool all = static_cast<int64_t>(columns.size()) == p.width;
  for (size_t i = 0; all && i < columns.size(); ++i) all = columns[i] == static_cast<int64_t>(i);
  std::string key = all ? "all" : std::to_string(x.offset);
  if (!all)
    for (const Atom& a : atoms) key += "," + std::to_string(a.extent) + ":" + std::to_string(a.stride);
  auto made = p.made.find(key);
  if (made != p.made.end()) return made->second;
  std::string name = p.name;
  if (!all) {
    constexpr const char* kThirds[] = {"query", "key", "value"};
    int64_t part = static_cast<int64_t>(columns.size());
    bool third = part * 3 == p.width && x.offset % std::max<int64_t>(1, part) == 0 && atoms.size() <= 2;
    name += third ? std::string(".") + kThirds[x.offset / part] : ".columns_" + std::to_string(x.offset);
  }
  Value w = standing(p);
  std::vector<ValueId> inputs{p.x, weight(w, name, all ? std::vector<int64_t>{} : columns, p.order, false)};
  if (!p.bias.empty()) {
    if (all) {
      inputs.push_back(parameter(p.bias_name.empty() ? name + ".bias" : p.bias_name, p.bias));
    } else {
      std::vector<float> bias;
      for (int64_t c : columns) bias.push_back(p.bias.f[c]);
      inputs.push_back(parameter(name + ".bias", Tensor::from(bias, {static_cast<int64_t>(bias.size())})));
    }
  }
  ValueId id = emit(octet::Op::linear, name, inputs, {}, p.order);
  p.made[key] = id;
  return id;
}

ValueId Raiser::settle_plain(const Value& x) {
  if (x.kind != Kind::view) refuse("it reads what octet cannot follow");
  if (x.pending != 1) refuse("a factor that no operation takes");
  return settle(x);
}

// The view with its product made; features are numbered anew in the order of the axes.
Value Raiser::settled(const Value& x) {
  if (x.kind != Kind::view || (x.product && x.product->is_scores)) return x;
  Value y = x;
  y.id = settle(x);
  if (!x.product) return y;
  y.product = nullptr;
  y.offset = 0;
  int64_t stride = 1;
  for (size_t d = y.axes.size(); d-- > 0;)
    for (size_t i = y.axes[d].size(); i-- > 0;)
      if (Atom& a = y.axes[d][i]; a.kind == 'F') a.stride = stride, stride *= a.extent;
  return y;
}

// ---------------------------------------------------------------- the result
void Raiser::finish() {
  node_ = nullptr;
  struct Out {
    std::string name;
    Value value;
  };
  std::vector<Out> outs;
  for (const ValueInfo& output : file_.graph.outputs) {
    auto found = scope_.find(output.name);
    if (found == scope_.end()) fail(ErrorCode::corrupt, {.what = "output " + output.name + " is never computed"});
    Kind kind = found->second.kind;
    if (kind == Kind::index || kind == Kind::foreign || kind == Kind::known) {
      notes_.push_back("output " + output.name + " depends on no text and is left out");
      continue;
    }
    if (kind != Kind::view) refuse("output " + output.name + " is no result of text that octet can follow");
    outs.push_back({output.name, found->second});
  }
  if (outs.empty()) refuse("no output is a result of text");
  // Start and end scores are the columns of one product.
  if (outs.size() == 2 && outs[0].value.product && outs[0].value.product == outs[1].value.product &&
      outs[0].value.product->width == 2 && outs[0].value.offset == 0 && outs[1].value.offset == 1 &&
      features(outs[0].value).empty()) {
    Value both = outs[0].value;
    both.axes = {{{'B'}}, {{'L'}}, {{'F', 2, 1}}};
    if (both.held) notes_.push_back("quantizer " + both.held->node_name + " of the answer's start and end is left out");
    both.held = nullptr;
    outs = {{"logits", both}};
    question_answering_ = true;
  }
  std::stable_sort(outs.begin(), outs.end(), [](const Out& a, const Out& b) {
    auto main = [](const Out& o) { return o.name == "sentence_embedding" || o.name == "logits"; };
    return main(a) && !main(b);
  });
  for (Out& out : outs) out.value = released(out.value);
  // A file without such names that pools its tokens is there for the pooled text.
  auto pooled = [&](const Out& o) {
    if (o.value.kind != Kind::view || o.value.form != 'r' || o.value.product || graph_.producer(o.value.id) < 0)
      return false;
    octet::Op maker = graph_.node(static_cast<size_t>(graph_.producer(o.value.id))).op;
    return maker == octet::Op::pool_mean || maker == octet::Op::pool_max || maker == octet::Op::normalize;
  };
  if (outs.front().name != "sentence_embedding" && outs.front().name != "logits")
    std::stable_sort(outs.begin(), outs.end(), [&](const Out& a, const Out& b) { return pooled(a) && !pooled(b); });
  for (Out& out : outs) {
    std::vector<char> kinds;
    for (const Axis& axis : out.value.axes)
      for (const Atom& a : axis)
        if (a.kind != 'F') kinds.push_back(a.kind);
        else if (kinds.empty() || (out.value.form == 't' && kinds.size() < 2))
          refuse("output " + out.name + " is turned");
    std::vector<char> want = out.value.form == 't' ? std::vector<char>{'B', 'L'} : std::vector<char>{'B'};
    if (kinds != want && !(batch_.is(1) && kinds == std::vector<char>(want.begin() + 1, want.end())))
      refuse("output " + out.name + " has axes that octet does not give");
    graph_.set_output(out.name, settle_plain(out.value));
  }
}

octet::Graph Raiser::rebuilt() {
  graph_.remove_dead();
  octet::Graph out;
  out.name = file_.graph.name.empty() ? "model" : file_.graph.name;
  for (char& c : out.name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '_';
  std::map<ValueId, ValueId> ids;
  for (ValueId id : graph_.inputs()) {
    const octet::Value& v = graph_.value(id);
    if (v.name == "type_ids" && graph_.users(id).empty()) continue;
    ids[id] = out.add_input(v.name, v.type);
  }
  // Nodes in the file's order as far as what they read is made.
  const std::vector<octet::Node>& nodes = graph_.nodes();
  std::vector<int> waits(nodes.size(), 0);
  std::vector<std::vector<size_t>> readers(graph_.values().size());
  for (size_t i = 0; i < nodes.size(); ++i)
    for (ValueId in : nodes[i].inputs)
      if (in != kNone && graph_.producer(in) >= 0) ++waits[i], readers[static_cast<size_t>(in)].push_back(i);
  std::set<std::pair<int, size_t>> ready;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (waits[i] == 0) ready.emplace(order_of_[nodes[i].name], i);
  while (!ready.empty()) {
    size_t i = ready.begin()->second;
    ready.erase(ready.begin());
    const octet::Node& node = nodes[i];
    std::vector<ValueId> inputs;
    for (ValueId in : node.inputs) {
      if (in != kNone && !ids.contains(in)) ids[in] = out.add_parameter(graph_.value(in).name, graph_.parameter(in));
      inputs.push_back(in == kNone ? kNone : ids.at(in));
    }
    ids[node.output] = out.add(node.op, node.name, inputs, node.attributes);
    for (size_t reader : readers[static_cast<size_t>(node.output)])
      if (--waits[reader] == 0) ready.emplace(order_of_[nodes[reader].name], reader);
  }
  for (const auto& [name, value] : graph_.outputs()) out.set_output(name, ids.at(value));
  return out;
}

}  // namespace octet::onnx
