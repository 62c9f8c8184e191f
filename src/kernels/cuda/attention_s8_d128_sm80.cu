// INT8 attention, head size 128 (attention_s8_sm80.cuh).
#include "kernels/cuda/attention_s8_sm80.cuh"

namespace octet::kernels::cuda {
template cudaError_t attention_s8_head<128>(const AttentionS8Args&, cudaStream_t) noexcept;
}
