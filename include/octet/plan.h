// Compiling a model to a plan, saving it, and explaining it.
#pragma once

#include <octet/calibration.h>
#include <octet/model.h>
#include <octet/progress.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

enum class Precision { fp32, fp16, bf16, int8 };
std::string_view name(Precision precision) noexcept;
/// Throws invalid_argument with the known names.
Precision parse_precision(std::string_view text);

struct CompileOptions {
  Precision precision = Precision::int8;
  /// "cpu", "cuda", or a GPU target by name ("sm90a"), which needs no GPU here.
  std::string device = "cpu";
  /// Ranges for INT8; none means dynamic ranges. Must belong to this model (hash).
  std::optional<Calibration> calibration;
  /// Chooses ranges again from the calibration's statistics ("max", "percentile:99.99", "entropy", "mse", "auto");
  /// empty keeps its own.
  std::string method;
  bool float_embeddings = false;  ///< keep embedding tables in float (INT8 stores them with one scale a row)
  /// Build the fake-quant graph on float kernels instead: what INT8 should compute, node by node.
  bool simulate = false;
  int64_t max_tokens =
      0;  ///< most tokens of a batch, which bounds the arena; longer ones are refused; 0 = 16384 on CUDA, any on a CPU
  int64_t max_length = 0;  ///< most tokens of a text; longer ones are refused; 0 = the model's
  /// CUDA: measure which tile of its products is fastest for every number of tokens up to max_tokens, and keep that in
  /// the plan and in tile_cache(). Without it a plan takes what the cache has; the rest is measured when first needed.
  bool measure = false;
  /// FP16: rows that are run in FP32 first; values that FP16 cannot hold, and what reads them, are then computed in
  /// FP32 (explain lists them). Without rows nothing is known about overflow.
  std::vector<Encoding> overflow_rows;
};

/// Where measured tiles of the GPU that is here are kept between compilations: a file in the folder OCTET_CACHE, or
/// ~/.cache/octet. Empty where there is no GPU or no such folder.
std::filesystem::path tile_cache();

/// One step of a plan.
struct ExplainedOp {
  std::string name;  ///< the graph nodes it computes
  std::string kind;  ///< "gemm", "attention", "norm", "embed", "pool", "elementwise", "scores", "positions"
  std::string kernel;
  std::string precision;  ///< "int8", "fp32", ...
  double macs = 0;        ///< multiply-accumulates of matrix products at the explained shape
  int64_t bytes = 0;      ///< weights and activations touched at the explained shape
  double ms = 0;          ///< median; 0 when not timed
  double share = 0;       ///< of the sum of ms
  double floor_ms = 0;    ///< CUDA: least time by tensor-core rate and memory bandwidth of this GPU; 0: unknown
  std::vector<std::string> refused;  ///< better kernels and why they were not taken
  std::string note;                  ///< why it is not INT8, in an INT8 plan
};
struct Explanation {
  double int8_work_fraction = 0;  ///< INT8 share of the multiply-accumulates of all matrix products, attention included
  std::string device;             ///< target the kernels were chosen for
  std::string ranges;             ///< "static (residual-channel, auto)", "dynamic", "float"
  int64_t batch = 0, length = 0;  ///< the explained shape
  double ms = 0;                  ///< whole forward pass, median
  std::vector<ExplainedOp> ops;
};
struct ExplainOptions {
  int64_t batch = 8;
  int64_t length = 128;
  int repeats = 20;  ///< 0: no timing
  int threads = 0;
};

/// A compiled model: immutable, cheap to copy, usable from many threads at once.
class Plan {
 public:
  /// Maps a plan file. Throws not_found, corrupt, unsupported (a newer format).
  static Plan load(const std::filesystem::path& path);
  /// Writes beside the target and renames. Throws io.
  void save(const std::filesystem::path& path) const;

  const ModelInfo& info() const noexcept;
  Precision precision() const noexcept;
  /// Named facts: octet version, model hash, calibration (placement, method, samples), target.
  const std::map<std::string, std::string>& provenance() const noexcept;
  bool has_tokenizer() const noexcept;
  const Tokenizer& tokenizer() const;
  /// Bytes of all weights.
  int64_t weight_bytes() const noexcept;
  Explanation explain(const ExplainOptions& options = {}) const;

  struct State;  ///< opaque
  const std::shared_ptr<const State>& state() const noexcept { return state_; }
  explicit Plan(std::shared_ptr<const State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<const State> state_;
};

Plan compile(const Model& model, const CompileOptions& options = {});

/// Runs the model in float over `rows` and records statistics of every tensor that the placement quantizes.
/// `options.samples` rows are taken, spread evenly. Throws invalid_argument (no rows).
Calibration calibrate(const Model& model, std::span<const Encoding> rows, const CalibrateOptions& options = {},
                      const Progress& progress = {});

}  // namespace octet
