// config.json and the files of a sentence-transformers folder, as one struct with Hugging Face's defaults filled in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace octet::hf {

/// What stands on top of the encoder.
enum class Head : uint8_t {
  encoder,
  sequence_classification,
  token_classification,
  question_answering,
  sentence_embedding
};
/// "sequence_classification" and so on, as in the enum.
std::string_view name(Head head) noexcept;

enum class Pooling : uint8_t { mean, cls, max };
std::string_view name(Pooling pooling) noexcept;

/// A sentence-transformers folder: what its modules say.
struct SentenceConfig {
  Pooling pooling = Pooling::mean;
  bool normalize = false;
  int64_t max_seq_length = 0;  ///< 0 when not stated
  bool do_lower_case = false;
};

struct ModelConfig {
  std::string model_type;  ///< "bert", "roberta", "mpnet"; empty when config.json has none
  std::vector<std::string> architectures;
  std::optional<Head> head;  ///< from architectures or modules.json; nothing when neither says

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t intermediate_size = 0;
  int64_t max_positions = 0;  ///< rows of the position table (RoBERTa: two more than usable)
  int64_t type_vocab_size = 0;
  int64_t pad_token_id = 0;
  double layer_norm_eps = 0;
  int64_t relative_buckets = 0;  ///< rows of MPNet's table of relative positions
  std::string hidden_act;        ///< "gelu", "gelu_new", "relu", "tanh": spellings with equal results are one

  int64_t num_labels = 2;
  std::vector<std::string> labels;  ///< id2label in order of id; num_labels long
  std::string problem_type;  ///< "regression", "single_label_classification", "multi_label_classification", or empty
  std::optional<SentenceConfig> sentence;
};

/// The values of config.json; `where` names it in errors. Wrong types and impossible sizes throw corrupt, an
/// activation, attention or architecture that octet lacks throws unsupported. model_type is not judged here (families
/// do that).
ModelConfig parse_config(std::string_view text, const std::string& where);
/// config.json of a folder (or of the folder's transformer module), with modules.json and its files where they exist.
ModelConfig read_config(const std::filesystem::path& folder);
/// Where config.json and the weights lie: `folder`, or the sub-folder that modules.json names for the transformer.
std::filesystem::path transformer_folder(const std::filesystem::path& folder);

/// Sets the number of labels and names them LABEL_0, LABEL_1 ... unless there are that many names already.
void set_num_labels(ModelConfig& config, int64_t count);

}  // namespace octet::hf
