// Instances of the streaming s8 GEMM.
#include "kernels/cuda/gemm_sm90_stream.cuh"

namespace octet::kernels::cuda {

const void* stream_s8_256x192_c2x1(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 2, 192, 2, 1, out, gelu>; });
}
const void* stream_s8_256x192_c1x2(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 2, 192, 1, 2, out, gelu>; });
}
const void* stream_s8_256x192_c2x2(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 2, 192, 2, 2, out, gelu>; });
}
const void* stream_s8_256x128_c2x1(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 2, 128, 2, 1, out, gelu>; });
}

}  // namespace octet::kernels::cuda
