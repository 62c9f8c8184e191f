// Character classes from ranges, decompositions from utf8proc limited to the code points that the reference knows.
#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <memory>
#include <unordered_map>
#include <vector>

namespace octet::text {
namespace {

struct Range {
  char32_t first, last;
};
struct LowerRun {
  char32_t first, last;
  uint32_t stride;
  int32_t delta;
};

#include "text/unicode_tables.inc"

constexpr Range kSpace[] = {{0x9, 0xd},       {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
                            {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
constexpr Range kChinese[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},  {0x20000, 0x2a6df},
                              {0x2a700, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};

struct OwnedTable {
  ClassTable table;
  std::vector<std::array<uint16_t, 256>> blocks;

  OwnedTable() {
    std::vector<uint16_t> all(0x110000, 0);
    auto mark = [&](const auto& ranges, uint16_t bit) {
      for (const Range& range : ranges)
        for (char32_t c = range.first; c <= range.last; ++c) all[c] |= bit;
    };
    mark(kSpace, kIsSpace);
    mark(kControl, kIsControl);
    mark(kPunctuation, kIsPunctuation);
    mark(kNonSpacing, kIsNonSpacing);
    mark(kMark, kIsMark);
    mark(kNumeric, kIsNumeric);
    mark(kLetter, kIsLetter);
    mark(kNumber, kIsNumber);
    mark(kWord, kIsWord);
    mark(kNormalized, kIsNormalized);
    mark(kChinese, kIsChinese);
    std::unordered_map<uint64_t, std::vector<uint16_t>> seen;
    for (size_t i = 0; i < 0x1100; ++i) {
      const uint16_t* block = all.data() + i * 256;
      uint64_t hash = 0;
      for (size_t at = 0; at < 256; at += 4) {
        uint64_t four = 0;
        std::memcpy(&four, block + at, 8);
        hash = (hash ^ four) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
      }
      std::vector<uint16_t>& candidates = seen[hash];
      auto same = std::find_if(candidates.begin(), candidates.end(),
                               [&](uint16_t b) { return std::memcmp(blocks[b].data(), block, 512) == 0; });
      if (same == candidates.end()) {
        candidates.push_back(static_cast<uint16_t>(blocks.size()));
        same = candidates.end() - 1;
        std::copy_n(block, 256, blocks.emplace_back().begin());
      }
      table.block[i] = *same;
    }
    table.classes = reinterpret_cast<const uint16_t(*)[256]>(blocks.data());
  }
};

}  // namespace

const ClassTable& class_table() {
  static const OwnedTable owned;
  return owned.table;
}

char32_t lower(char32_t c) noexcept {
  if (c < 0x80) return c - U'A' < 26 ? c + 32 : c;
  if (c == 0x130) return U'i';
  auto run = std::upper_bound(std::begin(kLower), std::end(kLower), c,
                              [](char32_t value, const LowerRun& r) { return value < r.first; });
  if (run == std::begin(kLower)) return c;
  --run;
  if (c <= run->last && (c - run->first) % run->stride == 0)
    return static_cast<char32_t>(static_cast<int32_t>(c) + run->delta);
  return c;
}

int decompose(char32_t c, bool compatibility, char32_t out[18]) noexcept {
  if (c < 0xa0 || !(class_table()[c] & kIsNormalized)) {
    out[0] = c;
    return 1;
  }
  utf8proc_int32_t parts[18];
  int boundary = 0;
  int options = UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0);
  auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 18,
                                       static_cast<utf8proc_option_t>(options), &boundary);
  if (count <= 0 || count > 18) {
    out[0] = c;
    return 1;
  }
  for (int i = 0; i < count; ++i) out[i] = static_cast<char32_t>(parts[i]);
  return static_cast<int>(count);
}

uint8_t combining_class(char32_t c) noexcept {
  if (c < 0x300 || !(class_table()[c] & kIsNormalized)) return 0;
  return static_cast<uint8_t>(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class);
}

char32_t compose(char32_t first, char32_t second) noexcept {
  // Hangul by arithmetic; the rest by asking utf8proc to compose the two.
  if (first - 0x1100 < 19 && second - 0x1161 < 21) return 0xac00 + ((first - 0x1100) * 21 + (second - 0x1161)) * 28;
  if (first - 0xac00 < 11172 && (first - 0xac00) % 28 == 0 && second - 0x11a8 < 27) return first + (second - 0x11a7);
  if (second < 0x300) return 0;
  utf8proc_int32_t pair[3] = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second), 0};
  if (utf8proc_normalize_utf32(pair, 2, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE)) != 1)
    return 0;
  auto composed = static_cast<char32_t>(pair[0]);
  return class_table()[composed] & kIsNormalized ? composed : 0;
}

size_t invalid_utf8(std::string_view text) noexcept {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  size_t size = text.size(), i = 0;
  auto tail = [&](size_t at) { return at < size && (bytes[at] & 0xc0) == 0x80; };
  while (i < size) {
    if (i + 8 <= size) {
      uint64_t word;
      std::memcpy(&word, bytes + i, 8);
      if ((word & 0x8080808080808080u) == 0) {
        i += 8;
        continue;
      }
    }
    unsigned char c = bytes[i];
    if (c < 0x80) {
      i += 1;
    } else if (c >= 0xc2 && c < 0xe0) {
      if (!tail(i + 1)) return i;
      i += 2;
    } else if (c >= 0xe0 && c < 0xf0) {
      if (!tail(i + 1) || !tail(i + 2)) return i;
      if ((c == 0xe0 && bytes[i + 1] < 0xa0) || (c == 0xed && bytes[i + 1] >= 0xa0)) return i;
      i += 3;
    } else if (c >= 0xf0 && c < 0xf5) {
      if (!tail(i + 1) || !tail(i + 2) || !tail(i + 3)) return i;
      if ((c == 0xf0 && bytes[i + 1] < 0x90) || (c == 0xf4 && bytes[i + 1] >= 0x90)) return i;
      i += 4;
    } else {
      return i;
    }
  }
  return std::string_view::npos;
}

bool is_ascii(std::string_view text) noexcept {
  size_t i = 0;
  uint64_t seen = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    seen |= word;
  }
  for (; i < text.size(); ++i) seen |= static_cast<unsigned char>(text[i]) & 0x80u;
  return (seen & 0x8080808080808080u) == 0;
}

std::u32string to_chars(std::string_view text) {
  std::u32string chars;
  chars.reserve(text.size());
  for (size_t i = 0; i < text.size();) chars.push_back(next_char(text, i));
  return chars;
}

}  // namespace octet::text
