// The autograd function of fake quantization and its fused loops; CUDA tensors go to kernels compiled at run time.
#include "train/fake_quant.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "core/error.h"
#include "train/cuda_kernels.h"

namespace octet::train {

namespace {

cuda::Type cuda_type(at::ScalarType type) {
  switch (type) {
    case at::kHalf: return cuda::Type::f16;
    case at::kBFloat16: return cuda::Type::bf16;
    default: break;
  }
  OCTET_CHECK(type == at::kFloat, "f32, f16 or bf16 on a GPU");
  return cuda::Type::f32;
}

/// Rows, columns and how an element finds its scale.
struct Layout {
  int64_t rows = 1, columns = 1;
  int64_t row_step = 0, column_step = 0;  // index of the scale = row * row_step + column * column_step
};

Layout layout_of(const at::Tensor& x, const FakeQuant& quant) {
  Layout layout;
  layout.columns = x.dim() > 0 ? x.size(-1) : 1;
  layout.rows = layout.columns > 0 ? x.numel() / layout.columns : 0;
  if (quant.scale.numel() > 1) {
    layout.row_step = quant.axis == 0;
    layout.column_step = quant.axis == 1;
    int64_t wanted = quant.axis == 0 ? layout.rows : layout.columns;
    OCTET_CHECK(quant.axis >= 0 && x.dim() == 2 && wanted == quant.scale.numel(), "a scale a channel of a matrix");
  }
  return layout;
}

// Half to even by adding and subtracting 1.5 * 2^k: the clamp before it bounds the magnitude, and it vectorizes without
// the rounding instructions that baseline x86-64 lacks. clamp(rint(v)) = rint(clamp(v)) since the bounds are integers.
template <typename W>
inline W round_clamped(W v, W lo, W hi) {
  constexpr W kMagic = sizeof(W) == 4 ? W(12582912.0) : W(6755399441055744.0);
  v = v > lo ? v : lo;  // NaN gives lo, as in core/int8.h
  v = v < hi ? v : hi;
  return (v + kMagic) - kMagic;
}

template <typename In, typename Out, typename W>
void forward_rows(const In* x, const W* scale, const W* column, Out* y, const Layout& layout, W lo, W hi) {
  at::parallel_for(0, layout.rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(layout.columns, 1)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r) {
                       const In* in = x + r * layout.columns;
                       Out* out = y + r * layout.columns;
                       const W* s = scale + r * layout.row_step;
                       if (layout.column_step == 0 && column == nullptr) {
                         const W one = *s, inverse = one > 0 ? W(1) / one : W(0);
                         for (int64_t c = 0; c < layout.columns; ++c)
                           out[c] = static_cast<Out>(round_clamped(static_cast<W>(in[c]) * inverse, lo, hi) * one);
                       } else {
                         for (int64_t c = 0; c < layout.columns; ++c) {
                           const W one = s[c * layout.column_step], inverse = one > 0 ? W(1) / one : W(0);
                           const W by = column == nullptr ? W(1) : column[c];
                           W value = round_clamped(static_cast<W>(in[c]) * by * inverse, lo, hi) * one;
                           out[c] = static_cast<Out>(column == nullptr ? value : value / by);
                         }
                       }
                     }
                   });
}

template <typename In, typename Out, typename W>
void backward_rows(const In* x, const W* scale, const W* column, const Out* dy, Out* dx, const Layout& layout, W low,
                   W high) {
  at::parallel_for(0, layout.rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(layout.columns, 1)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r)
                       for (int64_t c = 0; c < layout.columns; ++c) {
                         const int64_t at = r * layout.columns + c;
                         const W s = scale[r * layout.row_step + c * layout.column_step];
                         const W v = static_cast<W>(x[at]) * (column == nullptr ? W(1) : column[c]);
                         dx[at] = v >= low * s && v <= high * s ? dy[at] : Out(0);
                       }
                   });
}

template <typename F>
void with_type(at::ScalarType type, F f) {
  switch (type) {
    case at::kFloat: return f(float());
    case at::kDouble: return f(double());
    case at::kHalf: return f(c10::Half());
    case at::kBFloat16: return f(c10::BFloat16());
    default: OCTET_CHECK(false, "a float tensor");
  }
}

/// The bound of the clipped range in steps; the reference's gradient passes for |x| <= amax = hi * scale.
double low_bound(const FakeQuant& quant) { return quant.lo < 0 ? -static_cast<double>(quant.hi) : 0.0; }

void quantize_into(const at::Tensor& x, const FakeQuant& quant, const at::Tensor& y) {
  const Layout layout = layout_of(x, quant);
  const at::ScalarType out_type = y.scalar_type();
  if (x.is_cuda() && x.scalar_type() != at::kDouble && out_type != at::kDouble) {
    cuda::fake_quant_forward({.x = x.const_data_ptr(),
                              .x_type = cuda_type(x.scalar_type()),
                              .y = y.mutable_data_ptr(),
                              .y_type = cuda_type(out_type),
                              .scale = quant.scale.const_data_ptr<float>(),
                              .column = quant.column.defined() ? quant.column.const_data_ptr<float>() : nullptr,
                              .rows = layout.rows,
                              .columns = layout.columns,
                              .row_step = layout.row_step,
                              .column_step = layout.column_step,
                              .lo = static_cast<float>(quant.lo),
                              .hi = static_cast<float>(quant.hi)});
    return;
  }
  OCTET_CHECK(!x.is_cuda(), "f64 is trained on a CPU");
  with_type(x.scalar_type(), [&](auto in) {
    with_type(out_type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      using W = std::conditional_t<std::is_same_v<In, double>, double, float>;
      at::ScalarType wide = sizeof(W) == 8 ? at::kDouble : at::kFloat;
      at::Tensor scale = quant.scale.to(wide), column = quant.column.defined() ? quant.column.to(wide) : quant.column;
      forward_rows<In, Out, W>(x.const_data_ptr<In>(), scale.const_data_ptr<W>(),
                               column.defined() ? column.const_data_ptr<W>() : nullptr, y.mutable_data_ptr<Out>(),
                               layout, static_cast<W>(quant.lo), static_cast<W>(quant.hi));
    });
  });
}

/// dx may be dy.
void clip_into(const at::Tensor& x, const at::Tensor& dy, const FakeQuant& quant, const at::Tensor& dx) {
  const Layout layout = layout_of(x, quant);
  if (x.is_cuda()) {
    cuda::fake_quant_backward({.x = x.const_data_ptr(),
                               .x_type = cuda_type(x.scalar_type()),
                               .dy = dy.const_data_ptr(),
                               .y = dx.mutable_data_ptr(),
                               .y_type = cuda_type(dy.scalar_type()),
                               .scale = quant.scale.const_data_ptr<float>(),
                               .column = quant.column.defined() ? quant.column.const_data_ptr<float>() : nullptr,
                               .rows = layout.rows,
                               .columns = layout.columns,
                               .row_step = layout.row_step,
                               .column_step = layout.column_step,
                               .lo = static_cast<float>(low_bound(quant)),
                               .hi = static_cast<float>(quant.hi)});
    return;
  }
  with_type(x.scalar_type(), [&](auto in) {
    with_type(dy.scalar_type(), [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      using W = std::conditional_t<std::is_same_v<In, double>, double, float>;
      at::ScalarType wide = sizeof(W) == 8 ? at::kDouble : at::kFloat;
      at::Tensor scale = quant.scale.to(wide), column = quant.column.defined() ? quant.column.to(wide) : quant.column;
      backward_rows<In, Out, W>(x.const_data_ptr<In>(), scale.const_data_ptr<W>(),
                                column.defined() ? column.const_data_ptr<W>() : nullptr, dy.const_data_ptr<Out>(),
                                dx.mutable_data_ptr<Out>(), layout, static_cast<W>(low_bound(quant)),
                                static_cast<W>(quant.hi));
    });
  });
}

/// d range / d scale: what lies above the range pulls its bound up by dy, what lies below pulls it down.
at::Tensor scale_gradient(const at::Tensor& x, const at::Tensor& dy, const FakeQuant& quant) {
  at::Tensor scale = quant.scale;
  if (quant.axis == 0 && scale.numel() > 1) scale = scale.unsqueeze(1);
  at::Tensor value = x.to(scale.scalar_type());
  if (quant.column.defined()) value = value * quant.column;
  at::Tensor above = value > scale * quant.hi, below = value < scale * low_bound(quant);
  at::Tensor wide = dy.to(scale.scalar_type());
  at::Tensor each = wide * above * static_cast<double>(quant.hi) + wide * below * low_bound(quant);
  if (quant.scale.numel() == 1) return each.sum().reshape(quant.scale.sizes());
  return each.sum(quant.axis == 0 ? 1 : 0);
}

/// A node of its own instead of autograd::Function: that one's maps of boxed values cost more than the kernel's launch.
struct Backward : torch::autograd::Node {
  at::Tensor x;
  FakeQuant quant;

  std::string name() const override { return "OctetFakeQuantBackward"; }
  void release_variables() override { x.reset(); }
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    OCTET_CHECK(x.defined(), "one backward pass a step");
    c10::AutoGradMode off(false);
    at::Tensor dy = gradients[0].contiguous(), dx = at::empty(dy.sizes(), dy.options()), dscale;
    if (quant.learn) dscale = scale_gradient(x, dy, quant);
    clip_into(x, dy, quant, dx);
    return {dx, dscale};
  }
};

}  // namespace

at::Tensor fake_quant(const at::Tensor& target, const at::Tensor& values, const FakeQuant& quant) {
  FakeQuant plain = quant;
  at::Tensor x = values, y;
  {
    c10::AutoGradMode off(false);
    if (quant.learn) plain.scale = quant.scale.detach();
    if (!x.is_contiguous()) x = x.contiguous();
    y = at::empty(x.sizes(), x.options().dtype(target.scalar_type()));
    quantize_into(x, plain, y);
  }
  if (c10::GradMode::is_enabled() && torch::autograd::compute_requires_grad(target, quant.scale)) {
    std::shared_ptr<Backward> node(new Backward(), torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(target, quant.scale));
    node->x = std::move(x);
    node->quant = std::move(plain);
    torch::autograd::set_history(y, node);
  }
  return y;
}

void fake_quantize(const at::Tensor& values, const FakeQuant& quant, const at::Tensor& out) {
  quantize_into(values, quant, out);
}

void clip_gradient(const at::Tensor& values, const FakeQuant& quant, const at::Tensor& gradient) {
  clip_into(values, gradient, quant, gradient);
}

}  // namespace octet::train
