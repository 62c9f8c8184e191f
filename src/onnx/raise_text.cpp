// Operations on text: axes of views, products, attention, norms, activations, pooling, quantizers.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "onnx/raiser.h"

namespace octet::onnx {

namespace {

using Kind = Value::Kind;

bool close(double a, double b) { return std::fabs(a - b) <= 1e-3 * std::fabs(b); }

bool is_one(const Axis& axis) {
  return std::all_of(axis.begin(), axis.end(), [](const Atom& a) { return a.kind == 'F' && a.extent == 1; });
}
bool has_kind(const Axis& axis, char kind) {
  return std::any_of(axis.begin(), axis.end(), [=](const Atom& a) { return a.kind == kind; });
}

}  // namespace

Value Raiser::released(const Value& x) {
  if (!x.held) return x;
  Value plain = x;
  plain.held = nullptr;
  return fake_quant(plain, x.held->scale, x.held->zero, x.held->data.type, static_cast<int64_t>(x.held->add),
                    x.held->node_name);
}

std::vector<Value> Raiser::compute_text() {
  const std::string& op = node_->op;
  std::vector<Value> free(in_.size());
  for (size_t i = 0; i < in_.size(); ++i) {
    if (!in_[i]->held) continue;
    int64_t width = 0;
    const Value* other = op == "Add" ? in_[1 - i] : nullptr;
    if (other != nullptr && other->kind == Kind::known && vector_along_features(*other, *in_[i], &width)) {
      notes_.push_back("quantizer " + in_[i]->held->node_name + " between a product and its bias is left out");
      free[i] = *in_[i];
      free[i].held = nullptr;
    } else {
      free[i] = released(*in_[i]);
    }
    in_[i] = &free[i];
  }
  if (op == "Reshape") return {reshape_view(arg(0), polys(arg(1)))};
  if (op == "Flatten") {
    std::vector<Poly> all = shape_of(arg(0)), to{{1}, {1}};
    int64_t axis = node_->integer("axis", 1);
    if (axis < 0) axis += static_cast<int64_t>(all.size());
    for (size_t d = 0; d < all.size(); ++d) {
      Poly& p = to[static_cast<int64_t>(d) < axis ? 0 : 1];
      if (!onnx::multiply(p, all[d], &p)) refuse("an extent that octet cannot follow");
    }
    return {reshape_view(arg(0), to)};
  }
  if (op == "Transpose") return {transpose_view(arg(0), node_->integers("perm"))};
  if (op == "Unsqueeze" || op == "Squeeze") return {unsqueeze_view(arg(0), op == "Squeeze")};
  if (op == "Gather") return {gather_text()};
  if (op == "Split") return split_text();
  if (op == "Slice") return {slice_text()};
  if (op == "MatMul") return {matmul()};
  if (op == "Gemm") return {gemm()};
  if (op == "Add") return {add(arg(0), arg(1), 1)};
  if (op == "Sub") return {add(arg(0), arg(1), -1)};
  if (op == "Mul") return {multiply_values(arg(0), arg(1))};
  if (op == "Div") return {divide_values(arg(0), arg(1))};
  if (op == "Pow") return {power()};
  if (op.starts_with("Reduce")) return {reduce_text()};
  if (op == "Where") return {where_text()};
  if (op == "Softmax") return {softmax_text()};
  if (op == "Tanh") return {tanh_text()};
  if (op == "DynamicQuantizeLinear") return dynamic_quantize();
  if (op == "MatMulInteger") return {matmul_integer()};
  if (op == "LayerNormalization" || op == "LpNormalization") return {normalized()};
  double same = 0;
  if (op == "GatherElements" && constant_value(arg(0), &same))
    return {uniform(same, arg(0).data.type, shape_of(arg(1)))};
  const Value& x = arg(0);
  if (op == "Sqrt" && x.kind == Kind::variance) {
    Value y = x;
    y.kind = Kind::deviation;
    return {y};
  }
  if (op == "Sqrt" && x.kind == Kind::norm2 && x.flag) {
    Value y = x;
    y.flag = false;
    return {y};
  }
  if (op == "Reciprocal" && x.kind == Kind::deviation) {
    Value y = x;
    y.kind = Kind::inverse;
    return {y};
  }
  if (op == "Erf") {
    Value y = settled(x);
    if (y.kind != Kind::view || !close(y.pending, 0.7071067811865476)) refuse("an error function outside GELU");
    y.kind = Kind::erf, y.pending = 1, y.factor = 1, y.add = 0;
    return {y};
  }
  if (op == "Gelu" || op == "Relu") {
    if (x.kind != Kind::view) refuse("it reads what octet cannot follow");
    ValueId id = settle_plain(x);
    Attributes attributes;
    if (op == "Gelu") attributes["approximate"] = node_->text("approximate", "none");
    Value y =
        view_of(emit(op == "Gelu" ? octet::Op::gelu : octet::Op::relu, node_name(*node_), {id}, attributes, order_),
                settled(x).axes, x.form);
    return {y};
  }
  if ((op == "Clip" || op == "Max") && x.kind == Kind::norm2 && !x.flag) return {x};
  if (op == "Max" && has(1) && arg(1).kind == Kind::norm2 && !arg(1).flag) return {arg(1)};
  if (op == "Expand" && (x.kind == Kind::norm2 || x.kind == Kind::mean || x.kind == Kind::deviation)) return {x};
  if (op == "Expand" || op == "Tile") {
    if (op == "Expand" && (x.kind == Kind::view || x.kind == Kind::index)) {
      std::vector<Poly> have = shape_of(x), want = polys(arg(1));
      bool same = have.size() == want.size();
      for (size_t d = 0; same && d < have.size(); ++d) same = want[d] == have[d] || want[d].is(1);
      if (same) return {x};
    }
    refuse("it repeats a text");
  }
  if (op == "IsNaN" && x.kind == Kind::view) return {uniform(0, ElemType::boolean, shape_of(x))};
  if ((op == "Equal" || op == "Not") && (x.kind == Kind::index || x.kind == Kind::pad_flag)) {
    Value y = x;
    double pad = 0;
    y.kind = Kind::pad_flag;
    if (op == "Equal") {
      if (x.kind != Kind::index || x.input != "ids" || !constant_value(arg(1), &pad)) refuse("it compares ids");
      y.pad = static_cast<int64_t>(pad);
      y.flag = true;
    } else {
      y.flag = !x.flag;
    }
    return {y};
  }
  if (op == "CumSum" && x.kind == Kind::pad_flag && !x.flag && constants(arg(1)).at(0) == 1) {
    Value y = x;
    y.kind = Kind::pad_count;
    return {y};
  }
  if (op == "Cast" && x.kind == Kind::pad_flag) return {x};
  refuse("octet cannot follow it here");
}

Value Raiser::view_of(ValueId id, std::vector<Axis> axes, char form) const {
  Value v;
  v.kind = Kind::view;
  v.id = id;
  v.axes = std::move(axes);
  v.form = form;
  return v;
}

// ---------------------------------------------------------------- axes
Value Raiser::reshape_view(const Value& x, std::vector<Poly> to) {
  if (x.axes.empty() && x.kind != Kind::view && x.kind != Kind::index && x.kind != Kind::quantized)
    refuse("it reshapes what octet cannot follow");
  if (x.kind == Kind::quantized) {
    Value y = x;
    y.inner = std::make_shared<Value>(reshape_view(*x.inner, std::move(to)));
    return y;
  }
  std::vector<Poly> have = shape_of(x);
  Poly total{1}, given{1};
  for (const Poly& p : have)
    if (!onnx::multiply(total, p, &total)) refuse("an extent that octet cannot follow");
  int64_t open = -1;
  for (size_t d = 0; d < to.size(); ++d) {
    if (to[d].is(0) && node_->integer("allowzero", 0) == 0) {
      if (d >= have.size()) refuse("a shape with too many zeros");
      to[d] = have[d];
    }
    if (to[d].is(-1)) open = static_cast<int64_t>(d);
    else if (!onnx::multiply(given, to[d], &given)) refuse("an extent that octet cannot follow");
  }
  if (open >= 0 && !divide(total, given, &to[static_cast<size_t>(open)])) refuse("an extent that octet cannot follow");
  std::vector<Atom> atoms;
  for (const Axis& axis : x.axes)
    for (const Atom& a : axis)
      if (a.kind != 'F' || a.extent != 1) atoms.push_back(a);
  // A batch that is fixed at 1 is an axis that a target may leave out only where another takes it along.
  std::vector<Axis> axes;
  size_t next = 0;
  for (const Poly& target : to) {
    Axis axis;
    Poly product{1};
    while (next < atoms.size()) {
      Poly e = extent_of({atoms[next]});
      if (product == target && !(e.is(1) && axis.empty() && target.is(1))) break;
      Poly with;
      Atom atom = atoms[next];
      Poly left;
      if (!onnx::multiply(product, e, &with)) break;
      bool takes = with == target || divide(target, with, &left);
      if (takes) {
        axis.push_back(atom);
        product = with;
        ++next;
        continue;
      }
      // A part of the features: the outer one.
      if (!divide(target, product, &left) || !left.constant() || atom.kind != 'F' || left.n < 1 ||
          atom.extent % left.n != 0)
        break;
      axis.push_back({'F', left.n, atom.stride * (atom.extent / left.n)});
      atoms[next].extent /= left.n;
      product = target;
    }
    if (!(product == target)) {
      std::string shapes;
      for (const auto* list : {&have, &to}) {
        shapes += shapes.empty() ? " from" : " to";
        for (const Poly& p : *list)
          shapes += " " + std::to_string(p.n) + "+" + std::to_string(p.b) + "B+" + std::to_string(p.l) + "L+" +
                    std::to_string(p.bl) + "BL";
      }
      refuse("a reshape that octet cannot follow," + shapes);
    }
    axes.push_back(std::move(axis));
  }
  for (; next < atoms.size(); ++next) {
    if (!extent_of({atoms[next]}).is(1) || axes.empty()) refuse("a reshape that octet cannot follow");
    axes.front().insert(axes.front().begin(), atoms[next]);
  }
  // Neighbours that are one piece of the features become one.
  for (Axis& axis : axes)
    for (size_t i = 1; i < axis.size();) {
      Atom &a = axis[i - 1], &b = axis[i];
      if (a.kind == 'F' && b.kind == 'F' && a.stride == b.stride * b.extent) {
        a = {'F', a.extent * b.extent, b.stride};
        axis.erase(axis.begin() + static_cast<int64_t>(i));
      } else {
        ++i;
      }
    }
  Value y = x;
  y.axes = std::move(axes);
  return y;
}

Value Raiser::transpose_view(const Value& x, const std::vector<int64_t>& given) {
  if (x.kind == Kind::quantized) {
    Value y = x;
    if (x.scale.count() != 1) refuse("it turns a tensor with a scale a channel");
    y.inner = std::make_shared<Value>(transpose_view(*x.inner, given));
    return y;
  }
  if (x.axes.empty()) refuse("it turns what octet cannot follow");
  std::vector<int64_t> perm = given;
  if (perm.empty())
    for (size_t d = x.axes.size(); d-- > 0;) perm.push_back(static_cast<int64_t>(d));
  if (perm.size() != x.axes.size()) refuse("a permutation of other axes");
  Value y = x;
  for (size_t d = 0; d < perm.size(); ++d) y.axes[d] = x.axes.at(static_cast<size_t>(perm[d]));
  return y;
}

Value Raiser::unsqueeze_view(const Value& x, bool remove) {
  if (x.axes.empty()) refuse("it reshapes what octet cannot follow");
  Value y = x;
  std::vector<int64_t> axes = axes_of(1);
  size_t rank = y.axes.size() + (remove ? 0 : axes.size());
  for (int64_t& a : axes) a = axis_of(a, rank);
  std::sort(axes.begin(), axes.end());
  if (remove) std::reverse(axes.begin(), axes.end());
  for (int64_t a : axes) {
    if (!remove) {
      y.axes.insert(y.axes.begin() + std::min(a, static_cast<int64_t>(y.axes.size())), Axis{});
    } else {
      if (!is_one(y.axes[static_cast<size_t>(a)])) refuse("it squeezes an axis of the text");
      y.axes.erase(y.axes.begin() + a);
    }
  }
  return y;
}

bool Raiser::feature_axis(const Value& x, size_t axis) const {
  return x.axes[axis].size() == 1 && x.axes[axis][0].kind == 'F';
}

// Part of an axis: features of a product, or the first token.
Value Raiser::take_view(const Value& x, size_t axis, int64_t begin, int64_t count, bool keep) {
  Value y = x;
  if (x.kind != Kind::view) refuse("it takes a part of what octet cannot follow");
  if (x.axes[axis].size() == 1 && x.axes[axis][0].kind == 'L' && x.form == 't') {
    if (begin != 0 || count != 1) refuse("it takes tokens other than the first");
    ValueId id = settle(x);
    Value s = settled(x);
    y = view_of(emit(octet::Op::select_first, node_name(*node_), {id, offsets_}, {}, order_), s.axes, 'r');
    y.pending = x.pending;
  } else if (feature_axis(x, axis)) {
    Atom& atom = y.axes[axis][0];
    if (begin < 0 || count < 1 || begin + count > atom.extent) refuse("it takes features that are not there");
    if (begin == 0 && count == atom.extent) return x;
    if (!x.product || x.product->is_scores) refuse("it takes a part of features that are no product's");
    y.offset += begin * atom.stride;
    atom.extent = count;
    y.axes[axis][0] = atom;
    if (!keep) y.axes.erase(y.axes.begin() + static_cast<int64_t>(axis));
    return y;
  } else {
    refuse("it takes a part of the text");
  }
  if (keep) y.axes[axis].clear();
  else y.axes.erase(y.axes.begin() + static_cast<int64_t>(axis));
  return y;
}

Value Raiser::gather_text() {
  const Value &x = arg(0), &index = arg(1);
  if (x.kind == Kind::known) return embed(x, index);
  if (index.kind != Kind::known || x.axes.empty()) refuse("a look-up that octet cannot follow");
  std::vector<int64_t> at = constants(index);
  auto axis = static_cast<size_t>(axis_of(node_->integer("axis", 0), x.axes.size()));
  if (at.size() != 1) refuse("it picks several places");
  int64_t begin = at[0];
  if (feature_axis(x, axis) && begin < 0) begin += x.axes[axis][0].extent;
  return take_view(x, axis, begin, 1, !index.data.shape.empty());
}

std::vector<Value> Raiser::split_text() {
  const Value& x = arg(0);
  auto axis = static_cast<size_t>(axis_of(node_->integer("axis", 0), x.axes.size()));
  if (x.axes.empty() || !feature_axis(x, axis)) refuse("it splits the text");
  int64_t extent = x.axes[axis][0].extent;
  std::vector<int64_t> parts = has(1) ? constants(arg(1)) : node_->integers("split");
  auto n = static_cast<int64_t>(node_->outputs.size());
  if (parts.empty()) parts.assign(static_cast<size_t>(n), (extent + n - 1) / std::max<int64_t>(n, 1));
  std::vector<Value> out;
  int64_t at = 0;
  for (int64_t part : parts) {
    out.push_back(take_view(x, axis, at, std::min(part, extent - at), true));
    at += part;
  }
  return out;
}

Value Raiser::slice_text() {
  Value x = arg(0);
  auto list = [&](size_t i, const char* name) {
    if (has(i)) return polys(arg(i));
    std::vector<Poly> v;
    for (int64_t n : node_->integers(name)) v.push_back({n});
    return v;
  };
  std::vector<Poly> starts = list(1, "starts"), ends = list(2, "ends"), axes = list(3, "axes"),
                    steps = list(4, "steps");
  for (size_t k = 0; k < starts.size(); ++k) {
    auto d = static_cast<size_t>(axis_of(axes.empty() ? static_cast<int64_t>(k) : axes.at(k).n, x.axes.size()));
    if (x.axes.empty() || (!steps.empty() && !steps.at(k).is(1))) refuse("a slice with steps");
    Poly extent = extent_of(x.axes[d]), start = starts[k], end = ends.at(k);
    if (start.constant() && start.n < 0) start = extent + start;
    if (end.constant() && end.n < 0) end = extent + end;
    if (end.constant() && (!extent.constant() ? end.n >= (int64_t{1} << 31) - 1 : end.n > extent.n)) end = extent;
    if (start.is(0) && end == extent) continue;
    if (!start.constant() || !end.constant()) refuse("a slice that octet cannot follow");
    x = take_view(x, d, start.n, end.n - start.n, true);
  }
  return x;
}

// ---------------------------------------------------------------- embeddings
Value Raiser::embed(const Value& table, const Value& index) {
  if (table.shape.size() == 2 && !table.data.real() && index.kind != Kind::known && !table.turned) {
    Value y;  // integers that are dequantized after the look-up
    y.kind = Kind::quantized;
    y.inner = std::make_shared<Value>(index);
    y.plain = std::make_shared<Value>(table);
    y.node_name = node_name(*node_);
    return y;
  }
  if (table.shape.size() != 2 || !table.data.real() || table.turned ||
      (node_->op == "Gather" && node_->integer("axis", 0) != 0))
    refuse("a look-up that octet cannot follow");
  ValueId rows = kNone;
  if (index.kind == Kind::index) {
    rows = index.input == "ids" ? ids_ : types_;
  } else if (index.kind == Kind::pad_place) {
    int64_t start = 1 + index.count_offset + index.after;
    std::string key = std::to_string(start) + "/" + std::to_string(index.after);
    auto found = positions_.find(key);
    if (found == positions_.end() || index.after != index.pad) {
      if (index.after != index.pad) refuse("padding has another place than its id");
      ValueId made = emit(octet::Op::positions, positions_name(index.node_name), {ids_, offsets_},
                          {{"start", start}, {"padding_id", index.after}}, index.order);
      found = positions_.emplace(key, made).first;
    }
    rows = found->second;
    limit_ = std::min(limit_, table.data.shape[0] - start);
  } else {
    refuse("it looks up what is no id");
  }
  std::string name = node_name(*node_);
  name_by(table.origin, ".weight", &name);
  ValueId weights = weight(table, name, {}, order_);
  std::vector<Axis> axes = index.axes;
  axes.push_back({{'F', table.data.shape[1], 1}});
  return view_of(emit(octet::Op::embedding, name, {weights, rows}, {}, order_), axes, 't');
}

// ---------------------------------------------------------------- products
Value Raiser::matmul() {
  const Value &a = arg(0), &b = arg(1);
  if (b.kind == Kind::known) return linear(a, b, b.turned, node_name(*node_));
  if (a.kind != Kind::view || b.kind != Kind::view) refuse("a product that octet cannot follow");
  return a.form == 's' ? context_product(a, b) : attention_product(a, b);
}

Value Raiser::linear(const Value& x, const Value& w, bool turn, const std::string& name) {
  if (x.kind != Kind::view || x.form == 's' || w.shape.size() != 2 || !w.data.real() || !plain(w))
    refuse("a product that octet cannot follow");
  auto product = std::make_shared<Product>();
  product->weight = w;
  product->weight.turned = turn;
  int64_t k = w.data.shape[turn ? 1 : 0], n = w.data.shape[turn ? 0 : 1], width = 1;
  const Axis& last = x.axes.back();
  for (const Atom& a : last) {
    if (a.kind != 'F') refuse("it multiplies the text's own axis");
    width *= a.extent;
  }
  if (static_cast<size_t>(features(x).size()) != last.size() || width != k) refuse("inner extents that differ");
  product->x = settle(x);
  product->pending = x.pending;
  if (x.sum_length != 0) refuse("a sum over tokens goes into a product");
  product->name = name;
  product->form = x.form;
  product->width = n;
  product->order = order_;
  Value y;
  y.kind = Kind::view;
  y.product = product;
  y.axes = x.axes;
  y.axes.back() = {{'F', n, 1}};
  y.form = x.form;
  y.pending = x.pending;
  return y;
}

Value Raiser::gemm() {
  const Value &a = arg(0), &b = arg(1);
  if (b.kind != Kind::known || node_->integer("transA", 0) != 0 || node_->number("alpha", 1) != 1)
    refuse("a product that octet cannot follow");
  bool turn = (node_->integer("transB", 0) != 0) != b.turned;
  Value y = linear(a, b, turn, node_name(*node_));
  if (!has(2)) return y;
  if (node_->number("beta", 1) != 1) refuse("a bias with a factor");
  return add(y, arg(2), 1);
}

std::vector<Atom> Raiser::features(const Value& x) const {
  std::vector<Atom> out;
  for (const Axis& axis : x.axes)
    for (const Atom& a : axis)
      if (a.kind == 'F' && a.extent != 1) out.push_back(a);
  return out;
}

Value Raiser::attention_product(const Value& q, const Value& k) {
  size_t r = q.axes.size();
  if (r < 3 || k.axes.size() != r || q.form != 't' || k.form != 't') refuse("a product that octet cannot follow");
  auto batch_of = [&](const Value& v) {
    std::vector<Atom> out;
    for (size_t d = 0; d + 2 < r; ++d) out.insert(out.end(), v.axes[d].begin(), v.axes[d].end());
    std::erase_if(out, [](const Atom& a) { return a.kind == 'F' && a.extent == 1; });
    return out;
  };
  std::vector<Atom> bq = batch_of(q), bk = batch_of(k);
  int64_t heads = 1;
  bool ok = bq.size() == bk.size() && has_kind(q.axes[r - 2], 'L') && has_kind(k.axes[r - 1], 'L') &&
            q.axes[r - 2].size() == 1 && k.axes[r - 1].size() == 1;
  for (size_t i = 0; ok && i < bq.size(); ++i) {
    ok = bq[i].kind == bk[i].kind && bq[i].extent == bk[i].extent && bq[i].kind != 'L';
    if (bq[i].kind == 'F') heads *= bq[i].extent;
  }
  int64_t d = 1, e = 1;
  for (const Atom& a : q.axes[r - 1]) d *= a.extent, ok = ok && a.kind == 'F';
  for (const Atom& a : k.axes[r - 2]) e *= a.extent, ok = ok && a.kind == 'F';
  if (!ok || d != e) refuse("a product of texts that is no attention");
  auto product = std::make_shared<Product>();
  product->is_scores = true;
  // Features in the order heads, then the head's own.
  Value turned = k;
  std::swap(turned.axes[r - 1], turned.axes[r - 2]);
  product->q = settle(q);
  product->k = settle(turned);
  product->heads = heads;
  product->head_dim = d;
  product->name = node_name(*node_);
  product->order = order_;
  Value y;
  y.kind = Kind::view;
  y.form = 's';
  y.product = product;
  y.axes = q.axes;
  // The heads' axis counts heads now.
  int64_t stride = 1;
  for (size_t i = r - 2; i-- > 0;)
    for (size_t j = y.axes[i].size(); j-- > 0;)
      if (Atom& a = y.axes[i][j]; a.kind == 'F') a.stride = stride, stride *= a.extent;
  y.axes[r - 1] = {{'K'}};
  y.pending = q.pending * k.pending;
  return y;
}

Value Raiser::context_product(const Value& p, const Value& v) {
  size_t r = p.axes.size();
  if (v.axes.size() != r || v.form != 't' || !has_kind(p.axes[r - 1], 'K') || !has_kind(v.axes[r - 2], 'L') ||
      p.id == kNone)
    refuse("a product that octet cannot follow");
  std::vector<Atom> heads_p, heads_v;
  for (size_t d = 0; d + 2 < r; ++d)
    for (const auto& [from, to] : {std::pair{&p, &heads_p}, std::pair{&v, &heads_v}})
      for (const Atom& a : from->axes[d])
        if (a.kind == 'F' && a.extent != 1) to->push_back(a);
  int64_t heads = 1, d = 1;
  bool ok = heads_p.size() == heads_v.size();
  for (size_t i = 0; ok && i < heads_p.size(); ++i) {
    ok = heads_p[i].extent == heads_v[i].extent;
    heads *= heads_p[i].extent;
  }
  for (const Atom& a : v.axes[r - 1]) d *= a.extent, ok = ok && a.kind == 'F';
  if (!ok) refuse("a product of texts that is no attention");
  ValueId value = settle(v);
  ValueId id =
      emit(octet::Op::attention_context, node_name(*node_), {p.id, value, offsets_}, {{"heads", heads}}, order_);
  Value y = view_of(id, v.axes, 't');
  int64_t stride = d;
  for (size_t i = r - 2; i-- > 0;)
    for (size_t j = y.axes[i].size(); j-- > 0;)
      if (Atom& a = y.axes[i][j]; a.kind == 'F') a.stride = stride, stride *= a.extent;
  y.axes[r - 1] = {{'F', d, 1}};
  y.pending = p.pending * v.pending;
  return y;
}

// ---------------------------------------------------------------- sums
bool Raiser::same_view(const Value& a, const Value& b) const {
  return a.id == b.id && a.product == b.product && a.offset == b.offset && a.axes == b.axes;
}

Value Raiser::add(const Value& a, const Value& b, double sign) {
  if (a.kind == Kind::known) {
    if (b.kind == Kind::poly || b.kind == Kind::erf || b.kind == Kind::tanh_gelu || b.kind == Kind::variance ||
        sign > 0) {
      if (sign < 0) refuse("a difference that octet cannot follow");
      return add(b, a, 1);
    }
    double one = 0;
    if (b.kind == Kind::pad_flag && constant_value(a, &one) && one == 1) {  // 1 - flag
      Value y = b;
      y.flag = !b.flag;
      return y;
    }
    if (b.kind == Kind::mean_gamma && sign < 0) {
      Value y = b;
      y.kind = Kind::beta_rest;
      y.beta = whole(a);
      y.beta_name = a.origin;
      return y;
    }
    refuse("a difference that octet cannot follow");
  }
  if (b.kind == Kind::known) return add_known(a, b, sign);
  if (sign < 0) {
    if (b.kind == Kind::mean && a.kind == Kind::view && same_view(settled(a), b)) {
      Value y = b;
      y.kind = Kind::centred;
      return y;
    }
    refuse("a difference of texts");
  }
  // x_gamma + (beta - mean_gamma)
  if (b.kind == Kind::x_gamma && a.kind == Kind::beta_rest) return add(b, a, 1);
  if (a.kind == Kind::x_gamma && b.kind == Kind::beta_rest && same_view(a, b)) {
    Value y = a;
    y.kind = Kind::scaled;
    Value beta = known(b.beta);
    beta.origin = b.beta_name;
    return add_known(y, beta, 1);
  }
  if (a.kind == Kind::poly || b.kind == Kind::poly) {
    const Value& p = a.kind == Kind::poly ? a : b;
    Value x = settled(a.kind == Kind::poly ? b : a);
    if (x.kind == Kind::view || x.kind == Kind::poly) {
      if (!same_view(x, p)) refuse("a sum that octet cannot follow");
      Value y = p;
      if (x.kind == Kind::view) y.c[1] += x.pending;
      else
        for (int i = 0; i < 4; ++i) y.c[i] += x.c[i];
      return y;
    }
  }
  if (a.kind == Kind::view && b.kind == Kind::view && a.form == b.form && a.form == 't') {
    if (a.axes.size() != b.axes.size() || features(a).size() != features(b).size())
      refuse("a sum of texts of two shapes");
    for (size_t d = 0; d < a.axes.size(); ++d)
      if (!(extent_of(a.axes[d]) == extent_of(b.axes[d]))) refuse("a sum of texts of two shapes");
    ValueId x = settle_plain(a), y = settle_plain(b);
    return view_of(emit(octet::Op::add, node_name(*node_), {x, y}, {}, order_), settled(a).axes, 't');
  }
  refuse("a sum that octet cannot follow");
}

bool Raiser::vector_along_features(const Value& k, const Value& x, int64_t* width) const {
  std::vector<Atom> f = features(x);
  *width = 1;
  for (const Atom& a : f) *width *= a.extent;
  return k.data.real() && k.data.count() == *width && !x.axes.empty() && k.shape.size() >= 1 &&
         k.data.shape.back() == *width && !x.axes.back().empty() && extent_of(x.axes.back()).is(*width);
}

Value Raiser::add_known(const Value& x, const Value& k, double sign) {
  double number = 0;
  bool constant = constant_value(k, &number);
  number *= sign;
  bool vector = k.shape.size() == 1 && k.data.count() > 1;  // a bias of zeros is a bias, too
  if (constant && number == 0 && !(x.kind == Kind::scaled || (vector && x.kind == Kind::view && x.product))) return x;
  if (constant && number == 0 && x.kind == Kind::view && x.product && x.product->is_scores) return x;
  switch (x.kind) {
    case Kind::variance:
    case Kind::erf:
    case Kind::tanh_gelu:
    case Kind::poly:
    case Kind::pad_count:
    case Kind::pad_place: {
      if (!constant) refuse("a sum that octet cannot follow");
      Value y = x;
      if (x.kind == Kind::variance) y.epsilon += number;
      else if (x.kind == Kind::poly) y.c[0] += number;
      else if (x.kind == Kind::pad_count) y.count_offset += static_cast<int64_t>(number);
      else if (x.kind == Kind::pad_place)
        y.after += static_cast<int64_t>(number), y.node_name = node_name(*node_), y.order = order_;
      else y.add += number / y.factor;
      return y;
    }
    case Kind::norm2:
      if (constant && std::fabs(number) <= 1e-6) return x;
      refuse("a sum that octet cannot follow");
    case Kind::scaled: {
      std::string name = node_name(*node_);
      name_by(x.gamma_name, ".weight", &name);
      ValueId gamma = parameter(x.gamma_name.empty() ? name + ".weight" : x.gamma_name, x.gamma);
      if (sign < 0 || k.data.count() != x.gamma.count()) refuse("a LayerNorm whose beta octet cannot follow");
      ValueId beta = parameter(k.origin.empty() ? name + ".bias" : k.origin, k.data.reshaped({k.data.count()}));
      ValueId id = emit(octet::Op::layer_norm, name, {x.id, gamma, beta}, {{"epsilon", x.epsilon}}, x.order);
      return view_of(id, x.axes, x.form);
    }
    case Kind::index:
    case Kind::pad_flag: refuse("a sum with ids");
    default: break;
  }
  if (x.kind != Kind::view) refuse("a sum that octet cannot follow");
  if (x.form == 's') {
    if (!x.product || !x.product->is_scores || x.product->operator_seen) refuse("it adds to probabilities");
    if (constant) {
      if (!std::isfinite(number)) refuse("it masks everything");
      return x;  // the same for all keys: softmax does not see it
    }
    size_t rank = k.shape.size();
    if (rank < 2 || rank > 4 || x.product->score_bias.count() > 1 || k.data.shape[rank - 1] == 1 || sign < 0)
      refuse("a bias of scores that octet cannot follow");
    if (k.data.shape[rank - 2] == 1) {
      Array flat = whole(k);
      refuse("a mask that differs by key");
    }
    Value y = x;
    y.product = std::make_shared<Product>(*x.product);
    Array all = whole(k);
    if (all.count() != (rank >= 3 ? all.shape[rank - 3] : 1) * length_ * length_) refuse("a bias of another shape");
    y.product->score_bias = all.reshaped({rank >= 3 ? all.shape[rank - 3] : 1, length_, length_});
    y.product->score_bias_name = k.origin.empty() ? y.product->name + ".bias" : k.origin;
    y.product->pending = x.pending;  // the scale so far; the bias comes after it
    if (!fixed_) limit_ = std::min(limit_, length_);
    return y;
  }
  int64_t width = 0;
  bool along = k.shape.size() >= 2 && k.data.shape[k.shape.size() - 2] != 1;
  if (along && sign > 0 && x.form == 't') {
    // A row a position: a table of positions.
    std::shared_ptr<TableRows> rows = k.rows;
    int64_t start = rows && rows->along_length ? rows->start : 0;
    std::string key = std::to_string(start);
    if (positions_.find(key) == positions_.end())
      positions_[key] = emit(octet::Op::positions, positions_name(rows ? rows->positions : ""), {ids_, offsets_},
                             {{"start", start}, {"padding_id", int64_t{-1}}}, rows ? rows->order - 1 : order_);
    Value table;
    if (rows && rows->along_length) {
      table = known(rows->table);
      table.origin = rows->name;
      table.quant = rows->quant;
    } else {
      Array all = whole(k);
      table = known(all.reshaped({all.count() / all.shape.back(), all.shape.back()}));
      if (table.data.shape[0] != length_) refuse("a sum that octet cannot follow");
    }
    limit_ = std::min(limit_, table.data.shape[0] - start);
    std::string name = rows && !rows->node.empty() ? rows->node : node_name(*node_) + ".table";
    if (rows) name_by(rows->name, ".weight", &name);
    int at = rows ? rows->order : order_;
    ValueId id = emit(octet::Op::embedding, name, {weight(table, name, {}, at), positions_.at(key)}, {}, at);
    ValueId sum = emit(octet::Op::add, node_name(*node_), {settle_plain(x), id}, {}, order_);
    return view_of(sum, settled(x).axes, 't');
  }
  if (!vector_along_features(k, x, &width)) refuse("a sum that octet cannot follow");
  if (x.product && x.product->bias.empty() && x.pending == 1 && x.sum_length == 0) {
    Value y = x;
    y.product = std::make_shared<Product>(*x.product);
    name_by(k.origin, ".bias", &y.product->name);
    Array bias = k.data.reshaped({width});
    if (sign < 0) {
      float* out = nullptr;
      Array negative = Array::make(bias.type, bias.shape, &out);
      for (int64_t i = 0; i < width; ++i) out[i] = -bias.f[i];
      bias = negative;
    }
    std::vector<Atom> f = features(x);
    bool every = width == x.product->width && x.offset == 0 && f.size() == 1 && f[0].stride == 1;
    if (!every) {
      float* out = nullptr;
      y.product->bias = Array::make(ElemType::f32, {x.product->width}, &out);
      if (f.size() > 1) refuse("a bias of a part of a product");
      for (int64_t i = 0; i < width; ++i) out[x.offset + i * (f.empty() ? 1 : f[0].stride)] = bias.f[i];
    } else {
      y.product->bias = bias;
      y.product->bias_name = sign > 0 ? k.origin : "";
    }
    y.product->made.clear();
    return y;
  }
  if (x.form == 't' && sign > 0 && k.rows && !k.rows->along_length) {
    // The row of type 0, looked up by ids that are all 0.
    Value table = known(k.data.reshaped({1, width}));
    std::string name = k.rows->node.empty() ? node_name(*node_) + ".table" : k.rows->node;
    table.origin = k.rows->name + ".row_" + std::to_string(k.rows->start);
    ValueId id = emit(octet::Op::embedding, name, {weight(table, name, {}, order_), types_}, {}, order_);
    ValueId sum = emit(octet::Op::add, node_name(*node_), {settle_plain(x), id}, {}, order_);
    return view_of(sum, settled(x).axes, 't');
  }
  bool embedded = x.id != kNone && graph_.producer(x.id) >= 0;
  if (embedded) {
    octet::Op maker = graph_.node(static_cast<size_t>(graph_.producer(x.id))).op;
    embedded = maker == octet::Op::embedding || maker == octet::Op::add;
  }
  for (const ValueInfo& input : file_.graph.inputs)
    if (input.name.find("type") != std::string::npos || input.name.find("segment") != std::string::npos)
      embedded = false;
  if (x.form == 't' && sign > 0 && k.data.count() == width && embedded) {
    Value table = known(k.data.reshaped({1, width}));
    std::string name = node_name(*node_) + ".table";
    ValueId id = emit(octet::Op::embedding, name, {weight(table, name, {}, order_), types_}, {}, order_);
    ValueId sum = emit(octet::Op::add, node_name(*node_), {settle_plain(x), id}, {}, order_);
    notes_.push_back(node_name(*node_) + " adds the same vector to every token");
    return view_of(sum, settled(x).axes, 't');
  }
  refuse("it adds a vector that no product takes");
}

// ---------------------------------------------------------------- factors
Value Raiser::multiply_values(const Value& a, const Value& b) {
  if (a.kind == Kind::known) return multiply_known(b, a);
  if (b.kind == Kind::known) return multiply_known(a, b);
  auto either = [&](Kind p, Kind q) { return (a.kind == p && b.kind == q) || (a.kind == q && b.kind == p); };
  const Value& view = a.kind == Kind::view || a.kind == Kind::centred ? a : b;
  const Value& other = &view == &a ? b : a;
  if (either(Kind::centred, Kind::inverse)) {
    Value y = other;
    y.kind = Kind::normed;
    return y;
  }
  if (a.kind == Kind::centred && b.kind == Kind::centred && same_view(a, b)) {
    Value y = a;
    y.kind = Kind::squared;
    return y;
  }
  if (either(Kind::centred, Kind::inverse_gamma)) {
    Value y = other;
    y.kind = Kind::scaled;
    return y;
  }
  if (either(Kind::view, Kind::inverse_gamma) && same_view(settled(view), other)) {
    Value y = other;
    y.kind = Kind::x_gamma;
    return y;
  }
  if (either(Kind::mean, Kind::inverse_gamma)) {
    Value y = a.kind == Kind::inverse_gamma ? a : b;
    y.kind = Kind::mean_gamma;
    return y;
  }
  if (either(Kind::pad_count, Kind::pad_flag)) {
    Value y = a.kind == Kind::pad_count ? a : b;
    y.kind = Kind::pad_place;
    return y;
  }
  if (either(Kind::dynamic_scale, Kind::known)) refuse("a scale that octet cannot follow");
  if (either(Kind::integer_product, Kind::dynamic_scale)) {
    const Value &p = a.kind == Kind::integer_product ? a : b, &s = a.kind == Kind::integer_product ? b : a;
    if (s.scale.empty()) refuse("an integer product without the weight's scale");
    // The weight in floats, with its quantizer.
    Value w = *p.inner;
    auto quant = std::make_shared<WeightQuant>();
    quant->name = p.node_name + "._weight_quantizer";
    quant->scale = s.scale;
    quant->zero = p.zero;
    quant->type = w.data.type;
    quant->axis = s.scale.count() == 1 ? -1 : 1;
    int64_t n = w.data.shape[1];
    if (s.scale.count() != 1 && s.scale.count() != n) refuse("scales of another number");
    if (quant->zero.count() > 1 && quant->axis < 0) refuse("a zero point a column without scales a column");
    float* out = nullptr;
    Array real = Array::make(ElemType::f32, w.data.shape, &out);
    for (int64_t i = 0; i < real.count(); ++i)
      out[i] = static_cast<float>(w.data.i[i] -
                                  (quant->zero.empty() ? 0 : quant->zero.i[quant->zero.count() == 1 ? 0 : i % n])) *
               s.scale.f[s.scale.count() == 1 ? 0 : i % n];
    if (quant->axis < 0)
      quant->scale = s.scale.reshaped({}), quant->zero = quant->zero.empty() ? quant->zero : quant->zero.reshaped({});
    w.data = real;
    w.quant = quant;
    w.turned = false;
    Value x = view_of(p.id, p.axes, p.form);
    bool asymmetric = false;
    for (int64_t i = 0; !quant->zero.empty() && i < quant->zero.count(); ++i)
      asymmetric = asymmetric || quant->zero.i[i] != (quant->type == ElemType::u8 ? 128 : 0);
    if (asymmetric) {
      // No kernel multiplies weights with a zero point: they stay what they dequantize to.
      x.id = graph_.node(static_cast<size_t>(graph_.producer(p.id))).input(0);
      static const char* kWhy = "weights with a zero point are multiplied in float";
      if (std::find(notes_.begin(), notes_.end(), kWhy) == notes_.end()) notes_.emplace_back(kWhy);
    }
    int keep = order_;
    Value y = linear(x, w, false, p.node_name);
    order_ = keep;
    return y;
  }
  if (a.kind == Kind::view && b.kind == Kind::view && same_view(settled(a), settled(b))) {
    Value y = settled(a);
    y.kind = Kind::poly;
    y.c[2] = a.pending * b.pending;
    y.pending = 1;
    return y;
  }
  if (either(Kind::view, Kind::poly) || (a.kind == Kind::poly && b.kind == Kind::poly)) {
    auto coefficients = [&](const Value& v, double* c) {
      if (v.kind == Kind::poly) std::copy(v.c, v.c + 4, c);
      else c[1] = v.pending;
    };
    double p[4] = {}, q[4] = {};
    coefficients(a, p), coefficients(b, q);
    Value y = a.kind == Kind::poly ? a : b;
    if (!same_view(settled(a.kind == Kind::poly ? b : a), y)) refuse("a product of texts");
    double c[7] = {};
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) c[i + j] += p[i] * q[j];
    if (c[4] != 0 || c[5] != 0 || c[6] != 0) refuse("a power that octet cannot follow");
    std::copy(c, c + 4, y.c);
    return y;
  }
  for (Kind form : {Kind::erf, Kind::tanh_gelu})
    if (either(Kind::view, form)) {
      Value x = settled(view);
      if (!same_view(x, other) || !close(other.add, 1)) refuse("a product of texts");
      std::string name = node_name(*node_);
      ValueId id = emit(octet::Op::gelu, name, {other.id},
                        {{"approximate", std::string(form == Kind::erf ? "none" : "tanh")}}, order_);
      Value y = view_of(id, other.axes, other.form);
      y.pending = 2 * x.pending * other.factor;
      if (close(y.pending, 1)) y.pending = 1;
      return y;
    }
  if (view.kind == Kind::view && other.kind == Kind::pad_flag && !other.flag) return view;
  refuse("a product of texts");
}

Value Raiser::multiply_known(const Value& x, const Value& k) {
  double number = 0;
  bool constant = constant_value(k, &number);
  if (constant && number == 1 && x.kind != Kind::normed && x.kind != Kind::inverse) return x;
  Value y = x;
  switch (x.kind) {
    case Kind::view:
      if (!constant || !std::isfinite(number)) refuse("a product with a vector");
      y.pending *= number;
      if (close(y.pending, 1)) y.pending = 1;
      return y;
    case Kind::poly:
      if (!constant) refuse("a product with a vector");
      for (double& c : y.c) c *= number;
      return y;
    case Kind::erf:
    case Kind::tanh_gelu:
      if (!constant) refuse("a product with a vector");
      y.factor *= number;
      return y;
    case Kind::normed:
    case Kind::inverse: {
      y.kind = x.kind == Kind::normed ? Kind::scaled : Kind::inverse_gamma;
      Array flat = whole(k);
      int64_t width = 1;
      for (const Atom& a : features(x)) width *= a.extent;
      if (flat.count() != width) refuse("a LayerNorm whose gamma octet cannot follow");
      y.gamma = flat.reshaped({width});
      y.gamma_name = k.origin;
      return y;
    }
    case Kind::dynamic_scale:
      if (!y.scale.empty()) refuse("a scale that octet cannot follow");
      y.scale = k.data.reshaped({k.data.count()});
      return y;
    case Kind::pad_flag: {
      // Masks made of ids: nothing is padding in a text.
      return uniform(0, k.data.type, shape_of(x));
    }
    default: refuse("a product that octet cannot follow");
  }
}

Value Raiser::divide_values(const Value& a, const Value& b) {
  double number = 0;
  if (b.kind == Kind::known && b.length_power == 1 && a.kind == Kind::view && a.sum_length == 1) {
    for (int64_t i = 0; i < b.data.count(); ++i)
      if (b.data.at(i) != 1) refuse("a mean that octet cannot follow");
    Value y = a;
    y.sum_length = 0;
    return y;
  }
  if (b.kind == Kind::extents && a.kind == Kind::view && a.sum_length == 1) {
    Value y = a;
    y.sum_length = 0;
    if (!(b.numbers.at(0) == tokens_)) refuse("a mean that octet cannot follow");
    return y;
  }
  if (b.kind == Kind::known && constant_value(b, &number) && number != 0) {
    if (a.kind == Kind::view || a.kind == Kind::poly || a.kind == Kind::erf || a.kind == Kind::tanh_gelu) {
      if (a.kind == Kind::view && a.sum_length == 1 && fixed_ && number == static_cast<double>(length_)) {
        Value y = a;
        y.sum_length = 0;
        return y;
      }
      Value y = a;
      if (a.kind == Kind::view) {
        y.pending /= number;
        if (close(y.pending, 1)) y.pending = 1;
      } else if (a.kind == Kind::poly) {
        for (double& c : y.c) c /= number;
      } else {
        y.factor /= number;
      }
      return y;
    }
  }
  if (a.kind == Kind::centred && b.kind == Kind::deviation && same_view(a, b)) {
    Value y = b;
    y.kind = Kind::normed;
    return y;
  }
  if (a.kind == Kind::known && b.kind == Kind::deviation && constant_value(a, &number) && number == 1) {
    Value y = b;
    y.kind = Kind::inverse;
    return y;
  }
  if (a.kind == Kind::view && b.kind == Kind::norm2 && !b.flag && same_view(settled(a), b)) {
    ValueId id = emit(octet::Op::normalize, node_name(*node_), {b.id}, {}, order_);
    return view_of(id, b.axes, b.form);
  }
  refuse("a quotient that octet cannot follow");
}

Value Raiser::power() {
  double e = 0;
  if (arg(1).kind != Kind::known || !constant_value(arg(1), &e)) refuse("a power that octet cannot follow");
  Value y = arg(0).kind == Kind::view ? settled(arg(0)) : arg(0);
  if (y.kind == Kind::centred && e == 2) return y.kind = Kind::squared, y;
  if (y.kind == Kind::variance && e == 0.5) return y.kind = Kind::deviation, y;
  if (y.kind == Kind::variance && e == -0.5) return y.kind = Kind::inverse, y;
  if (y.kind == Kind::view && (e == 2 || e == 3)) {
    y.kind = Kind::poly;
    y.c[static_cast<int>(e)] = std::pow(y.pending, e);
    y.pending = 1;
    return y;
  }
  refuse("a power that octet cannot follow");
}

Value Raiser::tanh_text() {
  const Value& x = arg(0);
  if (x.kind == Kind::poly) {
    constexpr double kScale = 0.7978845608028654;
    if (x.c[0] != 0 || x.c[2] != 0 || !close(x.c[1], kScale) || !close(x.c[3], kScale * 0.044715))
      refuse("a tanh that is no GELU");
    Value y = x;
    y.kind = Kind::tanh_gelu;
    y.factor = 1, y.add = 0;
    return y;
  }
  if (x.kind != Kind::view || x.form == 's') refuse("a tanh that octet cannot follow");
  return view_of(emit(octet::Op::tanh, node_name(*node_), {settle_plain(x)}, {}, order_), settled(x).axes, x.form);
}

// ---------------------------------------------------------------- norms and pools
Value Raiser::reduce_text() {
  const Value& x = arg(0);
  const std::string& op = node_->op;
  std::vector<int64_t> axes = axes_of(1);
  bool keep = node_->integer("keepdims", 1) != 0;
  if (axes.size() != 1 || x.axes.empty()) refuse("a reduction that octet cannot follow");
  auto d = static_cast<size_t>(axis_of(axes[0], x.axes.size()));
  bool over_features = !x.axes[d].empty();
  for (const Atom& a : x.axes[d]) over_features = over_features && a.kind == 'F';
  over_features = over_features && features(x).size() == x.axes[d].size();
  if (over_features && op == "ReduceMean") {
    if (x.kind == Kind::squared) {
      Value y = x;
      y.kind = Kind::variance;
      y.epsilon = 0;
      return y;
    }
    if (x.kind != Kind::view || x.pending != 1) refuse("a mean that octet cannot follow");
    Value y = settled(x);
    y.kind = Kind::mean;
    y.order = order_;
    return y;
  }
  if (over_features && (op == "ReduceL2" || op == "ReduceSumSquare" || (op == "ReduceSum" && x.kind == Kind::poly))) {
    if (x.kind == Kind::poly ? (x.c[0] != 0 || x.c[1] != 0 || x.c[3] != 0 || x.c[2] != 1)
                             : (x.kind != Kind::view || x.pending != 1))
      refuse("a norm that octet cannot follow");
    Value y = x.kind == Kind::poly ? x : settled(x);
    y.kind = Kind::norm2;
    y.flag = op != "ReduceL2";
    if (y.form != 'r') refuse("it normalizes tokens");
    return y;
  }
  if (x.kind == Kind::view && x.form == 't' && x.axes[d].size() == 1 && x.axes[d][0].kind == 'L') {
    octet::Op pool = op == "ReduceMax" ? octet::Op::pool_max : octet::Op::pool_mean;
    if (op != "ReduceMax" && op != "ReduceMean" && op != "ReduceSum") refuse("a pooling that octet lacks");
    if (op == "ReduceMax" && x.pending < 0) refuse("a pooling that octet cannot follow");
    ValueId id = settle(x);
    Value s = settled(x);
    Value y = view_of(emit(pool, node_name(*node_), {id, offsets_}, {}, order_), s.axes, 'r');
    y.pending = x.pending;
    y.sum_length = op == "ReduceSum" ? 1 : 0;
    if (keep) y.axes[d].clear();
    else y.axes.erase(y.axes.begin() + static_cast<int64_t>(d));
    return y;
  }
  refuse("a reduction that octet cannot follow");
}

Value Raiser::normalized() {
  const Value& x = arg(0);
  if (x.kind != Kind::view || x.form == 's') refuse("it reads what octet cannot follow");
  int64_t axis = axis_of(node_->integer("axis", -1), x.axes.size());
  if (axis != static_cast<int64_t>(x.axes.size()) - 1) refuse("it normalizes more than the last axis");
  std::string name = node_name(*node_);
  if (has(1)) name_by(arg(1).origin, ".weight", &name);
  if (node_->op == "LpNormalization") {
    if (x.form != 'r' || node_->integer("p", 2) != 2) refuse("a norm that octet lacks");
    return view_of(emit(octet::Op::normalize, name, {settle(x)}, {}, order_), settled(x).axes, 'r');
  }
  if (arg(1).kind != Kind::known) refuse("a gamma that octet cannot follow");
  Array gamma = whole(arg(1)), beta;
  std::string beta_name;
  if (has(2)) {
    beta = whole(arg(2));
    beta_name = arg(2).origin;
  } else {
    float* out = nullptr;
    beta = Array::make(ElemType::f32, gamma.shape, &out);
  }
  ValueId id = settle_plain(x);
  ValueId g = parameter(arg(1).origin.empty() ? name + ".weight" : arg(1).origin, gamma.reshaped({gamma.count()}));
  ValueId b = parameter(beta_name.empty() ? name + ".bias" : beta_name, beta.reshaped({beta.count()}));
  double epsilon = static_cast<float>(node_->number("epsilon", 1e-5));
  return view_of(emit(octet::Op::layer_norm, name, {id, g, b}, {{"epsilon", epsilon}}, order_), settled(x).axes,
                 x.form);
}

Value Raiser::where_text() {
  const Value& condition = arg(0);
  double on = 0;
  if (condition.kind == Kind::pad_flag) return condition.flag ? arg(2) : arg(1);
  if (condition.kind != Kind::known || !constant_value(condition, &on))
    refuse("it chooses by what octet cannot follow");
  const Value& chosen = arg(on != 0 ? 1 : 2);
  if (chosen.kind == Kind::known) return known_shaping({&chosen});
  return chosen;
}

Value Raiser::softmax_text() {
  const Value& x = arg(0);
  int64_t axis = node_->integer("axis", file_.opset() < 13 ? 1 : -1);
  if (x.kind != Kind::view || x.form != 's' || !x.product ||
      axis_of(axis, x.axes.size()) != static_cast<int64_t>(x.axes.size()) - 1)
    refuse("a softmax outside attention");
  Product& p = *x.product;
  bool biased = !p.score_bias.empty();
  if (biased && x.pending != p.pending) refuse("scores are scaled after their bias");
  std::vector<ValueId> inputs{p.q, p.k, offsets_};
  if (biased) {
    Array bias = p.score_bias;
    if (bias.shape[0] != p.heads) {
      float* out = nullptr;
      int64_t each = bias.count();
      Array wide = Array::make(ElemType::f32, {p.heads, length_, length_}, &out);
      for (int64_t h = 0; h < p.heads; ++h) std::copy(bias.f, bias.f + each, out + h * each);
      bias = wide;
    }
    inputs.push_back(parameter(p.score_bias_name, bias));
  }
  ValueId scores = emit(octet::Op::attention_scores, p.name, inputs,
                        {{"heads", p.heads}, {"scale", static_cast<double>(static_cast<float>(x.pending))}}, p.order);
  ValueId id = emit(octet::Op::softmax, node_name(*node_), {scores}, {}, order_);
  return view_of(id, x.axes, 's');
}

// ---------------------------------------------------------------- quantizers
Value Raiser::quantize() {
  const Value &x = arg(0), &scale = arg(1);
  if (scale.kind != Kind::known || (has(2) && arg(2).kind != Kind::known)) refuse("a scale that depends on the text");
  Value y;
  y.kind = Kind::quantized;
  y.inner = std::make_shared<Value>(x);
  y.scale = scale.data;
  if (has(2)) y.zero = arg(2).data;
  else {
    int64_t* out = nullptr;
    y.zero = Array::make(ElemType::u8, scale.data.shape, &out);
  }
  y.add = static_cast<double>(node_->integer("axis", 1));
  y.node_name = node_name(*node_);
  y.order = order_;
  return y;
}

Value Raiser::dequantize() {
  const Value& x = arg(0);
  if (!has(1) || arg(1).kind != Kind::known || (has(2) && arg(2).kind != Kind::known))
    refuse("a scale that depends on the text");
  int64_t axis = node_->integer("axis", 1);
  auto make_quant = [&](const std::string& name, const Array& scale, const Array& zero, int64_t along, size_t rank,
                        int order) {
    auto q = std::make_shared<WeightQuant>();
    q->name = name;
    bool one = scale.count() == 1 && (scale.shape.empty() || rank < 2 || true);
    q->axis = scale.shape.empty() || (one && scale.shape.size() == 1 && along < 0) ? -1 : along;
    q->scale = scale, q->zero = zero;
    q->type = zero.empty() ? ElemType::u8 : zero.type;
    q->order = order;
    return q;
  };
  if (x.kind == Kind::quantized && x.plain) {
    if (arg(1).data.count() != 1) refuse("a table with scales that octet cannot follow");
    Value table = *x.plain;
    std::vector<Array> inputs{table.data, arg(1).data};
    if (has(2)) inputs.push_back(arg(2).data);
    std::string origin = table.origin;
    ElemType type = table.data.type;
    table.data = evaluate(*node_, inputs, file_.opset())[0];
    int64_t* none = nullptr;
    Array zero = has(2) ? arg(2).data.reshaped({}) : Array::make(type, {}, &none);
    table.quant = make_quant(x.node_name + "._weight_quantizer", arg(1).data.reshaped({}), zero, -1, 2, order_);
    return embed(table, *x.inner);
  }
  if (x.kind == Kind::quantized) {
    const Array &a = x.scale, &b = arg(1).data;
    bool same = a.count() == b.count() && std::equal(a.f, a.f + a.count(), b.f);
    if (has(2))
      same = same && arg(2).data.count() == x.zero.count() &&
             std::equal(x.zero.i, x.zero.i + x.zero.count(), arg(2).data.i);
    if (!same) refuse("a tensor is dequantized by another scale than it was quantized by");
    if (x.inner->kind == Kind::known) {
      Value y = *x.inner;
      if (y.shape.size() == 2 && !y.turned && plain(y) && (!y.origin.empty() || y.plain)) {
        y.scale = y.plain ? y.scale : Array();
        y.quant = make_quant(x.node_name, x.scale, x.zero, x.scale.shape.empty() ? -1 : axis_of(axis, 2), 2, x.order);
        if (x.scale.count() == 1 && y.data.shape[static_cast<size_t>(std::max<int64_t>(0, y.quant->axis))] != 1) {
          y.quant->axis = -1;
          y.quant->scale = x.scale.reshaped({});
          if (!y.quant->zero.empty()) y.quant->zero = x.zero.reshaped({});
        }
        return y;
      }
      // Small constants: computed.
      Node q = *node_;
      q.op = "QuantizeLinear";
      q.outputs = {"q"};
      Array data = whole(y.turned ? straight(y) : y);
      Array ints = evaluate(q, {data, x.scale, x.zero}, file_.opset())[0];
      Value out = y;
      out.data = evaluate(*node_, {ints, x.scale, x.zero}, file_.opset())[0];
      out.origin.clear();
      out.turned = false;
      out.shape = shape_of(y);
      for (size_t d = 0; d < out.shape.size(); ++d) out.data = out.data;
      return out;
    }
    if (x.inner->kind == Kind::view && x.inner->product && !x.inner->product->is_scores &&
        x.inner->product->bias.empty() && x.scale.count() == 1) {
      Value y = *x.inner;
      y.held = std::make_shared<Value>();
      y.held->scale = x.scale, y.held->zero = x.zero;
      y.held->data.type = x.zero.type;
      y.held->add = -1;
      y.held->node_name = x.node_name;
      return y;
    }
    return fake_quant(*x.inner, x.scale, x.zero, x.zero.type, x.scale.count() == 1 ? -1 : axis, x.node_name);
  }
  if (x.kind != Kind::known) refuse("it dequantizes what is not quantized");
  Value stored = x.turned ? straight(x) : x;
  std::vector<Array> inputs{stored.data, arg(1).data};
  if (has(2)) inputs.push_back(arg(2).data);
  Value out = known(evaluate(*node_, inputs, file_.opset())[0]);
  out.origin = x.origin;
  if (!x.turned) out.shape = x.shape;
  bool bytes = stored.data.type == ElemType::s8 || stored.data.type == ElemType::u8;
  if (bytes && out.shape.size() == 2) {
    const Array& s = arg(1).data;
    int64_t along = s.count() == 1 ? -1 : axis_of(axis, 2);
    if (s.count() == 1 && s.shape.size() == 1 && out.data.shape[static_cast<size_t>(axis_of(axis, 2))] == 1)
      along = axis_of(axis, 2);
    Array scale = along < 0 ? s.reshaped({}) : s, zero;
    if (has(2)) zero = along < 0 ? arg(2).data.reshaped({}) : arg(2).data;
    else {
      int64_t* z = nullptr;
      zero = Array::make(stored.data.type, scale.shape, &z);
    }
    out.quant = make_quant(node_name(*node_), scale, zero, along, 2, order_);
    if (out.quant->axis != along) out.quant->axis = along;
  }
  return out;
}

Value Raiser::fake_quant(const Value& x, const Array& scale, const Array& zero, ElemType type, int64_t axis,
                         const std::string& name) {
  if (x.kind != Kind::view || (x.form == 's' && x.product)) {
    // Inside GELU, LayerNorm or before softmax: those are computed in float as one.
    notes_.push_back("quantizer " + name + " stands inside an operation that octet computes as one, and is left out");
    return x;
  }
  if (type != ElemType::s8 && type != ElemType::u8) refuse("a quantizer of " + onnx::name(type));
  Value y = settled(x);
  if (x.form == 's' && y.id == kNone) refuse("scores are quantized before their softmax");
  double factor = y.pending;
  if (factor < 0) refuse("a quantizer behind a negative factor");
  bool shift = type == ElemType::u8 && std::all_of(zero.i, zero.i + zero.count(), [](int64_t z) { return z == 128; });
  bool is_signed = type == ElemType::s8 || shift;
  Attributes attributes{{"type", std::string(is_signed ? "s8" : "u8")},
                        {"lo", int64_t{is_signed ? -128 : 0}},
                        {"hi", int64_t{is_signed ? 127 : 255}}};
  Shape shape;
  if (axis >= 0 || scale.count() > 1) {
    auto d = static_cast<size_t>(axis_of(axis, y.axes.size()));
    std::vector<Atom> f = features(y);
    if (f.size() != 1 || y.axes[d] != Axis{f[0]} || f[0].extent != scale.count())
      refuse("scales along an axis of the text");
    attributes["axis"] = int64_t{1};
    shape = {scale.count()};
  }
  std::vector<float> values(scale.f, scale.f + scale.count());
  for (float& v : values) v = factor == 1 ? v : static_cast<float>(v / factor);
  std::vector<ValueId> inputs{y.id, kNone};
  std::string own = unique(name.empty() ? "quantizer" : name, node_names_);
  inputs[1] = parameter(own + ".scale", Tensor::from(values, shape));
  std::vector<int32_t> zeros(static_cast<size_t>(scale.count()), 0);
  bool any = false;
  for (int64_t i = 0; i < zero.count() && !shift; ++i) {
    zeros[static_cast<size_t>(zero.count() == 1 ? 0 : i)] = static_cast<int32_t>(zero.i[i]);
    any = any || zero.i[i] != 0;
  }
  if (any) inputs.push_back(parameter(own + ".zero_point", Tensor::from(zeros, shape)));
  y.id = emit(octet::Op::fake_quant, own, inputs, attributes, order_);
  return y;
}

std::vector<Value> Raiser::dynamic_quantize() {
  const Value& x = arg(0);
  if (x.kind != Kind::view || x.pending != 1) refuse("it quantizes what octet cannot follow");
  Value s = settled(x), q = s, scale = s, zero = s;
  q.kind = Kind::dynamic_q, scale.kind = Kind::dynamic_scale, zero.kind = Kind::dynamic_zero;
  q.inner = std::make_shared<Value>(s);
  q.node_name = node_name(*node_);
  q.order = order_;
  return {q, scale, zero};
}

Value Raiser::matmul_integer() {
  const Value &a = arg(0), &b = arg(1);
  if (a.kind != Kind::dynamic_q || b.kind != Kind::known || b.data.real() || b.shape.size() != 2 || b.turned)
    refuse("an integer product that octet cannot follow");
  if (has(2) && arg(2).kind != Kind::dynamic_zero) refuse("a zero point that octet cannot follow");
  Value y = *a.inner;
  ValueId id = emit(
      octet::Op::fake_quant, unique(node_name(*node_) + "._input_quantizer", node_names_), {a.inner->id},
      {{"type", std::string("s8")}, {"lo", int64_t{-127}}, {"hi", int64_t{127}}, {"dynamic", std::string("token")}},
      a.order);
  static const char* kNote = "ranges found at run time are a token's own, symmetric, where the file has one a tensor";
  if (std::find(notes_.begin(), notes_.end(), kNote) == notes_.end()) notes_.emplace_back(kNote);
  y.kind = Kind::integer_product;
  y.id = id;
  y.inner = std::make_shared<Value>(b);
  if (has(3)) y.zero = arg(3).data;
  y.node_name = node_name(*node_);
  return y;
}

}  // namespace octet::onnx
