// Fake quantization exactly as the reference system computes it, from a maximum instead of a scale.
//
// octet's own graphs use core/int8.h (scale = amax / bound, stored; q = rint(x * (1 / scale))). The reference keeps
// scale = bound / amax and divides by it again, which may differ in the last bit; this file reproduces it for
// comparison and for its calibrators.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace octet {

/// A quantizer's integer type: bits 2..8.
struct QuantSpec {
  int bits = 8;
  bool is_unsigned = false;
  bool narrow = false;  ///< signed types only: -127..127 instead of -128..127

  int32_t bound() const noexcept { return (1 << (bits - (is_unsigned ? 0 : 1))) - 1; }
  int32_t lo() const noexcept { return is_unsigned ? 0 : narrow ? -bound() : -bound() - 1; }
  int32_t hi() const noexcept { return bound(); }
  /// "s8", "u4".
  std::string name() const {
    std::string text(is_unsigned ? "u" : "s");
    text += static_cast<char>('0' + bits);
    return text;
  }
  bool operator==(const QuantSpec&) const = default;
};

/// Reads "s2".."s8", "u2".."u8"; throws invalid_argument.
QuantSpec parse_quant_spec(std::string_view text, bool narrow);

/// y = clamp(rint(x * scale), lo, bound) / scale with scale = bound / amax, 0 where amax <= 2^-24 (y is 0 there). One
/// amax, or one a channel: elements that share it are `inner` neighbours. Throws invalid_argument for a negative or NaN
/// amax, for unsigned types with negative input, and when the sizes do not fit.
void reference_fake_quant(std::span<const float> x, std::span<const float> amax, int64_t inner, const QuantSpec& spec,
                          std::span<float> y);

}  // namespace octet
