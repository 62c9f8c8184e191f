// What a calibration pass found, the ranges chosen from it, and the files that keep both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace octet {

/// How `calibrate` (plan.h) places quantizers, takes statistics and chooses ranges.
struct CalibrateOptions {
  /// "residual-channel" (default), "residual-float", "qdqbert", "linear-only".
  std::string placement = "residual-channel";
  /// "max", "percentile:P", "entropy", "mse", or "auto": per tensor by measured quantization error.
  std::string method = "auto";
  /// Strength of channel balancing on edges into linears, 0..1; negative: the placement's default (0 for qdqbert and
  /// linear-only).
  double balance = -1;
  int64_t samples = 256;       ///< rows used, spread evenly over those given (compatible: from the first on)
  int64_t max_length = 0;      ///< rows are cut to this many tokens; 0 = the model's
  std::string device = "cpu";  ///< "cpu" or "cuda": where the pass runs; statistics differ by rounding only
  int threads = 0;
  bool compatible = false;  ///< the reference's histograms (first batch's range, left edges), for reproducing it
  /// Pad rows to max_length with padding ids, as the reference does, to see what that does to ranges. Padding is
  /// computed like text here: unlike the reference's it is attended to.
  bool include_padding = false;
  bool quantize_head = false, quantize_pooler = false, float_embeddings = false, share_qkv = false;
  int64_t bias_rows = 0;  ///< rows whose mean error of every linear goes into its bias (docs/numerics.md); 0 = none
  double clip_gelu = 0;   ///< upper bound of the GELU output's range; 0 = none
  std::string probabilities = "";      ///< "u8" or "s8"; empty: the placement's own
  std::string activation_type = "s8";  ///< s2 to s8
  std::string weight_type = "s8";      ///< s2 to s8
  std::string weight_method = "max";   ///< a channel's range: "max", "percentile:P" or "mse"
  /// Glob or exact quantizer name -> "on" or "off", applied in order; "layer.1.*" does not match layer 10.
  std::vector<std::pair<std::string, std::string>> states;
};

/// Statistics and ranges of one model's quantizers: a value, cheap to copy.
class Calibration {
 public:
  /// Throws not_found, corrupt (with the tensor).
  static Calibration load(const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;
  /// Statistics of both, ranges chosen again. Throws invalid_argument when they belong to different models or
  /// placements.
  static Calibration merge(const Calibration& a, const Calibration& b);

  /// Hash of the model it belongs to (ModelInfo::hash).
  const std::string& model_hash() const noexcept;
  const CalibrateOptions& options() const noexcept;
  int64_t samples() const noexcept;  ///< rows seen
  int64_t tokens() const noexcept;

  /// One line a quantizer.
  struct Range {
    std::string quantizer;
    std::string tensor;  ///< the value that it quantizes
    std::string type;    ///< "s8"
    std::string method;
    double lo = 0, hi = 0;  ///< the real range (largest over channels)
    double observed_amax = 0;
    int64_t channels = 1;  ///< scales
  };
  std::vector<Range> ranges() const;
  int64_t corrected_biases() const noexcept;  ///< linears with a correction

  struct State;  ///< opaque
  const State& state() const noexcept { return *state_; }
  explicit Calibration(std::shared_ptr<const State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<const State> state_;
};

}  // namespace octet
