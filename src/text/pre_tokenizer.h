// Pre-tokenizers: cut the normalized text into words, which the model then cuts into tokens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "text/aligned_text.h"

namespace octet::text {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Replaces the pieces by smaller ones; empty ones may remain.
  virtual void split(std::vector<AlignedText>& pieces) const = 0;
};

class BertPreTokenizer final : public PreTokenizer {
 public:
  void split(std::vector<AlignedText>& pieces) const override;
};

/// GPT-2's: words by its pattern, then a visible code point for each byte. Open to the fast path.
class ByteLevel final : public PreTokenizer {
 public:
  bool add_prefix_space = true;
  bool use_regex = true;
  void split(std::vector<AlignedText>& pieces) const override;
};

/// The code point that stands for a byte in byte-level vocabularies, and back (-1: none).
char32_t byte_char(uint8_t byte) noexcept;
int char_byte(char32_t c) noexcept;

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const nlohmann::json& json, const std::string& where);

}  // namespace octet::text
