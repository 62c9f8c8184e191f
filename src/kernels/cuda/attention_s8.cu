// INT8 attention: the choice by head size.
#include "kernels/cuda/attention.h"

namespace octet::kernels::cuda {

template <int D>
cudaError_t attention_s8_head(const AttentionS8Args& args, cudaStream_t stream) noexcept;

cudaError_t attention_s8(const AttentionS8Args& args, cudaStream_t stream) noexcept {
  if (args.rows == 0) return cudaSuccess;
  switch (args.head_dim) {
    case 32: return attention_s8_head<32>(args, stream);
    case 64: return attention_s8_head<64>(args, stream);
    case 128: return attention_s8_head<128>(args, stream);
    default: return cudaErrorInvalidValue;
  }
}

const char* attention_s8_kernel(const AttentionS8Args& args) noexcept {
  return args.max_length <= 64    ? "attention_s8u8_sm80_keys64"
         : args.max_length <= 128 ? "attention_s8u8_sm80_keys128"
         : args.max_length <= 256 ? "attention_s8u8_sm80_keys256"
         : args.max_length <= 512 ? "attention_s8u8_sm80_keys512"
                                  : "attention_s8u8_sm80_streamed";
}

}  // namespace octet::kernels::cuda
