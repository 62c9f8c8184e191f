// A text that has been changed, with the place in the original that each of its code points comes from.
#pragma once

#include <octet/tokenizer.h>

#include <string_view>
#include <vector>

namespace octet::text {

/// One step of a rewrite: the new code point and how it uses the old ones. 0 replaces the next old one, -n also drops
/// the n old ones after it, a positive number inserts (and takes the place of the code point before it).
struct Edit {
  char32_t c;
  int32_t change;
};

/// The reference's NormalizedString, by code points instead of bytes. `spans` are places in the whole original text.
struct AlignedText {
  std::vector<char32_t> chars;
  std::vector<TextSpan> spans;
  TextSpan original;  ///< the part of the original that this text stands for

  AlignedText() = default;
  /// Valid UTF-8; `first` is the code point index of its beginning in the original.
  AlignedText(std::string_view text, int32_t first);

  bool empty() const noexcept { return chars.empty(); }
  size_t size() const noexcept { return chars.size(); }
  /// The code points [begin, end) with their spans.
  AlignedText slice(size_t begin, size_t end) const;
  /// Rewrites everything; `skipped` old code points at the beginning go without replacement.
  void transform(const std::vector<Edit>& edits, size_t skipped);
  /// Rewrites [begin, end).
  void transform_range(size_t begin, size_t end, const std::vector<Edit>& edits, size_t skipped);
  void prepend(std::u32string_view text);
  /// Puts `content` for every match; match(i) is the end of the match at code point i, or i.
  template <typename Match>
  void replace_all(Match match, std::u32string_view content);
  /// Keeps what `keep` accepts.
  template <typename Keep>
  void filter(Keep keep);
};

template <typename Keep>
void AlignedText::filter(Keep keep) {
  std::vector<Edit> edits;
  edits.reserve(chars.size());
  size_t skipped = 0;
  for (char32_t c : chars) {
    if (keep(c)) edits.push_back({c, 0});
    else if (edits.empty()) ++skipped;
    else --edits.back().change;
  }
  transform(edits, skipped);
}

template <typename Match>
void AlignedText::replace_all(Match match, std::u32string_view content) {
  std::vector<char32_t> new_chars;
  std::vector<TextSpan> new_spans;
  for (size_t i = 0; i < chars.size();) {
    size_t end = match(i);
    if (end == i) {
      new_chars.push_back(chars[i]);
      new_spans.push_back(spans[i]);
      ++i;
      continue;
    }
    // Inserted code points take the place of the last one that went.
    for (char32_t c : content) {
      new_chars.push_back(c);
      new_spans.push_back(spans[end - 1]);
    }
    i = end;
  }
  chars = std::move(new_chars);
  spans = std::move(new_spans);
}

}  // namespace octet::text
