// Byte-pair encoding, with a cache of words: a text repeats its words, and merging one costs more than finding it.
#include <algorithm>
#include <cstdio>
#include <queue>

#include "core/error.h"
#include "text/component.h"
#include "text/model.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"
#include "text/word_cache.h"

namespace octet::text {

struct Bpe::Scratch final : ModelScratch {
  WordCache cache;
  std::vector<Symbol> symbols;
  std::vector<const Merge*> merges;
};

std::unique_ptr<ModelScratch> Bpe::make_scratch() const { return std::make_unique<Scratch>(); }

Bpe::Bpe(const nlohmann::json& model, const PackedVocabulary* packed, const std::string& where) {
  auto text_or_empty = [&](const char* key) { return json_get_or<std::string>(model, key, "", where); };
  auto vocabulary = model.find("vocab");
  if (vocabulary == model.end()) fail(ErrorCode::corrupt, {.what = "missing key \"vocab\"", .where = "in " + where});
  read_vocabulary(*vocabulary, packed, where);
  prefix_ = text_or_empty("continuing_subword_prefix");
  suffix_ = text_or_empty("end_of_word_suffix");
  fuse_unknown_ = json_get_or<bool>(model, "fuse_unk", false, where);
  byte_fallback_ = json_get_or<bool>(model, "byte_fallback", false, where);
  ignore_merges_ = json_get_or<bool>(model, "ignore_merges", false, where);
  if (json_get_or<double>(model, "dropout", 0.0, where) != 0.0)
    fail(ErrorCode::unsupported, {.what = "cannot use a BPE tokenizer with dropout",
                                  .expected = "expected no dropout: it draws tokens at random",
                                  .where = "in " + where,
                                  .hint = "set \"dropout\" to null"});
  if (auto unknown = text_or_empty("unk_token"); !unknown.empty()) {
    unknown_ = unknown;
    unknown_id_ = find(unknown);
    if (unknown_id_ < 0)
      fail(ErrorCode::corrupt,
           {.what = "the tokenizer's vocabulary lacks its unknown token",
            .expected = "expected \"" + unknown + "\" among " + std::to_string(vocabulary_size()) + " tokens",
            .where = "in " + where});
  }
  if (packed != nullptr) read_merges(*packed, where);
  else read_merges(json_array(model, "merges", where), where);

  for (unsigned b = 0; b < 256; ++b) {
    std::string visible;
    append_char(byte_char(static_cast<uint8_t>(b)), visible);
    byte_ids_[b] = find(visible);
  }
  // With an id for every byte the unknown token and the fallback can never come up.
  bool all_bytes = std::all_of(byte_ids_, byte_ids_ + 256, [](int32_t id) { return id >= 0; });
  plain_bytes_ = prefix_.empty() && suffix_.empty() && (all_bytes || (!byte_fallback_ && !unknown_));
}

void Bpe::reserve_merges(size_t count) {
  size_t slots = 16;
  while (slots < count * 2) slots *= 2;
  merges_.resize(slots);
  merge_mask_ = slots - 1;
}

void Bpe::read_merges(const PackedVocabulary& packed, const std::string& where) {
  reserve_merges(packed.merges().size());
  auto known = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < tokens_.size(); };
  int32_t rank = 0;
  for (const auto& [left, right, joined] : packed.merges()) {
    if (!known(left) || !known(right) || !known(joined))
      fail(ErrorCode::corrupt, {.what = "cannot read merge " + std::to_string(rank + 1) + " of the tokenizer",
                                .expected = "expected ids below " + std::to_string(tokens_.size()),
                                .where = "in " + where});
    add_merge(left, right, rank++, joined);
  }
}

void Bpe::read_merges(const nlohmann::json& merges, const std::string& where) {
  reserve_merges(merges.size());
  int32_t rank = 0;
  for (const auto& merge : merges) {
    std::string left, right;
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    if (left.empty() || right.empty())
      fail(ErrorCode::corrupt,
           {.what = "cannot read merge " + std::to_string(rank + 1) + " of the tokenizer",
            .expected = "expected two tokens, got " +
                        merge.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80),
            .where = "in " + where});
    std::string_view tail = right;
    if (!prefix_.empty() && tail.starts_with(prefix_)) tail.remove_prefix(prefix_.size());
    std::string joined = left + std::string(tail);
    int32_t ids[3] = {find(left), find(right), find(joined)};
    for (int i = 0; i < 3; ++i)
      if (ids[i] < 0)
        fail(ErrorCode::corrupt, {.what = "cannot read merge " + std::to_string(rank + 1) + " of the tokenizer",
                                  .expected = "expected \"" +
                                              (i == 0   ? left
                                               : i == 1 ? right
                                                        : joined) +
                                              "\" in the vocabulary",
                                  .where = "in " + where});
    add_merge(ids[0], ids[1], rank++, ids[2]);
  }
}

namespace {
uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}
uint64_t pair_hash(uint64_t pair) {
  uint64_t h = pair * 0x9e3779b97f4a7c15u;
  return h ^ h >> 32;
}
}  // namespace

void Bpe::add_merge(int32_t left, int32_t right, int32_t rank, int32_t id) {
  uint64_t pair = pair_of(left, right);
  size_t slot = pair_hash(pair) & merge_mask_;
  while (merges_[slot].pair != ~uint64_t{0} && merges_[slot].pair != pair) slot = (slot + 1) & merge_mask_;
  merges_[slot] = {pair, rank, id};
}

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const noexcept {
  uint64_t pair = pair_of(left, right);
  for (size_t slot = pair_hash(pair) & merge_mask_;; slot = (slot + 1) & merge_mask_) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == ~uint64_t{0}) return nullptr;
  }
}

void Bpe::symbols_of(std::string_view word, std::vector<Symbol>& symbols) const {
  std::optional<Symbol> pending;  // the unknown token, which may grow when unknown ones are fused
  auto flush = [&] {
    if (pending) symbols.push_back(*pending);
    pending.reset();
  };
  std::string token;
  for (size_t i = 0; i < word.size();) {
    size_t begin = i;
    next_char(word, i);
    auto size = static_cast<uint32_t>(i - begin);
    token.clear();
    if (begin > 0) token += prefix_;
    token += word.substr(begin, size);
    if (i == word.size()) token += suffix_;
    if (int32_t id = find(token); id >= 0) {
      flush();
      symbols.push_back({id, size});
      continue;
    }
    if (byte_fallback_) {
      std::vector<Symbol> bytes;
      for (char c : token) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned char>(c));
        if (int32_t id = find(name); id >= 0) bytes.push_back({id, 1});
      }
      if (bytes.size() == token.size()) {
        symbols.insert(symbols.end(), bytes.begin(), bytes.end());
        continue;
      }
    }
    if (!unknown_) continue;
    if (pending && fuse_unknown_) {
      pending->size += size;
    } else {
      flush();
      pending = Symbol{unknown_id_, size};
    }
  }
  flush();
}

void Bpe::merge_short(std::vector<Symbol>& symbols, std::vector<const Merge*>& merges) const {
  size_t count = symbols.size();
  if (count < 2) return;
  merges.resize(count - 1);
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find_merge(symbols[i].id, symbols[i + 1].id);
  for (;;) {
    size_t best = count;
    int32_t rank = INT32_MAX;
    for (size_t i = 0; i + 1 < count; ++i) {
      if (merges[i] && merges[i]->rank < rank) {
        rank = merges[i]->rank;
        best = i;
      }
    }
    if (best == count) break;
    symbols[best].id = merges[best]->id;
    symbols[best].size += symbols[best + 1].size;
    std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<std::ptrdiff_t>(count),
              symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(merges.begin() + static_cast<std::ptrdiff_t>(best) + 1,
              merges.begin() + static_cast<std::ptrdiff_t>(count) - 1,
              merges.begin() + static_cast<std::ptrdiff_t>(best));
    --count;
    if (best > 0) merges[best - 1] = find_merge(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < count) merges[best] = find_merge(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(count);
}

void Bpe::merge_long(std::vector<Symbol>& symbols) const {
  // The same order by a heap, for words where the search above would be quadratic.
  struct Candidate {
    int32_t rank;
    uint32_t at;
    int32_t left, right, id;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  auto count = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> previous(count), next(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  auto push = [&](uint32_t at, uint32_t after) {
    if (const Merge* merge = find_merge(symbols[at].id, symbols[after].id))
      queue.push({merge->rank, at, symbols[at].id, symbols[after].id, merge->id});
  };
  for (uint32_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? UINT32_MAX : i - 1;
    next[i] = i + 1;
    if (i + 1 < count) push(i, i + 1);
  }
  while (!queue.empty()) {
    Candidate top = queue.top();
    queue.pop();
    uint32_t at = top.at, after = next[at];
    if (symbols[at].size == 0 || after >= count || symbols[at].id != top.left || symbols[after].id != top.right)
      continue;
    symbols[at].id = top.id;
    symbols[at].size += symbols[after].size;
    symbols[after].size = 0;
    next[at] = next[after];
    if (next[at] < count) {
      previous[next[at]] = at;
      push(at, next[at]);
    }
    if (previous[at] != UINT32_MAX) push(previous[at], at);
  }
  std::erase_if(symbols, [](const Symbol& s) { return s.size == 0; });
}

template <typename Symbols>
void Bpe::tokenize_cached(std::string_view word, std::vector<Piece>& pieces, Scratch& scratch, Symbols fill) const {
  bool cacheable = word.size() <= WordCache::kLongestWord;
  if (cacheable) {
    if (auto known = scratch.cache.find(word); !known.empty()) {
      pieces.insert(pieces.end(), known.begin(), known.end());
      return;
    }
  }
  scratch.symbols.clear();
  fill(scratch.symbols);
  if (scratch.symbols.size() <= 48) merge_short(scratch.symbols, scratch.merges);
  else merge_long(scratch.symbols);
  size_t before = pieces.size();
  uint32_t at = 0;
  for (const Symbol& s : scratch.symbols) {
    pieces.push_back({s.id, at, at + s.size});
    at += s.size;
  }
  if (cacheable) scratch.cache.insert(word, std::span(pieces).subspan(before));
}

void Bpe::tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const {
  if (ignore_merges_) {
    if (int32_t id = find(word); id >= 0) {
      pieces.push_back({id, 0, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  tokenize_cached(word, pieces, *static_cast<Scratch*>(scratch),
                  [&](std::vector<Symbol>& symbols) { symbols_of(word, symbols); });
}

void Bpe::tokenize_bytes(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const {
  if (ignore_merges_) {
    std::string visible;
    for (char c : word) append_char(byte_char(static_cast<uint8_t>(c)), visible);
    if (int32_t id = find(visible); id >= 0) {
      pieces.push_back({id, 0, static_cast<uint32_t>(word.size())});
      return;
    }
  }
  tokenize_cached(word, pieces, *static_cast<Scratch*>(scratch), [&](std::vector<Symbol>& symbols) {
    for (char c : word)
      if (int32_t id = byte_ids_[static_cast<unsigned char>(c)]; id >= 0) symbols.push_back({id, 1});
  });
}

std::unique_ptr<const Model> make_bpe(const nlohmann::json& model, const PackedVocabulary* packed,
                                      const std::string& where) {
  return std::make_unique<Bpe>(model, packed, where);
}

}  // namespace octet::text
