// The reference's fake quantization.
#include "quant/quantizer.h"

#include <cmath>

#include "core/error.h"
#include "core/int8.h"

namespace octet {

QuantSpec parse_quant_spec(std::string_view text, bool narrow) {
  bool valid = text.size() == 2 && (text[0] == 's' || text[0] == 'u') && text[1] >= '2' && text[1] <= '8';
  if (!valid)
    fail(ErrorCode::invalid_argument,
         {.what = "there is no quantized type '" + std::string(text) + "'", .expected = "expected s2..s8 or u2..u8"});
  return {text[1] - '0', text[0] == 'u', narrow};
}

void reference_fake_quant(std::span<const float> x, std::span<const float> amax, int64_t inner, const QuantSpec& spec,
                          std::span<float> y) {
  if (amax.empty() || inner <= 0 || x.size() != y.size() || x.size() % (amax.size() * static_cast<size_t>(inner)) != 0)
    fail(ErrorCode::invalid_argument, {.what = "cannot fake-quantize " + std::to_string(x.size()) + " values",
                                       .expected = "expected whole groups of " + std::to_string(amax.size()) +
                                                   " ranges x " + std::to_string(inner) + " values"});
  for (float value : amax)
    if (!(value >= 0.0f))
      fail(ErrorCode::invalid_argument, {.what = "cannot fake-quantize with a negative range",
                                         .expected = "expected amax >= 0, got " + std::to_string(value)});
  if (spec.is_unsigned)
    for (float value : x)
      if (value < 0.0f)
        fail(ErrorCode::invalid_argument, {.what = "cannot quantize negative values to an unsigned type",
                                           .expected = "expected values >= 0, got " + std::to_string(value),
                                           .hint = "use a signed type"});
  const auto bound = static_cast<float>(spec.bound()), lo = static_cast<float>(spec.lo());
  for (size_t i = 0; i < x.size(); ++i) {
    float range = amax[i / static_cast<size_t>(inner) % amax.size()];
    float scale = range <= int8::kTinyAmax ? 0.0f : bound / range;
    float q = std::rint(x[i] * scale);
    q = q < lo ? lo : q > bound ? bound : q;
    y[i] = scale == 0.0f ? q : q / scale;
  }
}

}  // namespace octet
