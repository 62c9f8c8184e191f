// Training through libtorch: fine-tuning and quantization-aware training of a Hugging Face folder.
//
// These functions live in the library octet_train, which exists where libtorch was found when octet was built.
#pragma once

#include <octet/dataset.h>
#include <octet/evaluate.h>
#include <octet/model.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace octet {

/// Defaults are those of the reference's recipe, but for the learning rate.
struct TrainOptions {
  double epochs = 1;
  int64_t max_steps = 0;   ///< optimizer steps; 0: as many as the epochs have
  int64_t batch = 32;      ///< rows of a forward pass
  int64_t accumulate = 1;  ///< passes of an optimizer step
  int64_t max_length = 0;  ///< rows are cut to this many tokens; 0: the model's
  double learning_rate = 2e-5;
  double weight_decay = 0.01;  ///< not for biases and LayerNorms
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double clip_norm = 1.0;           ///< of all gradients together; 0: none
  std::string schedule = "linear";  ///< down to 0; "cosine": down to final_rate; "constant"
  double warmup = 0;                ///< steps of linear rise; below 1: a share of all steps
  double final_rate = 0;            ///< where cosine ends, as a share of learning_rate
  std::string precision = "fp32";   ///< of activations: "fp32", "fp16" (with loss scaling), "bf16", "fp64"
  std::string device = "auto";      ///< "cpu", "cuda", or the GPU where there is one
  uint64_t seed = 42;
  int threads = 0;               ///< 0: one per CPU
  int64_t evaluate_every = 0;    ///< steps; 0: at the end of each epoch
  int64_t checkpoint_every = 0;  ///< steps; 0: after each evaluation
  int64_t log_every = 10;        ///< steps between lines of metrics.jsonl and reports
  double dropout = -1;           ///< all probabilities; negative: those of config.json
  bool group_by_length = true;   ///< rows of like length share batches
  bool fused_attention = true;   ///< torch's fused attention where no quantizer needs the probabilities (GPU, 16 bits)
  bool restore_best = true;      ///< the result is the best evaluated state, else the last
  bool resume = false;           ///< go on from the checkpoint in the output folder, if there is one
  int processes = 1;             ///< that train together, on all hosts; a step has as many batches from each
  int process = 0;               ///< this one's number; process 0 writes the output
  std::string meeting;           ///< "address:port" where process 0 awaits the others
  int64_t new_labels = 0;        ///< a fresh classification head of that many labels
  std::vector<std::string> labels;  ///< their names; empty: from the training data
};

/// What quantization-aware training adds.
struct QatOptions {
  std::filesystem::path calibration;  ///< ranges and placement; empty: the folder's octet_calibration.safetensors
  std::string method;                 ///< chooses ranges again from the calibration's statistics
  /// Glob or exact quantizer name -> "on" or "off", applied in order after the calibration's own.
  std::vector<std::pair<std::string, std::string>> states;
  bool follow_weights = false;    ///< weight ranges are taken from the weights again at every step, else frozen
  bool learn_ranges = false;      ///< activation ranges are trained
  std::filesystem::path teacher;  ///< a fine-tuned folder of the same family and size to distill from
  double distill_logits = 1.0;    ///< weight of the divergence between softened logits, beside a weight of 1 for labels
  double distill_hidden = 0.0;    ///< weight of the mean squared difference of layer outputs
  double temperature = 2.0;
};

/// One line of the log.
struct TrainStep {
  int64_t step = 0, steps = 0;  ///< done, of
  double epoch = 0;
  double loss = 0;  ///< mean since the last report
  double learning_rate = 0;
  double gradient_norm = 0;
  double seconds = 0, seconds_left = 0;
  double rows_per_s = 0, tokens_per_s = 0;  ///< without evaluations
  bool evaluated = false;                   ///< the fields below are new
  std::string metric;
  double value = 0, dev_loss = 0;
  std::map<std::string, double> metrics;
};
using TrainReport = std::function<void(const TrainStep&)>;

struct TrainResult {
  int64_t steps = 0, skipped = 0;  ///< skipped: by the loss scaler
  double seconds = 0;              ///< of the steps, without evaluations
  double rows_per_s = 0, tokens_per_s = 0;
  double first_loss = 0, last_loss = 0;
  std::string metric;
  double value = 0;  ///< of the saved state
  int64_t best_step = 0;
  int64_t resumed_from = 0;  ///< step of the checkpoint
  int64_t truncated = 0;
  std::string device;
  std::string transport;     ///< between processes: "NCCL" or "gloo"; empty: one process
  std::map<std::string, double> metrics;
  std::vector<double> losses;  ///< of every step of this run
};

/// Fine-tunes the model in `folder` on `train` and writes a Hugging Face folder to `output`, together with
/// metrics.jsonl and, while it runs, checkpoint/. `dev` is evaluated on the way. Throws invalid_argument (labels,
/// options, data of one class, other settings than the checkpoint's), out_of_memory, and invalid_argument when the loss
/// is not a number (the last checkpoint stays).
TrainResult finetune(const std::filesystem::path& folder, const Dataset& train, const Dataset* dev,
                     const std::filesystem::path& output, const TrainOptions& options = {},
                     const TrainReport& report = {});

/// The same with the calibration's quantizers in place; the output folder gets octet_calibration.safetensors with the
/// ranges that were trained with.
TrainResult qat(const std::filesystem::path& folder, const Dataset& train, const Dataset* dev,
                const std::filesystem::path& output, const TrainOptions& options = {},
                const QatOptions& quantization = {}, const TrainReport& report = {});

struct TorchRunOptions {
  std::filesystem::path calibration;  ///< adds fake quantization; empty: float
  std::string method;
  bool dynamic = false;  ///< fake quantization with dynamic ranges
  std::string precision = "fp32", device = "auto";
  int threads = 0;
  bool autocast =
      false;  ///< with precision fp16 or bf16: fp32 parameters, operators in 16 bits as torch's autocast chooses
};
/// Outputs of all rows through libtorch, laid out as run_all gives them.
std::vector<float> run_torch(const std::filesystem::path& folder, const std::vector<Encoding>& rows,
                             const TorchRunOptions& options = {}, const Progress& progress = {});

/// A model that stays in libtorch: outputs of the rows as one batch, laid out as run_all gives them, and the
/// milliseconds from token ids to answers.
using TorchRunner = std::function<std::vector<float>(std::span<const Encoding> rows, double* ms)>;
TorchRunner open_torch(const std::filesystem::path& folder, const TorchRunOptions& options = {});

/// The functions above, for programs that load octet_train when they need it: dlsym(library,
/// "octet_train_functions_2").
struct TrainFunctions {
  TrainResult (*finetune)(const std::filesystem::path&, const Dataset&, const Dataset*, const std::filesystem::path&,
                          const TrainOptions&, const TrainReport&);
  TrainResult (*qat)(const std::filesystem::path&, const Dataset&, const Dataset*, const std::filesystem::path&,
                     const TrainOptions&, const QatOptions&, const TrainReport&);
  std::vector<float> (*run_torch)(const std::filesystem::path&, const std::vector<Encoding>&, const TorchRunOptions&,
                                  const Progress&);
  TorchRunner (*open_torch)(const std::filesystem::path&, const TorchRunOptions&);
};

}  // namespace octet
