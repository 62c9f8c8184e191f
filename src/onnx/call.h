// What the reference kernels of ONNX operators share: a call with its checks, walks over shapes, and the table they are
// in.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "onnx/array.h"

namespace octet::onnx {

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
  /// Refuses results above the limit of this thread, and charges a step an element.
  void limit(const Shape& shape, int64_t bytes = 8) const;
  void charge(int64_t steps) const;
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

inline std::vector<int64_t> strides_of(const Shape& shape) {
  std::vector<int64_t> s(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;) s[d - 1] = s[d] * shape[d];
  return s;
}

/// Strides to walk `from` as if it were `to` (0 where it is broadcast).
inline std::vector<int64_t> broadcast_strides(const Shape& from, const Shape& to) {
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

inline int64_t wrap(ElemType type, int64_t v) {
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
inline Array strided(const Call& c, const Array& x, const Shape& shape, int64_t start,
                     const std::vector<int64_t>& strides) {
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

inline int64_t add_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
inline int64_t sub_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
inline int64_t mul_wrapping(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
inline int64_t div_safe(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? sub_wrapping(0, a) : a / b; }
inline int64_t mod_floor(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

using Kernel = std::function<Arrays(const Call&)>;
using Kernels = std::unordered_map<std::string, Kernel>;

void add_elementwise(Kernels& table);
void add_shaping(Kernels& table);
void add_reductions(Kernels& table);
void add_products(Kernels& table);
void add_quantization(Kernels& table);
void add_windows(Kernels& table);

}  // namespace octet::onnx
