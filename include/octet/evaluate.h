// Measuring a plan's quality on labelled data, with the metrics that GLUE defines.
#pragma once

#include <octet/dataset.h>
#include <octet/progress.h>
#include <octet/session.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace octet {

struct EvaluateOptions {
  int64_t max_length = 0;        ///< 0: the model's
  int64_t batch_tokens = 4096;   ///< rows are sorted by length and packed up to this many tokens; results do not depend on it
  int64_t limit = 0;             ///< rows used, 0 = all
};

struct Evaluation {
  std::string metric;  ///< the main one: "accuracy", "spearman", "f1" ...
  double value = 0;    ///< in 0..1, correlations in -1..1
  int64_t rows = 0;
  double seconds = 0;  ///< inference, without tokenization
  std::map<std::string, double> metrics;  ///< all of them
  std::vector<int64_t> predictions;       ///< label ids by row (classification)
  std::vector<float> scores;              ///< by row: regression value, or cosine of a pair of embeddings
};

/// Runs the data through the session. Sequence classification: accuracy, f1 and Matthews correlation (2 labels), macro f1; regression and embedding
/// pairs: Spearman and Pearson against the label; token classification: token accuracy. Throws invalid_argument when the data has no fitting label.
Evaluation evaluate(Session& session, const Dataset& data, const EvaluateOptions& options = {}, const Progress& progress = {});

/// Outputs of all rows, [rows, width] in file order: embeddings or logits.
std::vector<float> run_all(Session& session, const std::vector<Encoding>& rows, int64_t batch_tokens = 4096, const Progress& progress = {});

/// Rank correlation with ties averaged.
double spearman(std::span<const double> a, std::span<const double> b);
double pearson(std::span<const double> a, std::span<const double> b);

}  // namespace octet
