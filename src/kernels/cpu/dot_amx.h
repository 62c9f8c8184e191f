// The u8 x s8 dot of AMX-INT8 on tiles of 32 rows x 32 columns: 64 values a tile step, exact. Panels are those of
// AVX512-VNNI, padded to whole tiles. Include after simd_avx512.h and tile.h.
#pragma once

namespace octet::kernels {
namespace {

struct DotInt {
  static constexpr int kRows = 32, kVectors = 2, kGroup = 4, kWeightBytes = 4, kStepMultiple = 16;
};

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0..3: sums of two halves of rows x two vectors of columns; 4, 5: x; 6, 7: weights. The barriers are there
// because the compiler does not see what the tile instructions read.
template <>
void accumulate_rows<DotInt, DotInt::kRows>(int rows, const unsigned char* slabs, int64_t steps, const unsigned char* w,
                                            const int32_t* init, int32_t* c, Ahead) {
  constexpr int64_t kLine = DotInt::kVectors * 64;
  int upper = rows < 16 ? rows : 16, lower = rows - upper;
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.row_bytes[t] = 64;
    config.rows[t] = (uint8_t)(t >= 6 ? 16 : t == 2 || t == 3 || t == 5 ? lower : upper);
    if (config.rows[t] == 0) config.row_bytes[t] = 0;
  }
  __asm__ volatile("" ::"r"(&config), "r"(slabs), "r"(w) : "memory");
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  if (lower > 0) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; s += 16, w += 16 * kLine) {
    const unsigned char* x = slabs + s / kChunkSteps * rows * cpu::kStride + s % kChunkSteps * 4;
    _tile_loadd(6, w, kLine);
    _tile_loadd(4, x, cpu::kStride);
    _tile_loadd(7, w + 64, kLine);
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    if (lower > 0) {
      _tile_loadd(5, x + 16 * cpu::kStride, cpu::kStride);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    }
  }
  _tile_stored(0, c, kLine);
  _tile_stored(1, c + 16, kLine);
  if (lower > 0) {
    _tile_stored(2, c + 16 * kLine / 4, kLine);
    _tile_stored(3, c + 16 * kLine / 4 + 16, kLine);
  }
  __asm__ volatile("" ::"r"(c) : "memory");
  if (init == nullptr) return;
  I first = load(init, Whole{}), second = load(init + 16, Whole{});
  for (int r = 0; r < rows; ++r, c += DotInt::kVectors * 16) {
    _mm512_storeu_si512(c, add_int(load(c, Whole{}), first));
    _mm512_storeu_si512(c + 16, add_int(load(c + 16, Whole{}), second));
  }
}

}  // namespace
}  // namespace octet::kernels
