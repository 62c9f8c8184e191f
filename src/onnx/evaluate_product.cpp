// Reference kernels: matrix products.
#include <algorithm>
#include <climits>
#include <cstdint>
#include <map>

#include "onnx/call.h"
#include "onnx/einsum.h"

namespace octet::onnx {

namespace {

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

}  // namespace

void add_products(Kernels& t) {
  t["MatMul"] = matmul;
  t["Einsum"] = einsum;
  t["MatMulInteger"] = matmul_integer;
  t["Gemm"] = gemm;
}

}  // namespace octet::onnx
