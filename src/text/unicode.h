// Unicode as the tokenizers of the field see it: UTF-8, character classes, lower case, decompositions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace octet::text {

/// Classes of a code point. They come from tables (tools/make_unicode_tables.py), not from a Unicode library, because
/// the reference tokenizers follow several Unicode versions at once.
enum CharClass : uint16_t {
  kIsSpace = 1,         ///< White_Space
  kIsControl = 2,       ///< removed by clean_text; tab, newline and return are not in it
  kIsPunctuation = 4,   ///< ASCII punctuation and P
  kIsNonSpacing = 8,    ///< Mn
  kIsMark = 16,         ///< M
  kIsNumeric = 32,      ///< N
  kIsLetter = 64,       ///< \p{L} of the byte-level pattern
  kIsNumber = 128,      ///< \p{N} of the byte-level pattern
  kIsWord = 256,        ///< \w
  kIsNormalized = 512,  ///< has a decomposition or a combining class
  kIsChinese = 1024,    ///< the CJK blocks that BERT isolates
};

/// The table behind char_class: blocks of 256 code points. Built on first use.
struct ClassTable {
  uint16_t block[0x1100];
  const uint16_t (*classes)[256];
  uint16_t operator[](char32_t c) const noexcept { return classes[block[c >> 8]][c & 255]; }
};
const ClassTable& class_table();

/// The one code point that `c` becomes in lower case; U+0130 becomes 'i' here and lower_tail tells of the rest.
char32_t lower(char32_t c) noexcept;
/// The second code point of the lower case of `c`, or 0.
inline char32_t lower_tail(char32_t c) noexcept { return c == 0x130 ? 0x307 : 0; }

/// Appends the full canonical (or compatibility) decomposition, Hangul included; at most 18 code points. Returns their
/// number.
int decompose(char32_t c, bool compatibility, char32_t out[18]) noexcept;
/// 0 for starters.
uint8_t combining_class(char32_t c) noexcept;
/// The composition of two code points, or 0.
char32_t compose(char32_t first, char32_t second) noexcept;

/// The byte at which `text` stops being UTF-8 (surrogates and overlong forms are not UTF-8), or npos.
size_t invalid_utf8(std::string_view text) noexcept;
/// Whether all bytes are below 128.
bool is_ascii(std::string_view text) noexcept;

/// Decodes the code point at `position` of valid UTF-8 and moves on.
inline char32_t next_char(std::string_view text, size_t& position) noexcept {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  char32_t c = byte(0);
  if (c < 0x80) {
    position += 1;
  } else if (c < 0xe0) {
    c = (c & 0x1f) << 6 | (byte(1) & 0x3f);
    position += 2;
  } else if (c < 0xf0) {
    c = (c & 0xf) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    position += 3;
  } else {
    c = (c & 7) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
    position += 4;
  }
  return c;
}

/// Writes `c` as UTF-8 and returns the number of bytes, 1 to 4.
inline int put_char(char32_t c, char* out) noexcept {
  if (c < 0x80) {
    out[0] = static_cast<char>(c);
    return 1;
  }
  if (c < 0x800) {
    out[0] = static_cast<char>(0xc0 | c >> 6);
    out[1] = static_cast<char>(0x80 | (c & 0x3f));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = static_cast<char>(0xe0 | c >> 12);
    out[1] = static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out[2] = static_cast<char>(0x80 | (c & 0x3f));
    return 3;
  }
  out[0] = static_cast<char>(0xf0 | c >> 18);
  out[1] = static_cast<char>(0x80 | (c >> 12 & 0x3f));
  out[2] = static_cast<char>(0x80 | (c >> 6 & 0x3f));
  out[3] = static_cast<char>(0x80 | (c & 0x3f));
  return 4;
}
inline void append_char(char32_t c, std::string& out) {
  char bytes[4];
  out.append(bytes, static_cast<size_t>(put_char(c, bytes)));
}
std::u32string to_chars(std::string_view text);

}  // namespace octet::text
