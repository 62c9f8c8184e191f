// Describes a matrix in device memory to the tensor memory accelerator.
#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime.h>

namespace octet::kernels::cuda {

bool encode_matrix(CUtensorMap* map, DType type, const void* base, int64_t rows, int64_t columns, int64_t ld,
                   int box_rows) noexcept {
  // The driver's function, found at run time so that nothing links against the driver.
  static const auto encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) !=
        cudaSuccess)
      found = nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  if (encode == nullptr || (type != DType::f16 && type != DType::bf16)) return false;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)},
                   strides[] = {static_cast<cuuint64_t>(ld * 2)};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows)}, ones[] = {1, 1};
  return encode(map, type == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
                const_cast<void*>(base), sizes, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace octet::kernels::cuda
