// Rows that a sweep works on, shared by sensitivity, search and report.
#pragma once

#include <octet/sweep.h>

#include <optional>
#include <string>
#include <vector>

#include "api/scoring.h"
#include "graph/graph.h"

namespace octet {

struct SweepRows {
  Dataset data;
  std::vector<Encoding> encoded;
  int64_t per_row = 1;  ///< texts a row: two for pairs of embeddings
  int64_t truncated = 0;
  std::optional<Expected> expected;  ///< absent: label-free
  std::string reason;                ///< why

  int64_t count() const { return data.rows(); }
  std::span<const Encoding> texts(int64_t row) const {
    return std::span(encoded).subspan(static_cast<size_t>(row * per_row), static_cast<size_t>(per_row));
  }
};

/// These rows of the data, encoded.
SweepRows sweep_rows(const Model& model, const Dataset& data, std::vector<int64_t> chosen, int64_t max_length,
                     int threads);
/// `limit` row numbers spread evenly (all for 0).
std::vector<int64_t> spread_rows(int64_t rows, int64_t limit);
Graph quantized_graph(const Model& model, const Calibration& calibration);
Sensitivity sensitivity(const Model& model, const Calibration& calibration, const SweepRows& rows,
                        const SensitivityOptions& options, const Progress& progress);

}  // namespace octet
