// Operations on text: what each operator does with views; axes of views, look-ups in tables.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "onnx/raiser.h"

namespace octet::onnx {

namespace {

using Kind = Value::Kind;

bool close(double a, double b) { return std::fabs(a - b) <= 1e-3 * std::fabs(b); }

bool is_one(const Axis& axis) {
  return std::all_of(axis.begin(), axis.end(), [](const Atom& a) { return a.kind == 'F' && a.extent == 1; });
}

}  // namespace

std::vector<Value> Raiser::compute_text() {
  const std::string& op = node_->op;
  // A quantizer waits until something reads its numbers; shapes and parts do not.
  static const std::set<std::string> kMoves{"Reshape", "Flatten", "Transpose", "Unsqueeze",
                                            "Squeeze", "Split",   "Slice",     "Gather"};
  if (kMoves.contains(op) && arg(0).kind == Kind::quantized && !arg(0).plain && arg(0).inner->kind == Kind::view &&
      arg(0).scale.count() == 1) {
    // Integers on the way to their DequantizeLinear.
    const Value q = arg(0);
    Value inner = *q.inner;
    in_[0] = &inner;
    std::vector<Value> out;
    for (Value& part : compute_text()) {
      out.push_back(q);
      out.back().inner = std::make_shared<Value>(std::move(part));
    }
    return out;
  }
  std::vector<Value> free(in_.size());
  for (size_t i = 0; i < in_.size(); ++i) {
    if (!in_[i]->held || kMoves.contains(op)) continue;
    if (op == "Add" && in_.size() == 2 && drops_bias_quantizer(*in_[i], *in_[1 - i])) {
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
  if (op == "Einsum") return {einsum()};
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
  if (op == "OneHot" && x.kind == Kind::index && has(2)) {
    std::vector<int64_t> depth = constants(arg(1));
    const Value& pair = arg(2);
    int64_t axis = node_->integer("axis", -1);
    if (depth.size() != 1 || pair.kind != Kind::known || pair.data.count() != 2 || pair.data.at(0) != 0 ||
        pair.data.at(1) != 1 || (axis != -1 && axis != static_cast<int64_t>(x.axes.size())))
      refuse("a OneHot that octet cannot follow");
    Value y = x;
    y.kind = Kind::one_hot;
    y.inner = std::make_shared<Value>(x);
    y.after = depth[0];
    y.axes.push_back({{'F', depth[0], 1}});
    return {y};
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
  std::set<int64_t> places(perm.begin(), perm.end());
  if (!perm.empty() && (places.size() != perm.size() || *places.begin() != 0 ||
                        *places.rbegin() != static_cast<int64_t>(perm.size()) - 1))
    refuse("its permutation names an axis twice or one that is not there");
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
    if (x.held) return take_view(released(x), axis, begin, count, keep);
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

}  // namespace octet::onnx
