// Reference kernels of the ONNX operators that encoders are made of: a table by name.
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <unordered_map>

#include "core/aligned.h"
#include "core/error.h"
#include "onnx/array.h"
#include "onnx/einsum.h"

namespace octet::onnx {

namespace {
thread_local int64_t array_limit = kMaxArray * 8;  // bytes
thread_local int64_t work_left = INT64_MAX;
}  // namespace
ArrayLimit::ArrayLimit(int64_t bytes, int64_t work) : before_(array_limit), work_before_(work_left) {
  array_limit = std::min(bytes, kMaxArray * 8);
  work_left = std::min(work, work_left);
}
ArrayLimit::~ArrayLimit() { array_limit = before_, work_left = work_before_; }
bool ArrayLimit::fits(int64_t elements) noexcept { return elements >= 0 && elements <= array_limit / 8; }

Array Array::make(ElemType type, Shape shape, float** out) {
  std::shared_ptr<unsigned char> memory = allocate_zeroed(octet::count(shape) * 4);
  *out = reinterpret_cast<float*>(memory.get());
  return {type, std::move(shape), memory, *out, nullptr};
}
Array Array::make(ElemType type, Shape shape, int64_t** out) {
  std::shared_ptr<unsigned char> memory = allocate_zeroed(octet::count(shape) * 8);
  *out = reinterpret_cast<int64_t*>(memory.get());
  return {type, std::move(shape), memory, nullptr, *out};
}
Array Array::of(std::vector<int64_t> values) {
  int64_t* out = nullptr;
  Array a = make(ElemType::s64, {static_cast<int64_t>(values.size())}, &out);
  std::copy(values.begin(), values.end(), out);
  return a;
}
Array Array::scalar(float value) {
  float* out = nullptr;
  Array a = make(ElemType::f32, {}, &out);
  *out = value;
  return a;
}
Array Array::reshaped(Shape to) const {
  Array a = *this;
  a.shape = std::move(to);
  return a;
}

Array Array::from(const TensorData& t) {
  if (t.data.empty())
    fail(ErrorCode::unsupported, {.what = "cannot use tensor " + t.name, .expected = "it holds " + onnx::name(t.type)});
  const Tensor& d = t.data;
  if (d.dtype() == DType::f32) {
    auto held = std::make_shared<Tensor>(d);
    return {t.type, d.shape(), held, reinterpret_cast<const float*>(d.data()), nullptr};
  }
  if (d.dtype() == DType::s64) {
    auto held = std::make_shared<Tensor>(d);
    return {t.type, d.shape(), held, nullptr, reinterpret_cast<const int64_t*>(d.data())};
  }
  if (is_float(t.type)) {
    auto values = std::make_shared<std::vector<float>>(d.to_f32());
    return {t.type, d.shape(), values, values->data(), nullptr};
  }
  int64_t* out = nullptr;
  Array a = make(t.type, d.shape(), &out);
  auto copy = [&]<typename T>(const T* from) { std::copy(from, from + d.elements(), out); };
  switch (d.dtype()) {
    case DType::s8: copy(reinterpret_cast<const int8_t*>(d.data())); break;
    case DType::u8:
    case DType::boolean: copy(reinterpret_cast<const uint8_t*>(d.data())); break;
    case DType::s16: copy(reinterpret_cast<const int16_t*>(d.data())); break;
    default: copy(reinterpret_cast<const int32_t*>(d.data())); break;
  }
  return a;
}

namespace {

using Arrays = std::vector<Array>;

struct Call {
  const Node& node;
  const Arrays& in;
  int64_t opset;

  [[noreturn]] void bad(const std::string& expected) const {
    std::string got;
    for (const Array& a : in)
      got += (got.empty() ? "" : ", ") + (a.empty() ? "none" : onnx::name(a.type) + octet::to_string(a.shape));
    fail(ErrorCode::corrupt, {.what = "cannot compute " + node.label(), .expected = expected + ", got " + got});
  }
  [[noreturn]] void lacks(const std::string& what) const {
    fail(ErrorCode::unsupported, {.what = "cannot compute " + node.label(), .expected = what});
  }
  void require(bool ok, const char* expected) const {
    if (!ok) bad(std::string("expected ") + expected);
  }
  bool has(size_t i) const { return i < in.size() && !in[i].empty(); }
  const Array& arg(size_t i) const {
    if (!has(i)) bad("expected input " + std::to_string(i));
    return in[i];
  }
  const Array& reals(size_t i) const {
    require(arg(i).real(), "floats");
    return in[i];
  }
  const Array& ints(size_t i) const {
    require(!arg(i).real(), "integers");
    return in[i];
  }
  int64_t axis(int64_t axis, int64_t rank) const {
    if (axis < 0) axis += rank;
    require(axis >= 0 && axis < std::max<int64_t>(rank, 1), "an axis inside the shape");
    return axis;
  }
  void limit(const Shape& shape, int64_t bytes = 8) const {
    int64_t n = 1;
    for (int64_t e : shape) {
      if (e < 0 || (e > 0 && n > array_limit / bytes / e))
        bad("expected a result of reasonable size, not " + to_string(shape));
      n *= e;
    }
    charge(n);
  }
  void charge(int64_t steps) const {
    if (work_left == INT64_MAX) return;
    if (steps > work_left) bad("expected constants that are computed in reasonable time");
    work_left -= steps;
  }
  Array make_f(ElemType type, Shape shape, float** out) const {
    limit(shape, sizeof(**out));
    return Array::make(type, std::move(shape), out);
  }
  Array make_i(ElemType type, Shape shape, int64_t** out) const {
    limit(shape, sizeof(**out));
    return Array::make(type, std::move(shape), out);
  }
  /// Axes as attribute or as input `index`.
  std::vector<int64_t> axes(size_t index) const {
    if (has(index)) {
      auto v = ints(index).integers();
      return {v.begin(), v.end()};
    }
    return node.integers("axes");
  }
};

std::vector<int64_t> strides_of(const Shape& shape) {
  std::vector<int64_t> s(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;) s[d - 1] = s[d] * shape[d];
  return s;
}

/// Strides to walk `from` as if it were `to` (0 where it is broadcast).
std::vector<int64_t> broadcast_strides(const Shape& from, const Shape& to) {
  std::vector<int64_t> own = strides_of(from), s(to.size(), 0);
  for (size_t d = 0; d < from.size(); ++d)
    if (from[d] != 1) s[to.size() - from.size() + d] = own[d];
  return s;
}

/// Calls body(index of the result, index of a, index of b) for all elements of `shape`.
template <typename Body>
void walk(const Shape& shape, const std::vector<int64_t>& sa, const std::vector<int64_t>& sb, Body body) {
  int64_t n = count(shape);
  if (n == 0) return;
  if (shape.empty()) return body(0, 0, 0);
  size_t last = shape.size() - 1;
  std::vector<int64_t> at(shape.size(), 0);
  int64_t a = 0, b = 0;
  for (int64_t base = 0; base < n; base += shape[last]) {
    for (int64_t j = 0; j < shape[last]; ++j) body(base + j, a + j * sa[last], b + j * sb[last]);
    for (size_t d = last; d-- > 0;) {
      a += sa[d], b += sb[d];
      if (++at[d] < shape[d]) break;
      a -= sa[d] * shape[d], b -= sb[d] * shape[d];
      at[d] = 0;
    }
  }
}

int64_t wrap(ElemType type, int64_t v) {
  switch (type) {
    case ElemType::s8: return static_cast<int8_t>(v);
    case ElemType::u8: return static_cast<uint8_t>(v);
    case ElemType::s16: return static_cast<int16_t>(v);
    case ElemType::u16: return static_cast<uint16_t>(v);
    case ElemType::s32: return static_cast<int32_t>(v);
    case ElemType::u32: return static_cast<uint32_t>(v);
    case ElemType::boolean: return v != 0;
    default: return v;
  }
}

// ---------------------------------------------------------------- elementwise
template <typename F>
Arrays unary(const Call& c, F f) {
  float* out = nullptr;
  const Array& x = c.reals(0);
  Array y = c.make_f(x.type, x.shape, &out);
  for (int64_t i = 0, n = x.count(); i < n; ++i) out[i] = f(x.f[i]);
  return {y};
}

template <typename FF, typename FI>
Arrays binary(const Call& c, FF ff, FI fi) {
  const Array &a = c.arg(0), &b = c.arg(1);
  c.require(a.real() == b.real(), "two inputs of one type");
  Shape shape = broadcast(a.shape, b.shape, c.node);
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = ff(a.f[p], b.f[q]); });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = wrap(a.type, fi(a.i[p], b.i[q])); });
  return {y};
}

template <typename F>
Arrays compare(const Call& c, F f) {
  const Array &a = c.arg(0), &b = c.arg(1);
  c.require(a.real() == b.real(), "two inputs of one type");
  Shape shape = broadcast(a.shape, b.shape, c.node);
  int64_t* out = nullptr;
  Array y = c.make_i(ElemType::boolean, shape, &out);
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = f(a.f[p], b.f[q]); });
  else walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) { out[i] = f(a.i[p], b.i[q]); });
  return {y};
}

int64_t add_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
int64_t sub_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
int64_t mul_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
int64_t div_safe(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? sub_wrapping(0, a) : a / b; }
int64_t mod_floor(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

Arrays power(const Call& c) {
  const Array &a = c.arg(0), &b = c.arg(1);
  Shape shape = broadcast(a.shape, b.shape, c.node);
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) {
      double e = b.at(q);
      out[i] = e == 2.0 ? a.f[p] * a.f[p] : static_cast<float>(std::pow(static_cast<double>(a.f[p]), e));
    });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  walk(shape, sa, sb, [&](int64_t i, int64_t p, int64_t q) {
    double v = std::pow(static_cast<double>(a.i[p]), b.at(q));
    out[i] = std::fabs(v) < 9e18 ? wrap(a.type, static_cast<int64_t>(v)) : 0;
  });
  return {y};
}

Arrays fold_inputs(const Call& c, bool largest) {
  Array y = c.arg(0);
  for (size_t i = 1; i < c.in.size(); ++i) {
    Arrays pair{y, c.arg(i)};
    Call step{c.node, pair, c.opset};
    y = binary(
        step,
        [&](float a, float b) {
          if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<float>::quiet_NaN();
          return largest ? std::max(a, b) : std::min(a, b);
        },
        [&](int64_t a, int64_t b) { return largest ? std::max(a, b) : std::min(a, b); })[0];
  }
  return {y};
}

Arrays clip(const Call& c) {
  const Array& x = c.arg(0);
  if (!x.real()) {
    int64_t* out = nullptr;
    Array y = c.make_i(x.type, x.shape, &out);
    for (int64_t i = 0; i < x.count(); ++i) {
      out[i] = x.i[i];
      if (c.has(1)) out[i] = std::max(out[i], c.ints(1).i[0]);
      if (c.has(2)) out[i] = std::min(out[i], c.ints(2).i[0]);
    }
    return {y};
  }
  float lo = -std::numeric_limits<float>::infinity(), hi = -lo;
  if (c.opset < 11) {
    lo = static_cast<float>(c.node.number("min", lo)), hi = static_cast<float>(c.node.number("max", hi));
  } else {
    if (c.has(1)) lo = c.reals(1).f[0];
    if (c.has(2)) hi = c.reals(2).f[0];
  }
  return unary(c, [=](float v) {
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
  });
}

float round_to(ElemType type, float v) {
  if (type == ElemType::f16) return f32_from_f16(f16_from_f32(v));
  if (type == ElemType::bf16) return f32_from_bf16(bf16_from_f32(v));
  return v;
}

Arrays cast(const Call& c, ElemType to) {
  const Array& x = c.arg(0);
  if (to == ElemType::none || to == ElemType::string || to == ElemType::f8e4m3fn) c.lacks("no cast to " + name(to));
  if (is_float(to)) {
    if (x.real() && (to == x.type || (to != ElemType::f16 && to != ElemType::bf16))) {
      Array y = x;
      y.type = to;
      return {y};
    }
    float* out = nullptr;
    Array y = c.make_f(to, x.shape, &out);
    for (int64_t i = 0, n = x.count(); i < n; ++i)
      out[i] = round_to(to, x.real() ? x.f[i] : static_cast<float>(x.i[i]));
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(to, x.shape, &out);
  for (int64_t i = 0, n = x.count(); i < n; ++i) {
    if (!x.real()) out[i] = wrap(to, x.i[i]);
    else if (to == ElemType::boolean) out[i] = x.f[i] != 0.0f;
    else
      out[i] = x.f[i] >= 9.2e18f    ? std::numeric_limits<int64_t>::max()
               : x.f[i] > -9.2e18f  ? wrap(to, static_cast<int64_t>(x.f[i]))
               : std::isnan(x.f[i]) ? 0
                                    : std::numeric_limits<int64_t>::min();
  }
  return {y};
}

Arrays where(const Call& c) {
  const Array &cond = c.ints(0), &a = c.arg(1), &b = c.arg(2);
  c.require(a.real() == b.real(), "branches of one type");
  Shape shape = broadcast(broadcast(a.shape, b.shape, c.node), cond.shape, c.node);
  std::vector<int64_t> pick(static_cast<size_t>(count(shape)));
  c.limit(shape);
  std::vector<int64_t> none(shape.size(), 0);
  walk(shape, broadcast_strides(cond.shape, shape), none,
       [&](int64_t i, int64_t p, int64_t) { pick[static_cast<size_t>(i)] = cond.i[p]; });
  auto sa = broadcast_strides(a.shape, shape), sb = broadcast_strides(b.shape, shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    walk(shape, sa, sb,
         [&](int64_t i, int64_t p, int64_t q) { out[i] = pick[static_cast<size_t>(i)] ? a.f[p] : b.f[q]; });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  walk(shape, sa, sb,
       [&](int64_t i, int64_t p, int64_t q) { out[i] = pick[static_cast<size_t>(i)] ? a.i[p] : b.i[q]; });
  return {y};
}

// ---------------------------------------------------------------- shapes
/// The elements of x at source(index of the result).
template <typename Source>
Array pick(const Call& c, const Array& x, Shape shape, Source source) {
  c.limit(shape);
  int64_t n = count(shape);
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, std::move(shape), &out);
    for (int64_t i = 0; i < n; ++i) out[i] = x.f[source(i)];
    return y;
  }
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, std::move(shape), &out);
  for (int64_t i = 0; i < n; ++i) out[i] = x.i[source(i)];
  return y;
}

/// x read with the given start and strides a result axis.
Array strided(const Call& c, const Array& x, const Shape& shape, int64_t start, const std::vector<int64_t>& strides) {
  std::vector<int64_t> none(shape.size(), 0);
  c.limit(shape, x.real() ? 4 : 8);
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, shape, &out);
    walk(shape, strides, none, [&](int64_t i, int64_t p, int64_t) { out[i] = x.f[start + p]; });
    return y;
  }
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, shape, &out);
  walk(shape, strides, none, [&](int64_t i, int64_t p, int64_t) { out[i] = x.i[start + p]; });
  return y;
}

Arrays shape_of(const Call& c) {
  const Shape& s = c.arg(0).shape;
  auto rank = static_cast<int64_t>(s.size());
  int64_t start = c.node.integer("start", 0), end = c.node.integer("end", rank);
  start = std::clamp<int64_t>(start < 0 ? start + rank : start, 0, rank);
  end = std::clamp<int64_t>(end < 0 ? end + rank : end, start, rank);
  return {Array::of({s.begin() + start, s.begin() + end})};
}

Arrays reshape(const Call& c) {
  const Array& x = c.arg(0);
  Shape to;
  if (c.has(1)) {
    auto v = c.ints(1).integers();
    to.assign(v.begin(), v.end());
  } else {
    to = c.node.integers("shape");
  }
  int64_t known = 1, open = -1;
  for (size_t d = 0; d < to.size(); ++d) {
    if (to[d] == 0 && c.node.integer("allowzero", 0) == 0) {
      c.require(d < x.shape.size(), "a shape whose zeros stand for extents of the input");
      to[d] = x.shape[d];
    }
    if (to[d] == -1) {
      c.require(open < 0, "at most one -1");
      open = static_cast<int64_t>(d);
    } else {
      c.require(to[d] >= 0 && (to[d] == 0 || known <= kMaxArray / to[d]), "extents that are not negative");
      known *= to[d];
    }
  }
  if (open >= 0) {
    c.require(known > 0 && x.count() % known == 0, "a shape that holds the elements");
    to[static_cast<size_t>(open)] = x.count() / known;
  }
  c.require(count(to) == x.count(), "a shape that holds the elements");
  return {x.reshaped(to)};
}

Arrays transpose(const Call& c) {
  const Array& x = c.arg(0);
  auto rank = x.shape.size();
  std::vector<int64_t> perm = c.node.integers("perm");
  if (perm.empty())
    for (size_t d = rank; d-- > 0;) perm.push_back(static_cast<int64_t>(d));
  c.require(perm.size() == rank, "a permutation of the axes");
  std::vector<int64_t> own = strides_of(x.shape), strides;
  Shape shape;
  std::vector<bool> seen(rank);
  for (int64_t p : perm) {
    c.require(p >= 0 && p < static_cast<int64_t>(rank) && !seen[static_cast<size_t>(p)], "a permutation of the axes");
    seen[static_cast<size_t>(p)] = true;
    shape.push_back(x.shape[static_cast<size_t>(p)]);
    strides.push_back(own[static_cast<size_t>(p)]);
  }
  return {strided(c, x, shape, 0, strides)};
}

Arrays unsqueeze(const Call& c) {
  const Array& x = c.arg(0);
  std::vector<int64_t> axes = c.axes(1);
  int64_t rank = x.rank() + static_cast<int64_t>(axes.size());
  for (int64_t& a : axes) a = c.axis(a, rank);
  std::sort(axes.begin(), axes.end());
  Shape shape = x.shape;
  for (int64_t a : axes) {
    c.require(a <= static_cast<int64_t>(shape.size()), "axes inside the shape");
    shape.insert(shape.begin() + a, 1);
  }
  return {x.reshaped(shape)};
}

Arrays squeeze(const Call& c) {
  const Array& x = c.arg(0);
  std::vector<int64_t> axes = c.axes(1);
  if (axes.empty())
    for (int64_t d = 0; d < x.rank(); ++d)
      if (x.shape[static_cast<size_t>(d)] == 1) axes.push_back(d);
  for (int64_t& a : axes) a = c.axis(a, x.rank());
  Shape shape;
  for (int64_t d = 0; d < x.rank(); ++d) {
    if (std::find(axes.begin(), axes.end(), d) == axes.end()) shape.push_back(x.shape[static_cast<size_t>(d)]);
    else c.require(x.shape[static_cast<size_t>(d)] == 1, "extent 1 where it squeezes");
  }
  return {x.reshaped(shape)};
}

Arrays flatten(const Call& c) {
  const Array& x = c.arg(0);
  int64_t axis = c.node.integer("axis", 1);
  if (axis < 0) axis += x.rank();
  c.require(axis >= 0 && axis <= x.rank(), "an axis inside the shape");
  int64_t left = 1;
  for (int64_t d = 0; d < axis; ++d) left *= x.shape[static_cast<size_t>(d)];
  return {x.reshaped({left, left == 0 ? 0 : x.count() / left})};
}

Arrays expand(const Call& c) {
  const Array& x = c.arg(0);
  auto v = c.ints(1).integers();
  Shape shape = broadcast(x.shape, {v.begin(), v.end()}, c.node);
  return {strided(c, x, shape, 0, broadcast_strides(x.shape, shape))};
}

Arrays tile(const Call& c) {
  const Array& x = c.arg(0);
  auto repeats = c.ints(1).integers();
  c.require(repeats.size() == x.shape.size(), "a count an axis");
  Shape shape = x.shape;
  for (size_t d = 0; d < shape.size(); ++d) {
    c.require(repeats[d] >= 0 && repeats[d] < kMaxArray, "counts that are not negative");
    shape[d] *= repeats[d];
  }
  c.limit(shape, x.real() ? 4 : 8);
  std::vector<int64_t> own = strides_of(x.shape), to = strides_of(shape);
  return {pick(c, x, shape, [&](int64_t i) {
    int64_t at = 0;
    for (size_t d = 0; d < shape.size(); ++d) at += (i / to[d]) % shape[d] % x.shape[d] * own[d];
    return at;
  })};
}

Arrays concat(const Call& outer_call) {
  // Some writers store the numbers of a shape without an axis.
  Arrays inputs = outer_call.in;
  for (Array& x : inputs)
    if (!x.empty() && x.rank() == 0) x = x.reshaped({1});
  const Call c{outer_call.node, inputs, outer_call.opset};
  const Array& first = c.arg(0);
  int64_t axis = c.axis(c.node.integer("axis", 0), first.rank());
  Shape shape = first.shape;
  c.require(!shape.empty(), "inputs with axes");
  int64_t total = 0, outer = 1, inner = 1;
  for (size_t k = 0; k < c.in.size(); ++k) {
    const Array& x = c.arg(k);
    c.require(x.rank() == first.rank() && x.real() == first.real(), "inputs of one rank and type");
    for (int64_t d = 0; d < x.rank(); ++d)
      c.require(d == axis || x.shape[static_cast<size_t>(d)] == shape[static_cast<size_t>(d)], "equal other extents");
    total += x.shape[static_cast<size_t>(axis)];
  }
  shape[static_cast<size_t>(axis)] = total;
  for (int64_t d = 0; d < axis; ++d) outer *= shape[static_cast<size_t>(d)];
  for (size_t d = static_cast<size_t>(axis) + 1; d < shape.size(); ++d) inner *= shape[d];
  auto join = [&]<typename T>(T* out, auto data) {
    int64_t at = 0;
    for (const Array& x : c.in) {
      int64_t part = x.shape[static_cast<size_t>(axis)] * inner;
      for (int64_t o = 0; o < outer; ++o)
        std::copy(data(x) + o * part, data(x) + (o + 1) * part, out + o * total * inner + at);
      at += part;
    }
  };
  if (first.real()) {
    float* out = nullptr;
    Array y = c.make_f(first.type, shape, &out);
    join(out, [](const Array& x) { return x.f; });
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(first.type, shape, &out);
  join(out, [](const Array& x) { return x.i; });
  return {y};
}

Arrays split(const Call& c) {
  const Array& x = c.arg(0);
  int64_t axis = c.axis(c.node.integer("axis", 0), x.rank());
  c.require(x.rank() > 0, "an input with axes");
  int64_t extent = x.shape[static_cast<size_t>(axis)];
  std::vector<int64_t> parts = c.node.integers("split");
  if (c.has(1)) {
    auto v = c.ints(1).integers();
    parts.assign(v.begin(), v.end());
  }
  auto outputs = static_cast<int64_t>(c.node.outputs.size());
  if (parts.empty()) {
    int64_t n = std::max<int64_t>(1, outputs), size = (extent + n - 1) / n;
    for (int64_t k = 0, left = extent; k < n; ++k, left -= size) parts.push_back(std::clamp<int64_t>(left, 0, size));
  }
  c.require(static_cast<int64_t>(parts.size()) >= outputs, "a part an output");
  std::vector<int64_t> own = strides_of(x.shape);
  Arrays out;
  int64_t at = 0;
  for (int64_t part : parts) {
    c.require(part >= 0 && part <= extent - at, "parts that fit");
    Shape shape = x.shape;
    shape[static_cast<size_t>(axis)] = part;
    out.push_back(strided(c, x, shape, at * own[static_cast<size_t>(axis)], own));
    at += part;
  }
  return out;
}

Arrays slice(const Call& c) {
  const Array& x = c.arg(0);
  std::vector<int64_t> starts, ends, axes, steps;
  auto take = [&](size_t i, const char* attribute, std::vector<int64_t>& out) {
    if (c.has(i)) {
      auto v = c.ints(i).integers();
      out.assign(v.begin(), v.end());
    } else {
      out = c.node.integers(attribute);
    }
  };
  take(1, "starts", starts), take(2, "ends", ends), take(3, "axes", axes), take(4, "steps", steps);
  if (axes.empty())
    for (size_t d = 0; d < starts.size(); ++d) axes.push_back(static_cast<int64_t>(d));
  if (steps.empty()) steps.assign(starts.size(), 1);
  c.require(ends.size() == starts.size() && axes.size() == starts.size() && steps.size() == starts.size(),
            "starts, ends, axes and steps of one length");
  std::vector<int64_t> strides = strides_of(x.shape);
  Shape shape = x.shape;
  int64_t origin = 0;
  for (size_t k = 0; k < axes.size(); ++k) {
    auto d = static_cast<size_t>(c.axis(axes[k], x.rank()));
    c.require(d < shape.size() && steps[k] != 0 && std::abs(steps[k]) < kMaxArray, "an axis and a step");
    int64_t extent = x.shape[d], step = steps[k], begin = starts[k], end = ends[k];
    if (begin < 0) begin = begin < -extent ? -1 : begin + extent;
    if (end < 0) end = end < -extent ? -1 : end + extent;
    if (step > 0) {
      begin = std::clamp<int64_t>(starts[k] < -extent ? 0 : begin, 0, extent);
      end = std::clamp<int64_t>(ends[k] < -extent ? 0 : end, 0, extent);
      shape[d] = end > begin ? (end - begin + step - 1) / step : 0;
    } else {
      begin = std::clamp<int64_t>(begin, -1, extent - 1), end = std::clamp<int64_t>(end, -1, extent - 1);
      shape[d] = begin > end ? (begin - end - step - 1) / -step : 0;
    }
    origin += std::max<int64_t>(0, begin) * strides[d];
    strides[d] *= step;
  }
  if (count(shape) == 0) origin = 0;
  return {strided(c, x, shape, origin, strides)};
}

int64_t wrapped_index(const Call& c, int64_t index, int64_t extent) {
  if (index < 0) index += extent;
  c.require(index >= 0 && index < extent, "indices inside the axis");
  return index;
}

Arrays gather(const Call& c) {
  const Array &x = c.arg(0), &index = c.ints(1);
  c.require(x.rank() > 0, "an input with axes");
  auto axis = static_cast<size_t>(c.axis(c.node.integer("axis", 0), x.rank()));
  Shape shape(x.shape.begin(), x.shape.begin() + static_cast<int64_t>(axis));
  shape.insert(shape.end(), index.shape.begin(), index.shape.end());
  shape.insert(shape.end(), x.shape.begin() + static_cast<int64_t>(axis) + 1, x.shape.end());
  int64_t inner = strides_of(x.shape)[axis], extent = x.shape[axis], n = index.count();
  std::vector<int64_t> at(static_cast<size_t>(n));
  for (int64_t k = 0; k < n; ++k) at[static_cast<size_t>(k)] = wrapped_index(c, index.i[k], extent);
  return {pick(c, x, shape, [&](int64_t i) {
    int64_t in = i % inner, k = i / inner % n, outer = i / inner / n;
    return (outer * extent + at[static_cast<size_t>(k)]) * inner + in;
  })};
}

Arrays gather_elements(const Call& c) {
  const Array &x = c.arg(0), &index = c.ints(1);
  c.require(x.rank() == index.rank() && x.rank() > 0, "an index an element");
  auto axis = static_cast<size_t>(c.axis(c.node.integer("axis", 0), x.rank()));
  for (size_t d = 0; d < x.shape.size(); ++d) c.require(d == axis || index.shape[d] <= x.shape[d], "indices that fit");
  std::vector<int64_t> own = strides_of(x.shape), to = strides_of(index.shape);
  return {pick(c, x, index.shape, [&](int64_t i) {
    int64_t at = 0;
    for (size_t d = 0; d < own.size(); ++d)
      at += (d == axis ? wrapped_index(c, index.i[i], x.shape[d]) : (i / to[d]) % index.shape[d]) * own[d];
    return at;
  })};
}

Arrays gather_nd(const Call& c) {
  const Array &x = c.arg(0), &index = c.ints(1);
  int64_t batch = c.node.integer("batch_dims", 0);
  c.require(index.rank() > 0 && batch >= 0 && batch < index.rank() && batch < x.rank(), "indices with axes");
  int64_t depth = index.shape.back();
  c.require(depth >= 1 && depth + batch <= x.rank(), "index tuples that fit the input");
  Shape shape(index.shape.begin(), index.shape.end() - 1);
  shape.insert(shape.end(), x.shape.begin() + batch + depth, x.shape.end());
  std::vector<int64_t> own = strides_of(x.shape);
  int64_t inner = own[static_cast<size_t>(batch + depth - 1)], per = 1, tuples = index.count() / depth;
  for (int64_t d = 0; d < batch; ++d) {
    c.require(index.shape[static_cast<size_t>(d)] == x.shape[static_cast<size_t>(d)], "equal batch axes");
    per *= x.shape[static_cast<size_t>(d)];
  }
  int64_t each = per > 0 ? tuples / per : 0, block = batch > 0 ? own[static_cast<size_t>(batch - 1)] : 0;
  return {pick(c, x, shape, [&](int64_t i) {
    int64_t t = i / inner, at = i % inner + (each > 0 ? t / each : 0) * block;
    for (int64_t d = 0; d < depth; ++d)
      at += wrapped_index(c, index.i[t * depth + d], x.shape[static_cast<size_t>(batch + d)]) *
            own[static_cast<size_t>(batch + d)];
    return at;
  })};
}

Arrays one_hot(const Call& c) {
  const Array &index = c.arg(0), &depth = c.arg(1), &pair = c.arg(2);
  c.require(depth.count() == 1 && pair.count() == 2 && depth.at(0) >= 1 && depth.at(0) < 1e9, "a depth and two values");
  auto n = static_cast<int64_t>(depth.at(0));
  int64_t axis = c.axis(c.node.integer("axis", -1), index.rank() + 1);
  Shape shape = index.shape;
  shape.insert(shape.begin() + axis, n);
  int64_t inner = 1;
  for (size_t d = static_cast<size_t>(axis); d < index.shape.size(); ++d) inner *= index.shape[d];
  auto fill = [&](auto* out, auto off, auto on) {
    for (int64_t i = 0; i < count(shape); ++i) {
      auto at = static_cast<int64_t>(index.at(i / (inner * n) * inner + i % inner));
      out[i] = (at < 0 ? at + n : at) == i / inner % n ? on : off;
    }
  };
  if (pair.real()) {
    float* out = nullptr;
    Array y = c.make_f(pair.type, shape, &out);
    fill(out, pair.f[0], pair.f[1]);
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(pair.type, shape, &out);
  fill(out, pair.i[0], pair.i[1]);
  return {y};
}

Arrays range(const Call& c) {
  const Array &a = c.arg(0), &b = c.arg(1), &s = c.arg(2);
  c.require(s.at(0) != 0, "a step that is not 0");
  double n = std::ceil((b.at(0) - a.at(0)) / s.at(0));
  c.require(n < static_cast<double>(kMaxArray), "a range of reasonable size");
  Shape shape{std::max<int64_t>(0, static_cast<int64_t>(n))};
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, shape, &out);
    for (int64_t i = 0; i < shape[0]; ++i) out[i] = a.f[0] + static_cast<float>(i) * s.f[0];
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, shape, &out);
  for (int64_t i = 0; i < shape[0]; ++i) out[i] = a.i[0] + i * s.i[0];
  return {y};
}

Arrays constant_of_shape(const Call& c) {
  auto v = c.ints(0).integers();
  Array value = Array::scalar(0.0f);
  if (const Attribute* a = c.node.find("value"); a != nullptr) value = Array::from(a->tensor);
  c.require(value.count() == 1, "one value");
  return {strided(c, value, {v.begin(), v.end()}, 0, std::vector<int64_t>(v.size(), 0))};
}

Arrays constant(const Call& c) {
  for (const Attribute& a : c.node.attributes) {
    if (a.name == "value") return {Array::from(a.tensor)};
    if (a.name == "value_float") return {Array::scalar(static_cast<float>(a.number))};
    if (a.name == "value_int") return {Array::of({a.integer}).reshaped({})};
    if (a.name == "value_ints") return {Array::of(a.integers)};
    if (a.name == "value_floats") {
      float* out = nullptr;
      Array y = c.make_f(ElemType::f32, {static_cast<int64_t>(a.numbers.size())}, &out);
      std::copy(a.numbers.begin(), a.numbers.end(), out);
      return {y};
    }
  }
  c.lacks("expected a tensor, numbers or integers as its value");
}

Arrays cumsum(const Call& c) {
  const Array& x = c.arg(0);
  c.require(x.rank() > 0 && c.arg(1).count() == 1, "an input with axes");
  auto axis = static_cast<size_t>(c.axis(static_cast<int64_t>(c.arg(1).at(0)), x.rank()));
  int64_t n = x.shape[axis], inner = strides_of(x.shape)[axis];
  bool exclusive = c.node.integer("exclusive", 0) != 0, reverse = c.node.integer("reverse", 0) != 0;
  auto run = [&]<typename T>(const T* in, T* out) {
    for (int64_t i = 0; i < x.count(); ++i) {
      if (i / inner % n != 0) continue;
      T sum = 0;
      for (int64_t k = 0; k < n; ++k) {
        int64_t at = i + (reverse ? n - 1 - k : k) * inner;
        T v = in[at];
        if (exclusive) out[at] = sum, sum = static_cast<T>(sum + v);
        else sum = static_cast<T>(sum + v), out[at] = sum;
      }
    }
  };
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, x.shape, &out);
    run(x.f, out);
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, x.shape, &out);
  run(x.i, out);
  return {y};
}

Arrays trilu(const Call& c) {
  const Array& x = c.arg(0);
  c.require(x.rank() >= 2, "a matrix");
  int64_t k = c.has(1) ? c.ints(1).i[0] : 0, cols = x.shape.back(), rows = x.shape[x.shape.size() - 2];
  bool upper = c.node.integer("upper", 1) != 0;
  auto keep = [&](int64_t i) {
    int64_t col = i % cols, row = i / cols % rows;
    return upper ? col - row >= k : col - row <= k;
  };
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, x.shape, &out);
    for (int64_t i = 0; i < x.count(); ++i) out[i] = keep(i) ? x.f[i] : 0.0f;
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, x.shape, &out);
  for (int64_t i = 0; i < x.count(); ++i) out[i] = keep(i) ? x.i[i] : 0;
  return {y};
}

Arrays non_zero(const Call& c) {
  const Array& x = c.arg(0);
  std::vector<int64_t> hits, own = strides_of(x.shape);
  for (int64_t i = 0; i < x.count(); ++i)
    if (x.at(i) != 0) hits.push_back(i);
  auto n = static_cast<int64_t>(hits.size());
  int64_t* out = nullptr;
  Array y = c.make_i(ElemType::s64, {x.rank(), n}, &out);
  for (int64_t d = 0; d < x.rank(); ++d)
    for (int64_t k = 0; k < n; ++k)
      out[d * n + k] = hits[static_cast<size_t>(k)] / own[static_cast<size_t>(d)] % x.shape[static_cast<size_t>(d)];
  return {y};
}

// ---------------------------------------------------------------- reductions and norms
enum class Fold { sum, mean, largest, smallest, product, l1, l2, squares };

Arrays reduce(const Call& c, Fold fold) {
  const Array& x = c.arg(0);
  std::vector<int64_t> axes = c.axes(1);
  bool keep = c.node.integer("keepdims", 1) != 0;
  if (axes.empty()) {
    if (c.node.integer("noop_with_empty_axes", 0) != 0) return {x};
    axes.resize(x.shape.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  std::vector<bool> gone(x.shape.size());
  for (int64_t a : axes) gone[static_cast<size_t>(c.axis(a, x.rank()))] = x.rank() > 0;
  Shape shape, full = x.shape;
  int64_t n = 1;
  for (size_t d = 0; d < full.size(); ++d) {
    if (gone[d]) n *= full[d], full[d] = 1;
    if (!gone[d] || keep) shape.push_back(full[d]);
  }
  int64_t results = count(full);
  bool extreme = fold == Fold::largest || fold == Fold::smallest;
  if (extreme && n == 0 && results > 0 && !x.real()) c.lacks("the extreme of no integers");
  double start = extreme                 ? (fold == Fold::largest ? -std::numeric_limits<double>::infinity()
                                                                  : std::numeric_limits<double>::infinity())
                 : fold == Fold::product ? 1.0
                                         : 0.0;
  std::vector<double> acc(static_cast<size_t>(results), start);
  std::vector<int64_t> none(x.shape.size(), 0), to = strides_of(full);
  for (size_t d = 0; d < to.size(); ++d)
    if (gone[d]) to[d] = 0;
  walk(x.shape, to, none, [&](int64_t i, int64_t r, int64_t) {
    double v = x.at(i), &a = acc[static_cast<size_t>(r)];
    switch (fold) {
      case Fold::sum:
      case Fold::mean: a += v; break;
      case Fold::largest: a = std::isnan(v) ? v : std::max(a, v); break;
      case Fold::smallest: a = std::isnan(v) ? v : std::min(a, v); break;
      case Fold::product: a *= v; break;
      case Fold::l1: a += std::fabs(v); break;
      case Fold::l2:
      case Fold::squares: a += v * v; break;
    }
  });
  for (double& a : acc) {
    if (fold == Fold::mean) a = n > 0 ? a / static_cast<double>(n) : 0.0;
    if (fold == Fold::l2) a = std::sqrt(a);
  }
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, shape, &out);
    for (size_t i = 0; i < acc.size(); ++i) out[i] = static_cast<float>(acc[i]);
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, shape, &out);
  for (size_t i = 0; i < acc.size(); ++i) out[i] = static_cast<int64_t>(acc[i]);
  return {y};
}

Arrays softmax(const Call& c, bool logarithm) {
  const Array& x = c.reals(0);
  c.require(x.rank() > 0, "an input with axes");
  auto axis = static_cast<size_t>(c.axis(c.node.integer("axis", c.opset < 13 ? 1 : -1), x.rank()));
  int64_t inner = strides_of(x.shape)[axis], n = x.shape[axis];
  if (c.opset < 13) {  // the axis and all behind it are one
    n *= inner;
    inner = 1;
  }
  float* out = nullptr;
  Array y = c.make_f(x.type, x.shape, &out);
  for (int64_t i = 0; i < x.count(); ++i) {
    if (i / inner % std::max<int64_t>(n, 1) != 0) continue;
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t k = 0; k < n; ++k) top = std::max(top, x.f[i + k * inner]);
    double sum = 0;
    for (int64_t k = 0; k < n; ++k) sum += out[i + k * inner] = std::exp(x.f[i + k * inner] - top);
    for (int64_t k = 0; k < n; ++k) {
      float& v = out[i + k * inner];
      v = logarithm ? x.f[i + k * inner] - top - static_cast<float>(std::log(sum)) : static_cast<float>(v / sum);
    }
  }
  return {y};
}

Arrays layer_norm(const Call& c) {
  const Array &x = c.reals(0), &gamma = c.reals(1);
  int64_t axis = c.axis(c.node.integer("axis", -1), x.rank()), rows = 1;
  for (int64_t d = 0; d < axis; ++d) rows *= x.shape[static_cast<size_t>(d)];
  int64_t n = rows > 0 ? x.count() / rows : 0;
  bool beta = c.has(2);
  c.require(gamma.count() == n && (!beta || c.reals(2).count() == n), "gamma and beta as wide as the input");
  double epsilon = c.node.number("epsilon", 1e-5);
  Shape reduced = x.shape;
  for (size_t d = static_cast<size_t>(axis); d < reduced.size(); ++d) reduced[d] = 1;
  float *out = nullptr, *means = nullptr, *inverses = nullptr;
  Array y = c.make_f(x.type, x.shape, &out), m = c.make_f(ElemType::f32, reduced, &means),
        s = c.make_f(ElemType::f32, reduced, &inverses);
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x.f + r * n;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; ++i) mean += row[i];
    mean /= static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) variance += (row[i] - mean) * (row[i] - mean);
    double inverse = 1.0 / std::sqrt(variance / static_cast<double>(n) + epsilon);
    means[r] = static_cast<float>(mean), inverses[r] = static_cast<float>(inverse);
    for (int64_t i = 0; i < n; ++i)
      out[r * n + i] =
          static_cast<float>((row[i] - mean) * inverse * gamma.f[i] + (beta ? static_cast<double>(c.in[2].f[i]) : 0.0));
  }
  return {y, m, s};
}

// ---------------------------------------------------------------- products
/// out[m, n] += a[m, k] * b[k, n]
template <typename T, typename Acc>
void multiply(const T* a, const T* b, Acc* out, int64_t m, int64_t n, int64_t k, T a_zero, const T* b_zero,
              bool b_zero_each) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t p = 0; p < k; ++p) {
      Acc v = static_cast<Acc>(a[i * k + p] - a_zero);
      if (v == 0) continue;
      const T* row = b + p * n;
      Acc* to = out + i * n;
      if (b_zero == nullptr)
        for (int64_t j = 0; j < n; ++j) to[j] += v * static_cast<Acc>(row[j]);
      else
        for (int64_t j = 0; j < n; ++j) to[j] += v * static_cast<Acc>(row[j] - b_zero[b_zero_each ? j : 0]);
    }
}

struct MatrixShape {
  Shape out, batch;
  int64_t m = 1, n = 1, k = 1;
  bool row = false, column = false;  // a or b is a vector
  Shape a, b;
};
MatrixShape matrix_shape(const Call& c, const Shape& sa, const Shape& sb) {
  MatrixShape s;
  s.a = sa, s.b = sb;
  c.require(!sa.empty() && !sb.empty(), "matrices");
  if (sa.size() == 1) s.row = true, s.a.insert(s.a.begin(), 1);
  if (sb.size() == 1) s.column = true, s.b.push_back(1);
  s.m = s.a[s.a.size() - 2], s.k = s.a.back(), s.n = s.b.back();
  c.require(s.b[s.b.size() - 2] == s.k, "inner extents that agree");
  s.batch = broadcast(Shape(s.a.begin(), s.a.end() - 2), Shape(s.b.begin(), s.b.end() - 2), c.node);
  s.out = s.batch;
  if (!s.row) s.out.push_back(s.m);
  if (!s.column) s.out.push_back(s.n);
  c.limit(s.out, 4);
  c.charge(count(s.out) > 0 && s.k > kMaxArray / count(s.out) ? kMaxArray : s.k * count(s.out));
  return s;
}

template <typename T, typename Acc>
void matmul_into(const MatrixShape& s, const T* a, const T* b, Acc* out, T a_zero, const T* b_zero, bool b_zero_each) {
  Shape ba(s.a.begin(), s.a.end() - 2), bb(s.b.begin(), s.b.end() - 2);
  walk(s.batch, broadcast_strides(ba, s.batch), broadcast_strides(bb, s.batch), [&](int64_t i, int64_t p, int64_t q) {
    multiply<T, Acc>(a + p * s.m * s.k, b + q * s.k * s.n, out + i * s.m * s.n, s.m, s.n, s.k, a_zero, b_zero,
                     b_zero_each);
  });
}

Arrays matmul(const Call& c) {
  const Array &a = c.arg(0), &b = c.arg(1);
  c.require(a.real() == b.real(), "two inputs of one type");
  MatrixShape s = matrix_shape(c, a.shape, b.shape);
  if (a.real()) {
    float* out = nullptr;
    Array y = c.make_f(a.type, s.out, &out);
    matmul_into<float, float>(s, a.f, b.f, out, 0.0f, nullptr, false);
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(a.type, s.out, &out);
  matmul_into<int64_t, int64_t>(s, a.i, b.i, out, 0, nullptr, false);
  return {y};
}

Arrays einsum(const Call& c) {
  std::optional<Einsum> e = parse_einsum(c.node.text("equation", ""));
  if (!e) c.lacks("an equation with letters alone, without an ellipsis");
  c.require(e->in.size() == c.in.size(), "an operand a part of the equation");
  std::string letters;
  std::map<char, int64_t> extent;
  for (size_t k = 0; k < c.in.size(); ++k) {
    c.require(c.reals(k).shape.size() == e->in[k].size(), "a letter an axis");
    for (size_t d = 0; d < e->in[k].size(); ++d) {
      auto [at, fresh] = extent.emplace(e->in[k][d], c.in[k].shape[d]);
      c.require(fresh || at->second == c.in[k].shape[d], "equal extents of a letter");
      if (fresh) letters += e->in[k][d];
    }
  }
  auto turned = [&](const Array& x, const std::string& from, const std::string& to) {
    std::vector<int64_t> own = strides_of(x.shape), strides;
    Shape shape;
    for (char l : to) shape.push_back(extent[l]), strides.push_back(own[from.find(l)]);
    return strided(c, x, shape, 0, strides);
  };
  auto size_of_letters = [&](const std::string& some) {
    int64_t n = 1;
    for (char l : some) n *= extent[l];
    return n;
  };
  if (std::optional<EinsumProduct> p = as_product(*e)) {
    Array a = turned(c.in[0], e->in[0], p->batch + p->left + p->contracted);
    Array b = turned(c.in[1], e->in[1], p->batch + p->contracted + p->right);
    int64_t batch = size_of_letters(p->batch), m = size_of_letters(p->left), k = size_of_letters(p->contracted),
            n = size_of_letters(p->right);
    Shape shape;
    std::string have = p->batch + p->left + p->right;
    for (char l : have) shape.push_back(extent[l]);
    float* out = nullptr;
    Array y = c.make_f(c.in[0].type, shape, &out);
    c.charge(count(shape) > 0 && k > kMaxArray / count(shape) ? kMaxArray : k * count(shape));
    for (int64_t i = 0; i < batch; ++i)
      multiply<float, float>(a.f + i * m * k, b.f + i * k * n, out + i * m * n, m, n, k, 0.0f, nullptr, false);
    return {turned(y, have, e->out)};
  }
  // Any other: all letters one inside the other, those of the result outside.
  std::string order = e->out;
  for (char l : letters)
    if (order.find(l) == std::string::npos) order += l;
  Shape whole, shape;
  for (char l : order) whole.push_back(extent[l]);
  for (char l : e->out) shape.push_back(extent[l]);
  c.limit(whole, 4);
  std::vector<std::vector<int64_t>> strides(c.in.size(), std::vector<int64_t>(order.size(), 0));
  for (size_t k = 0; k < c.in.size(); ++k) {
    std::vector<int64_t> own = strides_of(c.in[k].shape);
    for (size_t d = 0; d < e->in[k].size(); ++d) strides[k][order.find(e->in[k][d])] += own[d];
  }
  float* out = nullptr;
  Array y = c.make_f(c.in[0].type, shape, &out);
  int64_t inner = count(shape) == 0 ? 1 : std::max<int64_t>(1, count(whole) / std::max<int64_t>(1, count(shape)));
  std::vector<int64_t> to = strides_of(whole);
  for (int64_t i = 0, n = count(whole); i < n; ++i) {
    float v = 1;
    for (size_t k = 0; k < c.in.size(); ++k) {
      int64_t at = 0;
      for (size_t d = 0; d < order.size(); ++d) at += i / to[d] % whole[d] * strides[k][d];
      v *= c.in[k].f[at];
    }
    out[i / inner] += v;
  }
  return {y};
}

Arrays matmul_integer(const Call& c) {
  const Array &a = c.ints(0), &b = c.ints(1);
  MatrixShape s = matrix_shape(c, a.shape, b.shape);
  int64_t* out = nullptr;
  Array y = c.make_i(ElemType::s32, s.out, &out);
  if (c.has(2) && c.ints(2).count() != 1) c.lacks("a zero point a row of the left matrix");
  int64_t a_zero = c.has(2) ? c.in[2].i[0] : 0;
  const int64_t* b_zero = c.has(3) ? c.ints(3).i : nullptr;
  bool each = b_zero != nullptr && c.in[3].count() != 1;
  if (each) c.require(c.in[3].count() == s.n, "a zero point a column");
  matmul_into<int64_t, int64_t>(s, a.i, b.i, out, a_zero, b_zero, each);
  return {y};
}

Arrays gemm(const Call& c) {
  const Array &a = c.reals(0), &b = c.reals(1);
  c.require(a.rank() == 2 && b.rank() == 2, "two matrices");
  bool ta = c.node.integer("transA", 0) != 0, tb = c.node.integer("transB", 0) != 0;
  auto alpha = static_cast<float>(c.node.number("alpha", 1)), beta = static_cast<float>(c.node.number("beta", 1));
  int64_t m = a.shape[ta ? 1 : 0], k = a.shape[ta ? 0 : 1], n = b.shape[tb ? 0 : 1];
  c.require(b.shape[tb ? 1 : 0] == k, "inner extents that agree");
  float* out = nullptr;
  Array y = c.make_f(a.type, {m, n}, &out);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += a.f[ta ? p * m + i : i * k + p] * b.f[tb ? j * k + p : p * n + j];
      out[i * n + j] = alpha * sum;
    }
  if (c.has(2)) {
    Shape shape = broadcast({m, n}, c.reals(2).shape, c.node);
    c.require(shape == Shape({m, n}), "a bias that fits the product");
    std::vector<int64_t> none(2, 0);
    walk(shape, broadcast_strides(c.in[2].shape, shape), none,
         [&](int64_t i, int64_t p, int64_t) { out[i] += beta * c.in[2].f[p]; });
  }
  return {y};
}

// ---------------------------------------------------------------- quantization
void type_range(ElemType type, int64_t* lo, int64_t* hi) {
  switch (type) {
    case ElemType::s8: *lo = -128, *hi = 127; break;
    case ElemType::s16: *lo = -32768, *hi = 32767; break;
    case ElemType::u16: *lo = 0, *hi = 65535; break;
    case ElemType::s4: *lo = -8, *hi = 7; break;
    case ElemType::u4: *lo = 0, *hi = 15; break;
    default: *lo = 0, *hi = 255;
  }
}

/// Index of the scale of element i: one scale, or one along the axis.
struct ScaleIndex {
  int64_t inner = 1, extent = 1;
  ScaleIndex(const Call& c, const Array& x, const Array& scale) {
    if (scale.count() == 1) return;
    auto axis = static_cast<size_t>(c.axis(c.node.integer("axis", 1), x.rank()));
    if (scale.rank() != 1 || c.node.integer("block_size", 0) != 0) c.lacks("blocked scales");
    c.require(x.shape.at(axis) == scale.count(), "a scale a channel");
    inner = strides_of(x.shape)[axis], extent = scale.count();
  }
  int64_t operator()(int64_t i) const { return i / inner % extent; }
};

Arrays quantize_linear(const Call& c) {
  const Array &x = c.reals(0), &scale = c.reals(1);
  ElemType type = ElemType::u8;
  if (c.has(2)) type = c.ints(2).type;
  else if (int64_t to = c.node.integer("output_dtype", 0); to != 0) type = static_cast<ElemType>(to);
  int64_t lo = 0, hi = 0;
  type_range(type, &lo, &hi);
  ScaleIndex at(c, x, scale);
  if (c.has(2)) c.require(c.in[2].count() == scale.count(), "a zero point a scale");
  int64_t* out = nullptr;
  Array y = c.make_i(type, x.shape, &out);
  for (int64_t i = 0, n = x.count(); i < n; ++i) {
    int64_t k = at(i);
    double q = std::nearbyint(x.f[i] / scale.f[k]) + (c.has(2) ? static_cast<double>(c.in[2].i[k]) : 0.0);
    out[i] = std::isnan(q) ? 0 : static_cast<int64_t>(std::clamp(q, static_cast<double>(lo), static_cast<double>(hi)));
  }
  return {y};
}

Arrays dequantize_linear(const Call& c) {
  const Array &q = c.ints(0), &scale = c.reals(1);
  ScaleIndex at(c, q, scale);
  if (c.has(2)) c.require(c.ints(2).count() == scale.count(), "a zero point a scale");
  float* out = nullptr;
  Array y = c.make_f(scale.type, q.shape, &out);
  for (int64_t i = 0, n = q.count(); i < n; ++i) {
    int64_t k = at(i);
    out[i] = static_cast<float>(q.i[i] - (c.has(2) ? c.in[2].i[k] : 0)) * scale.f[k];
  }
  return {y};
}

Arrays dynamic_quantize(const Call& c) {
  const Array& x = c.reals(0);
  float lo = 0, hi = 0;
  for (float v : x.reals()) lo = std::min(lo, v), hi = std::max(hi, v);
  float scale = (hi - lo) / 255.0f;
  float zero = scale > 0 ? std::clamp(std::nearbyint(-lo / scale), 0.0f, 255.0f) : 0.0f;
  int64_t *out = nullptr, *z = nullptr;
  Array y = c.make_i(ElemType::u8, x.shape, &out), zp = c.make_i(ElemType::u8, {}, &z);
  *z = static_cast<int64_t>(zero);
  for (int64_t i = 0, n = x.count(); i < n; ++i)
    out[i] = scale > 0 ? static_cast<int64_t>(std::clamp(std::nearbyint(x.f[i] / scale) + zero, 0.0f, 255.0f)) : 0;
  return {y, Array::scalar(scale), zp};
}

float gelu(float x, bool tanh_form) {
  double v = x;
  if (tanh_form) return static_cast<float>(0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))));
  return static_cast<float>(0.5 * v * (1 + std::erf(v * 0.7071067811865476)));
}

using Kernel = std::function<Arrays(const Call&)>;

const std::unordered_map<std::string, Kernel>& table() {
  static const std::unordered_map<std::string, Kernel> kernels = [] {
    std::unordered_map<std::string, Kernel> t;
    auto real = [&](const char* name, float (*f)(float)) { t[name] = [f](const Call& c) { return unary(c, f); }; };
    real("Sqrt", [](float x) { return std::sqrt(x); });
    real("Exp", [](float x) { return std::exp(x); });
    real("Log", [](float x) { return std::log(x); });
    real("Erf", [](float x) { return static_cast<float>(std::erf(static_cast<double>(x))); });
    real("Tanh", [](float x) { return std::tanh(x); });
    real("Sigmoid", [](float x) { return 1.0f / (1.0f + std::exp(-x)); });
    real("Reciprocal", [](float x) { return 1.0f / x; });
    real("Floor", [](float x) { return std::floor(x); });
    real("Ceil", [](float x) { return std::ceil(x); });
    real("Round", [](float x) { return std::nearbyint(x); });
    real("Sin", [](float x) { return std::sin(x); });
    real("Cos", [](float x) { return std::cos(x); });
    real("Softplus", [](float x) { return std::log1p(std::exp(x)); });
    auto both = [&](const char* name, float (*f)(float), int64_t (*g)(int64_t)) {
      t[name] = [f, g](const Call& c) -> Arrays {
        const Array& x = c.arg(0);
        if (x.real()) return unary(c, f);
        int64_t* out = nullptr;
        Array y = c.make_i(x.type, x.shape, &out);
        for (int64_t i = 0; i < x.count(); ++i) out[i] = wrap(x.type, g(x.i[i]));
        return {y};
      };
    };
    both(
        "Abs", [](float x) { return std::fabs(x); }, [](int64_t x) { return x < 0 ? sub_wrapping(0, x) : x; });
    both(
        "Neg", [](float x) { return -x; }, [](int64_t x) { return sub_wrapping(0, x); });
    both(
        "Relu", [](float x) { return x > 0 ? x : 0.0f; }, [](int64_t x) { return x > 0 ? x : 0; });
    both(
        "Sign", [](float x) { return x > 0   ? 1.0f
                                     : x < 0 ? -1.0f
                                             : 0.0f; },
        [](int64_t x) -> int64_t { return x > 0   ? 1
                                          : x < 0 ? -1
                                                  : 0; });
    both(
        "Not", [](float x) { return x; }, [](int64_t x) -> int64_t { return x == 0; });
    t["IsNaN"] = [](const Call& c) -> Arrays {
      int64_t* out = nullptr;
      const Array& x = c.reals(0);
      Array y = c.make_i(ElemType::boolean, x.shape, &out);
      for (int64_t i = 0; i < x.count(); ++i) out[i] = std::isnan(x.f[i]);
      return {y};
    };
    t["Gelu"] = [](const Call& c) {
      bool form = c.node.text("approximate", "none") == "tanh";
      return unary(c, [form](float x) { return gelu(x, form); });
    };
    t["LeakyRelu"] = [](const Call& c) {
      auto alpha = static_cast<float>(c.node.number("alpha", 0.01));
      return unary(c, [alpha](float x) { return x >= 0 ? x : alpha * x; });
    };
    t["Add"] = [](const Call& c) {
      return binary(
          c, [](float a, float b) { return a + b; }, add_wrapping);
    };
    t["Sub"] = [](const Call& c) {
      return binary(
          c, [](float a, float b) { return a - b; }, sub_wrapping);
    };
    t["Mul"] = [](const Call& c) {
      return binary(
          c, [](float a, float b) { return a * b; }, mul_wrapping);
    };
    t["Div"] = [](const Call& c) {
      return binary(
          c, [](float a, float b) { return a / b; }, div_safe);
    };
    t["Mod"] = [](const Call& c) {
      bool truncates = c.node.integer("fmod", 0) != 0;
      return binary(
          c, [](float a, float b) { return std::fmod(a, b); },
          [=](int64_t a, int64_t b) { return truncates ? (b == 0 || b == -1 ? 0 : a % b) : mod_floor(a, b); });
    };
    t["Pow"] = power;
    t["Max"] = [](const Call& c) { return fold_inputs(c, true); };
    t["Min"] = [](const Call& c) { return fold_inputs(c, false); };
    t["Equal"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a == b; }); };
    t["Less"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a < b; }); };
    t["LessOrEqual"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a <= b; }); };
    t["Greater"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a > b; }); };
    t["GreaterOrEqual"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a >= b; }); };
    t["And"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a != 0 && b != 0; }); };
    t["Or"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return a != 0 || b != 0; }); };
    t["Xor"] = [](const Call& c) { return compare(c, [](auto a, auto b) { return (a != 0) != (b != 0); }); };
    t["Where"] = where;
    t["Clip"] = clip;
    t["Cast"] = [](const Call& c) { return cast(c, static_cast<ElemType>(c.node.integer("to", 0))); };
    t["CastLike"] = [](const Call& c) { return cast(c, c.arg(1).type); };
    t["Identity"] = [](const Call& c) -> Arrays { return {c.arg(0)}; };
    t["Dropout"] = [](const Call& c) -> Arrays {
      if (c.has(2) && c.in[2].at(0) != 0) c.lacks("training");
      int64_t* out = nullptr;
      Array on = c.make_i(ElemType::boolean, c.arg(0).shape, &out);
      std::fill(out, out + on.count(), 1);
      return {c.arg(0), on};
    };
    t["Shape"] = shape_of;
    t["Size"] = [](const Call& c) -> Arrays { return {Array::of({c.arg(0).count()}).reshaped({})}; };
    t["Reshape"] = reshape;
    t["Transpose"] = transpose;
    t["Unsqueeze"] = unsqueeze;
    t["Squeeze"] = squeeze;
    t["Flatten"] = flatten;
    t["Expand"] = expand;
    t["Tile"] = tile;
    t["Concat"] = concat;
    t["Split"] = split;
    t["Slice"] = slice;
    t["Gather"] = gather;
    t["GatherElements"] = gather_elements;
    t["GatherND"] = gather_nd;
    t["OneHot"] = one_hot;
    t["Range"] = range;
    t["ConstantOfShape"] = constant_of_shape;
    t["Constant"] = constant;
    t["CumSum"] = cumsum;
    t["Trilu"] = trilu;
    t["NonZero"] = non_zero;
    auto folding = [&](const char* name, Fold fold) { t[name] = [fold](const Call& c) { return reduce(c, fold); }; };
    folding("ReduceSum", Fold::sum);
    folding("ReduceMean", Fold::mean);
    folding("ReduceMax", Fold::largest);
    folding("ReduceMin", Fold::smallest);
    folding("ReduceProd", Fold::product);
    folding("ReduceL1", Fold::l1);
    folding("ReduceL2", Fold::l2);
    folding("ReduceSumSquare", Fold::squares);
    t["Softmax"] = [](const Call& c) { return softmax(c, false); };
    t["LogSoftmax"] = [](const Call& c) { return softmax(c, true); };
    t["LayerNormalization"] = layer_norm;
    t["MatMul"] = matmul;
    t["Einsum"] = einsum;
    t["MatMulInteger"] = matmul_integer;
    t["Gemm"] = gemm;
    t["QuantizeLinear"] = quantize_linear;
    t["DequantizeLinear"] = dequantize_linear;
    t["DynamicQuantizeLinear"] = dynamic_quantize;
    return t;
  }();
  return kernels;
}

}  // namespace

Shape broadcast(const Shape& a, const Shape& b, const Node& node) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (size_t d = 0; d < out.size(); ++d) {
    int64_t x = d < a.size() ? a[a.size() - 1 - d] : 1, y = d < b.size() ? b[b.size() - 1 - d] : 1;
    if (x != y && x != 1 && y != 1)
      fail(ErrorCode::corrupt,
           {.what = "cannot compute " + node.label(),
            .expected = "expected shapes that broadcast, got " + to_string(a) + " and " + to_string(b)});
    out[out.size() - 1 - d] = x == 1 ? y : x;
  }
  return out;
}

bool can_evaluate(const Node& node) noexcept { return node.domain.empty() && table().contains(node.op); }

std::vector<Array> evaluate(const Node& node, const std::vector<Array>& inputs, int64_t opset) {
  auto found = table().find(node.op);
  if (!node.domain.empty() || found == table().end())
    fail(ErrorCode::unsupported, {.what = "cannot compute " + node.label()});
  return found->second(Call{node, inputs, opset});
}

}  // namespace octet::onnx
