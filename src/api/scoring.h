// What a data set's labels say of a model's outputs, task by task.
#pragma once

#include <octet/evaluate.h>

#include <span>
#include <vector>

namespace octet {

/// Labels of the first rows, as the task reads them.
struct Expected {
  std::vector<int64_t> labels;  ///< sequence classification; several labels a text: 0 or 1 for each label of each row
  std::vector<double> numbers;  ///< regression, and pairs of embeddings
};
/// Throws unsupported (tasks without a metric) and invalid_argument (no fitting labels).
Expected expected_answers(const ModelInfo& info, const Dataset& data, int64_t rows);

/// What the metric compares, out of output vectors of `width`: the largest entry's index (classification, a text or
/// token each), 1 where a label is likelier than not (several labels), the value (regression), the cosine of two
/// vectors that follow one another (embeddings), the scores as they are (question answering).
std::vector<float> answers(const ModelInfo& info, std::span<const float> values, int64_t width);

/// Fills metric, value, metrics, predictions and scores.
void score(const ModelInfo& info, const Dataset& data, std::span<const Encoding> rows, const Expected& expected,
           std::span<const float> answers, Evaluation* evaluation);

/// Whether an output is a vector a token (else a vector a text).
bool answers_per_token(Task task) noexcept;

}  // namespace octet
