// Elementwise: a thread takes 8 neighbouring values.
#include "kernels/cuda/elementwise.h"

#include "kernels/cuda/device/activation.cuh"
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/values.cuh"

namespace octet::kernels::cuda {
namespace {

__device__ __forceinline__ void load_values(float (&f)[8], const MatrixIn& m, int64_t row, int column) {
  with_type(m.type, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    unpack<kType>(f, load_raw<bytes_of<kType>, 8>(element<kType>(m.data, row * m.ld + column)));
  });
  if (m.type != DType::s8) return;
  float scale[8];
  load_floats(scale, m.scale + column);
#pragma unroll
  for (int k = 0; k < 8; ++k) f[k] *= scale[k];
}

__global__ __launch_bounds__(256) void elementwise_kernel(const __grid_constant__ ElementwiseArgs a) {
  launch_dependents();
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  const int groups = a.columns / 8;
  const int64_t row = i / groups;
  const int column = int(i % groups) * 8;
  wait_for_inputs();
  if (row >= a.rows) return;
  float x[8];
  load_values(x, a.a, row, column);
  if (a.b.data) {
    float y[8];
    load_values(y, a.b, row, column);
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] += y[k];
  }
  if (a.activation != Unary::none)
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] = activate(x[k], a.activation);
  if (a.out.type == DType::s8) {
    float inv[8];
    load_floats(inv, a.out.inv_scale + column);
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] *= inv[k];
  }
  with_type(a.out.type, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    store_raw(element<kType>(a.out.data, row * a.out.ld + column), pack<kType>(x));
  });
}

}  // namespace

cudaError_t elementwise(const ElementwiseArgs& args, cudaStream_t stream) noexcept {
  if (args.rows == 0) return cudaSuccess;
  if (args.columns % 8 != 0) return cudaErrorInvalidValue;
  const int64_t threads = args.rows * (args.columns / 8);
  return launch(elementwise_kernel, dim3(unsigned((threads + 255) / 256)), dim3(256), 0, stream, args.dependent_launch,
                args);
}

}  // namespace octet::kernels::cuda
