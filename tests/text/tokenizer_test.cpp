// Tokenizers on small vocabularies made here: every component, every error; equality with the reference is in
// golden_test.cpp.
#include <octet/error.h>
#include <octet/tokenizer.h>

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace octet {
namespace {

using nlohmann::json;

json special(const char* content, int id) {
  return {{"id", id},        {"content", content}, {"special", true},    {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
}

/// A BERT of 14 words.
json small_bert() {
  return {{"truncation", {{"max_length", 3}, {"strategy", "LongestFirst"}, {"stride", 0}}},
          {"padding", nullptr},
          {"added_tokens", {special("[PAD]", 0), special("[UNK]", 1), special("[CLS]", 2), special("[SEP]", 3)}},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", true},
            {"strip_accents", nullptr},
            {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 10},
            {"vocab",
             {{"[PAD]", 0},
              {"[UNK]", 1},
              {"[CLS]", 2},
              {"[SEP]", 3},
              {"the", 4},
              {"un", 5},
              {"##aff", 6},
              {"##able", 7},
              {"cat", 8},
              {"##s", 9},
              {".", 10},
              {"!", 11},
              {"cafe", 12},
              {"\u4e2d", 13}}}}}};
}

Tokenizer make(const json& description) { return Tokenizer::from_json(description.dump()); }

/// The message of the error that `call` throws; fails when it throws none or another code.
template <typename Call>
std::string error_of(ErrorCode code, Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(WordPiece, LongestMatchAndOffsets) {
  Tokenizer tokenizer = make(small_bert());
  Encoding e = tokenizer.encode("The unaffable CATS.");
  EXPECT_EQ(e.ids, (std::vector<int32_t>{2, 4, 5, 6, 7, 8, 9, 10, 3}));
  EXPECT_EQ(e.offsets[2], (TextSpan{4, 6}));
  EXPECT_EQ(e.offsets[4], (TextSpan{9, 13}));
  EXPECT_EQ(e.special_tokens_mask(), (std::vector<int32_t>{1, 0, 0, 0, 0, 0, 0, 0, 1}));
}

TEST(WordPiece, CleansAndFolds) {
  Tokenizer tokenizer = make(small_bert());
  Encoding e = tokenizer.encode("CAF\u00c9 cafe\u0301 ca\u200bt\u4e2dthe");
  EXPECT_EQ(e.ids, (std::vector<int32_t>{2, 12, 12, 8, 13, 4, 3}));
  EXPECT_EQ(e.offsets[3], (TextSpan{11, 15}));  // the zero-width space went, its place stays in the span
  EXPECT_EQ(e.offsets[4], (TextSpan{15, 16}));
}

TEST(WordPiece, LongAndUnknownWords) {
  Tokenizer tokenizer = make(small_bert());
  EXPECT_EQ(tokenizer.encode("catsssssssss xyz the").ids, (std::vector<int32_t>{2, 1, 1, 4, 3}));
}

TEST(Tokenizer, PairsAndTruncations) {
  Tokenizer tokenizer = make(small_bert());
  EncodeOptions options{.max_length = 6};
  Encoding e = tokenizer.encode("the the the", "cat cat", options);
  EXPECT_EQ(e.ids, (std::vector<int32_t>{2, 4, 4, 3, 8, 3}));
  EXPECT_EQ(e.type_ids, (std::vector<int32_t>{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(e.sequence_ids, (std::vector<int8_t>{-1, 0, 0, -1, 1, -1}));
  options.truncation = Truncation::only_first;
  EXPECT_EQ(tokenizer.encode("the the the", "cat cat", options).ids, (std::vector<int32_t>{2, 4, 3, 8, 8, 3}));
  options.truncation = Truncation::only_second;
  error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode("the the the", "cat cat", options); });
  EXPECT_NE(
      error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode("the the the the the", std::nullopt, options); })
          .find("pair"),
      std::string::npos);
  options = {.max_length = 1};
  EXPECT_NE(error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode("the", std::nullopt, options); })
                .find("2 special tokens"),
            std::string::npos);
}

TEST(Tokenizer, EmptyAndLongTexts) {
  Tokenizer tokenizer = make(small_bert());
  EXPECT_EQ(tokenizer.encode("").ids, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(tokenizer.encode("", "").ids, (std::vector<int32_t>{2, 3, 3}));
  EXPECT_TRUE(tokenizer.encode("", std::nullopt, {.add_special_tokens = false}).ids.empty());
  std::string text;
  for (int i = 0; i < 50000; ++i) text += "the cat ";
  EXPECT_EQ(tokenizer.encode(text).size(), 100002);
  EXPECT_EQ(tokenizer.encode(text, std::nullopt, {.max_length = 128}).size(), 128);
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  Tokenizer tokenizer = make(small_bert());
  for (std::string bad : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe4\xb8", "\x80"}) {
    std::string message = error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode("the " + bad); });
    EXPECT_NE(message.find("at byte 4 of"), std::string::npos) << message;
  }
}

TEST(Tokenizer, JsonOfJsonIsEqual) {
  Tokenizer tokenizer = make(small_bert());
  Tokenizer again = Tokenizer::from_json(tokenizer.to_json());
  EXPECT_EQ(again.to_json(), tokenizer.to_json());
  EXPECT_EQ(again.encode("The unaffable cat!", "caf\u00e9").ids,
            tokenizer.encode("The unaffable cat!", "caf\u00e9").ids);
  EXPECT_EQ(again.pad_id(), 0);
}

TEST(Tokenizer, DecodesAndNamesTokens) {
  Tokenizer tokenizer = make(small_bert());
  Encoding e = tokenizer.encode("The unaffable cats.");
  EXPECT_EQ(tokenizer.decode(e.ids), "the unaffable cats.");
  EXPECT_EQ(tokenizer.token_of(6), "##aff");
  EXPECT_EQ(tokenizer.token_of(-1), "");
  EXPECT_EQ(tokenizer.id_of("cat"), 8);
  EXPECT_EQ(tokenizer.id_of("dog"), std::nullopt);
  EXPECT_EQ(tokenizer.vocab_size(), 14);
}

TEST(Tokenizer, UnknownComponentsNameTheKnownOnes) {
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor", "model"}) {
    json description = small_bert();
    description[part]["type"] = "Bertt";
    std::string message = error_of(ErrorCode::unsupported, [&] { make(description); });
    EXPECT_NE(message.find("Bertt"), std::string::npos) << message;
    EXPECT_NE(message.find("known"), std::string::npos) << message;
  }
  json description = small_bert();
  description["pre_tokenizer"]["type"] = "BertPreTokeniser";
  EXPECT_NE(error_of(ErrorCode::unsupported, [&] { make(description); }).find("did you mean BertPreTokenizer"),
            std::string::npos);
}

TEST(Tokenizer, EveryTruncationOfItsFileIsAnError) {
  std::string source = small_bert().dump();
  for (size_t size = 0; size < source.size(); ++size)
    EXPECT_THROW(Tokenizer::from_json(source.substr(0, size)), Error) << size;
}

TEST(Tokenizer, BatchesEqualSingles) {
  Tokenizer tokenizer = make(small_bert());
  std::vector<std::string_view> texts, pairs;
  for (int i = 0; i < 300; ++i) {
    texts.push_back(i % 3 == 0 ? "the cats!" : i % 3 == 1 ? "" : "caf\u00e9 unaffable");
    pairs.push_back(i % 2 == 0 ? "cat" : "\u4e2d the");
  }
  for (int threads : {1, 2}) {
    auto batch = tokenizer.encode_batch(texts, pairs, {}, threads);
    for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(batch[i].ids, tokenizer.encode(texts[i], pairs[i]).ids);
  }
  texts[200] = "\xff";
  EXPECT_NE(error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode_batch(texts, {}, {}, 2); }).find("in row 200"),
            std::string::npos);
}

/// A byte-level BPE with merges for " cat".
json small_roberta() {
  json vocabulary = {{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}};
  for (const char* token : {"a", "b", "c", "t", "\u0120", "\u00c3", "\u00a9", "at", "\u0120c", "\u0120cat", "."})
    vocabulary[token] = vocabulary.size();
  return {{"added_tokens", {special("<s>", 0), special("<pad>", 1), special("</s>", 2), special("<unk>", 3)}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}},
          {"post_processor",
           {{"type", "RobertaProcessing"},
            {"sep", {"</s>", 2}},
            {"cls", {"<s>", 0}},
            {"trim_offsets", true},
            {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a t", "\u0120 c", {"\u0120c", "at"}}}}}};
}

TEST(ByteLevelBpe, MergesTrimsAndDecodes) {
  Tokenizer tokenizer = make(small_roberta());
  Encoding e = tokenizer.encode("cat cat.\u00e9", "b");
  auto id = [&](const char* token) { return *tokenizer.id_of(token); };
  EXPECT_EQ(e.ids, (std::vector<int32_t>{0, id("c"), id("at"), id("\u0120cat"), id("."), id("\u00c3"), id("\u00a9"), 2,
                                         2, id("b"), 2}));
  EXPECT_EQ(e.offsets[3], (TextSpan{4, 7}));
  EXPECT_EQ(e.offsets[5], (TextSpan{8, 9}));
  EXPECT_EQ(e.offsets[6], (TextSpan{8, 9}));
  EXPECT_EQ(byte_span("cat cat.\u00e9", e.offsets[5]), (TextSpan{8, 10}));
  EXPECT_EQ(tokenizer.decode(e.ids), "cat cat.\u00e9b");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{id("\u00c3")}), "\ufffd");
  EXPECT_EQ(tokenizer.pad_id(), 1);
}

TEST(ByteLevelBpe, LongWordsMergeLikeShortOnes) {
  // Words above the limit of the simple search take the heap; both must agree on a word made of equal parts.
  Tokenizer tokenizer = make(small_roberta());
  std::string word;
  for (int i = 0; i < 40; ++i) word += "cat";
  Encoding e = tokenizer.encode(word, std::nullopt, {.add_special_tokens = false});
  ASSERT_EQ(e.size(), 80);
  for (int64_t i = 0; i < e.size(); ++i)
    EXPECT_EQ(tokenizer.token_of(e.ids[static_cast<size_t>(i)]), i % 2 == 0 ? "c" : "at");
}

TEST(ByteLevelBpe, RefusesBrokenMerges) {
  for (json merge : {json("a"), json("a t c"), json({"a", 3}), json("a z"), json(7)}) {
    json description = small_roberta();
    description["model"]["merges"].push_back(merge);
    EXPECT_NE(error_of(ErrorCode::corrupt, [&] { make(description); }).find("merge 4"), std::string::npos);
  }
  json description = small_roberta();
  description["model"]["dropout"] = 0.1;
  EXPECT_NE(error_of(ErrorCode::unsupported, [&] { make(description); }).find("dropout"), std::string::npos);
}

/// Every value of a description replaced by values of other types: an error that blames the file, or a tokenizer that
/// works.
void mutate_everywhere(const json& whole) {
  json flat = whole.flatten();
  for (const auto& item : flat.items()) {
    for (const json& other :
         {json(), json(true), json(-1), json(1e30), json("x"), json::array(), json::object(), json(4000000000u)}) {
      json changed = whole;
      changed[json::json_pointer(item.key())] = other;
      try {
        make(changed).encode("The cat sat.", "x [MASK] <unk>\u00e9");
      } catch (const Error& error) {
        EXPECT_NE(error.code(), ErrorCode::internal) << item.key() << " = " << other << ": " << error.what();
      }
    }
  }
}

TEST(Tokenizer, WrongTypesAreErrors) {
  mutate_everywhere(small_bert());
  mutate_everywhere(small_roberta());
}

TEST(Tokenizer, MissingFilesAndTokens) {
  error_of(ErrorCode::not_found, [] { Tokenizer::load("/no/such/folder"); });
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("octet_tokenizer_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  EXPECT_NE(error_of(ErrorCode::not_found, [&] { Tokenizer::load(folder); }).find("vocab.txt"), std::string::npos);
  std::ofstream(folder / "vocab.txt") << "[PAD]\n[UNK]\n[CLS]\nthe\n";
  EXPECT_NE(error_of(ErrorCode::corrupt, [&] { Tokenizer::load(folder); }).find("[SEP]"), std::string::npos);
  std::ofstream(folder / "vocab.txt", std::ios::app) << "[SEP]\nThe\n";
  EXPECT_EQ(Tokenizer::load(folder).encode("The").ids, (std::vector<int32_t>{2, 3, 4}));
  std::ofstream(folder / "tokenizer_config.json") << R"({"do_lower_case": false})";
  std::ofstream(folder / "added_tokens.json") << R"({"<new>": 6})";
  Tokenizer cased = Tokenizer::load(folder);
  EXPECT_EQ(cased.encode("The<new>").ids, (std::vector<int32_t>{2, 5, 6, 4}));
  EXPECT_EQ(cased.max_id(), 6);
  std::filesystem::remove_all(folder);
}

TEST(Tokenizer, ThreadsShareOne) {
  Tokenizer tokenizer = make(small_roberta());
  Encoding expected = tokenizer.encode("cat cat. a b c cat", "t");
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, copy = tokenizer] {
      for (int i = 0; i < 500; ++i) wrong += copy.encode("cat cat. a b c cat", "t").ids != expected.ids;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace octet
