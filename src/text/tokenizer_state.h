// What a Tokenizer shares between its copies, and the memory that encoding works in.
#pragma once

#include <octet/tokenizer.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"

namespace octet::text {

/// The tokens of one text before special tokens join them.
struct Tokens {
  std::vector<int32_t> ids;
  std::vector<TextSpan> spans;
  /// Added tokens that took spaces of the text along (lstrip, rstrip): which one, and how many on each side.
  struct Padded {
    size_t index;
    uint16_t leading, trailing;
  };
  std::vector<Padded> padded;
  size_t limit = SIZE_MAX;  ///< enough tokens: the rest would be truncated anyway

  void clear() {
    ids.clear();
    spans.clear();
    padded.clear();
  }
  bool full() const noexcept { return ids.size() >= limit; }
  void push(int32_t id, TextSpan span) {
    ids.push_back(id);
    spans.push_back(span);
  }
};

/// Buffers of one encoding at a time, used again by the next.
struct Workspace {
  Tokens tokens[2];
  std::vector<Piece> pieces;
  std::vector<Section> sections, parts;
  std::string bytes;                ///< the word or segment in hand, as UTF-8
  std::vector<TextSpan> spans;      ///< place of each byte of `bytes`
  std::vector<int32_t> char_index;  ///< code point of each byte of a text
  std::unique_ptr<ModelScratch> scratch;
};

/// Leading and trailing spaces of a token's text, as the byte-level post-processor counts them.
std::pair<uint16_t, uint16_t> count_spaces(std::string_view token);

/// Turns a token list into text; null when the tokenizer has none.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::vector<std::string> apply(std::vector<std::string> tokens) const = 0;
};
/// Throws unsupported for a decoder that octet does not know.
std::unique_ptr<const Decoder> make_decoder(const nlohmann::json& json, const std::string& where);

/// The tokenizer.json that a folder's vocabulary and configuration files amount to (see Tokenizer::load).
nlohmann::json read_tokenizer_folder(const std::filesystem::path& folder, std::string& where);

}  // namespace octet::text

namespace octet {

struct Tokenizer::State {
  std::unique_ptr<const text::Model> model;
  std::unique_ptr<const text::Normalizer> normalizer;
  std::unique_ptr<const text::PreTokenizer> pre_tokenizer;
  std::unique_ptr<const text::AddedTokens> added;
  text::PostProcessor post;
  std::string json;          ///< minified, without truncation and padding, and without what `packed` holds
  std::string packed;        ///< the vocabulary, or empty
  std::string decoder_json;  ///< made into a decoder when one is asked for
  std::vector<std::pair<uint16_t, uint16_t>>
      spaces;  ///< leading and trailing spaces of each token, if a post-processor trims
  std::optional<int32_t> pad, unk, cls, sep, mask;
  int64_t vocabulary_size = 0;
  int32_t max_id = -1;

  /// The fast paths; null where the tokenizer is not of their kind.
  const text::BertNormalizer* bert = nullptr;
  const text::WordPiece* wordpiece = nullptr;
  const text::ByteLevel* byte_level = nullptr;
  const text::Bpe* bpe = nullptr;
  /// For the BERT path: what becomes of each ASCII byte (kind in the high byte, character in the low one).
  uint16_t ascii[256] = {};

  /// Tokens of `source` (valid UTF-8), without special tokens.
  void tokenize(std::string_view source, text::Workspace& work, text::Tokens& out) const;
  std::unique_ptr<text::Workspace> take_workspace() const;
  void return_workspace(std::unique_ptr<text::Workspace> workspace) const;
  void prepare();

 private:
  bool bert_section(std::string_view source, size_t begin, size_t end, int32_t first, text::Workspace& work,
                    text::Tokens& out) const;
  void byte_section(std::string_view source, size_t begin, size_t end, int32_t first, bool ascii_text,
                    text::Workspace& work, text::Tokens& out) const;
  void generic_section(std::string_view section, int32_t first, text::Workspace& work, text::Tokens& out) const;
  void words_of(text::AlignedText text, text::Workspace& work, text::Tokens& out) const;

  void push_added(const text::AddedToken& token, std::string_view section, TextSpan span, text::Tokens& out) const;

  mutable std::mutex workspaces_mutex_;
  mutable std::vector<std::unique_ptr<text::Workspace>> workspaces_;
};

}  // namespace octet
