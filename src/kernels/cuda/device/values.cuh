// Groups of 4 or 8 neighbouring values of a row: loading as f32 from s8, f16, bf16 or f32, and storing back.
#pragma once

#include "core/dtype.h"
#include "kernels/cuda/device/warp.cuh"

namespace octet::kernels::cuda {

/// The raw bits of V neighbouring elements of `kBytes` bytes each.
template <int kBytes, int V>
struct Raw {
  uint32_t w[kBytes * V / 4];
};

template <int kBytes, int V>
__device__ __forceinline__ Raw<kBytes, V> load_raw(const void* p) {
  Raw<kBytes, V> r;
  constexpr int kWords = kBytes * V / 4;
  if constexpr (kWords == 1) {
    r.w[0] = *static_cast<const uint32_t*>(p);
  } else if constexpr (kWords == 2) {
    const uint2 v = *static_cast<const uint2*>(p);
    r.w[0] = v.x, r.w[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      const uint4 v = static_cast<const uint4*>(p)[i];
      r.w[4 * i] = v.x, r.w[4 * i + 1] = v.y, r.w[4 * i + 2] = v.z, r.w[4 * i + 3] = v.w;
    }
  }
  return r;
}
template <int kBytes, int V>
__device__ __forceinline__ void store_raw(void* p, const Raw<kBytes, V>& r) {
  constexpr int kWords = kBytes * V / 4;
  if constexpr (kWords == 1) {
    *static_cast<uint32_t*>(p) = r.w[0];
  } else if constexpr (kWords == 2) {
    *static_cast<uint2*>(p) = make_uint2(r.w[0], r.w[1]);
  } else {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i)
      static_cast<uint4*>(p)[i] = make_uint4(r.w[4 * i], r.w[4 * i + 1], r.w[4 * i + 2], r.w[4 * i + 3]);
  }
}

template <int V>
__device__ __forceinline__ void load_floats(float (&f)[V], const float* p) {
  const Raw<4, V> r = load_raw<4, V>(p);
#pragma unroll
  for (int i = 0; i < V; ++i) f[i] = __uint_as_float(r.w[i]);
}

template <DType kType>
constexpr int bytes_of = int(size_of(kType));

/// Raw bits to f32 (s8: the integer, unscaled).
template <DType kType, int V>
__device__ __forceinline__ void unpack(float (&f)[V], const Raw<bytes_of<kType>, V>& r) {
  if constexpr (kType == DType::s8) {
#pragma unroll
    for (int i = 0; i < V / 4; ++i) {
      float four[4];
      unpack_s8(four, r.w[i]);
#pragma unroll
      for (int k = 0; k < 4; ++k) f[4 * i + k] = four[k];
    }
  } else if constexpr (kType == DType::f32) {
#pragma unroll
    for (int i = 0; i < V; ++i) f[i] = __uint_as_float(r.w[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      float2 two;
      if constexpr (kType == DType::f16) two = __half22float2(*reinterpret_cast<const __half2*>(&r.w[i]));
      else two = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&r.w[i]));
      f[2 * i] = two.x, f[2 * i + 1] = two.y;
    }
  }
}

/// f32 to raw bits; s8 rounds and saturates values that are already divided by the scale.
template <DType kType, int V>
__device__ __forceinline__ Raw<bytes_of<kType>, V> pack(const float (&f)[V]) {
  Raw<bytes_of<kType>, V> r;
  if constexpr (kType == DType::s8) {
#pragma unroll
    for (int i = 0; i < V / 4; ++i)
      r.w[i] =
          pack_low_bytes(round_s8(f[4 * i]), round_s8(f[4 * i + 1]), round_s8(f[4 * i + 2]), round_s8(f[4 * i + 3]));
  } else if constexpr (kType == DType::f32) {
#pragma unroll
    for (int i = 0; i < V; ++i) r.w[i] = __float_as_uint(f[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) r.w[i] = pack_half<kType == DType::bf16>(f[2 * i], f[2 * i + 1]);
  }
  return r;
}

/// Calls f with the run-time type as a compile-time constant: f(Type<DType::s8>{}) ...
template <DType kType>
struct Type {
  static constexpr DType value = kType;
};
template <typename F>
__device__ __forceinline__ void with_type(DType type, F&& f) {
  switch (type) {
    case DType::s8: f(Type<DType::s8>{}); break;
    case DType::f16: f(Type<DType::f16>{}); break;
    case DType::bf16: f(Type<DType::bf16>{}); break;
    default: f(Type<DType::f32>{}); break;
  }
}

template <DType kType>
__device__ __forceinline__ const void* element(const void* base, int64_t index) {
  return static_cast<const uint8_t*>(base) + index * bytes_of<kType>;
}
template <DType kType>
__device__ __forceinline__ void* element(void* base, int64_t index) {
  return static_cast<uint8_t*>(base) + index * bytes_of<kType>;
}

}  // namespace octet::kernels::cuda
