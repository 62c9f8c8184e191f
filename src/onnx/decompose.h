// Fused operators of ONNX Runtime become the primitives that they stand for.
#pragma once

#include "onnx/file.h"

namespace octet::onnx {

/// Rewrites com.microsoft's operators, and quantized ones (QLinearMatMul ...) as DequantizeLinear, the float operator
/// and QuantizeLinear. Those that it does not know stay.
void decompose(File& file);

}  // namespace octet::onnx
