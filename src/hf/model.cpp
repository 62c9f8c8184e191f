// load_model: which family, which head, which prefix; then the family's builder.
#include "hf/model.h"

#include <algorithm>

#include "core/error.h"
#include "hf/families/family.h"

namespace octet::hf {

namespace {

/// Types that folder names may tell, besides those that are known, so that "distilbert" is not taken for "bert".
constexpr std::string_view kOtherTypes[] = {"albert",     "bart",        "camembert",   "convbert",      "deberta",
                                            "distilbert", "electra",     "ernie",       "flaubert",      "funnel",
                                            "ibert",      "layoutlm",    "longformer",  "megatron-bert", "mobilebert",
                                            "modernbert", "nezha",       "nomic_bert",  "qdqbert",       "rembert",
                                            "roformer",   "squeezebert", "visual_bert", "xlm-roberta",   "xlnet"};

bool any_begins(const Weights& weights, std::string_view prefix) {
  auto found = weights.tensors().lower_bound(std::string(prefix));
  return found != weights.tensors().end() && found->first.starts_with(prefix);
}

/// model_type of configurations from before the key existed: the class, the names of the weights, or the folder's name
/// (as transformers does it).
std::string guess_type(const ModelConfig& config, const Weights& weights, const std::filesystem::path& folder) {
  if (!config.architectures.empty())
    for (const Family* family : families())
      for (std::string_view rest : {"For", "Model"})
        if (config.architectures.front().starts_with(std::string(family->class_stem) + std::string(rest)))
          return std::string(family->model_type);
  for (const Family* family : families())
    if (any_begins(weights, family->prefix)) return std::string(family->model_type);
  std::vector<std::string> types(std::begin(kOtherTypes), std::end(kOtherTypes));
  for (const Family* family : families()) types.emplace_back(family->model_type);
  std::sort(types.begin(), types.end(), [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  std::string name = std::filesystem::absolute(folder).lexically_normal().filename().string();
  for (const std::string& type : types)
    if (name.find(type) != std::string::npos) return type;
  fail(ErrorCode::unsupported,
       {.what = "cannot tell the family of " + folder.string(),
        .expected = "expected \"model_type\" in config.json, got none",
        .hint = "add \"model_type\": \"bert\" (or another of the known families) to config.json"});
}

const Family& find_family(const std::string& type, const std::filesystem::path& folder) {
  for (const Family* family : families())
    if (family->model_type == type) return *family;
  std::string known;
  for (const std::string& name : known_families()) known += (known.empty() ? "" : ", ") + name;
  fail(ErrorCode::unsupported, {.what = "cannot build model_type \"" + type.substr(0, 80) + "\"",
                                .expected = "expected one of " + known,
                                .where = "in " + (transformer_folder(folder) / "config.json").string()});
}

/// The head that the weights show, for configurations without architectures.
Head guess_head(const Weights& weights, const std::string& prefix) {
  if (weights.has("qa_outputs.weight")) return Head::question_answering;
  if (weights.has("classifier.out_proj.weight")) return Head::sequence_classification;
  if (weights.has("classifier.weight"))
    return weights.has(prefix + "pooler.dense.weight") ? Head::sequence_classification : Head::token_classification;
  return Head::encoder;
}

}  // namespace

std::vector<std::string> known_families() {
  std::vector<std::string> names;
  for (const Family* family : families()) names.emplace_back(family->model_type);
  return names;
}

LoadedModel load_model(const std::filesystem::path& folder, const LoadOptions& options) {
  LoadedModel model;
  model.config = read_config(folder);
  // An unknown family is refused before its weights are read.
  if (!model.config.model_type.empty()) find_family(model.config.model_type, folder);
  Weights weights(read_weights(transformer_folder(folder), model.files), folder.string());
  if (model.config.model_type.empty()) model.config.model_type = guess_type(model.config, weights, folder);
  const Family& family = find_family(model.config.model_type, folder);

  std::string prefix(any_begins(weights, family.prefix) ? family.prefix : "");
  Head head = options.head.value_or(model.config.head.value_or(guess_head(weights, prefix)));
  if (options.new_labels) {
    if (*options.new_labels < 1 || *options.new_labels > 1'000'000)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot add a new head",
            .expected = "expected 1 to 1000000 labels, got " + std::to_string(*options.new_labels)});
    head = Head::sequence_classification;
    set_num_labels(model.config, *options.new_labels);
    weights.make_fresh("classifier.");
    if (!weights.has(prefix + "pooler.dense.weight")) weights.make_fresh(prefix + "pooler.");
  }
  model.config.head = head;
  model.max_tokens = family.max_tokens(model.config);
  if (model.max_tokens < 1)
    fail(ErrorCode::corrupt, {.what = "the position table is too small",
                              .expected = "expected more than pad_token_id + 1 positions, got " +
                                          std::to_string(model.config.max_positions),
                              .where = "in " + (transformer_folder(folder) / "config.json").string()});
  model.graph.name = model.config.model_type;
  Builder builder(model.graph, weights, model.config, prefix, head);
  family.build(builder);
  model.unused = weights.finish(options.allow_unexpected, options.check_finite);
  return model;
}

}  // namespace octet::hf
