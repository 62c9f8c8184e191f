// The element types, alone, so that instruction-set files can include them.
#pragma once

#include <stdint.h>

namespace octet {

enum class DType : uint8_t { f32, f16, bf16, f64, s8, u8, s16, s32, s64, boolean };

}  // namespace octet
