// Reference kernels: convolutions, padding and a few others that stand around encoders (patches of images, pooling by
// place).
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "onnx/call.h"

namespace octet::onnx {

namespace {

// x [batch, channels, places...], w [outputs, channels / groups, window...], bias [outputs].
Arrays conv(const Call& c) {
  const Array &x = c.reals(0), &w = c.reals(1);
  c.require(x.rank() >= 3 && w.rank() == x.rank(), "[batch, channels, places...] and weights of that rank");
  size_t dims = x.shape.size() - 2;
  int64_t groups = c.node.integer("group", 1), outputs = w.shape[0], part = w.shape[1];
  c.require(groups >= 1 && outputs % groups == 0 && part * groups == x.shape[1], "groups that share out the channels");
  std::vector<int64_t> ones(dims, 1);
  std::vector<int64_t> steps = c.node.integers("strides", ones), gaps = c.node.integers("dilations", ones);
  std::vector<int64_t> pads = c.node.integers("pads", std::vector<int64_t>(2 * dims, 0));
  std::string automatic = c.node.text("auto_pad", "NOTSET");
  c.require(steps.size() == dims && gaps.size() == dims && pads.size() == 2 * dims, "a number an axis");
  if (c.has(2)) c.require(c.reals(2).count() == outputs, "a bias an output");
  Shape shape{x.shape[0], outputs}, window(w.shape.begin() + 2, w.shape.end()),
      places(x.shape.begin() + 2, x.shape.end());
  for (size_t d = 0; d < dims; ++d) {
    constexpr int64_t kMost = int64_t{1} << 30;
    auto sane = [&](int64_t v, int64_t least) { return v >= least && v < kMost; };
    c.require(sane(steps[d], 1) && sane(gaps[d], 1) && sane(pads[d], 0) && sane(pads[dims + d], 0) && window[d] >= 1,
              "strides, dilations and pads of reasonable size");
    int64_t reach = (window[d] - 1) * gaps[d] + 1;
    if (automatic == "VALID") pads[d] = pads[dims + d] = 0;
    if (automatic.starts_with("SAME")) {
      int64_t wanted = (places[d] + steps[d] - 1) / steps[d];
      int64_t all = std::max<int64_t>(0, (wanted - 1) * steps[d] + reach - places[d]);
      pads[d] = automatic == "SAME_UPPER" ? all / 2 : all - all / 2;
      pads[dims + d] = all - pads[d];
    }
    int64_t room = places[d] + pads[d] + pads[dims + d] - reach;
    c.require(room >= 0, "a window inside the padded places");
    shape.push_back(room / steps[d] + 1);
  }
  float* out = nullptr;
  Array y = c.make_f(x.type, shape, &out);
  int64_t spots = count(window), area = count(places), results = count(Shape(shape.begin() + 2, shape.end()));
  c.charge(y.count() > 0 && part * spots > kMaxArray / std::max<int64_t>(1, y.count()) ? kMaxArray
                                                                                       : y.count() * part * spots);
  std::vector<int64_t> own = strides_of(places), of_result = strides_of(Shape(shape.begin() + 2, shape.end())),
                       of_window = strides_of(window);
  // Where each spot of the window lies for each result; -1: in the padding.
  std::vector<int64_t> from(static_cast<size_t>(spots));
  for (int64_t r = 0; r < results; ++r) {
    for (int64_t s = 0; s < spots; ++s) {
      int64_t at = 0;
      for (size_t d = 0; d < dims && at >= 0; ++d) {
        int64_t place = r / of_result[d] % shape[2 + d] * steps[d] + s / of_window[d] % window[d] * gaps[d] - pads[d];
        at = place < 0 || place >= places[d] ? -1 : at + place * own[d];
      }
      from[static_cast<size_t>(s)] = at;
    }
    for (int64_t b = 0; b < shape[0]; ++b)
      for (int64_t o = 0; o < outputs; ++o) {
        int64_t first = o / (outputs / groups) * part;
        double sum = c.has(2) ? c.in[2].f[o] : 0.0;
        for (int64_t k = 0; k < part; ++k) {
          const float *values = x.f + (b * x.shape[1] + first + k) * area, *weights = w.f + (o * part + k) * spots;
          for (int64_t s = 0; s < spots; ++s)
            if (int64_t at = from[static_cast<size_t>(s)]; at >= 0) sum += static_cast<double>(values[at]) * weights[s];
        }
        out[(b * outputs + o) * results + r] = static_cast<float>(sum);
      }
  }
  return {y};
}

Arrays pad(const Call& c) {
  const Array& x = c.arg(0);
  std::string mode = c.node.text("mode", "constant");
  std::vector<int64_t> given = c.node.integers("pads"), axes;
  if (c.has(1)) given.assign(c.ints(1).integers().begin(), c.ints(1).integers().end());
  if (c.has(3)) axes.assign(c.ints(3).integers().begin(), c.ints(3).integers().end());
  if (!c.has(3))
    for (int64_t d = 0; d < x.rank(); ++d) axes.push_back(d);
  c.require(given.size() == 2 * axes.size(), "two pads an axis");
  if (mode != "constant" && mode != "edge" && mode != "reflect") c.lacks("padding by '" + mode + "'");
  Shape shape = x.shape, before(x.shape.size(), 0);
  for (size_t k = 0; k < axes.size(); ++k) {
    auto d = static_cast<size_t>(c.axis(axes[k], x.rank()));
    int64_t low = given[k], high = given[axes.size() + k];
    c.require(std::max(std::abs(low), std::abs(high)) < kMaxArray, "pads of reasonable size");
    before[d] = low;
    shape[d] += low + high;
    c.require(shape[d] >= 0, "pads that leave something");
    c.require(mode == "constant" || x.shape[d] > 0, "something to repeat");
  }
  std::vector<int64_t> own = strides_of(x.shape), to = strides_of(shape);
  double fill = c.has(2) ? c.in[2].at(0) : c.node.number("value", 0);
  auto source = [&](int64_t i) {
    int64_t at = 0;
    for (size_t d = 0; d < shape.size(); ++d) {
      int64_t place = i / to[d] % shape[d] - before[d], extent = x.shape[d];
      if (place < 0 || place >= extent) {
        if (mode == "constant") return int64_t{-1};
        if (mode == "edge") {
          place = std::clamp<int64_t>(place, 0, extent - 1);
        } else {
          int64_t period = std::max<int64_t>(1, 2 * (extent - 1));
          place = ((place % period) + period) % period;
          if (place >= extent) place = period - place;
        }
      }
      at += place * own[d];
    }
    return at;
  };
  auto fill_all = [&](auto* out, const auto* from) {
    for (int64_t i = 0, n = count(shape); i < n; ++i) {
      int64_t at = source(i);
      out[i] = at < 0 ? static_cast<std::decay_t<decltype(*out)>>(fill) : from[at];
    }
  };
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, shape, &out);
    fill_all(out, x.f.data());
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, shape, &out);
  fill_all(out, x.i);
  return {y};
}

Arrays arg_extreme(const Call& c, bool largest) {
  const Array& x = c.arg(0);
  auto d = static_cast<size_t>(c.axis(c.node.integer("axis", 0), x.rank()));
  c.require(d < x.shape.size() && x.shape[d] > 0, "an axis with elements");
  bool last = c.node.integer("select_last_index", 0) != 0;
  int64_t extent = x.shape[d], inner = strides_of(x.shape)[d];
  Shape shape = x.shape;
  shape[d] = 1;
  int64_t* out = nullptr;
  Array y = c.make_i(ElemType::s64, shape, &out);
  c.charge(x.count());
  for (int64_t i = 0, n = y.count(); i < n; ++i) {
    int64_t base = i / inner * inner * extent + i % inner, best = 0;
    for (int64_t k = 1; k < extent; ++k) {
      double value = x.at(base + k * inner), held = x.at(base + best * inner);
      if (largest ? value > held : value < held) best = k;
      else if (last && value == held) best = k;
    }
    out[i] = best;
  }
  if (c.node.integer("keepdims", 1) == 0) {
    shape.erase(shape.begin() + static_cast<int64_t>(d));
    y = y.reshaped(shape);
  }
  return {y};
}

Arrays eye_like(const Call& c) {
  const Array& x = c.arg(0);
  c.require(x.rank() == 2, "a matrix");
  int64_t to = c.node.integer("dtype", static_cast<int64_t>(x.type)), shift = c.node.integer("k", 0);
  auto type = static_cast<ElemType>(to);
  auto fill = [&](auto* out) {
    for (int64_t r = 0; r < x.shape[0]; ++r)
      if (shift > -kMaxArray && shift < kMaxArray && r + shift >= 0 && r + shift < x.shape[1])
        out[r * x.shape[1] + r + shift] = 1;
  };
  if (is_float(type)) {
    float* out = nullptr;
    Array y = c.make_f(type, x.shape, &out);
    fill(out);
    return {y};
  }
  int64_t* out = nullptr;
  Array y = c.make_i(type, x.shape, &out);
  fill(out);
  return {y};
}

Arrays scatter_nd(const Call& c) {
  const Array &x = c.arg(0), &places = c.ints(1), &values = c.arg(2);
  std::string reduction = c.node.text("reduction", "none");
  if (reduction != "none" && reduction != "add") c.lacks("scattering by '" + reduction + "'");
  c.require(places.rank() >= 1 && values.real() == x.real(), "places, and values of the data's type");
  int64_t depth = places.shape.back();
  c.require(depth >= 0 && depth <= x.rank(), "places inside the data's rank");
  int64_t inner = 1, spots = count(Shape(places.shape.begin(), places.shape.end() - 1));
  for (int64_t d = depth; d < x.rank(); ++d) inner *= x.shape[static_cast<size_t>(d)];
  c.require(values.count() == spots * inner, "a value a place");
  std::vector<int64_t> own = strides_of(x.shape);
  auto fill = [&](auto* out, const auto* data, const auto* updates) {
    std::copy(data, data + x.count(), out);
    for (int64_t s = 0; s < spots; ++s) {
      int64_t at = 0;
      for (int64_t d = 0; d < depth; ++d) {
        int64_t extent = x.shape[static_cast<size_t>(d)], i = places.i[s * depth + d];
        if (i < 0) i += extent;
        c.require(i >= 0 && i < extent, "places inside the data");
        at += i * own[static_cast<size_t>(d)];
      }
      for (int64_t k = 0; k < inner; ++k)
        out[at + k] = reduction == "add" ? out[at + k] + updates[s * inner + k] : updates[s * inner + k];
    }
  };
  if (x.real()) {
    float* out = nullptr;
    Array y = c.make_f(x.type, x.shape, &out);
    fill(out, x.f.data(), values.f.data());
    return {y};
  }
  if (reduction == "add") c.lacks("sums of integers");
  int64_t* out = nullptr;
  Array y = c.make_i(x.type, x.shape, &out);
  fill(out, x.i, values.i);
  return {y};
}

}  // namespace

void add_windows(Kernels& t) {
  t["Conv"] = conv;
  t["Pad"] = pad;
  t["ArgMax"] = [](const Call& c) { return arg_extreme(c, true); };
  t["ArgMin"] = [](const Call& c) { return arg_extreme(c, false); };
  t["EyeLike"] = eye_like;
  t["ScatterND"] = scatter_nd;
}

}  // namespace octet::onnx
