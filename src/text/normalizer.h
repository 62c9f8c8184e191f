// Normalizers: rewrites of the whole text before it is cut into words.
#pragma once

#include <memory>
#include <string>

#include "core/json.h"
#include "text/aligned_text.h"

namespace octet::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(AlignedText& text) const = 0;
};

/// BERT's cleaning. Open to the tokenizer's fast path, which does the same in one pass over the bytes.
class BertNormalizer final : public Normalizer {
 public:
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
  void apply(AlignedText& text) const override;
};

/// The normalizer that tokenizer.json describes; null for null. Throws unsupported (all known ones named), corrupt.
std::unique_ptr<const Normalizer> make_normalizer(const nlohmann::json& json, const std::string& where);

/// The charsmap normalizer of SentencePiece; `json` is the component.
std::unique_ptr<const Normalizer> make_precompiled(const nlohmann::json& json, const std::string& where);

}  // namespace octet::text
