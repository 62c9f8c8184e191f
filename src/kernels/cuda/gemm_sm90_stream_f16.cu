// Instances of the streaming f16 GEMM.
#include "kernels/cuda/gemm_sm90_stream.cuh"

namespace octet::kernels::cuda {

const void* stream_f16_256x192_c2x1(Out out, bool gelu) {
  return pick_instance<false>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<__half, 2, 192, 2, 1, out, gelu>; });
}
const void* stream_f16_256x192_c1x2(Out out, bool gelu) {
  return pick_instance<false>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<__half, 2, 192, 1, 2, out, gelu>; });
}
const void* stream_f16_128x192_c2x1(Out out, bool gelu) {
  return pick_instance<false>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<__half, 1, 192, 2, 1, out, gelu>; });
}
const void* stream_f16_128x128_c2x1(Out out, bool gelu) {
  return pick_instance<false>(
      out, gelu, []<Out out, bool gelu>() { return (const void*)gemm_stream<__half, 1, 128, 2, 1, out, gelu>; });
}

}  // namespace octet::kernels::cuda
