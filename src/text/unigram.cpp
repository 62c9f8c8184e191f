// Unigram: of all ways to cut a word into pieces, the one whose scores add up to the most.
#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "text/component.h"
#include "text/model.h"
#include "text/unicode.h"
#include "text/word_cache.h"

namespace octet::text {
namespace {

class Unigram final : public Model {
 public:
  Unigram(const nlohmann::json& model, const std::string& where);
  std::string_view name() const noexcept override { return "Unigram"; }
  void tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const override;
  std::unique_ptr<ModelScratch> make_scratch() const override { return std::make_unique<Scratch>(); }

 private:
  struct Node {
    double score = 0;
    int64_t begin = -1;  // of the best piece that ends here
    int32_t id = 0;
  };
  struct Scratch final : ModelScratch {
    WordCache cache;
    std::vector<Node> nodes;
  };
  /// Calls use(length, id) for each piece that `text` begins with, shortest first.
  template <typename Use>
  void prefixes(std::string_view text, Use use) const;
  void search(std::string_view word, std::vector<Piece>& pieces, std::vector<Node>& nodes) const;
  void push(std::string_view word, uint32_t begin, uint32_t end, std::vector<Piece>& pieces) const;

  std::vector<double> scores_;
  std::vector<int32_t> sorted_;       // ids by text: prefixes are ranges of it
  std::vector<uint32_t> first_byte_;  // 257 bounds into sorted_
  double unknown_score_ = 0;
  int32_t unknown_id_ = -1;
  bool byte_fallback_ = false;
};

Unigram::Unigram(const nlohmann::json& model, const std::string& where) {
  const auto& list = json_array(model, "vocab", where);
  vocabulary_ = StringTable(list.size());
  tokens_.reserve(list.size());
  double lowest = 0;
  for (const auto& entry : list) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
      fail(ErrorCode::corrupt,
           {.what = "cannot read the tokenizer's vocabulary",
            .expected = "expected [piece, score], got " +
                        entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80),
            .where = "in " + where + ", piece " + std::to_string(tokens_.size())});
    scores_.push_back(entry[1].get<double>());
    lowest = tokens_.empty() ? scores_.back() : std::min(lowest, scores_.back());
    add_token(entry[0].get_ref<const std::string&>(), static_cast<int32_t>(tokens_.size()));
  }
  byte_fallback_ = json_get_or<bool>(model, "byte_fallback", false, where);
  auto unknown = json_get_or<int64_t>(model, "unk_id", -1, where);
  if (unknown >= static_cast<int64_t>(tokens_.size()) || unknown < 0)
    fail(ErrorCode::corrupt, {.what = "the tokenizer's vocabulary lacks its unknown piece",
                              .expected = "expected unk_id from 0 to " + std::to_string(tokens_.size()) + ", got " +
                                          std::to_string(unknown),
                              .where = "in " + where});
  unknown_id_ = static_cast<int32_t>(unknown);
  unknown_ = tokens_[static_cast<size_t>(unknown)];
  constexpr double kUnknownPenalty = 10.0;
  unknown_score_ = lowest - kUnknownPenalty;
  for (size_t id = 0; id < tokens_.size(); ++id)
    if (!tokens_[id].empty() && find(tokens_[id]) == static_cast<int32_t>(id))
      sorted_.push_back(static_cast<int32_t>(id));
  std::sort(sorted_.begin(), sorted_.end(),
            [&](int32_t a, int32_t b) { return tokens_[static_cast<size_t>(a)] < tokens_[static_cast<size_t>(b)]; });
  first_byte_.assign(257, 0);
  for (int32_t id : sorted_) ++first_byte_[static_cast<unsigned char>(tokens_[static_cast<size_t>(id)][0]) + 1u];
  std::partial_sum(first_byte_.begin(), first_byte_.end(), first_byte_.begin());
}

template <typename Use>
void Unigram::prefixes(std::string_view text, Use use) const {
  auto byte = static_cast<unsigned char>(text[0]);
  auto low = sorted_.begin() + first_byte_[byte], high = sorted_.begin() + first_byte_[byte + 1u];
  for (size_t length = 1; low != high; ++length) {
    // All of [low, high) begin with text[0, length); the shortest of them comes first.
    const std::string& shortest = tokens_[static_cast<size_t>(*low)];
    if (shortest.size() == length) {
      use(length, *low);
      if (++low == high) return;
    }
    if (length == text.size()) return;
    auto at = [&](int32_t id) { return static_cast<unsigned char>(tokens_[static_cast<size_t>(id)][length]); };
    auto wanted = static_cast<unsigned char>(text[length]);
    low = std::lower_bound(low, high, wanted, [&](int32_t id, unsigned char value) { return at(id) < value; });
    high = std::upper_bound(low, high, wanted, [&](unsigned char value, int32_t id) { return value < at(id); });
  }
}

void Unigram::push(std::string_view word, uint32_t begin, uint32_t end, std::vector<Piece>& pieces) const {
  std::string_view text = word.substr(begin, end - begin);
  if (int32_t id = find(text); id >= 0) {
    pieces.push_back({id, begin, end});
    return;
  }
  if (byte_fallback_) {
    size_t before = pieces.size();
    for (char c : text) {
      char byte_name[8];
      std::snprintf(byte_name, sizeof byte_name, "<0x%02X>", static_cast<unsigned char>(c));
      if (int32_t id = find(byte_name); id >= 0) pieces.push_back({id, begin, end});
    }
    if (pieces.size() == before + text.size()) return;
    pieces.resize(before);
  }
  pieces.push_back({unknown_id_, begin, end});
}

void Unigram::search(std::string_view word, std::vector<Piece>& pieces, std::vector<Node>& nodes) const {
  size_t size = word.size();
  nodes.assign(size + 1, Node{});
  for (size_t begin = 0; begin < size;) {
    size_t next = begin;
    next_char(word, next);
    double here = nodes[begin].score;
    auto offer = [&](size_t end, double score, int32_t id) {
      Node& node = nodes[end];
      if (node.begin < 0 || score > node.score) node = {score, static_cast<int64_t>(begin), id};
    };
    bool single = false;
    prefixes(word.substr(begin), [&](size_t length, int32_t id) {
      offer(begin + length, scores_[static_cast<size_t>(id)] + here, id);
      single = single || begin + length == next;
    });
    if (!single) offer(next, unknown_score_ + here, unknown_id_);
    begin = next;
  }
  // Backwards; neighbouring unknown pieces become one.
  std::vector<std::pair<uint32_t, uint32_t>> cuts;
  bool fusing = false;
  for (size_t end = size; end > 0;) {
    const Node& node = nodes[end];
    auto begin = static_cast<uint32_t>(node.begin);
    bool unknown = node.id == unknown_id_;
    if (unknown && fusing) cuts.back().first = begin;
    else cuts.emplace_back(begin, static_cast<uint32_t>(end));
    fusing = unknown;
    end = begin;
  }
  for (size_t i = cuts.size(); i-- > 0;) push(word, cuts[i].first, cuts[i].second, pieces);
}

void Unigram::tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch* scratch) const {
  auto& own = *static_cast<Scratch*>(scratch);
  bool cacheable = word.size() <= WordCache::kLongestWord;
  if (cacheable) {
    if (auto known = own.cache.find(word); !known.empty()) {
      pieces.insert(pieces.end(), known.begin(), known.end());
      return;
    }
  }
  size_t before = pieces.size();
  search(word, pieces, own.nodes);
  if (cacheable) own.cache.insert(word, std::span(pieces).subspan(before));
}

}  // namespace

std::unique_ptr<const Model> make_unigram(const nlohmann::json& model, const std::string& where) {
  return std::make_unique<Unigram>(model, where);
}

}  // namespace octet::text
