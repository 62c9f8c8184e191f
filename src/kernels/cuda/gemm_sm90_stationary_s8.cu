// Instances of the stationary s8 GEMM.
#include "kernels/cuda/gemm_sm90_stationary.cuh"

namespace octet::kernels::cuda {

const void* stationary_s8_192_c2_g2(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stationary<int8_t, 192, 2, 2, out, gelu>; });
}
const void* stationary_s8_192_c1_g2(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stationary<int8_t, 192, 1, 2, out, gelu>; });
}
const void* stationary_s8_128_c2_g3(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stationary<int8_t, 128, 2, 3, out, gelu>; });
}
const void* stationary_s8_128_c1_g3(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stationary<int8_t, 128, 1, 3, out, gelu>; });
}

}  // namespace octet::kernels::cuda
