// Rewriting aligned text: the bookkeeping follows the reference step by step, its oddities included, because offsets
// must be equal.
#include "text/aligned_text.h"

#include <algorithm>

#include "text/unicode.h"

namespace octet::text {

AlignedText::AlignedText(std::string_view text, int32_t first) {
  chars.reserve(text.size());
  spans.reserve(text.size());
  int32_t at = first;
  for (size_t i = 0; i < text.size(); ++at) {
    chars.push_back(next_char(text, i));
    spans.push_back({at, at + 1});
  }
  original = {first, at};
}

AlignedText AlignedText::slice(size_t begin, size_t end) const {
  AlignedText part;
  part.chars.assign(chars.begin() + static_cast<std::ptrdiff_t>(begin),
                    chars.begin() + static_cast<std::ptrdiff_t>(end));
  part.spans.assign(spans.begin() + static_cast<std::ptrdiff_t>(begin),
                    spans.begin() + static_cast<std::ptrdiff_t>(end));
  part.original = begin < end ? TextSpan{spans[begin].begin, spans[end - 1].end} : TextSpan{};
  return part;
}

void AlignedText::transform(const std::vector<Edit>& edits, size_t skipped) {
  // "Everything" means everything that has a place in the original: code points inserted before the first real one
  // stay.
  size_t begin = 0, end = chars.size();
  if (original.begin >= original.end) {
    end = 0;
  } else {
    while (begin < end && spans[begin].begin == spans[begin].end) ++begin;
  }
  transform_range(begin, end, edits, skipped);
}

void AlignedText::transform_range(size_t begin, size_t end, const std::vector<Edit>& edits, size_t skipped) {
  std::vector<TextSpan> placed;
  placed.reserve(edits.size());
  size_t at = std::min(begin + skipped, end);  // the next old code point
  size_t last = at;
  for (const Edit& edit : edits) {
    if (edit.change > 0) {
      placed.push_back(last == 0 ? TextSpan{original.begin, original.begin} : spans[std::min(last, spans.size()) - 1]);
      continue;
    }
    placed.push_back(last < spans.size() ? spans[last] : TextSpan{original.end, original.end});
    at = std::min(end, at + 1 + static_cast<size_t>(-edit.change));
    last = at;
  }
  auto first = static_cast<std::ptrdiff_t>(begin), stop = static_cast<std::ptrdiff_t>(end);
  spans.erase(spans.begin() + first, spans.begin() + stop);
  spans.insert(spans.begin() + first, placed.begin(), placed.end());
  std::vector<char32_t> fresh;
  fresh.reserve(edits.size());
  for (const Edit& edit : edits) fresh.push_back(edit.c);
  chars.erase(chars.begin() + first, chars.begin() + stop);
  chars.insert(chars.begin() + first, fresh.begin(), fresh.end());
}

void AlignedText::prepend(std::u32string_view text) {
  if (chars.empty()) return;
  std::vector<Edit> edits;
  for (size_t i = 0; i < text.size(); ++i) edits.push_back({text[i], i == 0 ? 0 : 1});
  edits.push_back({chars.front(), 1});
  transform_range(0, 1, edits, 0);
}

}  // namespace octet::text
