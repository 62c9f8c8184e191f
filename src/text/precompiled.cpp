// SentencePiece's precompiled map: a double-array trie from character sequences to their replacements.
#include <utf8proc.h>

#include "core/error.h"
#include "text/component.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

std::string decode_base64(std::string_view text, const std::string& where) {
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    if (c == '=' || c == '\n' || c == '\r') continue;
    int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                : c >= 'a' && c <= 'z' ? c - 'a' + 26
                : c >= '0' && c <= '9' ? c - '0' + 52
                : c == '+'             ? 62
                : c == '/'             ? 63
                                       : -1;
    if (value < 0)
      fail(ErrorCode::corrupt,
           {.what = "cannot read the normalizer's map", .expected = "expected base64", .where = "in " + where});
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xff);
    }
  }
  return bytes;
}

class Precompiled final : public Normalizer {
 public:
  Precompiled(std::string_view map, const std::string& where) {
    uint32_t size = 0;
    if (map.size() >= 4) std::memcpy(&size, map.data(), 4);
    if (map.size() < 4 || size > map.size() - 4 || size % 4 != 0)
      fail(ErrorCode::corrupt, {.what = "cannot read the normalizer's map",
                                .expected = "expected a trie of " + std::to_string(size) + " bytes, got " +
                                            std::to_string(map.size()) + " bytes in all",
                                .where = "in " + where});
    trie_.resize(size / 4);
    std::memcpy(trie_.data(), map.data() + 4, size);
    replacements_ = map.substr(4 + size);
    if (invalid_utf8(replacements_) != std::string_view::npos)
      fail(ErrorCode::corrupt, {.what = "cannot read the normalizer's map",
                                .expected = "expected replacements in UTF-8",
                                .where = "in " + where});
  }

  void apply(AlignedText& text) const override {
    std::vector<Edit> edits;
    bool modified = false;
    for (size_t begin = 0; begin < text.size();) {
      size_t end = grapheme_end(text.chars, begin);
      std::string bytes;
      for (size_t i = begin; i < end; ++i) append_char(text.chars[i], bytes);
      // Short clusters are looked up as a whole, longer ones code point by code point, as the reference does.
      std::u32string replacement;
      if (bytes.size() < 6 && find(bytes, replacement)) {
        replace(edits, end - begin, replacement);
        modified = true;
      } else {
        for (size_t i = begin; i < end; ++i) {
          bytes.clear();
          append_char(text.chars[i], bytes);
          if (find(bytes, replacement)) {
            replace(edits, 1, replacement);
            modified = true;
          } else {
            edits.push_back({text.chars[i], 0});
          }
        }
      }
      begin = end;
    }
    if (modified) text.transform(edits, 0);
  }

 private:
  static size_t grapheme_end(const std::vector<char32_t>& chars, size_t begin) {
    utf8proc_int32_t state = 0;
    size_t end = begin + 1;
    while (end < chars.size() && !utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(chars[end - 1]),
                                                                   static_cast<utf8proc_int32_t>(chars[end]), &state))
      ++end;
    return end;
  }

  static void replace(std::vector<Edit>& edits, size_t old_count, const std::u32string& fresh) {
    for (size_t i = 0; i < fresh.size(); ++i) edits.push_back({fresh[i], i < old_count ? 0 : 1});
    if (fresh.size() < old_count && !edits.empty())
      edits.back().change -= static_cast<int32_t>(old_count - fresh.size());
  }

  /// The replacement of the shortest entry that `key` begins with.
  bool find(std::string_view key, std::u32string& replacement) const {
    size_t node = 0;
    auto unit = [&](size_t at) { return at < trie_.size() ? trie_[at] : 0; };
    auto offset = [](uint32_t u) { return static_cast<size_t>(u >> 10) << ((u & (1u << 9)) >> 6); };
    node ^= offset(unit(node));
    for (char c : key) {
      auto byte = static_cast<unsigned char>(c);
      if (byte == 0) return false;
      node ^= byte;
      uint32_t u = unit(node);
      if ((u & ((1u << 31) | 0xff)) != byte) return false;
      node ^= offset(u);
      if (u >> 8 & 1) {
        size_t at = unit(node) & ((1u << 31) - 1);
        if (at >= replacements_.size() || (replacements_[at] & 0xc0) == 0x80) return false;
        replacement = to_chars(std::string_view(replacements_).substr(at, replacements_.find('\0', at) - at));
        return true;
      }
    }
    return false;
  }

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_precompiled(const nlohmann::json& json, const std::string& where) {
  std::string map = decode_base64(json_text(json, "precompiled_charsmap", where), where);
  return std::make_unique<Precompiled>(map, where);
}

}  // namespace octet::text
