// The pre-tokenizers of tokenizer.json on aligned text.
#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/component.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

/// What becomes of the delimiters that a piece is cut at.
enum class Delimiters { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct Part {
  size_t begin, end;
  bool delimiter;
};

/// Appends the pieces of `text` cut into `parts`, which cover it.
void cut(const AlignedText& text, const std::vector<Part>& parts, Delimiters delimiters,
         std::vector<AlignedText>& out) {
  std::vector<Part> merged;
  bool previous = false;
  switch (delimiters) {
    case Delimiters::removed:
      for (const Part& part : parts)
        if (!part.delimiter) merged.push_back(part);
      break;
    case Delimiters::isolated: merged = parts; break;
    case Delimiters::contiguous:
      for (const Part& part : parts) {
        if (part.delimiter == previous && !merged.empty()) merged.back().end = part.end;
        else merged.push_back(part);
        previous = part.delimiter;
      }
      break;
    case Delimiters::merged_with_previous:
      for (const Part& part : parts) {
        if (part.delimiter && !previous && !merged.empty()) merged.back().end = part.end;
        else merged.push_back(part);
        previous = part.delimiter;
      }
      break;
    case Delimiters::merged_with_next:
      for (size_t i = parts.size(); i-- > 0;) {
        if (parts[i].delimiter && !previous && !merged.empty()) merged.back().begin = parts[i].begin;
        else merged.push_back(parts[i]);
        previous = parts[i].delimiter;
      }
      std::reverse(merged.begin(), merged.end());
      break;
  }
  for (const Part& part : merged)
    if (part.begin < part.end) out.push_back(text.slice(part.begin, part.end));
}

/// Parts with each code point that `is_delimiter` accepts on its own.
template <typename IsDelimiter>
std::vector<Part> parts_by(const AlignedText& text, IsDelimiter is_delimiter) {
  std::vector<Part> parts;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!is_delimiter(text.chars[i])) continue;
    if (begin < i) parts.push_back({begin, i, false});
    parts.push_back({i, i + 1, true});
    begin = i + 1;
  }
  if (begin < text.size()) parts.push_back({begin, text.size(), false});
  return parts;
}

class CharacterSplit final : public PreTokenizer {
 public:
  CharacterSplit(uint16_t classes, char32_t character, Delimiters delimiters)
      : classes_(classes), character_(character), delimiters_(delimiters) {}
  void split(std::vector<AlignedText>& pieces) const override {
    const ClassTable& table = class_table();
    std::vector<AlignedText> out;
    for (const AlignedText& piece : pieces)
      cut(piece, parts_by(piece, [&](char32_t c) { return (table[c] & classes_) != 0 || c == character_; }),
          delimiters_, out);
    pieces = std::move(out);
  }

 private:
  uint16_t classes_;
  char32_t character_;  // or one that no text has
  Delimiters delimiters_;
};

constexpr char32_t kNoCharacter = 0xffffffff;

/// \w+|[^\w\s]+
class Whitespace final : public PreTokenizer {
 public:
  void split(std::vector<AlignedText>& pieces) const override {
    const ClassTable& table = class_table();
    auto kind = [&](char32_t c) { return table[c] & kIsWord ? 0 : table[c] & kIsSpace ? 1 : 2; };
    std::vector<AlignedText> out;
    for (const AlignedText& piece : pieces) {
      for (size_t i = 0; i < piece.size();) {
        int wanted = kind(piece.chars[i]);
        size_t end = i + 1;
        while (end < piece.size() && kind(piece.chars[end]) == wanted) ++end;
        if (wanted != 1) out.push_back(piece.slice(i, end));
        i = end;
      }
    }
    pieces = std::move(out);
  }
};

class Metaspace final : public PreTokenizer {
 public:
  enum class Prepend { always, first, never };
  char32_t replacement = 0x2581;
  Prepend prepend = Prepend::always;
  bool cuts = true;

  void split(std::vector<AlignedText>& pieces) const override {
    std::vector<AlignedText> out;
    for (AlignedText& piece : pieces) {
      if (piece.empty()) continue;
      piece.replace_all([&](size_t i) { return piece.chars[i] == U' ' ? i + 1 : i; },
                        std::u32string_view(&replacement, 1));
      bool wanted = prepend == Prepend::always || (prepend == Prepend::first && piece.original.begin == 0);
      if (wanted && piece.chars.front() != replacement) piece.prepend(std::u32string_view(&replacement, 1));
      if (cuts)
        cut(piece, parts_by(piece, [&](char32_t c) { return c == replacement; }), Delimiters::merged_with_next, out);
      else out.push_back(std::move(piece));
    }
    pieces = std::move(out);
  }
};

class PreTokenizerSequence final : public PreTokenizer {
 public:
  std::vector<std::unique_ptr<const PreTokenizer>> parts;
  void split(std::vector<AlignedText>& pieces) const override {
    for (const auto& part : parts) part->split(pieces);
  }
};

Delimiters read_behavior(const nlohmann::json& json, Delimiters fallback, const std::string& where) {
  auto name = json_get_or<std::string>(json, "behavior", "", where);
  if (name.empty()) return fallback;
  if (name == "Removed") return Delimiters::removed;
  if (name == "Isolated") return Delimiters::isolated;
  if (name == "MergedWithPrevious") return Delimiters::merged_with_previous;
  if (name == "MergedWithNext") return Delimiters::merged_with_next;
  if (name == "Contiguous") return Delimiters::contiguous;
  unknown_component("behavior of a pre-tokenizer", name,
                    {"Contiguous", "Isolated", "MergedWithNext", "MergedWithPrevious", "Removed"}, where);
}

std::unique_ptr<const PreTokenizer> make_metaspace(const nlohmann::json& json, const std::string& where) {
  auto metaspace = std::make_unique<Metaspace>();
  std::u32string replacement = to_chars(json_get_or<std::string>(json, "replacement", "\u2581", where));
  if (replacement.size() != 1)
    fail(ErrorCode::corrupt,
         {.what = "cannot read Metaspace",
          .expected = "expected a replacement of one character, got " + std::to_string(replacement.size()),
          .where = "in " + where});
  metaspace->replacement = replacement[0];
  metaspace->cuts = json_get_or<bool>(json, "split", true, where);
  auto scheme = json_get_or<std::string>(json, "prepend_scheme", "", where);
  if (scheme.empty()) scheme = json_get_or<bool>(json, "add_prefix_space", true, where) ? "always" : "never";
  if (scheme == "always") metaspace->prepend = Metaspace::Prepend::always;
  else if (scheme == "first") metaspace->prepend = Metaspace::Prepend::first;
  else if (scheme == "never") metaspace->prepend = Metaspace::Prepend::never;
  else unknown_component("prepend_scheme", scheme, {"always", "first", "never"}, where);
  return metaspace;
}

}  // namespace

void BertPreTokenizer::split(std::vector<AlignedText>& pieces) const {
  const ClassTable& table = class_table();
  std::vector<AlignedText> out;
  for (const AlignedText& piece : pieces) {
    size_t begin = 0;
    auto word_until = [&](size_t end) {
      if (begin < end) out.push_back(piece.slice(begin, end));
      begin = end + 1;
    };
    for (size_t i = 0; i < piece.size(); ++i) {
      uint16_t cls = table[piece.chars[i]];
      if (!(cls & (kIsSpace | kIsPunctuation))) continue;
      word_until(i);
      if (!(cls & kIsSpace)) out.push_back(piece.slice(i, i + 1));
    }
    word_until(piece.size());
  }
  pieces = std::move(out);
}

namespace {

/// Both directions of GPT-2's table of visible code points.
struct ByteChars {
  std::array<char32_t, 256> chars{};
  std::array<int16_t, 0x144> bytes{};
  ByteChars() {
    bytes.fill(-1);
    char32_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
      bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      chars[b] = visible ? b : next++;
      bytes[chars[b]] = static_cast<int16_t>(b);
    }
  }
};
const ByteChars& byte_chars() {
  static const ByteChars table;
  return table;
}

/// The end of the word of GPT-2's pattern at `begin`.
size_t gpt2_word_end(const std::vector<char32_t>& chars, size_t begin) {
  const ClassTable& table = class_table();
  constexpr uint16_t kKinds = kIsSpace | kIsLetter | kIsNumber;
  size_t size = chars.size();
  auto kind = [&](size_t i) { return static_cast<uint16_t>(table[chars[i]] & kKinds); };
  if (chars[begin] == U'\'' && begin + 1 < size) {
    char32_t a = chars[begin + 1], b = begin + 2 < size ? chars[begin + 2] : 0;
    if (a == U's' || a == U't' || a == U'm' || a == U'd') return begin + 2;
    if ((a == U'r' && b == U'e') || (a == U'v' && b == U'e') || (a == U'l' && b == U'l')) return begin + 3;
  }
  size_t first = begin;
  if (chars[begin] == U' ' && begin + 1 < size && kind(begin + 1) != kIsSpace) ++first;
  uint16_t wanted = kind(first);
  size_t end = first + 1;
  while (end < size && kind(end) == wanted) ++end;
  if (wanted == kIsSpace && end < size && end - begin > 1) --end;  // the last space belongs to the next word
  return end;
}

}  // namespace

char32_t byte_char(uint8_t byte) noexcept { return byte_chars().chars[byte]; }
int char_byte(char32_t c) noexcept { return c < 0x144 ? byte_chars().bytes[c] : -1; }

void ByteLevel::split(std::vector<AlignedText>& pieces) const {
  std::vector<AlignedText> out;
  for (AlignedText& piece : pieces) {
    if (piece.empty()) continue;
    if (add_prefix_space && piece.chars.front() != U' ') piece.prepend(U" ");
    if (use_regex) {
      for (size_t begin = 0; begin < piece.size();) {
        size_t end = gpt2_word_end(piece.chars, begin);
        out.push_back(piece.slice(begin, end));
        begin = end;
      }
    } else {
      out.push_back(std::move(piece));
    }
  }
  for (AlignedText& piece : out) {
    std::vector<Edit> edits;
    for (char32_t c : piece.chars) {
      char bytes[4];
      int count = put_char(c, bytes);
      for (int i = 0; i < count; ++i) edits.push_back({byte_char(static_cast<uint8_t>(bytes[i])), i == 0 ? 0 : 1});
    }
    piece.transform(edits, 0);
  }
  pieces = std::move(out);
}

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  std::string type = component_type(json, "pre-tokenizer", where);
  if (type == "BertPreTokenizer") return std::make_unique<BertPreTokenizer>();
  if (type == "ByteLevel") {
    auto made = std::make_unique<ByteLevel>();
    made->add_prefix_space = json_get_or<bool>(json, "add_prefix_space", true, where);
    made->use_regex = json_get_or<bool>(json, "use_regex", true, where);
    return made;
  }
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return std::make_unique<CharacterSplit>(kIsSpace, kNoCharacter, Delimiters::removed);
  if (type == "Punctuation")
    return std::make_unique<CharacterSplit>(kIsPunctuation, kNoCharacter,
                                            read_behavior(json, Delimiters::isolated, where));
  if (type == "Digits")
    return std::make_unique<CharacterSplit>(
        kIsNumeric, kNoCharacter,
        json_get_or<bool>(json, "individual_digits", false, where) ? Delimiters::isolated : Delimiters::contiguous);
  if (type == "CharDelimiterSplit") {
    std::u32string delimiter = to_chars(json_text(json, "delimiter", where));
    if (delimiter.size() != 1)
      fail(ErrorCode::corrupt, {.what = "cannot read CharDelimiterSplit",
                                .expected = "expected a delimiter of one character",
                                .where = "in " + where});
    return std::make_unique<CharacterSplit>(uint16_t{0}, delimiter[0], Delimiters::removed);
  }
  if (type == "Metaspace") return make_metaspace(json, where);
  if (type == "Sequence") {
    auto sequence = std::make_unique<PreTokenizerSequence>();
    for (const auto& part : json_array(json, "pretokenizers", where))
      if (auto made = make_pre_tokenizer(part, where)) sequence->parts.push_back(std::move(made));
    return sequence;
  }
  unknown_component("pre-tokenizer", type,
                    {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation",
                     "Sequence", "Whitespace", "WhitespaceSplit"},
                    where);
}

}  // namespace octet::text
