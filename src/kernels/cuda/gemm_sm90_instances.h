// Between the host side of the sm_90a GEMMs and their compiled kernels: one function a tile, spread over files that
// compile in seconds.
#pragma once

#include <stdint.h>

namespace octet::kernels::cuda {

constexpr int kBlockBytes = 128;            // bytes of k in a row of shared memory: the widest swizzle
constexpr int kBarrierBytes = 512;          // of shared memory, at its end
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits

/// What every kernel gets beside its two tensor maps.
struct GemmDevice {
  int m, n, k_blocks;    // k_blocks: blocks of kBlockBytes
  int tiles_m, tiles_n;  // of the whole problem, in cluster tiles
  int stages;
  int ldy;  // elements
  void* y;
  const float* scale;       // [n], 8-bit operands only
  const float* bias;        // [n] or nullptr
  const float* inv_scale;   // [n], 8-bit output only
  const float* row_scale;   // [m] or nullptr
  bool folded;              // 8-bit output without GELU: scale and bias carry inv_scale, clamp and offset
  float inv_factor;         // inv_scale is multiplied by it: 1 / span, with GELU 1 / (2 span)
  float span, shift, base;  // hi - lo, (zero point - lo) / span, kRoundMagic + lo
};

enum class Out { s8, f16, f32 };

/// Calls get<out, gelu>() for run-time values.
template <bool with_s8, class Get>
const void* pick_instance(Out out, bool gelu, Get get) {
  if constexpr (with_s8) {
    if (out == Out::s8)
      return gelu ? get.template operator()<Out::s8, true>() : get.template operator()<Out::s8, false>();
  }
  if (out == Out::f16)
    return gelu ? get.template operator()<Out::f16, true>() : get.template operator()<Out::f16, false>();
  if (out == Out::f32)
    return gelu ? get.template operator()<Out::f32, true>() : get.template operator()<Out::f32, false>();
  return nullptr;
}

// The kernel of an output type and activation, or nullptr.
const void* stationary_s8_192_c2_g2(Out out, bool gelu);
const void* stationary_s8_192_c1_g2(Out out, bool gelu);
const void* stationary_s8_128_c2_g3(Out out, bool gelu);
const void* stationary_s8_128_c1_g3(Out out, bool gelu);
const void* stream_s8_256x192_c2x1(Out out, bool gelu);
const void* stream_s8_256x192_c1x2(Out out, bool gelu);
const void* stream_s8_256x192_c2x2(Out out, bool gelu);
const void* stream_s8_128x192_c2x1(Out out, bool gelu);
const void* stream_s8_128x128_c2x1(Out out, bool gelu);
const void* stream_s8_128x96_c1x2(Out out, bool gelu);
const void* stream_s8_256x128_c2x1(Out out, bool gelu);
const void* small_s8_64x16_k4(Out out, bool gelu);
const void* small_s8_64x32_k4(Out out, bool gelu);
const void* small_s8_64x48_k4(Out out, bool gelu);
const void* small_s8_64x64_k4(Out out, bool gelu);
const void* small_s8_64x96_k2(Out out, bool gelu);
const void* small_s8_64x128_k2(Out out, bool gelu);
const void* small_s8_64x192_k2(Out out, bool gelu);
const void* stream_f16_256x192_c2x1(Out out, bool gelu);
const void* stream_f16_256x192_c1x2(Out out, bool gelu);
const void* stream_f16_128x192_c2x1(Out out, bool gelu);
const void* stream_f16_128x128_c2x1(Out out, bool gelu);
const void* small_f16_64x32_k4(Out out, bool gelu);
const void* small_f16_64x64_k4(Out out, bool gelu);
const void* small_f16_64x128_k2(Out out, bool gelu);

}  // namespace octet::kernels::cuda
