// A model as it comes from Hugging Face: its graph, sizes, labels and tokenizer.
#pragma once

#include <octet/tokenizer.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

/// What a model's output means.
enum class Task {
  encoder,                  ///< one vector a token: [tokens, hidden]
  embedding,                ///< one vector a text: [rows, hidden]
  sequence_classification,  ///< one score a label: [rows, labels]
  regression,               ///< one number: [rows, 1]
  token_classification,     ///< one score a label and token: [tokens, labels]
  question_answering,       ///< start and end scores: [tokens, 2]
};
/// "embedding" and so on, as in the enum.
std::string_view name(Task task) noexcept;

/// Facts about a model; a compiled plan keeps them.
struct ModelInfo {
  std::string family;  ///< "bert", "roberta"
  Task task = Task::encoder;
  int64_t vocabulary = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t max_length = 0;           ///< most tokens of a text, special ones included
  std::vector<std::string> labels;  ///< by id; empty for embeddings and regression
  std::string problem_type;         ///< as config.json has it; often empty
  std::string pooling;              ///< "mean", "cls", "max" for embeddings
  bool normalize = false;           ///< embeddings have length 1
  int64_t parameters = 0;           ///< numbers in the weights
  int64_t quantizers = 0;           ///< that an ONNX file brought along; INT8 plans take their ranges from them
  std::string hash;                 ///< of graph and weights, 16 hex digits: what a calibration file belongs to
  std::string source;               ///< the folder it came from
};

/// Whether a text may have any number of the labels.
bool has_several_labels(const ModelInfo& info) noexcept;

struct LoadOptions {
  bool check_finite = true;  ///< refuse NaN and Inf weights (one pass over them)
  /// Give the encoder a fresh head: sequence classification with this many labels (deterministic initialisation). 0
  /// keeps the head.
  int64_t new_labels = 0;
  /// Of an ONNX file: the folder with its tokenizer and config.json (labels); empty: the file's folder or the one
  /// above.
  std::filesystem::path tokenizer;
  /// Of an ONNX file: do not raise it to octet's operations, run its nodes one by one as they stand.
  bool as_is = false;
};

/// A loaded Hugging Face folder or ONNX file: immutable, cheap to copy, usable from many threads.
class Model {
 public:
  /// Reads config.json, the weights and the tokenizer (when there is one). Throws not_found, corrupt, unsupported
  /// (family, activation ...); missing, unexpected and mis-shaped tensors are listed all at once.
  /// Of an ONNX file (`.onnx`): raises it to octet's operations. One that cannot be raised runs node by node (`as_is`);
  /// operators that octet lacks are listed all at once (unsupported).
  static Model load(const std::filesystem::path& folder, const LoadOptions& options = {});

  const ModelInfo& info() const noexcept;
  bool has_tokenizer() const noexcept;
  /// Throws not_found when the folder has none.
  const Tokenizer& tokenizer() const;
  /// What was understood of an ONNX file in a way that a reader should know; empty for folders.
  const std::vector<std::string>& notes() const noexcept;
  /// An ONNX file whose nodes run one by one in float, because it could not be raised (`notes` say why) or was asked
  /// for so: it can be compiled (fp32, CPU), run, evaluated, timed and explained, not calibrated or quantized.
  bool as_is() const noexcept;
  /// The graph in its text form.
  std::string graph_text() const;

  struct State;  ///< opaque
  const State& state() const noexcept { return *state_; }

 private:
  explicit Model(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace octet
