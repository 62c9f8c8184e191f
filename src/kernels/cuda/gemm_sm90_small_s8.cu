// Instances of the few-row s8 GEMM.
#include "kernels/cuda/gemm_sm90_small.cuh"

namespace octet::kernels::cuda {

const void* small_s8_64x16_k4(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 16, 4, out, gelu>; });
}
const void* small_s8_64x32_k4(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 32, 4, out, gelu>; });
}
const void* small_s8_64x48_k4(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 48, 4, out, gelu>; });
}
const void* small_s8_64x64_k4(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 64, 4, out, gelu>; });
}
const void* small_s8_64x96_k2(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 96, 2, out, gelu>; });
}
const void* small_s8_64x128_k2(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 128, 2, out, gelu>; });
}
const void* small_s8_64x192_k2(Out out, bool gelu) {
  return pick_instance<true>(out, gelu,
                             []<Out out, bool gelu>() { return (const void*)gemm_small<int8_t, 192, 2, out, gelu>; });
}

}  // namespace octet::kernels::cuda
