// Was it worth it: every form of a model that runs here, with its accuracy and its time, as one page.
#pragma once

#include <octet/calibration.h>
#include <octet/dataset.h>
#include <octet/model.h>
#include <octet/progress.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace octet {

struct ReportOptions {
  int64_t limit = 0;              ///< rows evaluated, spread evenly; 0 = all
  int64_t sensitivity_rows = 40;  ///< for the layers' picture; 0 leaves it out
  int64_t max_length = 0;
  std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 16}, {1, 64}, {1, 128}, {8, 16}, {8, 64}, {8, 128}};
  double seconds = 1.0;  ///< of timing a form at a shape
  int threads = 0;
};

/// The same content three times.
struct Report {
  std::string html;  ///< one file: no script, no request to anywhere
  std::string markdown;
  std::string json;
};

/// Compiles, evaluates and times FP32, static and dynamic INT8 on this CPU, taking turns. Accuracy and time of a row
/// come from the same plan. What is not measured has a row that says why.
Report report(const Model& model, const Calibration& calibration, const Dataset& data,
              const ReportOptions& options = {}, const Progress& progress = {});

/// Writes `html` and, beside it under the same name, .md and .json; returns the three paths. Throws io.
std::vector<std::filesystem::path> save_report(const Report& report, const std::filesystem::path& html);

}  // namespace octet
