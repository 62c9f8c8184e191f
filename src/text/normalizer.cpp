// The normalizers of tokenizer.json.
#include "text/normalizer.h"

#include <algorithm>

#include "core/error.h"
#include "text/component.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

void lowercase_text(AlignedText& text) {
  std::vector<Edit> edits;
  edits.reserve(text.size());
  for (char32_t c : text.chars) {
    edits.push_back({lower(c), 0});
    if (char32_t tail = lower_tail(c)) edits.push_back({tail, 1});
  }
  text.transform(edits, 0);
}

/// Decompositions in canonical order; `change` travels with its code point through the sort, as in the reference.
std::vector<Edit> decomposition(const AlignedText& text, bool compatibility) {
  std::vector<Edit> edits;
  std::vector<std::pair<uint8_t, Edit>> pending;  // a run of combining marks
  auto flush = [&] {
    std::stable_sort(pending.begin(), pending.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& mark : pending) edits.push_back(mark.second);
    pending.clear();
  };
  char32_t parts[18];
  for (char32_t c : text.chars) {
    int count = decompose(c, compatibility, parts);
    for (int i = 0; i < count; ++i) {
      uint8_t cls = combining_class(parts[i]);
      if (cls == 0) {
        flush();
        edits.push_back({parts[i], i == 0 ? 0 : 1});
      } else {
        pending.push_back({cls, {parts[i], i == 0 ? 0 : 1}});
      }
    }
  }
  flush();
  return edits;
}

std::vector<Edit> composition(const std::vector<Edit>& decomposed) {
  std::vector<Edit> edits, blocked;  // `blocked`: marks that wait behind the starter
  std::optional<Edit> starter;
  std::optional<uint8_t> last_class;
  auto flush = [&] {
    if (starter) edits.push_back(*starter);
    edits.insert(edits.end(), blocked.begin(), blocked.end());
    blocked.clear();
    last_class.reset();
  };
  for (const Edit& edit : decomposed) {
    uint8_t cls = combining_class(edit.c);
    if (!starter) {
      if (cls != 0) edits.push_back(edit);
      else starter = edit;
      continue;
    }
    if (!last_class || *last_class < cls) {
      if (char32_t composed = compose(starter->c, edit.c)) {
        starter = Edit{composed, starter->change + edit.change - 1};
        continue;
      }
    }
    if (cls == 0) {
      flush();
      starter = edit;
      continue;
    }
    blocked.push_back(edit);
    last_class = cls;
  }
  flush();
  return edits;
}

class UnicodeForm final : public Normalizer {
 public:
  UnicodeForm(bool compatibility, bool composed) : compatibility_(compatibility), composed_(composed) {}
  void apply(AlignedText& text) const override {
    std::vector<Edit> edits = decomposition(text, compatibility_);
    text.transform(composed_ ? composition(edits) : edits, 0);
  }

 private:
  bool compatibility_, composed_;
};

class Lowercase final : public Normalizer {
 public:
  void apply(AlignedText& text) const override { lowercase_text(text); }
};

class StripAccents final : public Normalizer {
 public:
  void apply(AlignedText& text) const override {
    text.filter([&](char32_t c) { return !(class_table()[c] & kIsMark); });
  }
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(AlignedText& text) const override {
    auto is_space = [](char32_t c) { return (class_table()[c] & kIsSpace) != 0; };
    size_t size = text.size(), leading = 0, trailing = 0;
    while (left_ && leading < size && is_space(text.chars[leading])) ++leading;
    while (right_ && trailing < size - leading && is_space(text.chars[size - 1 - trailing])) ++trailing;
    if (leading + trailing == 0) return;
    std::vector<Edit> edits;
    for (size_t i = leading; i < size - trailing; ++i)
      edits.push_back({text.chars[i], i + 1 == size - trailing ? -static_cast<int32_t>(trailing) : 0});
    text.transform(edits, leading);
  }

 private:
  bool left_, right_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::u32string text) : text_(std::move(text)) {}
  void apply(AlignedText& text) const override { text.prepend(text_); }

 private:
  std::u32string text_;
};

/// Replaces a literal string, or runs of a repeated character class (the two regular expressions that encoders use).
class Replace final : public Normalizer {
 public:
  Replace(std::u32string pattern, size_t at_least, bool spaces, std::u32string content)
      : pattern_(std::move(pattern)), at_least_(at_least), spaces_(spaces), content_(std::move(content)) {}

  void apply(AlignedText& text) const override {
    text.replace_all([&](size_t i) { return match(text.chars, i); }, content_);
  }

 private:
  size_t match(const std::vector<char32_t>& chars, size_t begin) const {
    if (at_least_ == 0) {
      if (pattern_.empty() || chars.size() - begin < pattern_.size() ||
          !std::equal(pattern_.begin(), pattern_.end(), chars.begin() + static_cast<std::ptrdiff_t>(begin)))
        return begin;
      return begin + pattern_.size();
    }
    size_t end = begin;
    while (end < chars.size() && (spaces_ ? (class_table()[chars[end]] & kIsSpace) != 0 : chars[end] == pattern_[0]))
      ++end;
    return end - begin >= at_least_ ? end : begin;
  }

  std::u32string pattern_;
  size_t at_least_;  // 0: the literal; n: a run of n or more
  bool spaces_;
  std::u32string content_;
};

std::unique_ptr<const Normalizer> make_replace(const nlohmann::json& json, const std::string& where) {
  std::u32string content = to_chars(json_text(json, "content", where));
  auto pattern = json_get<nlohmann::json>(json, "pattern", where);
  if (pattern.is_object() && pattern.contains("String"))
    return std::make_unique<Replace>(to_chars(json_text(pattern, "String", where)), 0, false, content);
  std::string regex = json_text(pattern, "Regex", where);
  if (regex == "\\s+") return std::make_unique<Replace>(U"", 1, true, content);
  if (regex == "\\s{2,}") return std::make_unique<Replace>(U"", 2, true, content);
  if (regex == " {2,}") return std::make_unique<Replace>(U" ", 2, false, content);
  if (regex == " +") return std::make_unique<Replace>(U" ", 1, false, content);
  fail(ErrorCode::unsupported,
       {.what = "unknown pattern of the normalizer Replace: " + regex,
        .expected = "known patterns: any string; the regular expressions \"\\s+\", \"\\s{2,}\", \" +\", \" {2,}\"",
        .where = "in " + where});
}

class NormalizerSequence final : public Normalizer {
 public:
  std::vector<std::unique_ptr<const Normalizer>> parts;
  void apply(AlignedText& text) const override {
    for (const auto& part : parts) part->apply(text);
  }
};

}  // namespace

void BertNormalizer::apply(AlignedText& text) const {
  const ClassTable& table = class_table();
  if (clean_text) {
    text.filter([&](char32_t c) { return !(table[c] & kIsControl); });
    for (char32_t& c : text.chars)
      if (table[c] & kIsSpace) c = U' ';
  }
  if (handle_chinese_chars) {
    std::vector<Edit> edits;
    edits.reserve(text.size());
    for (char32_t c : text.chars) {
      if (table[c] & kIsChinese) {
        edits.insert(edits.end(), {{U' ', 0}, {c, 1}, {U' ', 1}});
      } else {
        edits.push_back({c, 0});
      }
    }
    text.transform(edits, 0);
  }
  if (strip_accents) {
    text.transform(decomposition(text, false), 0);
    text.filter([&](char32_t c) { return !(table[c] & kIsNonSpacing); });
  }
  if (lowercase) lowercase_text(text);
}

std::unique_ptr<const Normalizer> make_normalizer(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  std::string type = component_type(json, "normalizer", where);
  if (type == "BertNormalizer") {
    auto bert = std::make_unique<BertNormalizer>();
    bert->clean_text = json_get_or<bool>(json, "clean_text", true, where);
    bert->handle_chinese_chars = json_get_or<bool>(json, "handle_chinese_chars", true, where);
    bert->lowercase = json_get_or<bool>(json, "lowercase", true, where);
    bert->strip_accents = json_get_or<bool>(json, "strip_accents", bert->lowercase, where);
    return bert;
  }
  if (type == "Sequence") {
    auto sequence = std::make_unique<NormalizerSequence>();
    for (const auto& part : json_array(json, "normalizers", where))
      if (auto made = make_normalizer(part, where)) sequence->parts.push_back(std::move(made));
    return sequence;
  }
  if (type == "NFC") return std::make_unique<UnicodeForm>(false, true);
  if (type == "NFD") return std::make_unique<UnicodeForm>(false, false);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(true, true);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(true, false);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Strip")
    return std::make_unique<Strip>(json_get_or<bool>(json, "strip_left", true, where),
                                   json_get_or<bool>(json, "strip_right", true, where));
  if (type == "Prepend") return std::make_unique<Prepend>(to_chars(json_text(json, "prepend", where)));
  if (type == "Replace") return make_replace(json, where);
  if (type == "Precompiled") return make_precompiled(json, where);
  unknown_component("normalizer", type,
                    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Prepend", "Replace",
                     "Sequence", "Strip", "StripAccents"},
                    where);
}

}  // namespace octet::text
