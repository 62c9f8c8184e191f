// Fake quantization kernels for CUDA, compiled at run time by the NVRTC that comes with PyTorch, so that a build
// without the CUDA toolkit trains on a GPU too.
#pragma once

#include <cstdint>
#include <string>

namespace octet::train::cuda {

enum class Type : uint8_t { f32, f16, bf16 };

/// Device pointers. Forward: y = dequantize(quantize(x * column)) / column. Backward: y = dy where lo * scale <= x *
/// column <= hi * scale, else 0.
struct FakeQuantArgs {
  const void* x = nullptr;
  Type x_type = Type::f32;
  const void* dy = nullptr;  ///< of y_type
  void* y = nullptr;
  Type y_type = Type::f32;
  const float* scale = nullptr;   ///< index: row * row_step + column * column_step
  const float* column = nullptr;  ///< may be null
  int64_t rows = 0, columns = 0, row_step = 0, column_step = 0;
  float lo = 0, hi = 0;
};

/// On the default stream of the current device. Throws device when a kernel cannot be compiled or started.
void fake_quant_forward(const FakeQuantArgs& args);
void fake_quant_backward(const FakeQuantArgs& args);

/// The machine code of one kernel for a compute capability (90: sm_90), `vector` elements a thread; needs NVRTC, no
/// GPU. Throws device when NVRTC is absent or the kernel does not compile.
std::string compile(Type in, Type out, int vector, bool backward, int architecture);

}  // namespace octet::train::cuda
