// Decoders: from the vocabulary's spelling of tokens back to text.
#include "core/error.h"
#include "text/component.h"
#include "text/tokenizer_state.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  if (from.empty()) return text;
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

class WordPieceDecoder final : public Decoder {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0) {
        if (!prefix_.empty() && token.starts_with(prefix_)) token.erase(0, prefix_.size());
        else token.insert(0, " ");
      }
      if (!cleanup_) continue;
      // The space before punctuation and contractions, in the reference's order.
      static constexpr const char* kClean[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                                  {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                                  {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
      for (const auto& rule : kClean) token = replace_all(std::move(token), rule[0], rule[1]);
    }
    return tokens;
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

/// Bytes as UTF-8, with U+FFFD for each maximal part that is not.
std::string repair_utf8(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    size_t bad = invalid_utf8(bytes);
    text += bytes.substr(0, bad);
    if (bad == std::string_view::npos) break;
    text += "\xef\xbf\xbd";
    // A sequence that begins well counts as one error, up to where it goes wrong.
    size_t length = 1;
    for (size_t tail = 1; tail < 4 && bad + tail < bytes.size(); ++tail) {
      std::string probe(bytes.substr(bad, tail + 1));
      auto lead = static_cast<unsigned char>(probe[0]);
      if ((probe.back() & 0xc0) != 0x80) break;
      size_t wanted = lead >= 0xf0 && lead < 0xf5   ? 4
                      : lead >= 0xe0 && lead < 0xf0 ? 3
                      : lead >= 0xc2 && lead < 0xe0 ? 2
                                                    : 1;
      if (tail + 1 >= wanted) break;
      std::string filled = probe + std::string(wanted - tail - 1, '\x80');
      if (invalid_utf8(filled) != std::string_view::npos) break;
      length = tail + 1;
    }
    bytes.remove_prefix(bad + length);
  }
  return text;
}

class ByteLevelDecoder final : public Decoder {
 public:
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      std::string own;
      bool all = true;
      for (char32_t c : to_chars(token)) {
        int byte = char_byte(c);
        all = all && byte >= 0;
        own.push_back(static_cast<char>(byte));
      }
      bytes += all ? own : token;
    }
    return {repair_utf8(bytes)};
  }
};

class MetaspaceDecoder final : public Decoder {
 public:
  MetaspaceDecoder(char32_t replacement, bool prefixed) : replacement_(replacement), prefixed_(prefixed) {}
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string text;
      for (char32_t c : to_chars(tokens[i])) {
        if (c != replacement_) append_char(c, text);
        else if (i > 0 || !prefixed_) text += ' ';
      }
      tokens[i] = std::move(text);
    }
    return tokens;
  }

 private:
  char32_t replacement_;
  bool prefixed_;
};

class BpeDecoder final : public Decoder {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = replace_all(std::move(tokens[i]), suffix_, i + 1 == tokens.size() ? "" : " ");
    return tokens;
  }

 private:
  std::string suffix_;
};

class FuseDecoder final : public Decoder {
 public:
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    std::string text;
    for (const std::string& token : tokens) text += token;
    return {text};
  }
};

class ReplaceDecoder final : public Decoder {
 public:
  ReplaceDecoder(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    for (std::string& token : tokens) token = replace_all(std::move(token), pattern_, content_);
    return tokens;
  }

 private:
  std::string pattern_, content_;
};

class DecoderSequence final : public Decoder {
 public:
  std::vector<std::unique_ptr<const Decoder>> parts;
  std::vector<std::string> apply(std::vector<std::string> tokens) const override {
    for (const auto& part : parts) tokens = part->apply(std::move(tokens));
    return tokens;
  }
};

}  // namespace

std::unique_ptr<const Decoder> make_decoder(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  std::string type = component_type(json, "decoder", where);
  if (type == "WordPiece")
    return std::make_unique<WordPieceDecoder>(json_get_or<std::string>(json, "prefix", "##", where),
                                              json_get_or<bool>(json, "cleanup", true, where));
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "BPEDecoder")
    return std::make_unique<BpeDecoder>(json_get_or<std::string>(json, "suffix", "</w>", where));
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Metaspace") {
    std::u32string replacement = to_chars(json_get_or<std::string>(json, "replacement", "\u2581", where));
    auto scheme = json_get_or<std::string>(
        json, "prepend_scheme", json_get_or<bool>(json, "add_prefix_space", true, where) ? "always" : "never", where);
    return std::make_unique<MetaspaceDecoder>(replacement.empty() ? 0x2581 : replacement[0], scheme != "never");
  }
  if (type == "Replace" && json.contains("pattern") && json["pattern"].is_object() &&
      json["pattern"].contains("String"))
    return std::make_unique<ReplaceDecoder>(json_text(json["pattern"], "String", where),
                                            json_text(json, "content", where));
  if (type == "Sequence") {
    auto sequence = std::make_unique<DecoderSequence>();
    for (const auto& part : json_array(json, "decoders", where))
      if (auto made = make_decoder(part, where)) sequence->parts.push_back(std::move(made));
    return sequence;
  }
  unknown_component("decoder", type,
                    {"BPEDecoder", "ByteLevel", "Fuse", "Metaspace", "Replace with a string", "Sequence", "WordPiece"},
                    where);
}

}  // namespace octet::text
