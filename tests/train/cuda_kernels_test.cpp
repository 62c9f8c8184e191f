// The training kernels for a GPU compile, on machines with NVRTC and without a GPU too.
#include "train/cuda_kernels.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace octet::train::cuda {
namespace {

TEST(CudaKernels, EveryPairOfTypesCompiles) {
  const Type types[] = {Type::f32, Type::f16, Type::bf16};
  try {
    for (Type in : types)
      for (Type out : types)
        for (int vector : {1, 2, 4, 8})
          for (bool backward : {false, true}) EXPECT_GT(compile(in, out, vector, backward, 90).size(), 100u);
  } catch (const Error& error) {
    if (std::string(error.what()).find("cannot load libnvrtc") == std::string::npos) throw;
    GTEST_SKIP() << "skipped: no NVRTC on this machine";
  }
}

}  // namespace
}  // namespace octet::train::cuda
