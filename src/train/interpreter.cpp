// Every operation of the graph in libtorch.
#include "train/interpreter.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "graph/passes.h"
#include "graph/relative_bias.h"
#include "quant/placement.h"

namespace octet::train {

at::Tensor to_torch(const Tensor& tensor) {
  Tensor wide = tensor.as_f32();
  at::Tensor made = at::empty(wide.shape(), at::kFloat);
  if (wide.elements() > 0) std::memcpy(made.mutable_data_ptr(), wide.data(), static_cast<size_t>(wide.bytes()));
  return made;
}

Tensor from_torch(const at::Tensor& tensor) {
  at::Tensor host = tensor.detach().to(at::kCPU).to(at::kFloat).contiguous();
  return Tensor::from(std::span(host.const_data_ptr<float>(), static_cast<size_t>(host.numel())),
                      Shape(host.sizes().begin(), host.sizes().end()));
}

Interpreter::Interpreter(Graph graph, const Options& options) : graph_(std::move(graph)), options_(options) {
  remove_off_quantizers(graph_, false);
  if (!options.learn_ranges) share_quantizers(graph_);
  graph_.remove_dead();
  load_parameters();
  load_quantizers();
  last_use_.resize(graph_.nodes().size());
  std::map<ValueId, size_t> last;
  for (size_t i = 0; i < graph_.nodes().size(); ++i)
    for (ValueId input : graph_.node(i).inputs)
      if (input != kNone) last[input] = i;
  for (const auto& [value, node] : last)
    if (!graph_.is_output(value)) last_use_[node].push_back(value);
  for (const Node& node : graph_.nodes())
    if (node.op == Op::attention_scores && fuses(node))
      fused_.insert({node.output, graph_.node(graph_.users(node.output)[0]).output});
  refresh();
}

/// The quantizer that alone reads a parameter, unless it is a table's (embed() quantizes the rows) or dynamic.
std::string Interpreter::only_quantizer(ValueId parameter) const {
  std::vector<size_t> users = graph_.users(parameter);
  if (users.size() != 1) return "";
  const Node& node = graph_.node(users[0]);
  if (node.op != Op::fake_quant || node.input(0) != parameter || !node.text("dynamic", "").empty()) return "";
  users = graph_.users(node.output);
  return std::any_of(users.begin(), users.end(), [&](size_t u) { return graph_.node(u).op == Op::embedding; })
             ? ""
             : node.name;
}

void Interpreter::load_parameters() {
  std::set<ValueId> ranges, plain;
  for (const Node& node : graph_.nodes()) {
    for (size_t i = 1; node.op == Op::fake_quant && i < node.inputs.size(); ++i) ranges.insert(node.input(i));
    if (node.op == Op::layer_norm) plain.insert({node.input(1), node.input(2)});
    if (node.op == Op::linear) plain.insert(node.input(2));
  }
  for (const auto& [name, tensor] : graph_.parameters()) {
    const ValueId value = graph_.find_value(name);
    if (ranges.contains(value)) continue;
    Trainable t{.name = name};
    t.master = to_torch(tensor).to(options_.device, options_.master);
    // The reference decides by name, too: a relative_attention_bias gets no decay.
    t.decay = !plain.contains(value) && name.find("bias") == std::string::npos;
    const std::string quantizer = only_quantizer(value);
    const bool copy = options_.compute != options_.master || !quantizer.empty();
    t.leaf = copy ? t.master.to(options_.compute, false, /*copy=*/true) : t.master;
    t.leaf.requires_grad_(true);
    if (!quantizer.empty()) weights_[trainables_.size()] = quantizer;
    else if (copy) masters_.push_back(t.master), leaves_.push_back(t.leaf.detach());
    trainable_[name] = trainables_.size();
    trainables_.push_back(std::move(t));
  }
}

void Interpreter::load_quantizers() {
  for (const Node& node : graph_.nodes()) {
    if (node.op != Op::fake_quant) continue;
    Quantizer q{.axis = node.integer("axis", -1), .lo = node.integer("lo", -128), .hi = node.integer("hi", 127)};
    q.bound = spec_of(node).bound();
    q.dynamic = node.text("dynamic", "");
    q.weight = graph_.is_parameter(node.input(0));
    if (node.input(2) != kNone)
      fail(ErrorCode::unsupported,
           {.what = "cannot train a quantizer with a zero point", .where = "node " + node.name});
    if (q.dynamic.empty()) {
      OCTET_CHECK(node.input(1) != kNone, "a quantizer with a range");
      q.scale = to_torch(graph_.parameter(node.input(1))).to(options_.device);
      if (node.input(3) != kNone) q.column = to_torch(graph_.parameter(node.input(3))).to(options_.device);
      if (options_.learn_ranges && !q.weight) {
        Trainable t{.name = graph_.value(node.input(1)).name, .master = q.scale, .leaf = q.scale};
        q.scale.requires_grad_(true);
        trainable_[t.name] = trainables_.size();
        trainables_.push_back(std::move(t));
      }
    }
    quantizers_.emplace(node.name, std::move(q));
  }
}

void Interpreter::refresh() {
  c10::NoGradGuard no_grad;
  if (!masters_.empty()) at::_foreach_copy_(leaves_, masters_);
  for (const Node& node : graph_.nodes()) {
    if (!options_.follow_weights) break;
    if (node.op != Op::fake_quant) continue;
    Quantizer& q = quantizers_.at(node.name);
    if (!q.weight || !q.dynamic.empty()) continue;
    at::Tensor w = trainables_[trainable_.at(graph_.value(node.input(0)).name)].master.abs();
    if (q.column.defined()) w = w * q.column;
    at::Tensor amax = (q.axis == 0 ? w.amax({1}) : w.max()).to(at::kFloat);
    q.scale.copy_(at::where(amax <= 0x1p-24, at::zeros_like(amax), amax / static_cast<double>(q.bound)));
  }
  for (const auto& [index, quantizer] : weights_)
    fake_quantize(trainables_[index].master, settings(quantizers_.at(quantizer)), trainables_[index].leaf);
}

void Interpreter::clip_weight_gradients() {
  c10::NoGradGuard no_grad;
  for (const auto& [index, quantizer] : weights_) {
    Trainable& t = trainables_[index];
    if (!t.leaf.grad().defined()) continue;
    if (!t.leaf.grad().is_contiguous()) t.leaf.mutable_grad() = t.leaf.grad().contiguous();
    clip_gradient(t.master, settings(quantizers_.at(quantizer)), t.leaf.mutable_grad());
  }
}

FakeQuant Interpreter::settings(const Quantizer& q) const {
  FakeQuant quant{.scale = q.scale, .column = q.column, .axis = q.axis, .lo = q.lo, .hi = q.hi};
  quant.learn = options_.learn_ranges && !q.weight;
  return quant;
}

Tensor Interpreter::scale_of(const std::string& quantizer) const {
  auto found = quantizers_.find(quantizer);
  return found == quantizers_.end() || !found->second.scale.defined() ? Tensor() : from_torch(found->second.scale);
}

Tensor Interpreter::parameter(const std::string& name) const {
  return from_torch(trainables_[trainable_.at(name)].master);
}

at::Tensor Interpreter::quantize(const Quantizer& q, const at::Tensor& target, const at::Tensor& values,
                                 const Batch& batch) const {
  FakeQuant quant = settings(q);
  if (q.dynamic.empty()) return fake_quant(target, values, quant);
  c10::NoGradGuard no_grad;
  auto scale_for = [&](const at::Tensor& amax) {
    at::Tensor wide = amax.to(at::kFloat);
    return at::where(wide <= 0x1p-24, at::zeros_like(wide), wide / static_cast<double>(q.bound));
  };
  if (q.dynamic == "token") {
    quant.scale = scale_for(values.abs().amax({1}));
    quant.axis = 0;
    c10::AutoGradMode on(true);
    return fake_quant(target, values, quant);
  }
  OCTET_CHECK(q.dynamic == "row_channel", "a known dynamic range");
  std::vector<at::Tensor> parts;
  c10::AutoGradMode on(true);
  for (int64_t r = 0; r < batch.rows; ++r) {
    const int64_t begin = batch.host.offsets[static_cast<size_t>(r)],
                  end = batch.host.offsets[static_cast<size_t>(r + 1)];
    at::Tensor part = target.slice(0, begin, end);
    quant.scale = scale_for(part.detach().abs().amax({0}));
    quant.axis = 1;
    parts.push_back(fake_quant(part, part, quant));
  }
  return at::cat(parts, 0);
}

// A table's quantizer is applied to the rows that are looked up: the same numbers, a thousandth of the work.
at::Tensor Interpreter::embed(const Node& node, const Batch& batch, std::vector<Slot>& values) {
  at::Tensor indices = values[static_cast<size_t>(node.input(1))].flat;
  const ValueId table = node.input(0);
  const int64_t maker = graph_.producer(table);
  if (maker < 0) {
    const Trainable& t = trainables_[trainable_.at(graph_.value(table).name)];
    return at::embedding(t.leaf, indices);
  }
  const Node& quantizer = graph_.node(static_cast<size_t>(maker));
  const Trainable& t = trainables_[trainable_.at(graph_.value(quantizer.input(0)).name)];
  Quantizer q = quantizers_.at(quantizer.name);
  at::Tensor rows = at::embedding(t.leaf, indices);
  at::Tensor exact = t.master.is_same(t.leaf) ? rows : at::embedding(t.master.detach(), indices);
  if (q.scale.numel() > 1) q.scale = q.scale.index_select(0, indices);
  return quantize(q, rows, exact, batch);
}

/// Whether scores -> softmax -> context is nothing but attention, which torch has fused for 16 bits on a GPU.
bool Interpreter::fuses(const Node& scores) const {
  if (!options_.flash || options_.device.is_cpu() || options_.compute == at::kFloat || scores.input(3) != kNone)
    return false;
  std::vector<size_t> users = graph_.users(scores.output);
  if (users.size() != 1 || graph_.node(users[0]).op != Op::softmax) return false;
  std::vector<size_t> next = graph_.users(graph_.node(users[0]).output);
  return next.size() == 1 && graph_.node(next[0]).op == Op::attention_context;
}

namespace {

/// Places of group g as [rows, heads, length, width a head].
std::vector<at::Tensor> heads_of(const at::Tensor& flat, const Batch& batch, int64_t heads) {
  at::Tensor places = pack(flat, batch);
  std::vector<int64_t> sizes;
  for (const Batch::Group& group : batch.groups) sizes.push_back(group.rows * group.length);
  std::vector<at::Tensor> parts =
      sizes.size() == 1 ? std::vector<at::Tensor>{places} : places.split_with_sizes(sizes, 0);
  for (size_t g = 0; g < parts.size(); ++g)
    parts[g] =
        parts[g].reshape({batch.groups[g].rows, batch.groups[g].length, heads, flat.size(1) / heads}).transpose(1, 2);
  return parts;
}

/// [heads, length, length] of a bias [heads, L, L], or [heads, 2L-1] by key - query + L - 1. Views: their gradient adds
/// in a fixed order.
at::Tensor square_bias(const at::Tensor& bias, int64_t length) {
  if (bias.dim() == 3) return bias.slice(1, 0, length).slice(2, 0, length);
  const int64_t middle = bias.size(1) / 2;
  return bias.slice(1, middle + 1 - length, middle + length).unfold(1, length, 1).flip({1});
}

}  // namespace

Slot Interpreter::scores(const Node& node, const Batch& batch, std::vector<Slot>& values) {
  const at::Tensor &q = values[static_cast<size_t>(node.input(0))].flat,
                   &k = values[static_cast<size_t>(node.input(1))].flat;
  const int64_t heads = node.integer("heads", 1);
  const double scale = node.number("scale", 1.0);
  Slot slot;
  if (fused(node.output)) {  // the context node does it all
    slot.groups = {q, k};
    return slot;
  }
  std::vector<at::Tensor> qs = heads_of(q, batch, heads), ks = heads_of(k, batch, heads);
  const at::Tensor* bias = node.input(3) != kNone ? &values[static_cast<size_t>(node.input(3))].flat : nullptr;
  for (size_t g = 0; g < qs.size(); ++g) {
    const Batch::Group& group = batch.groups[g];
    const int64_t width = q.size(1) / heads, piles = group.rows * heads;
    at::Tensor left = qs[g].reshape({piles, group.length, width}),
               right = ks[g].reshape({piles, group.length, width}).transpose(1, 2);
    at::Tensor made = at::baddbmm(at::empty({1}, left.options()), left, right, 0.0, scale)
                          .view({group.rows, heads, group.length, group.length});
    if (bias != nullptr) made = made + square_bias(*bias, group.length).to(made.scalar_type()).unsqueeze(0);
    slot.groups.push_back(made);
  }
  return slot;
}

Slot Interpreter::context(const Node& node, const Pass& pass, std::vector<Slot>& values) {
  const Batch& batch = *pass.batch;
  const Slot& p = values[static_cast<size_t>(node.input(0))];
  const at::Tensor& v = values[static_cast<size_t>(node.input(1))].flat;
  const int64_t heads = node.integer("heads", 1), width = v.size(1) / heads;
  if (fused(node.input(0))) {
    const Node& softmax = graph_.node(static_cast<size_t>(graph_.producer(node.input(0))));
    const Node& scores = graph_.node(static_cast<size_t>(graph_.producer(softmax.input(0))));
    double drop = 0;
    if (pass.dropout != nullptr)
      if (auto found = pass.dropout->probability.find(graph_.value(node.input(0)).name);
          found != pass.dropout->probability.end())
        drop = found->second;
    int64_t longest = batch.groups.front().length;
    at::Tensor offsets = at::constant_pad_nd(batch.first, {0, 1}, static_cast<double>(batch.tokens)).to(at::kInt);
    auto split = [&](const at::Tensor& x) { return x.view({batch.tokens, heads, width}); };
    auto made = at::_flash_attention_forward(split(p.groups[0]), split(p.groups[1]), split(v), offsets, offsets,
                                             longest, longest, drop, false, false, scores.number("scale", 1.0));
    return {.flat = std::get<0>(made).reshape({batch.tokens, heads * width})};
  }
  std::vector<at::Tensor> vs = heads_of(v, batch, heads), parts;
  for (size_t g = 0; g < vs.size(); ++g) {
    const Batch::Group& group = batch.groups[g];
    parts.push_back(at::matmul(p.groups[g], vs[g]).transpose(1, 2).reshape({group.rows * group.length, heads * width}));
  }
  return {.flat = unpack(parts.size() == 1 ? parts[0] : at::cat(parts, 0), batch)};
}

at::Tensor Interpreter::pooled(Op op, const at::Tensor& x, const Batch& batch) const {
  if (op == Op::select_first) return x.index_select(0, batch.first);
  at::Tensor places = pack(x, batch);
  std::vector<at::Tensor> parts;
  int64_t at = 0;
  for (const Batch::Group& group : batch.groups) {
    at::Tensor part = places.slice(0, at, at + group.rows * group.length).view({group.rows, group.length, x.size(1)});
    at += group.rows * group.length;
    if (op == Op::pool_max) {
      if (group.keep.defined()) part = part.masked_fill(group.keep.logical_not().unsqueeze(2), -INFINITY);
      parts.push_back(part.amax({1}));
    } else if (group.keep.defined()) {
      at::Tensor keep = group.keep.to(part.scalar_type()).unsqueeze(2);
      parts.push_back((part * keep).sum(1) / keep.sum(1));
    } else {
      parts.push_back(part.mean(1));
    }
  }
  at::Tensor all = parts.size() == 1 ? parts[0] : at::cat(parts, 0);
  return batch.straight ? all : all.index_select(0, batch.row_place);
}

Slot Interpreter::compute(const Node& node, const Pass& pass, std::vector<Slot>& values) {
  const Batch& batch = *pass.batch;
  auto in = [&](size_t i) -> const at::Tensor& { return values[static_cast<size_t>(node.input(i))].flat; };
  auto optional = [&](size_t i) { return node.input(i) == kNone ? at::Tensor() : in(i); };
  switch (node.op) {
    case Op::positions: {
      const int64_t start = node.integer("start", 0), padding = node.integer("padding_id", -1);
      at::Tensor host = at::empty({batch.tokens}, at::kLong);
      auto* out = host.mutable_data_ptr<int64_t>();
      for (int64_t r = 0; r < batch.rows; ++r) {
        int64_t next = start;
        for (int32_t t = batch.host.offsets[static_cast<size_t>(r)]; t < batch.host.offsets[static_cast<size_t>(r + 1)];
             ++t)
          out[t] = padding >= 0 && batch.host.ids[static_cast<size_t>(t)] == padding ? padding : next++;
      }
      return {.flat = host.to(batch.device, true)};
    }
    case Op::embedding: return {.flat = embed(node, batch, values)};
    case Op::add: return {.flat = in(0) + in(1)};
    case Op::layer_norm:
      return {.flat = at::layer_norm(in(0), {in(0).size(1)}, in(1), in(2), node.number("epsilon", 1e-12))};
    case Op::linear: return {.flat = at::linear(in(0), in(1), optional(2))};
    case Op::gelu: return {.flat = at::gelu(in(0), node.text("approximate", "none"))};
    case Op::relu: return {.flat = at::relu(in(0))};
    case Op::tanh: return {.flat = at::tanh(in(0))};
    case Op::relative_bias: {
      const std::vector<int64_t> buckets = relative_buckets(node);
      at::Tensor index = at::empty({static_cast<int64_t>(buckets.size())}, at::kLong);
      std::copy(buckets.begin(), buckets.end(), index.mutable_data_ptr<int64_t>());
      return {.flat = at::embedding(in(0), index.to(batch.device)).transpose(0, 1)};
    }
    case Op::attention_scores: return scores(node, batch, values);
    case Op::softmax: {
      const Slot& s = values[static_cast<size_t>(node.input(0))];
      if (fused(node.output)) return s;
      Slot made;
      for (size_t g = 0; g < s.groups.size(); ++g) {
        at::Tensor x = s.groups[g];
        if (const at::Tensor& keep = batch.groups[g].keep; keep.defined())
          x = x.masked_fill(keep.logical_not().view({keep.size(0), 1, 1, keep.size(1)}), -INFINITY);
        made.groups.push_back(at::softmax(x, -1));
      }
      return made;
    }
    case Op::attention_context: return context(node, pass, values);
    case Op::select_first:
    case Op::pool_mean:
    case Op::pool_max: return {.flat = pooled(node.op, in(0), batch)};
    case Op::normalize: return {.flat = in(0) / at::linalg_vector_norm(in(0), 2, {1}, true).clamp_min(1e-12)};
    case Op::fake_quant: {
      const Quantizer& q = quantizers_.at(node.name);
      if (q.weight) {
        const size_t index = trainable_.at(graph_.value(node.input(0)).name);
        const Trainable& t = trainables_[index];
        if (weights_.contains(index)) return {.flat = t.leaf};
        std::vector<size_t> users = graph_.users(node.output);
        if (std::all_of(users.begin(), users.end(), [&](size_t u) { return graph_.node(u).op == Op::embedding; }))
          return {};  // embed() does it
        return {.flat = quantize(q, t.leaf, t.master, batch)};
      }
      const Slot& x = values[static_cast<size_t>(node.input(0))];
      Slot made;
      if (x.flat.defined()) made.flat = quantize(q, x.flat, x.flat, batch);
      for (const at::Tensor& group : x.groups) {
        // Probabilities: one scale, or one a row of the matrix.
        at::Tensor matrix = q.dynamic.empty() ? group : group.reshape({-1, group.size(-1)});
        made.groups.push_back(quantize(q, matrix, matrix, batch).view(group.sizes()));
      }
      return made;
    }
  }
  OCTET_CHECK(false, "an operation");
}

std::map<std::string, Slot> Interpreter::run(const Pass& pass) {
  const Batch& batch = *pass.batch;
  std::vector<Slot> values(graph_.values().size());
  for (ValueId input : graph_.inputs()) {
    const std::string& name = graph_.value(input).name;
    if (name == "ids") values[static_cast<size_t>(input)].flat = batch.ids;
    if (name == "type_ids") values[static_cast<size_t>(input)].flat = batch.type_ids;
  }
  for (const Trainable& t : trainables_)
    if (ValueId value = graph_.find_value(t.name); value != kNone) values[static_cast<size_t>(value)].flat = t.leaf;
  std::map<std::string, Slot> results;
  for (size_t i = 0; i < graph_.nodes().size(); ++i) {
    const Node& node = graph_.node(i);
    Slot made = compute(node, pass, values);
    const std::string& name = graph_.value(node.output).name;
    if (pass.dropout != nullptr && !fused(node.output))
      if (auto found = pass.dropout->probability.find(name); found != pass.dropout->probability.end()) {
        if (made.flat.defined()) made.flat = at::dropout(made.flat, found->second, true);
        for (at::Tensor& group : made.groups) group = at::dropout(group, found->second, true);
      }
    if (pass.keep != nullptr && pass.keep->contains(name)) results[name] = made;
    values[static_cast<size_t>(node.output)] = std::move(made);
    for (ValueId done : last_use_[i])
      if (!graph_.is_parameter(done)) values[static_cast<size_t>(done)] = {};
  }
  for (const auto& [name, value] : graph_.outputs()) results[name] = values[static_cast<size_t>(value)];
  return results;
}

}  // namespace octet::train
