// Tokens that are found in the raw text before anything else is done with it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/model.h"
#include "text/normalizer.h"

namespace octet::text {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = true;
};

/// A part of a text: an added token, or text between two (token == nullptr).
struct Section {
  size_t begin, end;
  const AddedToken* token;
};

/// Finds the leftmost, and there the longest, of its tokens.
class TokenMatcher {
 public:
  /// Adds a token under the text that it is searched as.
  void add(std::string pattern, const AddedToken* token);
  bool empty() const noexcept { return entries_.empty(); }
  /// Appends sections that cover text[begin, end).
  void find(std::string_view text, size_t begin, size_t end, std::vector<Section>& sections) const;

 private:
  struct Entry {
    std::string pattern;
    const AddedToken* token;
  };
  const Entry* match(std::string_view text, size_t at) const;
  std::vector<Entry> entries_;        // by first byte, then longest first
  std::vector<uint32_t> first_byte_;  // 257 bounds into entries_
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// Reads "added_tokens"; ids follow the model's vocabulary, as in the reference.
  AddedTokens(const nlohmann::json& list, const Model& model, const Normalizer* normalizer, const std::string& where);
  AddedTokens(const AddedTokens&) = delete;
  AddedTokens& operator=(const AddedTokens&) = delete;

  const AddedToken* find(std::string_view content) const noexcept;
  const AddedToken* by_id(int32_t id) const noexcept;
  const std::vector<std::unique_ptr<AddedToken>>& all() const noexcept { return tokens_; }
  const TokenMatcher& raw() const noexcept { return raw_; }
  const TokenMatcher& normalized() const noexcept { return normalized_; }

 private:
  std::vector<std::unique_ptr<AddedToken>> tokens_;
  StringTable index_;
  TokenMatcher raw_, normalized_;
};

}  // namespace octet::text
