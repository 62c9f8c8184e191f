// Fake quantization with gradients: straight through inside the range, nothing outside (docs/numerics.md, "Training").
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace octet::train {

/// A quantizer on its tensor: y = dequantize(quantize(x * column, scale)) / column. All arithmetic is f32 (f64 for f64
/// tensors), whatever the type of x: a range is never rounded to 16 bits.
struct FakeQuant {
  at::Tensor scale;   ///< f32 [] or [channels], on x's device
  at::Tensor column;  ///< f32 [columns of x], or undefined
  int64_t axis = -1;  ///< the axis of x that has its own scales: 0, 1, or -1 for one scale
  int64_t lo = -128, hi = 127;
  bool learn = false;  ///< scale gets a gradient: sums of dy where x is beyond the range, signed by the side
};

/// `target` gets the gradient (dy where |x * column| <= hi * scale) and names the result's type; `values` are
/// quantized. They are the same tensor but for weights with a 16-bit copy, which are quantized from their f32 master.
at::Tensor fake_quant(const at::Tensor& target, const at::Tensor& values, const FakeQuant& quant);

/// The two halves without autograd: out = what fake_quant makes of values; gradient = its gradient, in place. Both
/// contiguous.
void fake_quantize(const at::Tensor& values, const FakeQuant& quant, const at::Tensor& out);
void clip_gradient(const at::Tensor& values, const FakeQuant& quant, const at::Tensor& gradient);

}  // namespace octet::train
