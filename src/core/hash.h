// A fast 64-bit fingerprint of bytes, for telling files apart; not for security.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace octet {

/// Multiply-and-rotate over 8-byte words, finished with splitmix64's mixer. Depends on content and length only.
inline uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed = 0) noexcept {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio
  uint64_t h = seed ^ (bytes.size() * kMultiplier);
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    h = (h ^ word) * kMultiplier;
    h ^= h >> 29;
  }
  uint64_t tail = 0;
  if (i < bytes.size()) std::memcpy(&tail, bytes.data() + i, bytes.size() - i);
  h = (h ^ tail) * kMultiplier;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

/// The same on four words at once, for megabytes: above each word waits for the product of the one before.
inline uint64_t hash_block(std::span<const std::byte> bytes, uint64_t seed = 0) noexcept {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15u;
  uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3};
  size_t i = 0;
  for (; i + 32 <= bytes.size(); i += 32) {
    uint64_t words[4];
    std::memcpy(words, bytes.data() + i, 32);
    for (int l = 0; l < 4; ++l) {
      lanes[l] = (lanes[l] ^ words[l]) * kMultiplier;
      lanes[l] ^= lanes[l] >> 29;
    }
  }
  uint64_t h = hash_bytes(bytes.subspan(i), bytes.size());
  for (uint64_t lane : lanes) h = hash_bytes(std::as_bytes(std::span(&lane, 1)), h);
  return h;
}

inline uint64_t hash_text(std::string_view text, uint64_t seed = 0) noexcept {
  return hash_bytes({reinterpret_cast<const std::byte*>(text.data()), text.size()}, seed);
}

/// 16 hex digits.
inline std::string hex(uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4) text[static_cast<size_t>(i)] = kDigits[value & 15];
  return text;
}

}  // namespace octet
