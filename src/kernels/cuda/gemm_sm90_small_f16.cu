// Instances of the few-row f16 GEMM.
#include "kernels/cuda/gemm_sm90_small.cuh"

namespace octet::kernels::cuda {

const void* small_f16_64x32_k4(Out out, bool gelu) {
  return pick_instance<false>(out, gelu,
                              []<Out out, bool gelu>() { return (const void*)gemm_small<__half, 32, 4, out, gelu>; });
}
const void* small_f16_64x64_k4(Out out, bool gelu) {
  return pick_instance<false>(out, gelu,
                              []<Out out, bool gelu>() { return (const void*)gemm_small<__half, 64, 4, out, gelu>; });
}
const void* small_f16_64x128_k2(Out out, bool gelu) {
  return pick_instance<false>(out, gelu,
                              []<Out out, bool gelu>() { return (const void*)gemm_small<__half, 128, 2, out, gelu>; });
}

}  // namespace octet::kernels::cuda
