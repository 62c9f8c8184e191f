// Equality with the `tokenizers` package, by digests that tools/make_tokenizer_goldens.py made with it (which also
// defines them).
#include <octet/dataset.h>
#include <octet/error.h>
#include <octet/tokenizer.h>

#include <gtest/gtest.h>

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace octet {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const fs::path kData = fs::path(OCTET_TEST_DATA) / "tokenizer";

class Crc {
 public:
  void add(int32_t value) {
    static const std::array<uint32_t, 256> table = [] {
      std::array<uint32_t, 256> t{};
      for (uint32_t i = 0; i < 256; ++i) {
        uint32_t c = i;
        for (int k = 0; k < 8; ++k) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        t[i] = c;
      }
      return t;
    }();
    for (int i = 0; i < 4; ++i) state_ = table[(state_ ^ static_cast<uint32_t>(value) >> (8 * i)) & 255] ^ state_ >> 8;
  }
  std::string text() const {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", ~state_);
    return digits;
  }

 private:
  uint32_t state_ = 0xffffffffu;
};

struct Rows {
  std::vector<std::string> first, second;
};

json digest(const Tokenizer& tokenizer, const std::vector<std::string>& texts, const std::vector<std::string>* pairs,
            const EncodeOptions& options) {
  Crc crc;
  int64_t tokens = 0;
  Encoding e;
  for (size_t i = 0; i < texts.size(); ++i) {
    try {
      tokenizer.encode_into(texts[i], pairs ? std::optional<std::string_view>((*pairs)[i]) : std::nullopt, options, e);
    } catch (const Error&) {
      crc.add(-1);
      continue;
    }
    tokens += e.size();
    crc.add(static_cast<int32_t>(e.size()));
    for (int32_t id : e.ids) crc.add(id);
    for (int32_t type : e.type_ids) crc.add(type);
    for (TextSpan span : e.offsets) crc.add(span.begin);
    for (TextSpan span : e.offsets) crc.add(span.end);
    for (int32_t special : e.special_tokens_mask()) crc.add(special);
  }
  return {crc.text(), tokens};
}

/// Compares all groups ("text", "second", "pair", "plain pair", "pair 32 only_first") of one file.
void check(const Tokenizer& tokenizer, const Rows& rows, const json& groups) {
  for (const auto& [name, expected] : groups.items()) {
    SCOPED_TRACE(name);
    EncodeOptions options;
    options.add_special_tokens = name != "plain pair";
    std::istringstream words(name);
    std::string kind, strategy;
    words >> kind >> options.max_length >> strategy;
    if (strategy == "only_first") options.truncation = Truncation::only_first;
    if (strategy == "only_second") options.truncation = Truncation::only_second;
    bool pair = name.find("pair") != std::string::npos;
    EXPECT_EQ(digest(tokenizer, name == "second" ? rows.second : rows.first, pair ? &rows.second : nullptr, options),
              expected);
  }
}

const json& goldens() {
  static const json all = json::parse(std::ifstream(kData / "goldens.json"));
  return all;
}

Rows nasty() {
  Rows rows;
  std::ifstream in(kData / "nasty.jsonl");
  for (std::string line; std::getline(in, line);) rows.first.push_back(json::parse(line));
  rows.second.assign(rows.first.begin() + 1, rows.first.end());
  rows.second.push_back(rows.first.front());
  return rows;
}

Rows read(const std::string& file) {
  Dataset data = Dataset::load(fs::path(OCTET_SHARED) / "data" / file);
  Rows rows;
  for (int64_t row = 0; row < data.rows(); ++row) {
    rows.first.emplace_back(data.text(row));
    if (data.has_pair()) rows.second.emplace_back(data.pair(row));
  }
  return rows;
}

TEST(TokenizerGolden, EveryComponentOnNastyUnicode) {
  json components = json::parse(std::ifstream(kData / "components.json"));
  json vocabulary = {{"<unk>", 0}};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    vocabulary[name] = b + 1;
  }
  Rows rows = nasty();
  ASSERT_GT(components.size(), 30u);
  for (auto& [name, description] : components.items()) {
    SCOPED_TRACE(name);
    description["model"] = {{"type", "BPE"},         {"unk_token", "<unk>"}, {"fuse_unk", false},
                            {"byte_fallback", true}, {"vocab", vocabulary},  {"merges", json::array()}};
    Tokenizer tokenizer = Tokenizer::from_json(description.dump());
    check(tokenizer, rows, goldens().at("component " + name).at("nasty"));
    check(Tokenizer::from_json(tokenizer.to_json()), rows, goldens().at("component " + name).at("nasty"));
  }
}

/// A real tokenizer on nasty Unicode and on every text of the shared data sets.
void check_folder(const fs::path& folder, const std::string& name) {
  if (!fs::exists(folder / "tokenizer.json")) GTEST_SKIP() << "no tokenizer at " << folder;
  Tokenizer tokenizer = Tokenizer::load(folder);
  const json& expected = goldens().at(name);
  check(tokenizer, nasty(), expected.at("nasty"));
  for (const auto& [file, groups] : expected.items()) {
    if (file == "nasty" || !fs::exists(fs::path(OCTET_SHARED) / "data" / file)) continue;
    SCOPED_TRACE(file);
    check(tokenizer, read(file), groups);
  }
}

TEST(TokenizerGolden, BertBaseUncased) {
  check_folder(fs::path(OCTET_SHARED) / "tokenizers/bert-base-uncased", "bert-base-uncased");
}
TEST(TokenizerGolden, RobertaBase) { check_folder(fs::path(OCTET_SHARED) / "tokenizers/roberta-base", "roberta-base"); }
TEST(TokenizerGolden, XlmRoberta) { check_folder(fs::path(OCTET_SHARED) / "tokenizers/xlm-roberta", "xlm-roberta"); }
TEST(TokenizerGolden, MiniLM) {
  const char* named = std::getenv("OCTET_MINILM");
  check_folder(named ? fs::path(named) : fs::path(OCTET_SOURCE) / "build/demo/minilm", "minilm");
}

fs::path mpnet_folder() {
  if (const char* named = std::getenv("OCTET_MPNET")) return named;
  const char* set = std::getenv("OCTET_CACHE");
  const char* home = std::getenv("HOME");
  return (set ? fs::path(set) : fs::path(home ? home : ".") / ".cache/octet") / "all-mpnet-base-v2";
}
TEST(TokenizerGolden, Mpnet) { check_folder(mpnet_folder(), "mpnet"); }
TEST(TokenizerGolden, MpnetVocabularyFile) {
  if (!fs::exists(mpnet_folder() / "vocab.txt")) GTEST_SKIP() << "no tokenizer at " << mpnet_folder();
  fs::path folder = fs::temp_directory_path() / ("octet_mpnet_vocabulary_" + std::to_string(::getpid()));
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const char* file : {"vocab.txt", "tokenizer_config.json"}) fs::copy_file(mpnet_folder() / file, folder / file);
  // tokenizer.json also takes <unk> for a token, the slow tokenizer does not; the data sets have none.
  Tokenizer tokenizer = Tokenizer::load(folder), whole = Tokenizer::load(mpnet_folder());
  for (const std::string& text : nasty().first)
    if (text.find("<unk>") == std::string::npos) {
      EXPECT_EQ(tokenizer.encode(text, "a pair").ids, whole.encode(text, "a pair").ids) << text;
    }
  fs::remove_all(folder);
}

/// Folders without tokenizer.json give the same tokens.
TEST(TokenizerGolden, VocabularyFiles) {
  fs::path shared = fs::path(OCTET_SHARED) / "tokenizers";
  if (!fs::exists(shared)) GTEST_SKIP() << "no tokenizers at " << shared;
  fs::path folder = fs::temp_directory_path() / ("octet_vocabulary_files_" + std::to_string(::getpid()));
  for (auto [name, files] : {std::pair{"bert-base-uncased", std::vector{"vocab.txt"}},
                             {"roberta-base", std::vector{"vocab.json", "merges.txt"}}}) {
    SCOPED_TRACE(name);
    fs::remove_all(folder);
    fs::create_directories(folder);
    for (const char* file : files) fs::copy_file(shared / name / file, folder / file);
    Tokenizer tokenizer = Tokenizer::load(folder);
    check(tokenizer, nasty(), goldens().at(name).at("nasty"));
    check(Tokenizer::from_json(tokenizer.to_json()), nasty(), goldens().at(name).at("nasty"));
    EXPECT_TRUE(tokenizer.pad_id() && tokenizer.mask_id() && tokenizer.cls_id() && tokenizer.sep_id() &&
                tokenizer.unk_id());
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace octet
