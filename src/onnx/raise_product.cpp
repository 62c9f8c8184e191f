// Matrix products of text: with weights, of attention, and sums, where biases and tables of positions show.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "onnx/einsum.h"
#include "onnx/raiser.h"

namespace octet::onnx {

namespace {

using Kind = Value::Kind;

bool has_kind(const Axis& axis, char kind) {
  return std::any_of(axis.begin(), axis.end(), [=](const Atom& a) { return a.kind == kind; });
}

}  // namespace

// ---------------------------------------------------------------- products
Value Raiser::matmul() {
  const Value &a = arg(0), &b = arg(1);
  if (a.kind == Kind::one_hot) {  // rows of a table
    if (b.kind != Kind::known || b.shape.size() != 2 || !b.shape[0].is(a.after)) refuse("a product of one-hot rows");
    Value index = *a.inner;
    return embed(b.turned ? straight(b) : b, index);
  }
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

// Axes are brought into the order of a matrix product, and back.
Value Raiser::einsum() {
  std::optional<Einsum> equation = parse_einsum(node_->text("equation", ""));
  std::optional<EinsumProduct> p = equation ? as_product(*equation) : std::nullopt;
  if (!p || in_.size() != 2) refuse("an Einsum that octet cannot follow");
  size_t text = arg(1).kind == Kind::known ? 0 : 1;
  if (arg(text).kind != Kind::view || (arg(1 - text).kind == Kind::known) == (arg(1 - text).kind == Kind::view))
    refuse("an Einsum that octet cannot follow");
  const bool weights = arg(1 - text).kind == Kind::known;
  std::string left = p->left, right = p->right;
  if (weights && text == 1) std::swap(left, right);
  std::vector<std::string> letters = equation->in;
  if (weights && text == 1) std::swap(letters[0], letters[1]);
  const Value &a = weights ? arg(text) : arg(0), &b = weights ? arg(1 - text) : arg(1);
  auto turned = [&](const Value& x, const std::string& from, const std::string& to) {
    std::vector<int64_t> perm;
    for (char c : to) perm.push_back(static_cast<int64_t>(from.find(c)));
    if (from.size() != shape_of(x).size()) refuse("an equation for other axes");
    return perm;
  };
  // The last `n` axes of a view as one.
  auto joined = [](Value x, size_t begin, size_t n) {
    Axis all;
    for (size_t i = 0; i < n; ++i) all.insert(all.end(), x.axes[begin + i].begin(), x.axes[begin + i].end());
    x.axes.erase(x.axes.begin() + static_cast<int64_t>(begin), x.axes.begin() + static_cast<int64_t>(begin + n));
    x.axes.insert(x.axes.begin() + static_cast<int64_t>(begin), all);
    return x;
  };
  Value y;
  std::string have;
  if (weights) {
    if (!p->batch.empty()) refuse("an Einsum that octet cannot follow");
    Value x = transpose_view(a, turned(a, letters[0], left + p->contracted));
    std::vector<int64_t> order = turned(b, letters[1], p->contracted + right);
    Value w = b.turned ? straight(b) : b;
    Shape shape = w.data.shape;
    if (!plain(w)) refuse("an Einsum that octet cannot follow");
    int64_t k = 1, n = 1;
    std::vector<int64_t> extents;
    for (char c : p->contracted) k *= shape[letters[1].find(c)];
    for (char c : right) extents.push_back(shape[letters[1].find(c)]), n *= extents.back();
    bool straight_order = std::is_sorted(order.begin(), order.end());
    if (!straight_order) {
      Node turn;
      turn.op = "Transpose";
      Attribute perm;
      perm.kind = Attribute::Kind::integers, perm.name = "perm", perm.integers = order;
      turn.attributes = {perm};
      w.data = evaluate(turn, {w.data}, 13)[0];
      w.origin.clear();
    }
    if (w.quant) refuse("an Einsum with a quantized weight");
    Value matrix = known(w.data.reshaped({k, n}));
    matrix.origin = shape.size() == 2 ? w.origin : "";
    y = linear(joined(x, left.size(), p->contracted.size()), matrix, false, node_name(*node_));
    y.axes.pop_back();
    int64_t stride = n;
    for (int64_t e : extents) stride /= e, y.axes.push_back({{'F', e, stride}});
    have = left + right;
  } else {
    // Keys run along the last axis of the scores, whichever operand they are.
    const bool swapped = left.size() == 1 && right.size() == 1 && a.form != 's' && b.form != 's' &&
                         equation->out.find(right) < equation->out.find(left);
    if (swapped) std::swap(left, right), std::swap(letters[0], letters[1]);
    const Value &query = swapped ? b : a, &key = swapped ? a : b;
    Value x = transpose_view(query, turned(query, letters[0], p->batch + left + p->contracted));
    Value z = transpose_view(key, turned(key, letters[1], p->batch + p->contracted + right));
    size_t at = p->batch.size();
    if (left.size() != 1 || p->contracted.size() != 1 || right.size() != 1)
      refuse("an Einsum of texts that octet cannot follow");
    y = x.form == 's' ? context_product(x, z) : attention_product(x, z);
    if (y.axes.size() != at + 2) refuse("an Einsum of texts that octet cannot follow");
    have = p->batch + left + right;
  }
  std::vector<int64_t> perm;
  for (char c : equation->out) perm.push_back(static_cast<int64_t>(have.find(c)));
  return transpose_view(y, perm);
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
  return root(a.id) == root(b.id) && a.product == b.product && a.offset == b.offset && a.axes == b.axes;
}

// Files that quantize every tensor do so inside LayerNorm and GELU, too: there a text and the same text rounded are
// one.
ValueId Raiser::root(ValueId id) const {
  while (id != kNone && graph_.producer(id) >= 0 &&
         graph_.node(static_cast<size_t>(graph_.producer(id))).op == octet::Op::fake_quant)
    id = graph_.node(static_cast<size_t>(graph_.producer(id))).input(0);
  return id;
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

// A bias [heads, d] along the last axes of a product is a vector along its features.
bool Raiser::bias_of_axes(const Value& x, const Value& k, Array* vector) const {
  size_t rank = k.shape.size();
  if (x.kind != Kind::view || !x.product || x.product->is_scores || rank < 2 || rank > x.axes.size() ||
      !k.data.real() || !plain(k))
    return false;
  std::vector<Atom> along;
  for (size_t d = 0; d < rank; ++d) {
    const Axis& axis = x.axes[x.axes.size() - rank + d];
    if (k.data.shape[d] == 1 && axis.empty()) continue;
    if (k.data.shape[d] == 1 || axis.size() != 1 || axis[0].kind != 'F' || axis[0].extent != k.data.shape[d])
      return false;
    along.push_back(axis[0]);
  }
  if (along != features(x) || k.data.count() != x.product->width || x.offset != 0) return false;
  float* out = nullptr;
  *vector = Array::make(ElemType::f32, {x.product->width}, &out);
  for (int64_t i = 0; i < k.data.count(); ++i) {
    int64_t at = 0, rest = i;
    for (size_t d = along.size(); d-- > 0;) at += rest % along[d].extent * along[d].stride, rest /= along[d].extent;
    if (at >= x.product->width) return false;
    out[at] = k.data.f[i];
  }
  return true;
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
    y.product->score_bias_name = !k.origin.empty()       ? k.origin
                                 : !k.columns_of.empty() ? k.columns_of
                                                         : y.product->name + ".bias";
    y.product->pending = x.pending;  // the scale so far; the bias comes after it
    if (!fixed_) limit_ = std::min(limit_, length_);
    return y;
  }
  if (Array bias; sign > 0 && bias_of_axes(x, k, &bias) && x.product->bias.empty() && x.pending == 1) {
    Value y = x;
    y.product = std::make_shared<Product>(*x.product);
    y.product->bias = bias;
    y.product->made.clear();
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

}  // namespace octet::onnx
