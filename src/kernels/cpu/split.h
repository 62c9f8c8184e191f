// What the plain files share: refusals by instruction set, and how loops are split over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/dtype.h"
#include "core/int8.h"
#include "core/threads.h"
#include "kernels/cpu/isa.h"
#include "kernels/rows.h"

namespace octet::kernels::cpu {

enum class Isa { avx2, avxvnni, avx512, avx512vnni, amx };

/// nullptr when the target has it.
constexpr const char* lacks(Isa isa, const Target& target) noexcept {
  switch (isa) {
    case Isa::avx2: return target.avx2 ? nullptr : "needs AVX2, FMA and F16C";
    case Isa::avxvnni: return target.avx_vnni ? nullptr : "needs AVX-VNNI";
    case Isa::avx512: return target.avx512 ? nullptr : "needs AVX-512 F, BW, DQ and VL";
    case Isa::avx512vnni: return target.avx512_vnni ? nullptr : "needs AVX512-VNNI";
    case Isa::amx: return target.amx_int8 ? nullptr : "needs AMX-INT8";
  }
  return "unknown instruction set";
}

constexpr bool is_8bit(DType type) noexcept { return type == DType::s8 || type == DType::u8; }
constexpr bool is_float(DType type) noexcept { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

inline int threads_of(const Launch& launch) noexcept { return launch.pool == nullptr ? 1 : launch.pool->threads(); }

/// body(begin, end) over [0, items).
template <typename Body>
void parallel(const Launch& launch, int64_t items, int64_t grain, const Body& body) {
  if (launch.pool != nullptr && items > grain) launch.pool->parallel_for(items, grain, body);
  else if (items > 0) body(int64_t{0}, items);
}

/// body(item, slot) for each item; `slot` < threads names the thread's scratch.
template <typename Body>
void parallel_slots(const Launch& launch, int64_t items, const Body& body) {
  int64_t threads = std::min<int64_t>(threads_of(launch), items);
  if (threads <= 1) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  launch.pool->parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot)
      for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) body(item, slot);
  });
}

/// Tokens a range of a loop over tokens of n values: about 16 KB each, and several ranges a thread.
inline int64_t token_grain(const Launch& launch, int64_t tokens, int64_t n) noexcept {
  int64_t by_size = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, n));
  return std::clamp<int64_t>(tokens / (4 * threads_of(launch)), 1,
                             std::max<int64_t>(by_size, tokens / (16 * threads_of(launch))));
}

/// This thread's memory of at least that many bytes, 64-byte aligned; valid until the next call on the thread for the
/// same use.
enum class Use { rows, gemm };
unsigned char* thread_memory(int64_t bytes, Use use = Use::rows);

/// A range found at run time (docs/numerics.md): both 0 when there is nothing to cover.
struct DynamicRange {
  float inv_scale;
  float scale;
};
inline DynamicRange dynamic_range(float amax, float bound = 127.0f) noexcept {
  if (amax <= int8::kTinyAmax) return {0.0f, 0.0f};
  return {bound / amax, amax / bound};
}

}  // namespace octet::kernels::cpu
