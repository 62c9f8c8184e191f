// GEMM by mma.sync: y[m,n] = epilogue(x[m,k] . w[n,k]^T) for s8 or u8 by s8, f16 and bf16. For compute capability 8.0
// on.
//
// A block computes a tile of kRows x kColumns; four stages of 64 bytes of k come by cp.async. A row of a stage is four
// chunks of 16 bytes, chunk c of row r at c ^ (r / 2 % 4), so that ldmatrix touches every bank once. Both operands are
// k-major as they lie in memory, and an mma of 32 bytes of k takes the same registers for 8-bit and 16-bit types.
// Integer sums are exact and the epilogue is that of the scalar row, operation by operation: the bits are the
// reference's.
#include "kernels/cuda/device/launch.h"
#include "kernels/cuda/device/typed.cuh"
#include "kernels/cuda/device/warp.cuh"
#include "kernels/cuda/general.h"

namespace octet::kernels::cuda {
namespace {

constexpr int kStages = 4, kStep = 64;  // bytes of k a stage

__device__ __forceinline__ void load_matrix(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

template <DType kType>
struct Product {  // 8-bit
  using Accumulator = uint32_t;
  static __device__ __forceinline__ void multiply(uint32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (kType == DType::u8) mma_u8s8(c, a, b0, b1);
    else mma_s8s8(c, a, b0, b1);
  }
  static __device__ __forceinline__ int32_t value(uint32_t c) { return static_cast<int32_t>(c); }
};
template <bool kBf16>
struct HalfProduct {
  using Accumulator = float;
  static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_half<kBf16>(c, a, b0, b1);
  }
  static __device__ __forceinline__ float value(float c) { return c; }
};
template <>
struct Product<DType::f16> : HalfProduct<false> {};
template <>
struct Product<DType::bf16> : HalfProduct<true> {};

// Two neighbouring elements of a row; j is even. Out of line: a thread has up to 32 pairs.
template <typename T>
__device__ __noinline__ void store_pair(const GemmDesc& d, const GemmArgs& a, int64_t i, int64_t j, T acc0, T acc1) {
  const float first = finish(d, a, i, j, acc0), second = j + 1 < d.n ? finish(d, a, i, j + 1, acc1) : 0.0f;
  const int64_t at = i * a.ldy + j;
  if (j + 1 >= d.n || (a.ldy & 1)) {
    store(a.y, d.y, at, first, a.requant, j);
    if (j + 1 < d.n) store(a.y, d.y, at + 1, second, a.requant, j + 1);
    return;
  }
  const Requant& q = a.requant;
  switch (d.y) {
    case DType::f32: *reinterpret_cast<float2*>(static_cast<float*>(a.y) + at) = make_float2(first, second); break;
    case DType::f16:
      *reinterpret_cast<uint32_t*>(static_cast<__half*>(a.y) + at) = pack_half<false>(first, second);
      break;
    case DType::bf16:
      *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(a.y) + at) = pack_half<true>(first, second);
      break;
    default:
      *reinterpret_cast<char2*>(static_cast<char*>(a.y) + at) =
          make_char2(static_cast<char>(int8::quantize(first, q.inv_scale[j], q.zero_point, q.lo, q.hi)),
                     static_cast<char>(int8::quantize(second, q.inv_scale[j + 1], q.zero_point, q.lo, q.hi)));
  }
}

template <DType kType, int kRows, int kColumns, int kWarpRows, int kWarpColumns>
__global__ __launch_bounds__(kRows / kWarpRows * (kColumns / kWarpColumns) *
                             32) void gemm_kernel(const __grid_constant__ GemmDesc d,
                                                  const __grid_constant__ GemmArgs a) {
  using P = Product<kType>;
  constexpr int kThreads = kRows / kWarpRows * (kColumns / kWarpColumns) * 32;
  constexpr int kBytes = kType == DType::f16 || kType == DType::bf16 ? 2 : 1;
  constexpr int kStage = (kRows + kColumns) * kStep, kM = kWarpRows / 16, kN = kWarpColumns / 8;
  extern __shared__ __align__(128) unsigned char stages[];
  launch_dependents();
  const int64_t row0 = int64_t(blockIdx.y) * kRows, column0 = int64_t(blockIdx.x) * kColumns;
  const int64_t k_bytes = d.k * kBytes, ldx = a.ldx * kBytes;
  const auto* x = static_cast<const unsigned char*>(a.x);
  const int steps = int((k_bytes + kStep - 1) / kStep);
  const uint32_t base = shared_address(stages);

  auto fetch = [&](int step) {
    if (step < steps) {
      const uint32_t stage = base + (step % kStages) * kStage;
      const int64_t k0 = int64_t(step) * kStep;
#pragma unroll
      for (int e = threadIdx.x; e < (kRows + kColumns) * 4; e += kThreads) {
        const int r = e / 4, c = e % 4;
        const int64_t k = k0 + c * 16;
        const bool of_x = r < kRows;
        const int64_t line = of_x ? row0 + r : column0 + r - kRows;
        const bool valid = k < k_bytes && line < (of_x ? a.m : d.n);
        const unsigned char* from = of_x ? x + line * ldx + k : a.packed + line * k_bytes + k;
        copy_async_16(stage + r * kStep + ((c ^ ((r / 2) & 3)) * 16), valid ? from : a.packed, valid);
      }
    }
    copy_commit();
  };

  wait_for_inputs();
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) fetch(s);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp % (kRows / kWarpRows) * kWarpRows, warp_column = warp / (kRows / kWarpRows) * kWarpColumns;
  typename P::Accumulator acc[kM][kN][4];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[m][n][e] = 0;

  auto address = [&](uint32_t stage, int r, int c) { return stage + r * kStep + ((c ^ ((r / 2) & 3)) * 16); };
  for (int step = 0; step < steps; ++step) {
    copy_wait<kStages - 2>();
    __syncthreads();
    fetch(step + kStages - 1);
    const uint32_t stage = base + (step % kStages) * kStage;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t af[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m)  // matrices: rows 0-7 and 8-15 of the first 16 bytes, then of the second
        load_matrix(af[m], address(stage, warp_row + m * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < kN; n += 2) {  // matrices: columns 0-7 first and second 16 bytes, then columns 8-15
        uint32_t bf[4];
        load_matrix(bf,
                    address(stage, kRows + warp_column + n * 8 + lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          P::multiply(acc[m][n], af[m], bf[0], bf[1]);
          P::multiply(acc[m][n + 1], af[m], bf[2], bf[3]);
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int64_t i = row0 + warp_row + m * 16 + upper * 8 + lane / 4;
      if (i >= a.m) continue;
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const int64_t j = column0 + warp_column + n * 8 + lane % 4 * 2;
        if (j >= d.n) continue;
        store_pair(d, a, i, j, P::value(acc[m][n][2 * upper]), P::value(acc[m][n][2 * upper + 1]));
      }
    }
}

template <DType kType>
cudaError_t run(const GemmDesc& desc, const GemmArgs& args, cudaStream_t stream) {
  auto grid = [&](int rows, int columns) {
    return dim3(unsigned((desc.n + columns - 1) / columns), unsigned((args.m + rows - 1) / rows));
  };
  if (args.m <= 512)
    return launch(gemm_kernel<kType, 32, 64, 16, 32>, grid(32, 64), dim3(128), kStages * (32 + 64) * kStep, stream,
                  true, desc, args);
  return launch(gemm_kernel<kType, 128, 128, 64, 32>, grid(128, 128), dim3(256), kStages * (128 + 128) * kStep, stream,
                true, desc, args);
}

}  // namespace

cudaError_t gemm_sm80(const GemmDesc& desc, const GemmArgs& args, cudaStream_t stream) noexcept {
  switch (desc.x) {
    case DType::s8: return run<DType::s8>(desc, args, stream);
    case DType::u8: return run<DType::u8>(desc, args, stream);
    case DType::f16: return run<DType::f16>(desc, args, stream);
    case DType::bf16: return run<DType::bf16>(desc, args, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace octet::kernels::cuda
