// Instances of the streaming s8 GEMM.
#include "kernels/cuda/gemm_sm90_stream.cuh"

namespace octet::kernels::cuda {

const void* stream_s8_128x192_c2x1(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 1, 192, 2, 1, out, gelu>; });
}
const void* stream_s8_128x128_c2x1(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 1, 128, 2, 1, out, gelu>; });
}
const void* stream_s8_128x96_c1x2(Out out, bool gelu) {
  return pick_instance<true>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<int8_t, 1, 96, 1, 2, out, gelu>; });
}

}  // namespace octet::kernels::cuda
