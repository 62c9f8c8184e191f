// A folder's tokenizer files as one tokenizer.json.
#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "text/tokenizer_state.h"
#include "text/unicode.h"

namespace octet::text {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json read_if_there(const fs::path& path) {
  if (!fs::exists(path)) return json::object();
  json read = read_json(path);
  return read.is_object() ? read : json::object();
}

std::string read_utf8(const fs::path& path) {
  std::string content = read_text(path);
  if (size_t bad = invalid_utf8(content); bad != std::string::npos)
    fail(ErrorCode::corrupt, {.what = "cannot read the vocabulary",
                              .expected = "expected UTF-8",
                              .where = "in " + path.string() + ", byte " + std::to_string(bad)});
  return content;
}

std::vector<std::string> lines_of(const std::string& content) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < content.size();) {
    size_t end = std::min(content.find('\n', begin), content.size());
    size_t stop = end;
    while (stop > begin && content[stop - 1] == '\r') --stop;
    lines.push_back(content.substr(begin, stop - begin));
    begin = end + 1;
  }
  return lines;
}

/// A special token's text: "[CLS]" or {"content": "[CLS]", ...}, from tokenizer_config.json or special_tokens_map.json.
std::string special_token(const json& config, const json& map, const char* role, const char* fallback) {
  for (const json* source : {&config, &map}) {
    auto found = source->find(role);
    if (found == source->end()) continue;
    if (found->is_string()) return found->get<std::string>();
    if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
      return (*found)["content"].get<std::string>();
  }
  return fallback;
}

json added_token(const std::string& content, int64_t id, bool lstrip) {
  return {{"id", id},         {"content", content}, {"special", true},    {"single_word", false},
          {"lstrip", lstrip}, {"rstrip", false},    {"normalized", false}};
}

/// Tokens that were added to a vocabulary later: added_tokens.json is {"token": id}.
void append_added_tokens(const fs::path& folder, const json& map, json& added) {
  json file = read_if_there(folder / "added_tokens.json");
  std::vector<std::pair<int64_t, std::string>> tokens;
  for (const auto& [content, id] : file.items())
    if (id.is_number_integer()) tokens.emplace_back(id.get<int64_t>(), content);
  std::sort(tokens.begin(), tokens.end());
  json extra = map.contains("additional_special_tokens") ? map["additional_special_tokens"] : json::array();
  for (const auto& entry : tokens) {  // clang 14 cannot capture structured bindings
    const int64_t id = entry.first;
    const std::string& content = entry.second;
    bool known =
        std::any_of(added.begin(), added.end(), [&](const json& token) { return token["content"] == content; });
    if (known) continue;
    bool special = std::any_of(extra.begin(), extra.end(), [&](const json& token) {
      return token == content || (token.is_object() && token.value("content", json()) == content);
    });
    json token = added_token(content, id, false);
    token["special"] = special;
    token["normalized"] = !special;
    added.push_back(std::move(token));
  }
}

json special_in_template(const std::string& token, int type) {
  return {{"SpecialToken", {{"id", token}, {"type_id", type}}}};
}
json sequence_in_template(const char* id, int type) { return {{"Sequence", {{"id", id}, {"type_id", type}}}}; }

int64_t require(const json& vocabulary, const std::string& token, const std::string& where) {
  auto found = vocabulary.find(token);
  if (found == vocabulary.end() || !found->is_number_integer())
    fail(ErrorCode::corrupt,
         {.what = "the vocabulary lacks a special token",
          .expected = "expected \"" + token + "\" among " + std::to_string(vocabulary.size()) + " tokens",
          .where = "in " + where});
  return found->get<int64_t>();
}

json from_vocab_txt(const fs::path& folder, const json& config, const json& map, const std::string& where) {
  json vocabulary = json::object();
  int64_t id = 0;
  for (const std::string& line : lines_of(read_utf8(folder / "vocab.txt"))) vocabulary[line] = id++;
  // MPNet's vocabulary is BERT's behind RoBERTa's special tokens; two separators stand between the texts of a pair.
  const bool mpnet = json_get_or<std::string>(config, "tokenizer_class", "", where).starts_with("MPNetTokenizer");
  std::string unk = special_token(config, map, "unk_token", "[UNK]"),
              sep = special_token(config, map, "sep_token", mpnet ? "</s>" : "[SEP]"),
              pad = special_token(config, map, "pad_token", mpnet ? "<pad>" : "[PAD]"),
              cls = special_token(config, map, "cls_token", mpnet ? "<s>" : "[CLS]"),
              mask = special_token(config, map, "mask_token", mpnet ? "<mask>" : "[MASK]");
  int64_t cls_id = require(vocabulary, cls, where), sep_id = require(vocabulary, sep, where);
  json added = json::array();
  for (const std::string& token : {pad, unk, cls, sep, mask})
    if (vocabulary.contains(token))
      added.push_back(added_token(token, vocabulary[token].get<int64_t>(), mpnet && token == mask));
  append_added_tokens(folder, map, added);
  bool lowercase = json_get_or<bool>(config, "do_lower_case", true, where);
  json strip = config.contains("strip_accents") ? config["strip_accents"] : json();
  json pair = json::array({special_in_template(cls, 0), sequence_in_template("A", 0), special_in_template(sep, 0)});
  if (mpnet) pair.push_back(special_in_template(sep, 0));
  pair.push_back(sequence_in_template("B", mpnet ? 0 : 1));
  pair.push_back(special_in_template(sep, mpnet ? 0 : 1));
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", json_get_or<bool>(config, "tokenize_chinese_chars", true, where)},
            {"strip_accents", strip},
            {"lowercase", lowercase}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             json::array({special_in_template(cls, 0), sequence_in_template("A", 0), special_in_template(sep, 0)})},
            {"pair", std::move(pair)},
            {"special_tokens",
             {{cls, {{"id", cls}, {"ids", {cls_id}}, {"tokens", {cls}}}},
              {sep, {{"id", sep}, {"ids", {sep_id}}, {"tokens", {sep}}}}}}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", unk},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", std::move(vocabulary)}}}};
}

json from_vocab_json(const fs::path& folder, const json& config, const json& map, const std::string& where) {
  json vocabulary = read_json(folder / "vocab.json");
  json merges = json::array();
  for (std::string& line : lines_of(read_utf8(folder / "merges.txt")))
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(std::move(line));
  std::string bos = special_token(config, map, "bos_token", "<s>"),
              eos = special_token(config, map, "eos_token", "</s>"),
              unk = special_token(config, map, "unk_token", "<unk>"),
              sep = special_token(config, map, "sep_token", "</s>"),
              pad = special_token(config, map, "pad_token", "<pad>"),
              cls = special_token(config, map, "cls_token", "<s>"),
              mask = special_token(config, map, "mask_token", "<mask>");
  int64_t cls_id = require(vocabulary, cls, where), sep_id = require(vocabulary, sep, where);
  json added = json::array();
  std::vector<std::string> seen;
  for (const std::string& token : {bos, pad, eos, unk, sep, cls, mask}) {
    if (!vocabulary.contains(token) || !vocabulary[token].is_number_integer() ||
        std::find(seen.begin(), seen.end(), token) != seen.end())
      continue;
    seen.push_back(token);
    added.push_back(added_token(token, vocabulary[token].get<int64_t>(), token == mask));
  }
  append_added_tokens(folder, map, added);
  bool prefix = json_get_or<bool>(config, "add_prefix_space", false, where);
  return {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", true}}},
      {"post_processor",
       {{"type", "RobertaProcessing"},
        {"sep", json::array({sep, sep_id})},
        {"cls", json::array({cls, cls_id})},
        {"trim_offsets", true},
        {"add_prefix_space", prefix}}},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", ""},
        {"end_of_word_suffix", ""},
        {"fuse_unk", false},
        {"vocab", std::move(vocabulary)},
        {"merges", std::move(merges)}}}};
}

}  // namespace

json read_tokenizer_folder(const fs::path& folder, std::string& where) {
  if (!fs::exists(folder))
    fail(ErrorCode::not_found,
         {.what = "cannot load a tokenizer", .expected = "no such folder", .where = "in " + folder.string()});
  json config = read_if_there(folder / "tokenizer_config.json"),
       map = read_if_there(folder / "special_tokens_map.json");
  json result;
  if (fs::exists(folder / "tokenizer.json")) {
    where = (folder / "tokenizer.json").string();
    result = read_json(folder / "tokenizer.json");
  } else if (fs::exists(folder / "vocab.txt")) {
    where = (folder / "vocab.txt").string();
    result = from_vocab_txt(folder, config, map, where);
  } else if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt")) {
    where = (folder / "vocab.json").string();
    result = from_vocab_json(folder, config, map, where);
  } else {
    fail(ErrorCode::not_found, {.what = "cannot load a tokenizer",
                                .expected = "expected tokenizer.json, or vocab.txt, or vocab.json with merges.txt",
                                .where = "in " + folder.string()});
  }
  if (!result.is_object()) return result;
  // Roles under unusual names travel with the tokenizer.
  json roles = json::object();
  for (const char* role : {"pad_token", "unk_token", "cls_token", "sep_token", "mask_token"})
    if (std::string token = special_token(config, map, role, ""); !token.empty()) roles[role] = token;
  if (!roles.empty()) result["octet"] = roles;
  return result;
}

}  // namespace octet::text
