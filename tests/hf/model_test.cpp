// Folders become graphs: outputs against transformers, and every way a folder can be wrong.
#include "hf/model.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "hf/evaluate.h"
#include "hf/weights.h"

namespace octet::hf {
namespace {

namespace fs = std::filesystem;
const fs::path kData = fs::path(OCTET_TEST_DATA) / "hf";

fs::path copy_of(const std::string& name) {
  fs::path folder = fs::temp_directory_path() / ("octet-model-" + std::to_string(::getpid())) / name;
  fs::remove_all(folder);
  fs::create_directories(folder.parent_path());
  fs::copy(kData / name, folder, fs::copy_options::recursive);
  return folder;
}

void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::trunc) << text; }

std::pair<std::string, std::string> outcome(const fs::path& folder, const LoadOptions& options = {}) {
  try {
    load_model(folder, options);
    return {"accepted", ""};
  } catch (const Error& error) {
    return {std::string(octet::name(error.code())), error.what()};
  }
}

/// Loads the folder's tensors, lets `change` edit them, and writes them back as one safetensors file.
void edit(const fs::path& folder, auto&& change) {
  std::map<std::string, Tensor> tensors = read_safetensors(folder / "model.safetensors").tensors;
  change(tensors);
  write_safetensors(folder / "model.safetensors", {tensors.begin(), tensors.end()});
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, GraphComputesWhatTransformersDoes) {
  LoadedModel model = load_model(kData / GetParam());
  verify(model.graph);
  nlohmann::json golden = read_json(kData / GetParam() / "golden.json");
  EXPECT_EQ(model.max_tokens, model.config.max_positions - (model.config.model_type == "bert" ? 0 : 2));
  for (size_t row = 0; row < golden["rows"].size(); ++row) {
    auto outputs = evaluate(model.graph, golden["rows"][row]["ids"].get<std::vector<int64_t>>(),
                            golden["rows"][row]["type_ids"].get<std::vector<int64_t>>());
    ASSERT_EQ(outputs.size(), golden["outputs"].size());
    for (const auto& [name, rows] : golden["outputs"].items()) {
      auto expected = rows[row].get<std::vector<double>>();
      ASSERT_EQ(outputs.at(name).size(), expected.size()) << name;
      double scale = 0;
      for (double value : expected) scale = std::max(scale, std::abs(value));
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(outputs.at(name)[i], expected[i], 1e-5 * scale) << name << " row " << row << " value " << i;
    }
  }
}

TEST_P(Golden, ParametersCarryTheCheckpointsNamesAndValues) {
  LoadedModel model = load_model(kData / GetParam());
  nlohmann::json tensors = read_json(kData / GetParam() / "golden.json")["tensors"];
  for (const auto& [name, tensor] : model.graph.parameters()) {
    ASSERT_TRUE(tensors.contains(name)) << name;
    double dot = 0;
    std::span<const float> values = tensor.as<float>();
    for (size_t i = 0; i < values.size(); ++i) dot += values[i] * static_cast<double>(i % 7 + 1);
    EXPECT_NEAR(dot, tensors[name]["dot"].get<double>(), 1e-9 * static_cast<double>(values.size())) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden,
                         testing::Values("bert-classification", "bert-regression", "bert-token", "bert-qa",
                                         "bert-encoder", "bert-pretraining", "bert-sentence-mean", "bert-sentence-max",
                                         "roberta-classification", "roberta-token", "roberta-qa",
                                         "roberta-sentence-cls", "roberta-masked", "mpnet-classification",
                                         "mpnet-token", "mpnet-qa", "mpnet-encoder", "mpnet-sentence-mean"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Model, TellsFamilyHeadAndLabels) {
  LoadedModel model = load_model(kData / "roberta-classification");
  EXPECT_EQ(model.config.model_type, "roberta");
  EXPECT_EQ(model.config.head, Head::sequence_classification);
  EXPECT_EQ(model.config.labels, (std::vector<std::string>{"contradiction", "neutral", "entailment"}));
  EXPECT_EQ(model.files, (std::vector<fs::path>{kData / "roberta-classification" / "model.safetensors"}));
  EXPECT_TRUE(model.unused.empty());
  EXPECT_EQ(load_model(kData / "roberta-token").files.size(), 2u);
  EXPECT_EQ(load_model(kData / "bert-encoder").unused, (std::vector<std::string>{"embeddings.position_ids"}));
}

TEST(Model, GuessesTypeAndHeadFromTheWeights) {
  for (const auto& [name, type, head] : {std::tuple{"bert-classification", "bert", Head::sequence_classification},
                                         {"bert-qa", "bert", Head::question_answering},
                                         {"roberta-classification", "roberta", Head::sequence_classification},
                                         {"mpnet-classification", "mpnet", Head::sequence_classification},
                                         {"mpnet-sentence-mean", "mpnet", Head::sentence_embedding},
                                         {"roberta-sentence-cls", "roberta", Head::sentence_embedding}}) {
    fs::path folder = copy_of(name);
    nlohmann::json config = read_json(folder / "config.json");
    config.erase("model_type");
    config.erase("architectures");
    write(folder / "config.json", config.dump());
    LoadedModel model = load_model(folder);
    EXPECT_EQ(model.config.model_type, type) << name;
    EXPECT_EQ(model.config.head, head) << name;
  }
  fs::path folder = copy_of("bert-token");
  nlohmann::json config = read_json(folder / "config.json");
  config.erase("architectures");
  write(folder / "config.json", config.dump());
  EXPECT_EQ(load_model(folder).config.head, Head::token_classification);
}

TEST(Model, ReportsEverythingWrongAtOnce) {
  fs::path folder = copy_of("bert-classification");
  edit(folder, [](auto& tensors) {
    tensors.erase("bert.encoder.layer.1.output.dense.bias");
    tensors.erase("classifier.weight");
    tensors["bert.pooler.dense.weight"] = Tensor::from(std::vector<float>(64), {2, 32});
    tensors["classifier.bias"] = Tensor::from(std::vector<int32_t>(3), {3});
    tensors["bert.encoder.layer.2.output.dense.bias"] = Tensor::from(std::vector<float>(32), {32});
    tensors["cls.predictions.bias"] = Tensor::from(std::vector<float>(60), {60});
  });
  auto [code, text] = outcome(folder);
  EXPECT_EQ(code, "corrupt");
  for (const char* part : {"missing (2)", "bert.encoder.layer.1.output.dense.bias [32]", "classifier.weight [3, 32]",
                           "of another shape or type (2)", "bert.pooler.dense.weight: expected [32, 32], got [2, 32]",
                           "classifier.bias: expected f32, f16, bf16 or f64, got s32", "unexpected (1)",
                           "bert.encoder.layer.2.output.dense.bias [32]"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  EXPECT_EQ(text.find("cls.predictions"), std::string::npos);
}

TEST(Model, UnexpectedTensorsAreAcceptedOnlyOnDemand) {
  fs::path folder = copy_of("bert-classification");
  edit(folder, [](auto& tensors) { tensors["bert.extra"] = Tensor::scalar(1); });
  EXPECT_EQ(outcome(folder).first, "corrupt");
  EXPECT_EQ(load_model(folder, {.allow_unexpected = true}).unused, (std::vector<std::string>{"bert.extra"}));
}

TEST(Model, NamesWeightsThatAreNotFinite) {
  fs::path folder = copy_of("bert-classification");
  edit(folder, [](auto& tensors) {
    for (auto [name, value] : {std::pair{"classifier.bias", std::numeric_limits<float>::quiet_NaN()},
                               {"bert.pooler.dense.bias", -std::numeric_limits<float>::infinity()}}) {
      std::vector<float> values = tensors.at(name).to_f32();
      values.back() = value;
      tensors[name] = Tensor::from(values, tensors.at(name).shape());
    }
  });
  auto [code, text] = outcome(folder);
  EXPECT_EQ(code, "corrupt");
  EXPECT_NE(text.find("classifier.bias"), std::string::npos) << text;
  EXPECT_NE(text.find("bert.pooler.dense.bias"), std::string::npos) << text;
  EXPECT_EQ(outcome(folder, {.check_finite = false}).first, "accepted");
}

TEST(Model, OldNamesOfLayerNorm) {
  fs::path folder = copy_of("bert-classification");
  edit(folder, [](auto& tensors) {
    for (const char* path : {"bert.embeddings.LayerNorm.", "bert.encoder.layer.0.output.LayerNorm."})
      for (auto [modern, old] : {std::pair{"weight", "gamma"}, {"bias", "beta"}}) {
        tensors[path + std::string(old)] = tensors.at(path + std::string(modern));
        tensors.erase(path + std::string(modern));
      }
  });
  EXPECT_EQ(outcome(folder).first, "accepted");
}

TEST(Model, ANewHeadReplacesTheOldOne) {
  LoadedModel model = load_model(kData / "bert-classification", {.new_labels = 7});
  EXPECT_EQ(model.config.num_labels, 7);
  EXPECT_EQ(model.config.labels.size(), 7u);
  const Tensor& weight = model.graph.parameters().at("classifier.weight");
  EXPECT_EQ(weight.shape(), (Shape{7, 32}));
  double square = 0;
  for (float value : weight.as<float>()) square += value * value / 224.0;
  EXPECT_NEAR(std::sqrt(square), 0.02, 0.005);
  for (float value : model.graph.parameters().at("classifier.bias").as<float>()) EXPECT_EQ(value, 0.0f);
  EXPECT_EQ(load_model(kData / "roberta-masked", {.new_labels = 2}).graph.outputs().front().first, "logits");
  EXPECT_EQ(outcome(kData / "roberta-masked", {.new_labels = 0}).first, "invalid_argument");
}

TEST(Model, RefusesUnknownFamiliesBeforeReadingWeights) {
  fs::path folder = copy_of("bert-qa");
  fs::remove(folder / "model.safetensors");
  write(folder / "config.json", R"({"model_type":"albert","architectures":["AlbertForMaskedLM"],"hidden_act":"new"})");
  auto [code, text] = outcome(folder);
  EXPECT_EQ(code, "unsupported");
  EXPECT_NE(text.find("expected one of bert, roberta"), std::string::npos) << text;
}

TEST(Model, NamesMissingAndForeignWeightFiles) {
  fs::path folder = copy_of("bert-qa");
  fs::remove(folder / "model.safetensors");
  EXPECT_EQ(outcome(folder).first, "not_found");
  write(folder / "tf_model.h5", "x");
  auto [code, text] = outcome(folder);
  EXPECT_EQ(code, "not_found");
  EXPECT_NE(text.find("tf_model.h5"), std::string::npos) << text;
  write(folder / "model.safetensors", "");
  EXPECT_EQ(outcome(folder).first, "corrupt");
  fs::remove(folder / "model.safetensors");
  fs::create_directory(folder / "model.safetensors");
  EXPECT_EQ(outcome(folder).first, "invalid_argument");
  fs::remove(folder / "model.safetensors");
  write(folder / "pytorch_model.bin", "");
  EXPECT_EQ(outcome(folder).first, "corrupt");
}

TEST(Model, RefusesWrongShards) {
  fs::path folder = copy_of("bert-encoder");
  fs::path index = folder / "model.safetensors.index.json";
  const nlohmann::json whole = read_json(index);
  auto with = [&](auto&& change) {
    nlohmann::json changed = whole;
    change(changed);
    write(index, changed.dump());
    return outcome(folder);
  };
  const std::string first = whole["weight_map"].begin().key();
  EXPECT_EQ(with([](auto&) {}).first, "accepted");
  EXPECT_EQ(with([](auto& j) { j.erase("weight_map"); }).first, "corrupt");
  EXPECT_EQ(with([](auto& j) { j["weight_map"] = 1; }).first, "corrupt");
  EXPECT_EQ(with([](auto& j) { j = nlohmann::json::array(); }).first, "corrupt");
  EXPECT_EQ(with([&](auto& j) { j["weight_map"][first] = 3; }).first, "corrupt");
  EXPECT_EQ(with([&](auto& j) { j["weight_map"][first] = "../model.safetensors"; }).first, "corrupt");
  EXPECT_EQ(with([&](auto& j) { j["weight_map"][first] = "absent.safetensors"; }).first, "not_found");
  EXPECT_EQ(with([&](auto& j) { j["weight_map"]["absent"] = j["weight_map"][first]; }).first, "corrupt");
  fs::copy(folder / "model-00001-of-00002.safetensors", folder / "again.safetensors");
  EXPECT_EQ(with([&](auto& j) { j["weight_map"][first] = "again.safetensors"; }).first, "corrupt");
  write(index, "");
  EXPECT_EQ(outcome(folder).first, "corrupt");
}

TEST(Model, RefusesEveryTruncationOfItsJsonFiles) {
  for (const auto& [name, file] : {std::pair{"bert-encoder", "config.json"},
                                   {"bert-encoder", "model.safetensors.index.json"},
                                   {"bert-sentence-mean", "modules.json"},
                                   {"bert-sentence-mean", "1_Pooling/config.json"},
                                   {"bert-sentence-mean", "sentence_bert_config.json"}}) {
    fs::path folder = copy_of(name);
    const std::string whole = read_json(folder / file).dump();
    for (size_t size = 0; size < whole.size(); size += size < 300 ? 1 : 29) {
      write(folder / file, whole.substr(0, size));
      ASSERT_EQ(outcome(folder).first, "corrupt") << file << " " << size;
    }
    write(folder / file, whole);
    EXPECT_EQ(outcome(folder).first, "accepted") << file;
  }
}

TEST(Model, RefusesSizesThatAreNotTheCheckpoints) {
  struct Change {
    const char* key;
    int64_t value;
  };
  for (const Change& change : {Change{"hidden_size", 64},
                               {"intermediate_size", 47},
                               {"vocab_size", 61},
                               {"num_hidden_layers", 3},
                               {"num_hidden_layers", 1},
                               {"max_position_embeddings", 25},
                               {"type_vocab_size", 1},
                               {"type_vocab_size", 0},
                               {"hidden_size", int64_t{1} << 30},
                               {"num_hidden_layers", 1024},
                               {"num_labels", 4}}) {
    fs::path folder = copy_of("bert-classification");
    nlohmann::json config = read_json(folder / "config.json");
    config[change.key] = change.value;
    write(folder / "config.json", config.dump());
    EXPECT_EQ(outcome(folder).first, "corrupt") << change.key << " " << change.value;
    EXPECT_EQ(outcome(folder, {.new_labels = 3}).first,
              std::string(change.key) == "num_labels" ? "accepted" : "corrupt")
        << change.key;
  }
}

TEST(Model, RealSentenceModel) {
  const char* home = std::getenv("HOME");
  const char* set = std::getenv("OCTET_CACHE");
  fs::path folder = (set ? fs::path(set) : fs::path(home ? home : ".") / ".cache/octet") / "minilm";
  if (!fs::exists(folder / "config.json")) GTEST_SKIP() << "no " << folder << " (scripts/setup.sh demo fetches it)";
  LoadedModel model = load_model(folder);
  verify(model.graph);
  EXPECT_EQ(model.config.head, Head::sentence_embedding);
  EXPECT_TRUE(model.config.sentence->normalize);
  EXPECT_EQ(model.config.sentence->max_seq_length, 256);
  EXPECT_EQ(model.graph.outputs().front().first, "embedding");
}

}  // namespace
}  // namespace octet::hf
