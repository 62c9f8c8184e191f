// Tokenizers on small vocabularies made here: every component, every error; equality with the reference is in golden_test.cpp.
#include <octet/error.h>
#include <octet/tokenizer.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace octet {
namespace {

using nlohmann::json;

json special(const char* content, int id) { return {{"id", id}, {"content", content}, {"special", true}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}}; }

/// A BERT of 14 words.
json small_bert() {
  return {{"truncation", {{"max_length", 3}, {"strategy", "LongestFirst"}, {"stride", 0}}},
          {"padding", nullptr},
          {"added_tokens", {special("[PAD]", 0), special("[UNK]", 1), special("[CLS]", 2), special("[SEP]", 3)}},
          {"normalizer", {{"type", "BertNormalizer"}, {"clean_text", true}, {"handle_chinese_chars", true}, {"strip_accents", nullptr}, {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"continuing_subword_prefix", "##"}, {"max_input_chars_per_word", 10},
            {"vocab", {{"[PAD]", 0}, {"[UNK]", 1}, {"[CLS]", 2}, {"[SEP]", 3}, {"the", 4}, {"un", 5}, {"##aff", 6}, {"##able", 7}, {"cat", 8}, {"##s", 9}, {".", 10}, {"!", 11}, {"cafe", 12}, {"\u4e2d", 13}}}}}};
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
  EXPECT_NE(error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode("the the the the the", std::nullopt, options); }).find("pair"), std::string::npos);
  options = {.max_length = 1};
  EXPECT_NE(error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode("the", std::nullopt, options); }).find("2 special tokens"), std::string::npos);
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
  EXPECT_EQ(again.encode("The unaffable cat!", "caf\u00e9").ids, tokenizer.encode("The unaffable cat!", "caf\u00e9").ids);
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
  EXPECT_NE(error_of(ErrorCode::unsupported, [&] { make(description); }).find("did you mean BertPreTokenizer"), std::string::npos);
}

TEST(Tokenizer, EveryTruncationOfItsFileIsAnError) {
  std::string source = small_bert().dump();
  for (size_t size = 0; size < source.size(); ++size) EXPECT_THROW(Tokenizer::from_json(source.substr(0, size)), Error) << size;
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
  EXPECT_NE(error_of(ErrorCode::invalid_argument, [&] { tokenizer.encode_batch(texts, {}, {}, 2); }).find("in row 200"), std::string::npos);
}

}  // namespace
}  // namespace octet
