// Reading of config.json, modules.json and the module folders they name.
#include "hf/config.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace octet::hf {

namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = int64_t{1} << 31;  // any single size
constexpr int64_t kMaxLabels = 1'000'000;
constexpr int64_t kMaxLayers = 1024;  // a graph has a dozen nodes for each

/// The defaults of the configuration class of a family. Unknown types get BERT's; they are refused later, with a list.
struct Defaults {
  int64_t vocab_size, max_positions, type_vocab_size, pad_token_id;
  double layer_norm_eps;
};
constexpr Defaults kBertDefaults{30522, 512, 2, 0, 1e-12};
constexpr Defaults kRobertaDefaults{50265, 512, 2, 1, 1e-12};
constexpr Defaults kMpnetDefaults{30527, 512, 0, 1, 1e-12};

int64_t size_value(const json& object, const char* key, int64_t fallback, int64_t least, const std::string& where) {
  auto value = json_get_or<int64_t>(object, key, fallback, where);
  if (value < least || value > kMaxSize)
    fail(ErrorCode::corrupt,
         {.what = std::string("impossible value of ") + key,
          .expected = "expected " + std::to_string(least) + " to 2^31, got " + std::to_string(value),
          .where = "in " + where});
  return value;
}

std::string activation(const std::string& written, const std::string& where) {
  // Hugging Face has several names for the same function; what differs only in rounding is one here.
  static const std::map<std::string, std::string> known = {{"gelu", "gelu"},
                                                           {"gelu_python", "gelu"},
                                                           {"gelu_new", "gelu_new"},
                                                           {"gelu_pytorch_tanh", "gelu_new"},
                                                           {"gelu_fast", "gelu_new"},
                                                           {"gelu_accurate", "gelu_new"},
                                                           {"gelu_python_tanh", "gelu_new"},
                                                           {"relu", "relu"},
                                                           {"tanh", "tanh"}};
  auto found = known.find(written);
  if (found == known.end()) {
    std::string names;
    for (const auto& entry : known) names += (names.empty() ? "" : ", ") + entry.first;
    fail(ErrorCode::unsupported, {.what = "cannot build a model with hidden_act \"" + written.substr(0, 80) + "\"",
                                  .expected = "expected one of " + names,
                                  .where = "in " + where});
  }
  return found->second;
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::optional<Head> head_of(const std::vector<std::string>& architectures, const std::string& where) {
  if (architectures.empty()) return std::nullopt;
  const std::string& architecture = architectures.front();
  static constexpr std::pair<std::string_view, Head> kEndings[] = {
      {"ForSequenceClassification", Head::sequence_classification},
      {"ForTokenClassification", Head::token_classification},
      {"ForQuestionAnswering", Head::question_answering},
      {"ForMaskedLM", Head::encoder},
      {"ForPreTraining", Head::encoder},
      {"Model", Head::encoder}};
  for (const auto& [ending, head] : kEndings)
    if (ends_with(architecture, ending)) return head;
  fail(
      ErrorCode::unsupported,
      {.what = "cannot build the architecture " + architecture.substr(0, 100),
       .expected =
           "expected ...ForSequenceClassification, ...ForTokenClassification, ...ForQuestionAnswering, ...ForMaskedLM, "
           "...ForPreTraining or ...Model (the last three give the bare encoder)",
       .where = "in " + where});
}

/// id -> label, from id2label or, where that is missing, from label2id.
std::map<int64_t, std::string> label_names(const json& object, const std::string& where) {
  std::map<int64_t, std::string> names;
  auto wrong = [&](const char* key, const std::string& expected) {
    fail(ErrorCode::corrupt, {.what = std::string("cannot read ") + key, .expected = expected, .where = "in " + where});
  };
  auto present = [&](const char* key) {
    auto found = object.find(key);
    if (found == object.end() || found->is_null()) return false;
    if (!found->is_object()) wrong(key, "expected an object");
    return true;
  };
  if (present("id2label")) {
    for (const auto& [key, value] : object["id2label"].items()) {
      bool digits = !key.empty() && key.size() <= 9 &&
                    std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (!digits) wrong("id2label", "expected ids 0, 1, 2 ..., got \"" + key.substr(0, 40) + "\"");
      // Labels may be numbers ("0": 0).
      if (!value.is_string() && !value.is_number())
        wrong("id2label", "expected a label for id " + key + ", got " + value.type_name());
      if (!names.emplace(std::stoll(key), value.is_string() ? value.get<std::string>() : value.dump()).second)
        wrong("id2label", "id " + key + " occurs twice");
    }
  } else if (present("label2id")) {
    for (const auto& [label, value] : object["label2id"].items()) {
      if (!value.is_number_integer()) wrong("label2id", "expected an id for label " + label.substr(0, 80));
      if (!names.emplace(value.get<int64_t>(), label).second) wrong("label2id", "id " + value.dump() + " occurs twice");
    }
  }
  if (!names.empty() && (names.begin()->first != 0 || names.rbegin()->first != static_cast<int64_t>(names.size()) - 1))
    wrong("id2label", "expected ids 0 to " + std::to_string(names.size() - 1) + " without gaps, got " +
                          std::to_string(names.begin()->first) + " to " + std::to_string(names.rbegin()->first));
  return names;
}

void read_labels(const json& object, ModelConfig& config, const std::string& where) {
  std::map<int64_t, std::string> names = label_names(object, where);
  for (auto& [id, text] : names) config.labels.push_back(text);
  auto count = size_value(object, "num_labels", names.empty() ? 2 : static_cast<int64_t>(names.size()), 1, where);
  if (count > kMaxLabels)
    fail(ErrorCode::corrupt, {.what = "impossible value of num_labels",
                              .expected = "expected at most 1000000, got " + std::to_string(count),
                              .where = "in " + where});
  set_num_labels(config, count);
}

/// The file a module of modules.json describes itself in.
json module_config(const std::filesystem::path& folder, const std::string& relative) {
  return read_json(folder / relative / "config.json");
}

struct Module {
  std::string path;
  std::string type;  // the class name without its Python module
};

std::vector<Module> read_modules(const std::filesystem::path& folder) {
  std::filesystem::path path = folder / "modules.json";
  std::vector<Module> modules;
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return modules;
  json list = read_json(path);
  if (!list.is_array())
    fail(ErrorCode::corrupt,
         {.what = "cannot read the modules", .expected = "expected a list", .where = "in " + path.string()});
  for (const json& item : list) {
    auto type = json_get<std::string>(item, "type", path.string());
    auto relative = json_get_or<std::string>(item, "path", "", path.string());
    std::filesystem::path checked(relative);
    if (checked.is_absolute() || std::find(checked.begin(), checked.end(), "..") != checked.end())
      fail(ErrorCode::corrupt, {.what = "cannot read module " + type,
                                .expected = "expected a path inside the folder, got " + relative,
                                .where = "in " + path.string()});
    modules.push_back({relative, type.substr(type.rfind('.') + 1)});
  }
  return modules;
}

Pooling read_pooling(const json& object, const std::string& where) {
  // Older folders have a flag for each mode, newer ones a word.
  std::vector<std::string> on;
  auto mode = object.find("pooling_mode");
  if (mode != object.end() && mode->is_string()) {
    auto word = mode->get<std::string>();
    on.push_back("pooling_mode_" + word +
                 (word == "cls"                     ? "_token"
                  : word == "mean" || word == "max" ? "_tokens"
                                                    : ""));
  } else if (object.is_object()) {
    for (const auto& [key, value] : object.items())
      if (key.starts_with("pooling_mode_") && value.is_boolean() && value.get<bool>()) on.push_back(key);
  }
  std::string found;
  for (const std::string& key : on) found += (found.empty() ? "" : " + ") + key;
  if (on.size() == 1) {
    if (on[0] == "pooling_mode_mean_tokens") return Pooling::mean;
    if (on[0] == "pooling_mode_cls_token") return Pooling::cls;
    if (on[0] == "pooling_mode_max_tokens") return Pooling::max;
  }
  fail(ErrorCode::unsupported,
       {.what = "cannot build this pooling",
        .expected = "expected one of mean_tokens, cls_token, max_tokens, got " + (found.empty() ? "none" : found),
        .where = "in " + where});
}

}  // namespace

std::string_view name(Head head) noexcept {
  switch (head) {
    case Head::encoder: return "encoder";
    case Head::sequence_classification: return "sequence_classification";
    case Head::token_classification: return "token_classification";
    case Head::question_answering: return "question_answering";
    case Head::sentence_embedding: return "sentence_embedding";
  }
  return "?";
}

std::string_view name(Pooling pooling) noexcept {
  switch (pooling) {
    case Pooling::mean: return "mean";
    case Pooling::cls: return "cls";
    case Pooling::max: return "max";
  }
  return "?";
}

void set_num_labels(ModelConfig& config, int64_t count) {
  config.num_labels = count;
  if (static_cast<int64_t>(config.labels.size()) == count) return;
  config.labels.clear();
  for (int64_t i = 0; i < count; ++i) config.labels.push_back("LABEL_" + std::to_string(i));
}

ModelConfig parse_config(std::string_view text, const std::string& where) {
  json object = parse_json(text, where);
  if (!object.is_object())
    fail(ErrorCode::corrupt,
         {.what = "cannot read the configuration", .expected = "expected a JSON object", .where = "in " + where});
  ModelConfig config;
  config.model_type = json_get_or<std::string>(object, "model_type", "", where);
  config.architectures = json_get_or<std::vector<std::string>>(object, "architectures", {}, where);
  const bool mpnet = config.model_type == "mpnet";
  const Defaults& defaults = config.model_type == "roberta" ? kRobertaDefaults : mpnet ? kMpnetDefaults : kBertDefaults;
  config.vocab_size = size_value(object, "vocab_size", defaults.vocab_size, 1, where);
  config.hidden_size = size_value(object, "hidden_size", 768, 1, where);
  config.num_layers = size_value(object, "num_hidden_layers", 12, 1, where);
  config.num_heads = size_value(object, "num_attention_heads", 12, 1, where);
  config.intermediate_size = size_value(object, "intermediate_size", 3072, 1, where);
  config.max_positions = size_value(object, "max_position_embeddings", defaults.max_positions, 1, where);
  config.type_vocab_size = size_value(object, "type_vocab_size", defaults.type_vocab_size, 0, where);
  config.pad_token_id = size_value(object, "pad_token_id", defaults.pad_token_id, 0, where);
  config.layer_norm_eps = json_get_or<double>(object, "layer_norm_eps", defaults.layer_norm_eps, where);
  config.relative_buckets = size_value(object, "relative_attention_num_buckets", 32, 1, where);
  if (config.num_layers > kMaxLayers)
    fail(ErrorCode::corrupt, {.what = "impossible value of num_hidden_layers",
                              .expected = "expected at most 1024, got " + std::to_string(config.num_layers),
                              .where = "in " + where});
  if (!(config.layer_norm_eps >= 0 && config.layer_norm_eps < 1))
    fail(ErrorCode::corrupt, {.what = "impossible value of layer_norm_eps",
                              .expected = "expected 0 to 1, got " + std::to_string(config.layer_norm_eps),
                              .where = "in " + where});
  if (config.hidden_size % config.num_heads != 0)
    fail(ErrorCode::corrupt, {.what = "cannot split hidden_size over the attention heads",
                              .expected = "expected a multiple of " + std::to_string(config.num_heads) + ", got " +
                                          std::to_string(config.hidden_size),
                              .where = "in " + where});
  config.problem_type = json_get_or<std::string>(object, "problem_type", "", where);
  read_labels(object, config, where);

  // What follows only matters for models that are built here; an unknown family is refused for its name, not for these.
  if (config.model_type != "bert" && config.model_type != "roberta" && !mpnet && !config.model_type.empty())
    return config;
  config.hidden_act = activation(json_get_or<std::string>(object, "hidden_act", "gelu", where), where);
  config.head = head_of(config.architectures, where);
  auto positions = json_get_or<std::string>(object, "position_embedding_type", "absolute", where);
  if (positions != "absolute")
    fail(ErrorCode::unsupported, {.what = "cannot build position_embedding_type \"" + positions.substr(0, 80) + "\"",
                                  .expected = "expected \"absolute\"",
                                  .where = "in " + where});
  if (json_get_or<bool>(object, "is_decoder", false, where))
    fail(ErrorCode::unsupported,
         {.what = "cannot build a decoder", .expected = "expected is_decoder to be false", .where = "in " + where});
  return config;
}

std::filesystem::path transformer_folder(const std::filesystem::path& folder) {
  for (const Module& module : read_modules(folder))
    if (module.type == "Transformer") return module.path.empty() ? folder : folder / module.path;
  return folder;
}

ModelConfig read_config(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored))
    fail(ErrorCode::not_found,
         {.what = "cannot open the model folder " + folder.string(), .expected = "it does not exist"});
  if (!std::filesystem::is_directory(folder, ignored))
    fail(ErrorCode::invalid_argument, {.what = "cannot read " + folder.string() + " as a Hugging Face folder",
                                       .expected = "expected a folder with config.json and the weights, got a file"});
  std::vector<Module> modules = read_modules(folder);
  std::filesystem::path inner = transformer_folder(folder);
  std::filesystem::path path = inner / "config.json";
  if (!std::filesystem::exists(path, ignored))
    fail(ErrorCode::not_found, {.what = "cannot read " + folder.string() + " as a Hugging Face folder",
                                .expected = "expected config.json in it, found none",
                                .where = "in " + inner.string(),
                                .hint = "pass the folder that holds config.json and the weights"});
  ModelConfig config = parse_config(read_text(path), path.string());
  if (modules.empty()) return config;

  SentenceConfig sentence;
  bool pooled = false;
  for (const Module& module : modules) {
    std::string where = (folder / module.path / "config.json").string();
    if (module.type == "Transformer") {
      continue;
    } else if (module.type == "Pooling" && !pooled) {
      sentence.pooling = read_pooling(module_config(folder, module.path), where);
      pooled = true;
    } else if (module.type == "Normalize") {
      sentence.normalize = true;
    } else {
      fail(ErrorCode::unsupported,
           {.what = "cannot build the sentence-transformers module " + module.type.substr(0, 80),
            .expected = "expected Transformer, one Pooling, Normalize",
            .where = "in " + (folder / "modules.json").string()});
    }
  }
  if (!pooled) return config;  // a folder of token embeddings: the bare encoder
  std::filesystem::path settings = inner / "sentence_bert_config.json";
  if (std::filesystem::is_regular_file(settings, ignored)) {
    json object = read_json(settings);
    sentence.max_seq_length = size_value(object, "max_seq_length", 0, 0, settings.string());
    sentence.do_lower_case = json_get_or<bool>(object, "do_lower_case", false, settings.string());
  }
  config.sentence = sentence;
  config.head = Head::sentence_embedding;
  return config;
}

}  // namespace octet::hf
