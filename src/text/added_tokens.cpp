// Searching added tokens.
#include "text/added_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

uint16_t class_before(std::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (text[at] & 0xc0) == 0x80) --at;
  return class_table()[next_char(text, at)];
}

uint16_t class_after(std::string_view text, size_t at) { return class_table()[next_char(text, at)]; }

}  // namespace

void TokenMatcher::add(std::string pattern, const AddedToken* token) {
  if (pattern.empty()) return;
  entries_.push_back({std::move(pattern), token});
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    auto x = static_cast<unsigned char>(a.pattern[0]), y = static_cast<unsigned char>(b.pattern[0]);
    return x != y ? x < y : a.pattern.size() > b.pattern.size();
  });
  first_byte_.assign(257, 0);
  for (const Entry& entry : entries_) ++first_byte_[static_cast<unsigned char>(entry.pattern[0]) + 1u];
  for (size_t i = 1; i < 257; ++i) first_byte_[i] += first_byte_[i - 1];
}

const TokenMatcher::Entry* TokenMatcher::match(std::string_view text, size_t at) const {
  auto byte = static_cast<unsigned char>(text[at]);
  for (uint32_t i = first_byte_[byte]; i < first_byte_[byte + 1u]; ++i)
    if (text.substr(at).starts_with(entries_[i].pattern)) return &entries_[i];
  return nullptr;
}

void TokenMatcher::find(std::string_view whole, size_t from, size_t to, std::vector<Section>& sections) const {
  if (from >= to) return;
  std::string_view text = whole.substr(0, to);
  size_t covered = from;
  // One first byte for all tokens ("[" or "<") is the common case, and memchr the fastest way to it.
  bool one_byte = !entries_.empty() && entries_.front().pattern[0] == entries_.back().pattern[0];
  for (size_t at = from; at < to && !entries_.empty();) {
    if (one_byte) {
      size_t next = text.find(entries_.front().pattern[0], at);
      if (next == std::string_view::npos) break;
      at = next;
    }
    const Entry* entry = match(text, at);
    if (!entry) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + entry->pattern.size();
    at = end;
    const AddedToken& token = *entry->token;
    if (token.single_word &&
        ((begin > from && class_before(text, begin) & kIsWord) || (end < to && class_after(text, end) & kIsWord)))
      continue;
    if (token.lstrip) {
      while (begin > covered && class_before(text, begin) & kIsSpace) {
        --begin;
        while (begin > covered && (text[begin] & 0xc0) == 0x80) --begin;
      }
    }
    if (token.rstrip)
      while (end < to && class_after(text, end) & kIsSpace) next_char(text, end);
    begin = std::max(begin, covered);
    if (covered < begin) sections.push_back({covered, begin, nullptr});
    if (begin < end) sections.push_back({begin, end, &token});
    covered = std::max(covered, end);
  }
  if (covered < to) sections.push_back({covered, to, nullptr});
}

AddedTokens::AddedTokens(const nlohmann::json& list, const Model& model, const Normalizer* normalizer,
                         const std::string& where) {
  if (list.is_null()) return;
  if (!list.is_array())
    fail(ErrorCode::corrupt, {.what = "cannot read \"added_tokens\"",
                              .expected = std::string("expected an array, got ") + list.type_name(),
                              .where = "in " + where});
  auto next_id = static_cast<int32_t>(model.vocabulary_size());
  for (const auto& json : list) {
    AddedToken token;
    token.content = json_get<std::string>(json, "content", where);
    token.special = json_get_or<bool>(json, "special", false, where);
    token.single_word = json_get_or<bool>(json, "single_word", false, where);
    token.lstrip = json_get_or<bool>(json, "lstrip", false, where);
    token.rstrip = json_get_or<bool>(json, "rstrip", false, where);
    token.normalized = json_get_or<bool>(json, "normalized", !token.special, where);
    if (token.content.empty()) continue;
    if (int32_t known = index_.find(token.content); known >= 0) {
      token.id = tokens_[static_cast<size_t>(known)]->id;
      *tokens_[static_cast<size_t>(known)] = std::move(token);
      continue;
    }
    token.id = model.find(token.content);
    if (token.id < 0) token.id = next_id;
    next_id = std::max(next_id, token.id + 1);
    index_.insert(token.content, static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(std::make_unique<AddedToken>(std::move(token)));
  }
  // Special tokens are searched first among equal patterns.
  for (bool special : {true, false}) {
    for (const auto& token : tokens_) {
      if (token->special != special) continue;
      if (!token->normalized) {
        raw_.add(token->content, token.get());
        continue;
      }
      std::string pattern = token->content;
      if (normalizer) {
        AlignedText text(token->content, 0);
        normalizer->apply(text);
        pattern.clear();
        for (char32_t c : text.chars) append_char(c, pattern);
      }
      normalized_.add(std::move(pattern), token.get());
    }
  }
}

const AddedToken* AddedTokens::find(std::string_view content) const noexcept {
  int32_t at = index_.find(content);
  return at < 0 ? nullptr : tokens_[static_cast<size_t>(at)].get();
}

const AddedToken* AddedTokens::by_id(int32_t id) const noexcept {
  for (const auto& token : tokens_)
    if (token->id == id) return token.get();
  return nullptr;
}

}  // namespace octet::text
