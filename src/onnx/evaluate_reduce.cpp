// Reference kernels: reductions, softmax and norms.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "onnx/call.h"

namespace octet::onnx {

namespace {

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

}  // namespace

void add_reductions(Kernels& t) {
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
}

}  // namespace octet::onnx
