// The vocabulary of a model, and the choice of the model.
#include "text/model.h"

#include "core/error.h"

namespace octet::text {

StringTable::StringTable(size_t count) {
  size_t slots = 16;
  while (slots < count * 2) slots *= 2;
  slots_.resize(slots);
  mask_ = slots - 1;
}

void StringTable::grow() {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(old.size() * 2, Slot{});
  mask_ = slots_.size() - 1;
  for (const Slot& s : old) {
    if (s.id < 0) continue;
    size_t slot = hash({bytes_.data() + s.begin, s.size}) & mask_;
    while (slots_[slot].id >= 0) slot = (slot + 1) & mask_;
    slots_[slot] = s;
  }
}

void StringTable::insert(std::string_view text, int32_t id) {
  if ((count_ + 1) * 2 > slots_.size()) grow();
  uint64_t h = hash(text);
  size_t slot = h & mask_;
  for (; slots_[slot].id >= 0; slot = (slot + 1) & mask_) {
    Slot& s = slots_[slot];
    if (s.size == text.size() && std::memcmp(bytes_.data() + s.begin, text.data(), text.size()) == 0) {
      s.id = id;
      return;
    }
  }
  slots_[slot] = {static_cast<uint32_t>(h >> 32), static_cast<uint32_t>(bytes_.size()),
                  static_cast<uint32_t>(text.size()), id};
  bytes_.append(text);
  longest_ = std::max(longest_, text.size());
  ++count_;
}

void Model::add_token(std::string_view token, int32_t id) {
  vocabulary_.insert(token, id);
  if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[static_cast<size_t>(id)] = token;
}

void Model::read_vocabulary(const nlohmann::json& vocabulary, const PackedVocabulary* packed,
                            const std::string& where) {
  if (packed != nullptr) {
    vocabulary_ = StringTable(packed->tokens());
    vocabulary_.reserve_bytes(packed->text_bytes());
    auto limit = static_cast<int64_t>(packed->tokens()) * 16 + 1000000;
    tokens_.reserve(packed->tokens());
    for (size_t t = 0; t < packed->tokens(); ++t) {
      if (packed->id(t) < 0 || packed->id(t) > limit)
        fail(ErrorCode::corrupt, {.what = "cannot read the tokenizer's packed vocabulary",
                                  .expected = "expected an id from 0 to " + std::to_string(limit) + ", got " +
                                              std::to_string(packed->id(t)),
                                  .where = "in " + where});
      add_token(packed->text(t), packed->id(t));
    }
    return;
  }
  if (!vocabulary.is_object())
    fail(ErrorCode::corrupt,
         {.what = "cannot read the tokenizer's vocabulary",
          .expected = "expected an object of tokens and ids, got " + std::string(vocabulary.type_name()),
          .where = "in " + where});
  vocabulary_ = StringTable(vocabulary.size());
  // An id far beyond the number of tokens would make the table of names huge.
  auto limit = static_cast<int64_t>(vocabulary.size()) * 16 + 1000000;
  for (const auto& [token, value] : vocabulary.items()) {
    int64_t id = value.is_number_integer() ? value.get<int64_t>() : -1;
    if (id < 0 || id > limit)
      fail(ErrorCode::corrupt,
           {.what = "cannot read the tokenizer's vocabulary",
            .expected = "expected an id from 0 to " + std::to_string(limit) + ", got " +
                        value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 40),
            .where = "in " + where + ", token \"" + token + "\""});
    add_token(token, static_cast<int32_t>(id));
  }
}

std::unique_ptr<const Model> make_model(const nlohmann::json& model, const PackedVocabulary* packed,
                                        const std::string& where) {
  if (!model.is_object())
    fail(ErrorCode::corrupt, {.what = "cannot read the tokenizer's model",
                              .expected = "expected an object, got " + std::string(model.type_name()),
                              .where = "in " + where});
  std::string type = json_get_or<std::string>(model, "type", "", where);
  if (type.empty()) {  // files of old versions say it by their keys
    if (model.contains("merges")) type = "BPE";
    else if (model.contains("max_input_chars_per_word")) type = "WordPiece";
    else if (model.contains("vocab") && model["vocab"].is_array()) type = "Unigram";
  }
  if (type == "WordPiece") return make_wordpiece(model, packed, where);
  if (type == "BPE") return make_bpe(model, packed, where);
  if (type == "Unigram") return make_unigram(model, where);
  fail(ErrorCode::unsupported, {.what = "unknown tokenizer model \"" + type + "\"",
                                .expected = "known models: BPE, Unigram, WordPiece",
                                .where = "in " + where});
}

}  // namespace octet::text
