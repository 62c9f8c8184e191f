// Activations in f32: the arithmetic of core/int8.h, which the CPU uses too.
#pragma once

#include "core/int8.h"
#include "kernels/cuda/pool.h"

namespace octet::kernels::cuda {

__device__ __forceinline__ float activate(float x, Unary op) {
  switch (op) {
    case Unary::relu: return x > 0.0f ? x : 0.0f;
    case Unary::tanh: return int8::tanh_exp(x);
    case Unary::gelu_erf: return int8::gelu_erf(x);
    case Unary::gelu_tanh: return int8::gelu_tanh(x);
    default: return x;
  }
}

}  // namespace octet::kernels::cuda
