// Measuring a plan's quality on labelled data, with the metrics that GLUE defines.
#pragma once

#include <octet/dataset.h>
#include <octet/progress.h>
#include <octet/session.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace octet {

struct EvaluateOptions {
  int64_t max_length = 0;  ///< 0: the model's
  int64_t batch_tokens =
      4096;           ///< rows are sorted by length and packed up to this many tokens; results do not depend on it
  int64_t limit = 0;  ///< rows used, 0 = all
  int threads = 0;    ///< for tokenization, 0 = one per CPU
  bool keep_outputs = false;  ///< fill Evaluation::outputs
};

struct Evaluation {
  std::string metric;  ///< the main one: "accuracy", "spearman", "f1" ...
  double value = 0;    ///< in 0..1, correlations in -1..1
  int64_t rows = 0;
  double seconds = 0;                     ///< inference, without tokenization
  std::map<std::string, double> metrics;  ///< all of them
  std::vector<int64_t> predictions;       ///< label ids by row (classification); several labels: 0 or 1 for each
  std::vector<float> scores;              ///< by row: regression value, or cosine of a pair of embeddings
  int64_t truncated = 0;                  ///< texts (each of a pair's two, for embeddings) that were cut to the length
  int64_t width = 0;                      ///< of an output
  std::vector<float> outputs;  ///< as run_all gives them; a pair of embeddings is two rows, one after the other
};

/// Runs the data through the session; docs/cli.md lists the metrics: accuracy, f1 and Matthews correlation of labels,
/// micro and macro f1 of several labels a text, Spearman and Pearson of numbers and pairs of embeddings, CoNLL's f1 of
/// entities, SQuAD's exact match and f1. Throws invalid_argument when the data has no fitting label.
Evaluation evaluate(Session& session, const Dataset& data, const EvaluateOptions& options = {},
                    const Progress& progress = {});

/// Rows as the model reads them.
struct EncodedRows {
  std::vector<Encoding> rows;  ///< an embedding model reads a pair as two rows, one after the other
  int64_t truncated = 0;       ///< rows that were longer than the length and were cut
};
/// Tokenizes the data for a model or plan, cutting what is longer than `max_length` (0: the model's, which it may not
/// exceed).
EncodedRows encode_rows(const Plan& plan, const Dataset& data, int64_t max_length = 0, int64_t limit = 0,
                        int threads = 0);
EncodedRows encode_rows(const Model& model, const Dataset& data, int64_t max_length = 0, int64_t limit = 0,
                        int threads = 0);

/// Scores outputs that something else computed for `encoded`, the rows of `data` from the first on, laid out as run_all
/// gives them. Throws as evaluate.
Evaluation score_outputs(const ModelInfo& info, const Dataset& data, const EncodedRows& encoded,
                         std::vector<float> outputs);

/// What token_labels gives a token that is not judged.
constexpr int64_t kNoLabel = -100;
/// The label id of each token of row `row`: words and their labels are separated by spaces, and a word's first token
/// has its label. Throws invalid_argument for a word without a known label.
std::vector<int64_t> token_labels(std::span<const std::string> labels, const Dataset& data, int64_t row,
                                  const Encoding& encoding);

/// How near two models' outputs on the same rows are.
struct Agreement {
  double equal_labels = 0;  ///< share of rows with the same largest entry
  double mean_cosine = 0;   ///< mean over rows
  double min_cosine = 0;
  double rms_error = 0;       ///< root mean square of the difference
  double relative_error = 0;  ///< rms_error over the root mean square of the other
  double max_error = 0;       ///< largest difference
  double max_value = 0;       ///< largest magnitude of the other: the outputs' scale
};
/// Compares rows of `width` values; both have the same size.
Agreement agreement(std::span<const float> outputs, std::span<const float> other, int64_t width);

/// Outputs of all rows, [rows, width] in file order: embeddings or logits.
std::vector<float> run_all(Session& session, const std::vector<Encoding>& rows, int64_t batch_tokens = 4096,
                           const Progress& progress = {});

/// Rank correlation with ties averaged.
double spearman(std::span<const double> a, std::span<const double> b);
double pearson(std::span<const double> a, std::span<const double> b);

}  // namespace octet
