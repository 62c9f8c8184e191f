// Shared memory across a cluster, for GEMMs with LayerNorm in their epilogue.
#pragma once

#include <stdint.h>

#include <utility>

namespace octet::kernels::cuda {

/// The shared-memory address `address` of block `rank` of the cluster.
__device__ __forceinline__ uint32_t map_to(uint32_t address, uint32_t rank) {
  uint32_t r;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
  return r;
}
/// Writes four values to mapped shared memory, and counts their bytes on a mapped barrier.
__device__ __forceinline__ void send4(uint32_t to, uint32_t bar, const float (&v)[4]) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%2, %3, %4, %5}, [%1];" ::"r"(to),
      "r"(bar), "r"(__float_as_uint(v[0])), "r"(__float_as_uint(v[1])), "r"(__float_as_uint(v[2])),
      "r"(__float_as_uint(v[3]))
      : "memory");
}
__device__ __forceinline__ void send1(uint32_t to, uint32_t bar, float v) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %2, [%1];" ::"r"(to), "r"(bar),
               "r"(__float_as_uint(v))
               : "memory");
}
__device__ __forceinline__ void load4(float (&v)[4], const float* p) {
  const float4 f = *(const float4*)p;
  v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
}
/// After other blocks have written there: not to be moved over a wait.
__device__ __forceinline__ void load4(float (&v)[4], uint32_t address) {
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "r"(address)
               : "memory");
}
/// f(0), ..., f(n - 1) with constants.
template <int n, class F>
__device__ __forceinline__ void for_each(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

}  // namespace octet::kernels::cuda
