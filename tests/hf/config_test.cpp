// config.json and sentence-transformers folders: values, defaults and refusals.
#include "hf/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "core/error.h"

namespace octet::hf {
namespace {

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

std::filesystem::path scratch(const std::string& name) {
  auto folder = std::filesystem::temp_directory_path() / ("octet-config-" + std::to_string(::getpid())) / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

std::pair<std::string, std::string> outcome(auto&& act) {
  try {
    act();
    return {"accepted", ""};
  } catch (const Error& error) {
    return {std::string(octet::name(error.code())), error.what()};
  }
}

TEST(Config, MissingKeysGetTheDefaultsOfTheFamily) {
  ModelConfig bert = parse_config(R"({"model_type":"bert"})", "test");
  EXPECT_EQ(bert.vocab_size, 30522);
  EXPECT_EQ(bert.hidden_size, 768);
  EXPECT_EQ(bert.num_layers, 12);
  EXPECT_EQ(bert.pad_token_id, 0);
  EXPECT_EQ(bert.layer_norm_eps, 1e-12);
  EXPECT_EQ(bert.hidden_act, "gelu");
  EXPECT_EQ(bert.num_labels, 2);
  EXPECT_EQ(bert.labels, (std::vector<std::string>{"LABEL_0", "LABEL_1"}));
  EXPECT_FALSE(bert.head.has_value());
  EXPECT_FALSE(bert.sentence.has_value());
  ModelConfig roberta = parse_config(R"({"model_type":"roberta"})", "test");
  EXPECT_EQ(roberta.vocab_size, 50265);
  EXPECT_EQ(roberta.pad_token_id, 1);
}

TEST(Config, ReadsWhatIsWritten) {
  ModelConfig config = parse_config(R"({"model_type":"roberta","architectures":["RobertaForSequenceClassification"],
    "hidden_size":32,"num_attention_heads":4,"num_hidden_layers":2,"intermediate_size":64,"vocab_size":99,
    "max_position_embeddings":42,"type_vocab_size":1,"pad_token_id":null,"layer_norm_eps":1e-5,"hidden_act":"gelu_pytorch_tanh",
    "id2label":{"0":"no","2":"yes","1":"maybe"},"problem_type":"multi_label_classification"})",
                                    "test");
  EXPECT_EQ(config.head, Head::sequence_classification);
  EXPECT_EQ(config.hidden_act, "gelu_new");
  EXPECT_EQ(config.labels, (std::vector<std::string>{"no", "maybe", "yes"}));
  EXPECT_EQ(config.num_labels, 3);
  EXPECT_EQ(config.pad_token_id, 1);
  EXPECT_EQ(config.max_positions, 42);
  EXPECT_EQ(config.problem_type, "multi_label_classification");
}

TEST(Config, HeadsComeFromTheArchitecture) {
  auto head = [](const std::string& architecture) {
    return parse_config(R"({"model_type":"bert","architectures":[")" + architecture + "\"]}", "test").head;
  };
  EXPECT_EQ(head("BertForTokenClassification"), Head::token_classification);
  EXPECT_EQ(head("BertForQuestionAnswering"), Head::question_answering);
  EXPECT_EQ(head("BertForMaskedLM"), Head::encoder);
  EXPECT_EQ(head("BertModel"), Head::encoder);
}

TEST(Config, LabelsComeFromEitherMap) {
  ModelConfig config = parse_config(R"({"model_type":"bert","label2id":{"yes":1,"no":0}})", "test");
  EXPECT_EQ(config.labels, (std::vector<std::string>{"no", "yes"}));
  EXPECT_EQ(parse_config(R"({"model_type":"bert","id2label":{"0":0,"1":1}})", "test").labels,
            (std::vector<std::string>{"0", "1"}));
}

TEST(Config, NumLabelsWinsOverAnOldListOfNames) {
  ModelConfig config =
      parse_config(R"({"model_type":"bert","num_labels":50,"id2label":{"0":"LABEL_0","1":"LABEL_1"}})", "test");
  EXPECT_EQ(config.num_labels, 50);
  ASSERT_EQ(config.labels.size(), 50u);
  EXPECT_EQ(config.labels[49], "LABEL_49");
}

TEST(Config, RefusesWithTheKeyAndTheValue) {
  struct Bad {
    const char* text;
    const char* code;
    const char* says;
  };
  const Bad cases[] = {
      {"", "corrupt", "JSON"},
      {"[]", "corrupt", "object"},
      {R"({"model_type":"bert")", "corrupt", "JSON"},
      {R"({"model_type":7})", "corrupt", "model_type"},
      {R"({"model_type":"bert","hidden_size":"768"})", "corrupt", "hidden_size"},
      {R"({"model_type":"bert","hidden_size":-768})", "corrupt", "-768"},
      {R"({"model_type":"bert","hidden_size":768.5})", "corrupt", "768.5"},
      {R"({"model_type":"bert","num_hidden_layers":0})", "corrupt", "num_hidden_layers"},
      {R"({"model_type":"bert","vocab_size":99999999999})", "corrupt", "vocab_size"},
      {R"({"model_type":"bert","vocab_size":18446744073709551615})", "corrupt", "vocab_size"},
      {R"({"model_type":"bert","hidden_size":770})", "corrupt", "multiple of 12"},
      {R"({"model_type":"bert","layer_norm_eps":-1})", "corrupt", "layer_norm_eps"},
      {R"({"model_type":"bert","hidden_act":"swish"})", "unsupported", "swish"},
      {R"({"model_type":"bert","position_embedding_type":"relative_key"})", "unsupported", "relative_key"},
      {R"({"model_type":"bert","is_decoder":true})", "unsupported", "decoder"},
      {R"({"model_type":"bert","architectures":["BertForMultipleChoice"]})", "unsupported", "BertForMultipleChoice"},
      {R"({"model_type":"bert","architectures":"BertModel"})", "corrupt", "architectures"},
      {R"({"model_type":"bert","id2label":["a"]})", "corrupt", "id2label"},
      {R"({"model_type":"bert","label2id":{"a":1}})", "corrupt", "gaps"},
      {R"({"model_type":"bert","label2id":{"a":0,"b":0}})", "corrupt", "twice"},
      {R"({"model_type":"bert","label2id":{"a":"0"}})", "corrupt", "id for label a"},
      {R"({"model_type":"bert","label2id":[]})", "corrupt", "label2id"},
      {R"({"model_type":"bert","id2label":{"a":"b"}})", "corrupt", "ids 0, 1, 2"},
      {R"({"model_type":"bert","id2label":{"1":"b"}})", "corrupt", "gaps"},
      {R"({"model_type":"bert","id2label":{"0":"b","00":"c"}})", "corrupt", "twice"},
      {R"({"model_type":"bert","id2label":{"0":[]}})", "corrupt", "label for id 0"},
      {R"({"model_type":"bert","num_labels":2000000000})", "corrupt", "num_labels"},
  };
  for (const Bad& bad : cases) {
    auto [code, text] = outcome([&] { parse_config(bad.text, "test"); });
    EXPECT_EQ(code, bad.code) << bad.text;
    EXPECT_NE(text.find(bad.says), std::string::npos) << bad.text << "\n" << text;
  }
}

TEST(Config, ReadsASentenceTransformersFolder) {
  auto folder = scratch("sentence");
  write(folder / "modules.json",
        R"([{"idx":0,"name":"0","path":"0_Transformer","type":"sentence_transformers.models.Transformer"},
    {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
    {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}])");
  write(folder / "0_Transformer/config.json", R"({"model_type":"bert","architectures":["BertModel"]})");
  write(folder / "0_Transformer/sentence_bert_config.json", R"({"max_seq_length":128,"do_lower_case":true})");
  write(folder / "1_Pooling/config.json",
        R"({"word_embedding_dimension":768,"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false})");
  ModelConfig config = read_config(folder);
  EXPECT_EQ(transformer_folder(folder), folder / "0_Transformer");
  ASSERT_TRUE(config.sentence.has_value());
  EXPECT_EQ(config.head, Head::sentence_embedding);
  EXPECT_EQ(config.sentence->pooling, Pooling::cls);
  EXPECT_TRUE(config.sentence->normalize);
  EXPECT_EQ(config.sentence->max_seq_length, 128);
  EXPECT_TRUE(config.sentence->do_lower_case);

  for (const char* pooling : {R"({"pooling_mode_cls_token":true,"pooling_mode_max_tokens":true})", "{}",
                              R"({"pooling_mode":"lasttoken"})", "3"}) {
    write(folder / "1_Pooling/config.json", pooling);
    EXPECT_EQ(outcome([&] { read_config(folder); }).first, "unsupported") << pooling;
  }
  write(folder / "1_Pooling/config.json", R"({"pooling_mode":"max"})");
  EXPECT_EQ(read_config(folder).sentence->pooling, Pooling::max);
  std::filesystem::remove(folder / "1_Pooling/config.json");
  EXPECT_EQ(outcome([&] { read_config(folder); }).first, "not_found");
  write(folder / "modules.json", R"([{"type":"sentence_transformers.models.Dense","path":"../x"}])");
  EXPECT_EQ(outcome([&] { read_config(folder); }).first, "corrupt");
  write(folder / "modules.json", R"([{"type":"sentence_transformers.models.Dense","path":"x"}])");
  write(folder / "config.json", R"({"model_type":"bert"})");
  auto [code, text] = outcome([&] { read_config(folder); });
  EXPECT_EQ(code, "unsupported");
  EXPECT_NE(text.find("Dense"), std::string::npos);
}

TEST(Config, NamesWhatIsNotAFolder) {
  auto folder = scratch("nothing");
  EXPECT_EQ(outcome([&] { read_config(folder); }).first, "not_found");
  EXPECT_EQ(outcome([&] { read_config(folder / "absent"); }).first, "not_found");
  write(folder / "config.json", "");
  EXPECT_EQ(outcome([&] { read_config(folder); }).first, "corrupt");
  EXPECT_EQ(outcome([&] { read_config(folder / "config.json"); }).first, "invalid_argument");
  std::filesystem::remove(folder / "config.json");
  std::filesystem::create_directory(folder / "config.json");
  EXPECT_EQ(outcome([&] { read_config(folder); }).first, "invalid_argument");
}

}  // namespace
}  // namespace octet::hf
