// From text to tokens: one pass over the bytes for the pipelines of BERT and RoBERTa, and the general way, component by
// component.
#include <algorithm>

#include "text/tokenizer_state.h"
#include "text/unicode.h"

namespace octet {
namespace {

using text::class_table;
using text::Piece;
using text::Tokens;
using text::Workspace;

/// What the BERT path does with a byte.
enum Kind : uint16_t { kWord = 0, kSpace = 1, kPunct = 2, kDrop = 3, kWide = 4 };

int32_t count_chars(std::string_view text) {
  int32_t count = 0;
  for (char c : text) count += (c & 0xc0) != 0x80;
  return count;
}

}  // namespace

std::pair<uint16_t, uint16_t> text::count_spaces(std::string_view token) {
  std::u32string chars = to_chars(token);
  auto is_space = [](char32_t c) { return c == 0x120 || (class_table()[c] & kIsSpace) != 0; };
  size_t leading = 0, trailing = 0;
  while (leading < chars.size() && is_space(chars[leading])) ++leading;
  while (trailing < chars.size() && is_space(chars[chars.size() - 1 - trailing])) ++trailing;
  return {static_cast<uint16_t>(std::min<size_t>(leading, 65535)),
          static_cast<uint16_t>(std::min<size_t>(trailing, 65535))};
}

void Tokenizer::State::prepare() {
  bert = dynamic_cast<const text::BertNormalizer*>(normalizer.get());
  wordpiece = dynamic_cast<const text::WordPiece*>(model.get());
  if ((normalizer && !bert) || !wordpiece || !dynamic_cast<const text::BertPreTokenizer*>(pre_tokenizer.get()))
    bert = nullptr, wordpiece = nullptr;
  byte_level = dynamic_cast<const text::ByteLevel*>(pre_tokenizer.get());
  bpe = dynamic_cast<const text::Bpe*>(model.get());
  if (normalizer || !byte_level || !byte_level->use_regex || !bpe || !bpe->plain_bytes())
    byte_level = nullptr, bpe = nullptr;
  for (unsigned b = 0; b < 256; ++b) {
    uint16_t cls = b < 128 ? class_table()[b] : 0;
    bool clean = bert && bert->clean_text, low = bert && bert->lowercase;
    uint16_t kind = b >= 128                          ? kWide
                    : clean && cls & text::kIsControl ? kDrop
                    : cls & text::kIsSpace            ? kSpace
                    : cls & text::kIsPunctuation      ? kPunct
                                                      : kWord;
    ascii[b] = static_cast<uint16_t>(kind << 8 | (low && b < 128 ? text::lower(b) : b));
  }
}

std::unique_ptr<Workspace> Tokenizer::State::take_workspace() const {
  {
    std::lock_guard lock(workspaces_mutex_);
    if (!workspaces_.empty()) {
      auto taken = std::move(workspaces_.back());
      workspaces_.pop_back();
      return taken;
    }
  }
  auto fresh = std::make_unique<Workspace>();
  fresh->scratch = model->make_scratch();
  return fresh;
}

void Tokenizer::State::return_workspace(std::unique_ptr<Workspace> workspace) const {
  std::lock_guard lock(workspaces_mutex_);
  workspaces_.push_back(std::move(workspace));
}

void Tokenizer::State::push_added(const text::AddedToken& token, std::string_view section, TextSpan span,
                                  Tokens& out) const {
  if (section.size() != token.content.size() && !post.trims.empty()) {
    auto [leading, trailing] = text::count_spaces(section);
    out.padded.push_back({out.ids.size(), leading, trailing});
  }
  out.push(token.id, span);
}

void Tokenizer::State::tokenize(std::string_view source, Workspace& work, Tokens& out) const {
  out.clear();
  if (source.empty() || out.full()) return;
  bool ascii_text = text::is_ascii(source);
  // Added tokens are searched in the raw text, or in the normalized one: without a normalizer these are the same text.
  work.sections.clear();
  added->raw().find(source, 0, source.size(), work.sections);
  if (!normalizer && !added->normalized().empty()) {
    work.parts.clear();
    for (const text::Section& section : work.sections) {
      if (section.token) work.parts.push_back(section);
      else added->normalized().find(source, section.begin, section.end, work.parts);
    }
    work.sections.swap(work.parts);
  }
  bool needs_generic = normalizer && !added->normalized().empty();
  size_t at = 0;
  int32_t chars = 0;
  for (const text::Section& section : work.sections) {
    if (out.full()) return;
    chars += ascii_text ? static_cast<int32_t>(section.begin - at) : count_chars(source.substr(at, section.begin - at));
    at = section.begin;
    std::string_view part = source.substr(section.begin, section.end - section.begin);
    if (section.token) push_added(*section.token, part, {chars, chars + count_chars(part)}, out);
    else if (bpe && !needs_generic) byte_section(source, section.begin, section.end, chars, ascii_text, work, out);
    else if (!wordpiece || needs_generic || !bert_section(source, section.begin, section.end, chars, work, out))
      generic_section(part, chars, work, out);
  }
}

/// Cleaning, splitting and lower case in one pass. False (and nothing added) where that cannot equal the general way:
/// marks that strip_accents keeps can change places with others.
bool Tokenizer::State::bert_section(std::string_view source, size_t begin, size_t end, int32_t first, Workspace& work,
                                    Tokens& out) const {
  const text::ClassTable& table = class_table();
  const bool clean = bert && bert->clean_text, chinese = bert && bert->handle_chinese_chars,
             strip = bert && bert->strip_accents, low = bert && bert->lowercase;
  const size_t before = out.ids.size();
  std::string& word = work.bytes;
  std::vector<TextSpan>& spans = work.spans;
  if (word.size() < end - begin + 64) word.resize(end - begin + 64);
  size_t size = 0;      // bytes of the word in hand
  bool plain = true;    // its bytes are neighbours in the source, one code point each
  int32_t word_at = 0;  // where a plain word begins

  auto flush = [&] {
    if (size == 0) return;
    work.pieces.clear();
    wordpiece->tokenize({word.data(), size}, work.pieces, nullptr);
    for (const Piece& piece : work.pieces) {
      if (plain)
        out.push(piece.id, {word_at + static_cast<int32_t>(piece.begin), word_at + static_cast<int32_t>(piece.end)});
      else out.push(piece.id, {spans[piece.begin].begin, spans[piece.end - 1].end});
    }
    size = 0;
    plain = true;
  };
  // From here on the bytes of the word need a place each.
  auto leave_plain = [&] {
    if (!plain) return;
    spans.clear();
    for (size_t i = 0; i < size; ++i)
      spans.push_back({word_at + static_cast<int32_t>(i), word_at + static_cast<int32_t>(i) + 1});
    plain = false;
  };
  // Adds a code point that does not simply follow the ones before it.
  auto append = [&](char32_t c, TextSpan span) {
    leave_plain();
    if (word.size() < size + 8) word.resize(word.size() * 2);
    int bytes = text::put_char(c, word.data() + size);
    size += static_cast<size_t>(bytes);
    spans.insert(spans.end(), static_cast<size_t>(bytes), span);
  };
  // A code point after cleaning.
  auto place = [&](char32_t c, TextSpan span) {
    uint16_t cls = table[c];
    if (cls & text::kIsSpace) {
      flush();
    } else if (cls & text::kIsPunctuation) {
      flush();
      append(c, span);
      flush();
    } else {
      append(c, span);
    }
  };
  auto place_lower = [&](char32_t c, TextSpan span) {
    if (!low) return place(c, span);
    place(text::lower(c), span);
    if (char32_t tail = text::lower_tail(c)) place(tail, span);
  };

  int32_t at = first;  // code point index of byte i
  for (size_t i = begin; i < end;) {
    if (out.full()) return true;
    uint16_t action = ascii[static_cast<unsigned char>(source[i])];
    switch (action >> 8) {
      case kWord: {
        if (!plain) {
          append(static_cast<char32_t>(action & 0xff), {at, at + 1});
          ++i;
          ++at;
          break;
        }
        if (size == 0) word_at = at;
        char* to = word.data() + size;
        size_t start = i;
        do {
          *to++ = static_cast<char>(action);
          ++i;
        } while (i < end && (action = ascii[static_cast<unsigned char>(source[i])]) < 0x100);
        size += i - start;
        at += static_cast<int32_t>(i - start);
        break;
      }
      case kSpace:
        flush();
        ++i;
        ++at;
        break;
      case kPunct:
        flush();
        word[0] = source[i];
        size = 1;
        word_at = at;
        flush();
        ++i;
        ++at;
        break;
      case kDrop:
        if (size > 0) leave_plain();  // what follows is no longer a neighbour
        ++i;
        ++at;
        break;
      default: {
        char32_t c = text::next_char(source, i);
        TextSpan span{at, at + 1};
        ++at;
        uint16_t cls = table[c];
        if (size > 0) leave_plain();
        if (clean && cls & text::kIsControl) break;
        if (clean && cls & text::kIsSpace) {
          flush();
          break;
        }
        bool isolated = chinese && cls & text::kIsChinese;
        if (isolated) flush();
        if (strip && cls & (text::kIsNormalized | text::kIsNonSpacing)) {
          char32_t parts[18];
          int count = text::decompose(c, false, parts);
          for (int k = 0; k < count; ++k) {
            if (table[parts[k]] & text::kIsNonSpacing) continue;
            if (text::combining_class(parts[k]) != 0) {
              out.ids.resize(before);
              out.spans.resize(before);
              return false;
            }
            place_lower(parts[k], span);
          }
        } else {
          place_lower(c, span);
        }
        if (isolated) flush();
      }
    }
  }
  flush();
  return true;
}

/// GPT-2's pattern on bytes; the model sees bytes, not the code points that stand for them in the vocabulary.
void Tokenizer::State::byte_section(std::string_view source, size_t begin, size_t end, int32_t first, bool ascii_text,
                                    Workspace& work, Tokens& out) const {
  if (begin == end) return;
  const text::ClassTable& table = class_table();
  std::string_view section = source.substr(begin, end - begin);
  bool prefix = byte_level->add_prefix_space && section[0] != ' ';
  if (prefix) {
    work.bytes.assign(1, ' ');
    work.bytes += section;
    section = work.bytes;
  }
  const bool indexed = prefix || !ascii_text;
  if (indexed) {
    work.char_index.clear();
    int32_t at = first - 1;
    for (size_t i = 0; i < section.size(); ++i) {
      // The prefix is inserted, so it shares the place of what follows it.
      if ((section[i] & 0xc0) != 0x80 && !(prefix && i == 1)) ++at;
      work.char_index.push_back(at);
    }
  }
  constexpr uint16_t kKinds = text::kIsSpace | text::kIsLetter | text::kIsNumber;
  const size_t size = section.size();
  size_t after = 0;  // end of the code point that kind_at has seen
  auto kind_at = [&](size_t i) -> uint16_t {
    auto byte = static_cast<unsigned char>(section[i]);
    if (byte < 128) {
      after = i + 1;
      return table.classes[table.block[0]][byte] & kKinds;
    }
    after = i;
    return table[text::next_char(section, after)] & kKinds;
  };
  for (size_t i = 0; i < size && !out.full();) {
    size_t word_end = 0;
    if (section[i] == '\'' && i + 1 < size) {
      char a = section[i + 1], b = i + 2 < size ? section[i + 2] : '\0';
      if (a == 's' || a == 't' || a == 'm' || a == 'd') word_end = i + 2;
      else if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) word_end = i + 3;
    }
    if (word_end == 0) {
      uint16_t wanted = kind_at(i);
      size_t spaces = 1, last = i;  // of a run of spaces
      size_t next = after;
      if (section[i] == ' ' && next < size) {
        uint16_t second = kind_at(next);
        if (second != text::kIsSpace) {
          wanted = second;
          next = after;
        }
      }
      while (next < size && kind_at(next) == wanted) {
        last = next;
        next = after;
        ++spaces;
      }
      // The last of several spaces belongs to the next word.
      word_end = wanted == text::kIsSpace && next < size && spaces > 1 ? last : next;
    }
    work.pieces.clear();
    bpe->tokenize_bytes(section.substr(i, word_end - i), work.pieces, work.scratch.get());
    for (const Piece& piece : work.pieces) {
      size_t from = i + piece.begin, to = i + piece.end;
      if (indexed) out.push(piece.id, {work.char_index[from], work.char_index[to - 1] + 1});
      else out.push(piece.id, {first + static_cast<int32_t>(from), first + static_cast<int32_t>(to)});
    }
    i = word_end;
  }
}

void Tokenizer::State::generic_section(std::string_view section, int32_t first, Workspace& work, Tokens& out) const {
  if (section.empty()) return;
  text::AlignedText aligned(section, first);
  if (!normalizer) return words_of(std::move(aligned), work, out);
  normalizer->apply(aligned);
  if (added->normalized().empty()) return words_of(std::move(aligned), work, out);
  std::string bytes;
  std::vector<size_t> char_of;  // code point of each byte, and of the end
  for (size_t i = 0; i < aligned.size(); ++i) {
    size_t before = bytes.size();
    text::append_char(aligned.chars[i], bytes);
    char_of.insert(char_of.end(), bytes.size() - before, i);
  }
  char_of.push_back(aligned.size());
  std::vector<text::Section> sections;
  added->normalized().find(bytes, 0, bytes.size(), sections);
  for (const text::Section& part : sections) {
    text::AlignedText piece = aligned.slice(char_of[part.begin], char_of[part.end]);
    if (part.token)
      push_added(*part.token, std::string_view(bytes).substr(part.begin, part.end - part.begin), piece.original, out);
    else words_of(std::move(piece), work, out);
  }
}

void Tokenizer::State::words_of(text::AlignedText aligned, Workspace& work, Tokens& out) const {
  std::vector<text::AlignedText> pieces;
  pieces.push_back(std::move(aligned));
  if (pre_tokenizer) pre_tokenizer->split(pieces);
  for (const text::AlignedText& piece : pieces) {
    if (piece.empty()) continue;
    if (out.full()) return;
    work.bytes.clear();
    work.spans.clear();
    for (size_t i = 0; i < piece.size(); ++i) {
      size_t before = work.bytes.size();
      text::append_char(piece.chars[i], work.bytes);
      work.spans.insert(work.spans.end(), work.bytes.size() - before, piece.spans[i]);
    }
    work.pieces.clear();
    model->tokenize(work.bytes, work.pieces, work.scratch.get());
    for (const Piece& token : work.pieces)
      if (token.begin < token.end && token.end <= work.spans.size())
        out.push(token.id, {work.spans[token.begin].begin, work.spans[token.end - 1].end});
  }
}

}  // namespace octet
