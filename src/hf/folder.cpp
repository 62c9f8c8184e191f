// config.json is kept as it was but for what training decides.
#include "hf/folder.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "hf/families/family.h"

namespace octet::hf {

namespace {

namespace fs = std::filesystem;

const Family& family_of(const LoadedModel& model) {
  for (const Family* family : families())
    if (family->model_type == model.config.model_type) return *family;
  OCTET_CHECK(false, "a known family");
}

bool has_head(const LoadedModel& model) {
  Head head = model.config.head.value_or(Head::encoder);
  return head != Head::encoder && head != Head::sentence_embedding;
}

}  // namespace

std::string written_name(const LoadedModel& model, const std::string& name) {
  if (!has_head(model)) return name;
  for (const char* part : {"embeddings.", "encoder.", "pooler."})
    if (name.starts_with(part)) return std::string(family_of(model).prefix) + name;
  return name;
}

void write_folder(const fs::path& source, const fs::path& output, const LoadedModel& model,
                  const std::map<std::string, Tensor>& parameters) {
  const Family& family = family_of(model);
  const fs::path from = transformer_folder(source);
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(read_text(from / "config.json"));
  config["model_type"] = model.config.model_type;
  config["max_position_embeddings"] = model.config.max_positions;
  const char* kind = "Model";
  switch (model.config.head.value_or(Head::encoder)) {
    case Head::sequence_classification: kind = "ForSequenceClassification"; break;
    case Head::token_classification: kind = "ForTokenClassification"; break;
    case Head::question_answering: kind = "ForQuestionAnswering"; break;
    case Head::encoder:
    case Head::sentence_embedding: break;
  }
  config["architectures"] = {std::string(family.class_stem) + kind};
  for (const char* key : {"torch_dtype", "dtype", "_name_or_path", "num_labels"}) config.erase(key);
  config["dtype"] = "float32";
  if (has_head(model) && model.config.head != Head::question_answering) {
    config["id2label"] = nlohmann::ordered_json::object();
    config["label2id"] = nlohmann::ordered_json::object();
    for (size_t i = 0; i < model.config.labels.size(); ++i) {
      config["id2label"][std::to_string(i)] = model.config.labels[i];
      config["label2id"][model.config.labels[i]] = i;
    }
    if (model.config.head == Head::sequence_classification && model.config.problem_type != "multi_label_classification")
      config["problem_type"] = model.config.num_labels == 1 ? "regression" : "single_label_classification";
  }
  fs::create_directories(output);
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& [name, tensor] : parameters) tensors.emplace_back(written_name(model, name), tensor);
  write_safetensors(output / "model.safetensors", tensors, {{"format", "pt"}});
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
                           "special_tokens_map.json", "added_tokens.json", "sentencepiece.bpe.model", "spiece.model"})
    for (const fs::path& folder : {source, from}) {
      std::error_code ignored;
      if (fs::is_regular_file(folder / file, ignored))
        fs::copy_file(folder / file, output / file, fs::copy_options::overwrite_existing);
    }
  if (!has_head(model)) {  // a sentence-transformers folder stays one
    for (const char* file : {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}) {
      std::error_code ignored;
      if (fs::is_regular_file(source / file, ignored))
        fs::copy_file(source / file, output / file, fs::copy_options::overwrite_existing);
    }
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(source, ignored))
      if (entry.is_directory() && fs::is_regular_file(entry.path() / "config.json", ignored))
        fs::copy(entry.path(), output / entry.path().filename(),
                 fs::copy_options::recursive | fs::copy_options::overwrite_existing, ignored);
  }
  FileWriter file(output / "config.json");  // last: the folder is whole when it is there
  file.write(config.dump(2) + "\n");
  file.commit();
}

}  // namespace octet::hf
