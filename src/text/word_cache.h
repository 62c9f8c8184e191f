// Words that a model has cut before, with their tokens.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "text/model.h"

namespace octet::text {

/// Emptied when it is full: simpler than eviction, and a full one holds 12,000 words.
class WordCache {
 public:
  static constexpr size_t kLongestWord = 64;

  /// The tokens of a word seen before; an empty span for a new one.
  std::span<const Piece> find(std::string_view word) noexcept {
    hash_ = StringTable::hash(word);
    for (slot_ = hash_ % kSlots; entries_[slot_].value_size != 0; slot_ = (slot_ + 1) % kSlots) {
      const Entry& entry = entries_[slot_];
      if (entry.hash == hash_ && entry.key_size == word.size() &&
          std::memcmp(keys_.data() + entry.key, word.data(), word.size()) == 0)
        return {values_.data() + entry.value, entry.value_size};
    }
    return {};
  }

  /// Keeps the word that `find` just missed.
  void insert(std::string_view word, std::span<const Piece> pieces) {
    if (pieces.empty()) return;
    if (count_ >= kFull) {
      std::fill(entries_.begin(), entries_.end(), Entry{});
      keys_.clear();
      values_.clear();
      count_ = 0;
      slot_ = hash_ % kSlots;
    }
    entries_[slot_] = {hash_, static_cast<uint32_t>(keys_.size()), static_cast<uint32_t>(word.size()),
                       static_cast<uint32_t>(values_.size()), static_cast<uint32_t>(pieces.size())};
    keys_ += word;
    values_.insert(values_.end(), pieces.begin(), pieces.end());
    ++count_;
  }

 private:
  struct Entry {
    uint64_t hash = 0;
    uint32_t key = 0, key_size = 0, value = 0, value_size = 0;
  };
  static constexpr size_t kSlots = 16384, kFull = 12288;
  std::vector<Entry> entries_ = std::vector<Entry>(kSlots);
  std::string keys_;
  std::vector<Piece> values_;
  size_t count_ = 0;
  uint64_t hash_ = 0;
  size_t slot_ = 0;
};

}  // namespace octet::text
