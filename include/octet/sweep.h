// What to quantize: how much each quantizer costs in accuracy, and the plans that are best for their time.
#pragma once

#include <octet/calibration.h>
#include <octet/dataset.h>
#include <octet/model.h>
#include <octet/progress.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace octet {

/// How far outputs are from those of the float model, over all rows.
struct OutputError {
  double sqnr_db = 0;         ///< signal over noise, in decibels; infinite for equal outputs
  double relative_error = 0;  ///< root of noise over signal
  double cosine = 0;          ///< mean over rows
  double min_cosine = 0;
  std::optional<double> kl;      ///< mean divergence of the label distributions; classification only
  std::optional<double> metric;  ///< the task's, when the data has labels
};

struct SensitivityOptions {
  /// "quantizer" (those that share a range and a value count as one), "op" (one part of all layers), "layer", or "site"
  /// (what an INT8 plan computes as one: a product with its operands, an attention, a residual add).
  std::string unit = "quantizer";
  bool only = true;     ///< only this unit quantized
  bool all_but = true;  ///< everything but this unit quantized
  int64_t limit = 0;    ///< rows used, spread evenly over the data; 0 = all
  int64_t max_length = 0;
  int64_t batch_tokens = 1024;
  int threads = 0;
  /// Kept up to date while work goes on, so that it can be interrupted; an existing one of the same work is continued
  /// and leads to the same numbers. Empty: none.
  std::filesystem::path state;
  double save_every = 2;  ///< seconds between writes of `state`: what a killed process loses
};

struct SensitivityRow {
  std::string name;
  std::vector<std::string> quantizers;
  int64_t layer = -1;  ///< -1: none, or several
  std::string kind;    ///< "linear", "attention", "add", "embedding"; empty for layers
  std::string tensor;  ///< that a single quantizer reads
  std::optional<OutputError> only, all_but;
};

struct Sensitivity {
  std::string metric;         ///< empty in label-free mode
  std::string metric_reason;  ///< why there is none, or why it says nothing ("is constant")
  double float_metric = 0;
  OutputError all;                   ///< with every quantizer on
  std::vector<SensitivityRow> rows;  ///< most harmful first
  std::string unit;
  int64_t data_rows = 0, texts = 0, tokens = 0, truncated = 0;
  int64_t resumed_batches = 0, batches = 0;
  int64_t resumed_runs = 0;   ///< runs of a batch that the state file had
  double seconds = 0;         ///< of this run
  double computed_share = 0;  ///< steps computed over those of whole passes
};

/// Measures every unit of the calibration's quantizers on the fake-quant graph in float arithmetic. Values before the
/// unit are computed once. Throws invalid_argument (another model's calibration, dynamic ranges, no rows, a state file
/// of other work).
Sensitivity sensitivity(const Model& model, const Calibration& calibration, const Dataset& data,
                        const SensitivityOptions& options = {}, const Progress& progress = {});

struct StrengthEdge {
  std::string node;              ///< the linear, or the scores of q and k
  double before = 0, after = 0;  ///< relative error of its result in power
  double strength = 0;           ///< chosen; the calibration's own where `before` is least
};
struct StrengthResult {
  std::vector<StrengthEdge> edges;
  double seconds = 0;
};
struct SearchOptions {
  /// Most points (hundredths of the metric; of the mean cosine without labels) that may be lost against float;
  /// negative: no bound.
  double max_drop = -1;
  double max_latency_ms = 0;   ///< 0: no bound
  double min_int8_work = 0;    ///< least share of the matrix products' work in INT8, 0 to 1
  std::string device = "cpu";  ///< "cpu" or "cuda": where plans are evaluated and timed
  /// A card that is not here ("h100", "a100", "l4" ...): plans are evaluated on `device`, but their latency is
  /// modelled, as the sum of each step's least time by the card's data sheet and a launch. Such times are marked.
  std::string latency_model;
  int64_t batch = 8, length = 64;  ///< the shape whose latency counts
  int64_t limit = 0;               ///< rows used, spread evenly; half of them are held out
  int64_t sensitivity_rows = 100;  ///< of the search half
  int64_t max_length = 0;
  int64_t balance_rows = 0;  ///< > 0: balance_edges on this many rows of the search half comes first
  int64_t bias_rows = 0;     ///< > 0: correct_biases on this many of them comes after that
  int candidates = 16;       ///< plans measured, at most
  double seconds = 1.0;      ///< of timing a plan
  int threads = 0;
};

/// A plan with some sites left in float.
struct SearchPoint {
  std::vector<std::string> float_sites;
  std::vector<std::string> float_quantizers;
  double predicted_ms = 0, median_ms = 0, sd_ms = 0, min_ms = 0;
  double search_value = 0;    ///< metric on the rows that were searched on
  double held_out_value = 0;  ///< on rows that nothing was chosen on; of Pareto points only
  double held_out_drop = 0;   ///< against float there, in points
  double held_out_cosine = 0;
  double int8_work_fraction = 0;
  int64_t weight_bytes = 0;
  bool pareto = false, chosen = false;
};

struct SearchResult {
  std::string metric;  ///< "cosine" without labels
  std::string metric_reason;
  double float_search_value = 0, float_held_out_value = 0;
  double float_ms = 0, float_sd_ms = 0;
  std::string device;     ///< whose times these are
  bool modelled = false;  ///< times are modelled, not measured
  int64_t search_rows = 0, held_out_rows = 0;
  std::vector<SearchPoint> points;  ///< fastest first
  bool found = false;               ///< a point keeps the bounds on the search rows and on the held-out rows
  std::string reason;               ///< why not, or what was passed over
  Sensitivity sites;
  StrengthResult strengths;                ///< with balance_rows
  std::optional<Calibration> calibration;  ///< of the chosen point, when found
  double seconds = 0;
};

/// Chooses which sites to leave in float: candidates from sensitivity and measured cost of each kind of site, each
/// compiled for the device, evaluated and timed; the Pareto set is verified on held-out rows. Throws invalid_argument
/// (fewer than 2 rows, an unknown card, a bound out of range), unsupported (a device that is not here).
SearchResult search(const Model& model, const Calibration& calibration, const Dataset& data,
                    const SearchOptions& options = {}, const Progress& progress = {});

/// The calibration with these quantizers off: what `compile` takes.
Calibration without(const Calibration& calibration, std::span<const std::string> quantizers);

/// Searches the strength of channel balancing edge by edge (inputs of linears, q against k) for the least error of the
/// edge's own result on some rows, and returns the calibration with those ranges. Throws invalid_argument for a
/// placement without balancing.
Calibration balance_edges(const Model& model, const Calibration& calibration, std::span<const Encoding> rows,
                          StrengthResult* result = nullptr, const Progress& progress = {}, int threads = 0);

/// The calibration with the mean error of every quantized linear on some rows (8,192 tokens at most) folded into its
/// bias. Ranges chosen again lose it. Throws invalid_argument (another model's calibration, no rows).
Calibration correct_biases(const Model& model, const Calibration& calibration, std::span<const Encoding> rows,
                           const Progress& progress = {}, int threads = 0);

struct RangeSearchOptions {
  CalibrateOptions calibrate;  ///< placement and everything but the method and the number of samples
  std::vector<std::string> methods = {"auto",
                                      "max",
                                      "mse",
                                      "entropy",
                                      "percentile:99.9",
                                      "percentile:99.99",
                                      "percentile:99.999",
                                      "percentile:99.9999"};
  std::vector<int64_t> samples = {32, 64, 128, 256};  ///< rows of calibration, each a part of the next
  int64_t judge_rows = 64;                            ///< for choosing, and as many held out; others than calibration's
};
struct RangeTrial {
  std::string method;  ///< "per tensor" for a mixture
  int64_t samples = 0;
  double relative_error = 0, cosine = 0;  ///< of the INT8 plan's outputs to float's
  bool chosen = false;
};
struct RangeSearchResult {
  std::vector<RangeTrial> trials;                                            ///< in the order of measuring
  std::map<std::string, int64_t> per_tensor;                                 ///< products by method, of the mixture
  double held_out_error = 0, held_out_cosine = 0, first_held_out_error = 0;  ///< chosen; `methods[0]` on all samples
  int64_t calibration_rows = 0, judge_rows = 0, held_out_rows = 0;
  double seconds = 0, pass_seconds = 0;  ///< pass: of taking statistics
};
/// Takes statistics in one pass over the rows, and tries every method with every number of samples, then the best
/// method for each product alone: each is compiled for this CPU and judged by its outputs' error on other rows. Throws
/// invalid_argument (too few rows, unknown methods).
Calibration search_ranges(const Model& model, std::span<const Encoding> rows, const RangeSearchOptions& options = {},
                          RangeSearchResult* result = nullptr, const Progress& progress = {});

}  // namespace octet
