// Packing the vocabulary of WordPiece and BPE models.
#include "text/packed_vocabulary.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "core/error.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

constexpr uint32_t kMagic = 0x31564f31;

struct Header {
  uint32_t magic, tokens, merges, text_bytes;
};

template <typename T>
void append(std::string& out, const std::vector<T>& values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// The two halves of a merge as a tokenizer.json writes it; false if it is not one.
bool halves(const nlohmann::json& merge, std::string_view* left, std::string_view* right) {
  if (merge.is_string()) {
    std::string_view text = merge.get_ref<const std::string&>();
    size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) return false;
    *left = text.substr(0, space);
    *right = text.substr(space + 1);
    return true;
  }
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) return false;
  *left = merge[0].get_ref<const std::string&>();
  *right = merge[1].get_ref<const std::string&>();
  return true;
}

}  // namespace

PackedVocabulary::PackedVocabulary(std::span<const std::byte> bytes, const std::string& where) {
  auto require = [&](bool good, const char* expected) {
    if (!good)
      fail(ErrorCode::corrupt, {.what = "cannot read the packed vocabulary of the tokenizer",
                                .expected = expected,
                                .where = "in " + where,
                                .hint = "compile the model again"});
  };
  Header header{};
  require(bytes.size() >= sizeof header, "expected a header");
  std::memcpy(&header, bytes.data(), sizeof header);
  require(header.magic == kMagic, "expected its magic number");
  uint64_t arrays = uint64_t{header.tokens} * 8 + uint64_t{header.merges} * 12;
  require(bytes.size() - sizeof header == arrays + header.text_bytes, "expected the size that its header states");
  const std::byte* from = bytes.data() + sizeof header;
  auto read = [&](auto& values, size_t count) {
    values.resize(count);
    if (count > 0) std::memcpy(values.data(), from, count * sizeof values[0]);
    from += count * sizeof values[0];
  };
  read(ids_, header.tokens);
  read(ends_, header.tokens);
  read(merges_, header.merges);
  text_ = {reinterpret_cast<const char*>(from), header.text_bytes};
  require(std::is_sorted(ends_.begin(), ends_.end()) && (ends_.empty() ? 0 : ends_.back()) == header.text_bytes,
          "expected texts one behind the other");
  require(invalid_utf8(text_) == std::string_view::npos, "expected texts in UTF-8");
  for (uint32_t end : ends_)
    require(end == header.text_bytes || (text_[end] & 0xc0) != 0x80, "expected texts that end between code points");
}

std::string PackedVocabulary::take(nlohmann::json& model) {
  auto vocabulary = model.find("vocab");
  if (vocabulary == model.end() || !vocabulary->is_object()) return {};
  std::vector<std::pair<int32_t, std::string_view>> tokens;
  std::unordered_map<std::string_view, int32_t> known;
  for (const auto& item : vocabulary->items()) {
    if (!item.value().is_number_integer()) return {};
    tokens.emplace_back(item.value().get<int32_t>(), item.key());
    known.emplace(item.key(), item.value().get<int32_t>());
  }
  std::sort(tokens.begin(), tokens.end());
  std::vector<Merge> merges;
  if (auto list = model.find("merges"); list != model.end() && list->is_array()) {
    auto prefix = model.find("continuing_subword_prefix");
    if (prefix != model.end() && prefix->is_string() && !prefix->get_ref<const std::string&>().empty()) return {};
    for (const auto& merge : *list) {
      std::string_view left, right;
      if (!halves(merge, &left, &right)) return {};
      auto a = known.find(left), b = known.find(right);
      std::string both = std::string(left) + std::string(right);
      auto joined = known.find(both);
      if (a == known.end() || b == known.end() || joined == known.end()) return {};
      merges.push_back({a->second, b->second, joined->second});
    }
    *list = nlohmann::json::array();
  }
  std::vector<int32_t> ids;
  std::vector<uint32_t> ends;
  std::string text;
  for (const auto& [id, token] : tokens) {
    ids.push_back(id);
    text += token;
    ends.push_back(static_cast<uint32_t>(text.size()));
  }
  Header header{kMagic, static_cast<uint32_t>(ids.size()), static_cast<uint32_t>(merges.size()),
                static_cast<uint32_t>(text.size())};
  std::string packed(reinterpret_cast<const char*>(&header), sizeof header);
  append(packed, ids);
  append(packed, ends);
  append(packed, merges);
  packed += text;
  *vocabulary = nlohmann::json::object();
  return packed;
}

void PackedVocabulary::put_back(nlohmann::json& model) const {
  std::unordered_map<int32_t, std::string_view> text_of;
  nlohmann::json& vocabulary = model["vocab"] = nlohmann::json::object();
  for (size_t t = 0; t < tokens(); ++t) {
    vocabulary[std::string(text(t))] = id(t);
    text_of.emplace(id(t), text(t));
  }
  if (merges_.empty()) return;
  nlohmann::json& list = model["merges"] = nlohmann::json::array();
  for (const Merge& merge : merges_)
    list.push_back({std::string(text_of[merge.left]), std::string(text_of[merge.right])});
}

}  // namespace octet::text
