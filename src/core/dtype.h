// Element types: names, sizes, and conversion of 16-bit floats.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/dtype_enum.h"

namespace octet {

/// Bytes of one element.
constexpr int64_t size_of(DType type) noexcept {
  switch (type) {
    case DType::f64:
    case DType::s64: return 8;
    case DType::f32:
    case DType::s32: return 4;
    case DType::f16:
    case DType::bf16:
    case DType::s16: return 2;
    case DType::s8:
    case DType::u8:
    case DType::boolean: return 1;
  }
  return 0;
}

/// Letters and bits, as in the enum ("bool" for boolean).
std::string_view name(DType type) noexcept;
/// The type of that name, or nothing.
std::optional<DType> parse_dtype(std::string_view text) noexcept;

inline float f32_from_bf16(uint16_t bits) noexcept { return std::bit_cast<float>(uint32_t{bits} << 16); }
/// Round to nearest even; NaN stays NaN.
uint16_t bf16_from_f32(float value) noexcept;
float f32_from_f16(uint16_t bits) noexcept;
/// Round to nearest even; overflow gives infinity; NaN stays NaN.
uint16_t f16_from_f32(float value) noexcept;

}  // namespace octet
