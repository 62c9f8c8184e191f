// The models that cut a word into tokens of a vocabulary.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/packed_vocabulary.h"

namespace octet::text {

/// A fixed hash of strings to ids: open addressing, one probe in most cases, strings in one block.
class StringTable {
 public:
  /// Room for `count` strings; more make it grow.
  explicit StringTable(size_t count = 16);
  /// Adds or replaces.
  void insert(std::string_view text, int32_t id);
  /// The id, or -1.
  int32_t find(std::string_view text) const noexcept {
    uint64_t h = hash(text);
    for (size_t slot = h & mask_;; slot = (slot + 1) & mask_) {
      const Slot& s = slots_[slot];
      if (s.id < 0) return -1;
      if (s.tag == static_cast<uint32_t>(h >> 32) && s.size == text.size() &&
          std::memcmp(bytes_.data() + s.begin, text.data(), text.size()) == 0)
        return s.id;
    }
  }
  size_t size() const noexcept { return count_; }
  void reserve_bytes(size_t bytes) { bytes_.reserve(bytes); }
  size_t longest() const noexcept { return longest_; }

  static uint64_t hash(std::string_view text) noexcept {
    // Two overlapping loads cover up to 16 bytes; longer strings fold in 8 bytes a step.
    const char* p = text.data();
    size_t n = text.size();
    uint64_t a = 0, b = 0;
    if (n >= 8) {
      uint64_t h = n * 0x9e3779b97f4a7c15u;
      while (n > 16) {
        std::memcpy(&a, p, 8);
        h = mix(h ^ a, 0xe7037ed1a0b428dbu);
        p += 8;
        n -= 8;
      }
      std::memcpy(&a, p, 8);
      std::memcpy(&b, p + n - 8, 8);
      return mix(a ^ h, b ^ 0xa0761d6478bd642fu);
    }
    if (n >= 4) {
      uint32_t x, y;
      std::memcpy(&x, p, 4);
      std::memcpy(&y, p + n - 4, 4);
      a = x;
      b = y;
    } else if (n > 0) {
      a = static_cast<unsigned char>(p[0]) | static_cast<uint64_t>(static_cast<unsigned char>(p[n / 2])) << 8;
      b = static_cast<unsigned char>(p[n - 1]);
    }
    return mix(a ^ 0x9e3779b97f4a7c15u ^ n << 40, b ^ 0xa0761d6478bd642fu);
  }

 private:
  struct Slot {
    uint32_t tag = 0, begin = 0, size = 0;
    int32_t id = -1;
  };
  static uint64_t mix(uint64_t a, uint64_t b) noexcept {
    auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  void grow();

  std::vector<Slot> slots_;
  std::string bytes_;
  uint64_t mask_ = 0;
  size_t count_ = 0, longest_ = 0;
};

/// A token inside a word: bytes [begin, end).
struct Piece {
  int32_t id;
  uint32_t begin, end;
};

/// Memory that a model needs while it works, kept between words: one per thread at a time.
struct ModelScratch {
  virtual ~ModelScratch() = default;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual std::string_view name() const noexcept = 0;
  /// Appends the tokens of `word` (valid UTF-8, not empty) to `pieces`.
  virtual void tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const = 0;
  virtual std::unique_ptr<ModelScratch> make_scratch() const { return nullptr; }

  int32_t find(std::string_view token) const noexcept { return vocabulary_.find(token); }
  /// Token texts by id; gaps are empty.
  const std::vector<std::string>& tokens() const noexcept { return tokens_; }
  /// Number of entries, as the reference counts them when it numbers added tokens.
  int64_t vocabulary_size() const noexcept { return static_cast<int64_t>(vocabulary_.size()); }
  const std::optional<std::string>& unknown() const noexcept { return unknown_; }

 protected:
  /// Reads {"token": id}, or what was taken out of it, and checks the ids.
  void read_vocabulary(const nlohmann::json& vocabulary, const PackedVocabulary* packed, const std::string& where);
  void add_token(std::string_view token, int32_t id);

  StringTable vocabulary_;
  std::vector<std::string> tokens_;
  std::optional<std::string> unknown_;
};

/// The model that a tokenizer.json describes; `packed`: what PackedVocabulary::take took out of it, or null. Throws
/// unsupported, corrupt.
std::unique_ptr<const Model> make_model(const nlohmann::json& model, const PackedVocabulary* packed,
                                        const std::string& where);

std::unique_ptr<const Model> make_wordpiece(const nlohmann::json& model, const PackedVocabulary* packed,
                                            const std::string& where);
std::unique_ptr<const Model> make_bpe(const nlohmann::json& model, const PackedVocabulary* packed,
                                      const std::string& where);
std::unique_ptr<const Model> make_unigram(const nlohmann::json& model, const std::string& where);

/// Greedy longest match, the model of BERT. Concrete because the tokenizer's fast path calls it without a word's
/// detour.
class WordPiece final : public Model {
 public:
  WordPiece(const nlohmann::json& model, const PackedVocabulary* packed, const std::string& where);
  std::string_view name() const noexcept override { return "WordPiece"; }
  void tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const override;

 private:
  StringTable continuations_;  // without the prefix
  int64_t max_chars_;
  int32_t unknown_id_;
};

/// Byte-pair encoding: the pair of neighbours with the best rank is merged, the leftmost first, until none is left.
class Bpe final : public Model {
 public:
  Bpe(const nlohmann::json& model, const PackedVocabulary* packed, const std::string& where);
  std::string_view name() const noexcept override { return "BPE"; }
  void tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const override;
  std::unique_ptr<ModelScratch> make_scratch() const override;

  /// Whether tokenize_bytes may be used: the words come from ByteLevel, and nothing but bytes decides on the tokens.
  bool plain_bytes() const noexcept { return plain_bytes_; }
  /// The tokens of a word whose bytes are not yet turned into visible code points.
  void tokenize_bytes(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const;

 private:
  struct Symbol {
    int32_t id;
    uint32_t size;  // bytes
  };
  struct Scratch;
  struct Merge {
    uint64_t pair = ~uint64_t{0};
    int32_t rank = 0, id = 0;
  };
  void read_merges(const nlohmann::json& merges, const std::string& where);
  void reserve_merges(size_t count);
  void read_merges(const PackedVocabulary& packed, const std::string& where);
  const Merge* find_merge(int32_t left, int32_t right) const noexcept;
  void add_merge(int32_t left, int32_t right, int32_t rank, int32_t id);
  void symbols_of(std::string_view word, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols, std::vector<const Merge*>& merges) const;
  void merge_long(std::vector<Symbol>& symbols) const;
  template <typename Symbols>
  void tokenize_cached(std::string_view word, std::vector<Piece>& pieces, Scratch& scratch, Symbols fill) const;

  std::vector<Merge> merges_;
  uint64_t merge_mask_ = 0;
  std::string prefix_, suffix_;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false, plain_bytes_ = false;
  int32_t unknown_id_ = -1;
  int32_t byte_ids_[256];
};

}  // namespace octet::text
