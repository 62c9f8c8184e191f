// WordPiece: from the left, the longest piece that the vocabulary has; a word with a part that has none becomes the
// unknown token.
#include "core/error.h"
#include "text/model.h"

namespace octet::text {

WordPiece::WordPiece(const nlohmann::json& model, const PackedVocabulary* packed, const std::string& where) {
  auto vocabulary = model.find("vocab");
  if (vocabulary == model.end()) fail(ErrorCode::corrupt, {.what = "missing key \"vocab\"", .where = "in " + where});
  read_vocabulary(*vocabulary, packed, where);
  unknown_ = json_get_or<std::string>(model, "unk_token", "[UNK]", where);
  max_chars_ = json_get_or<int64_t>(model, "max_input_chars_per_word", 100, where);
  auto prefix = json_get_or<std::string>(model, "continuing_subword_prefix", "##", where);
  unknown_id_ = find(*unknown_);
  if (unknown_id_ < 0)
    fail(ErrorCode::corrupt,
         {.what = "the tokenizer's vocabulary lacks its unknown token",
          .expected = "expected \"" + *unknown_ + "\" among " + std::to_string(vocabulary_size()) + " tokens",
          .where = "in " + where});
  continuations_ = StringTable(tokens_.size());
  for (size_t id = 0; id < tokens_.size(); ++id)
    if (tokens_[id].size() > prefix.size() && tokens_[id].starts_with(prefix))
      continuations_.insert(std::string_view(tokens_[id]).substr(prefix.size()), find(tokens_[id]));
}

void WordPiece::tokenize(std::string_view word, std::vector<Piece>& pieces, ModelScratch*) const {
  auto size = static_cast<uint32_t>(word.size());
  if (size <= static_cast<uint64_t>(max_chars_)) {  // never more code points than bytes
    if (int32_t id = vocabulary_.find(word); id >= 0) {
      pieces.push_back({id, 0, size});
      return;
    }
  } else {
    int64_t chars = 0;
    for (char c : word) chars += (c & 0xc0) != 0x80;
    if (chars > max_chars_) {
      pieces.push_back({unknown_id_, 0, size});
      return;
    }
  }
  size_t before = pieces.size();
  const StringTable* table = &vocabulary_;
  for (uint32_t begin = 0; begin < size;) {
    uint32_t end = std::min(size, begin + static_cast<uint32_t>(table->longest()));
    int32_t id = -1;
    for (; end > begin; --end) {
      if (end < size && (word[end] & 0xc0) == 0x80) continue;  // inside a code point
      if (id = table->find(word.substr(begin, end - begin)); id >= 0) break;
    }
    if (id < 0) {
      pieces.resize(before);
      pieces.push_back({unknown_id_, 0, size});
      return;
    }
    pieces.push_back({id, begin, end});
    begin = end;
    table = &continuations_;
  }
}

std::unique_ptr<const Model> make_wordpiece(const nlohmann::json& model, const PackedVocabulary* packed,
                                            const std::string& where) {
  return std::make_unique<WordPiece>(model, packed, where);
}

}  // namespace octet::text
