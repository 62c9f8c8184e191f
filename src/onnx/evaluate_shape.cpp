// Reference kernels: shapes, moving and picking of elements.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "onnx/call.h"

namespace octet::onnx {

namespace {

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
    join(out, [](const Array& x) { return x.f.data(); });
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
    run(x.f.data(), out);
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

}  // namespace

void add_shaping(Kernels& t) {
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
}

}  // namespace octet::onnx
