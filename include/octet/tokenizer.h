// Text to token ids and back, equal to Hugging Face `tokenizers` id for id and offset for offset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

/// Which of a text and its pair loses tokens, always from its end, when both are longer than `max_length` together.
enum class Truncation {
  longest_first,  ///< the longer of the two, then both alike
  only_first,     ///< the text; an error if that is not enough
  only_second,    ///< the pair; an error if there is none or if that is not enough
};

/// How to encode. Truncation and padding that a tokenizer.json asks for are ignored: batches here are ragged, and the
/// length belongs to the model.
struct EncodeOptions {
  bool add_special_tokens = true;
  /// The most tokens of the result, special ones included; 0 means no limit.
  int64_t max_length = 0;
  Truncation truncation = Truncation::longest_first;
  /// Whether to fill Encoding::offsets.
  bool offsets = true;
};

/// Part of a text: [begin, end) in Unicode code points, as Python counts.
struct TextSpan {
  int32_t begin = 0;
  int32_t end = 0;
  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

/// The tokens of one text or pair; all vectors have one entry a token.
struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;
  /// Where the token comes from in its own text (see `sequence_ids`); {0, 0} for special tokens. Empty without
  /// EncodeOptions::offsets.
  std::vector<TextSpan> offsets;
  /// 0 for tokens of the text, 1 for those of the pair, -1 for special tokens that encoding added.
  std::vector<int8_t> sequence_ids;

  int64_t size() const noexcept { return static_cast<int64_t>(ids.size()); }
  /// 1 for special tokens that encoding added, else 0.
  std::vector<int32_t> special_tokens_mask() const;
  /// All ones: nothing is ever padded.
  std::vector<int32_t> attention_mask() const;
};

/// [begin, end) in bytes of the UTF-8 `text` for a span in code points.
TextSpan byte_span(std::string_view text, TextSpan span) noexcept;

/// A tokenizer: immutable, cheap to copy (copies share everything), usable from many threads at once.
class Tokenizer {
 public:
  /// Loads from a Hugging Face folder: tokenizer.json if it is there, else vocab.txt (WordPiece), else vocab.json with
  /// merges.txt (byte-level BPE); the latter two follow tokenizer_config.json, special_tokens_map.json and
  /// added_tokens.json.
  /// Throws not_found (no such files), corrupt (with the file), unsupported (a component octet does not know, with the
  /// known ones).
  static Tokenizer load(const std::filesystem::path& folder);
  /// Reads the text of a tokenizer.json; `where` names it in errors. Throws as load does.
  static Tokenizer from_json(std::string_view json, const std::string& where = "tokenizer.json");

  /// A tokenizer.json without truncation and padding that from_json turns into an equal tokenizer, wherever this one
  /// came from.
  std::string to_json() const;

  /// The same in a form that loads in a few milliseconds: JSON without the vocabulary, and the vocabulary (with a BPE
  /// model's merges) as a block of bytes, which is empty where the model has none of a packed kind.
  struct Packed {
    std::string json;
    std::string vocabulary;
  };
  Packed pack() const;
  /// Reads what `pack` gave. Throws as from_json.
  static Tokenizer from_packed(std::string_view json, std::span<const std::byte> vocabulary,
                               const std::string& where = "packed tokenizer");

  /// Encodes a text, or a text and its pair, as the tokenizer's post-processor joins them. Text is UTF-8 of any length
  /// and may be empty. Throws invalid_argument: not UTF-8 (with the byte), a max_length below the number of special
  /// tokens, a truncation that cannot reach it.
  Encoding encode(std::string_view text, std::optional<std::string_view> pair = std::nullopt,
                  const EncodeOptions& options = {}) const;
  /// The same into `result`, whose memory is used again.
  void encode_into(std::string_view text, std::optional<std::string_view> pair, const EncodeOptions& options,
                   Encoding& result) const;
  /// Encodes many, on `threads` threads (0: one per CPU). `pairs` is empty or as long as `texts`. Throws as encode,
  /// naming the row.
  std::vector<Encoding> encode_batch(std::span<const std::string_view> texts,
                                     std::span<const std::string_view> pairs = {}, const EncodeOptions& options = {},
                                     int threads = 1) const;

  /// The text of tokens, through the tokenizer's decoder; unknown ids are skipped.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  /// Number of tokens, added ones included. Ids may have gaps: the largest id is max_id().
  int64_t vocab_size() const noexcept;
  int32_t max_id() const noexcept;
  std::optional<int32_t> id_of(std::string_view token) const;
  /// The token as the vocabulary writes it ("##ing", "Ġthe"); empty for an unknown id.
  std::string token_of(int32_t id) const;
  /// Ids of tokens by role, where the tokenizer has them under a usual name ([PAD], <pad>, ...) or its configuration
  /// names them.
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> unk_id() const;
  std::optional<int32_t> cls_id() const;
  std::optional<int32_t> sep_id() const;
  std::optional<int32_t> mask_id() const;
  /// Special tokens that encoding adds to one text, or to a pair.
  int64_t special_tokens_added(bool pair) const noexcept;
  /// "WordPiece", "BPE" or "Unigram".
  std::string_view model_name() const noexcept;

  struct State;  ///< opaque

 private:
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace octet
