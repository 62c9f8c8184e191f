// Was it worth it: every form of a model that runs here, with its accuracy and its time, as one page.
#pragma once

#include <octet/calibration.h>
#include <octet/dataset.h>
#include <octet/model.h>
#include <octet/progress.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace octet {

/// What another engine gave for one call.
struct PeerAnswer {
  std::vector<float> values;  ///< laid out as run_all gives them
  double ms = 0;              ///< of the call, as the engine's own process measured it
};

/// Another engine that runs the same model.
struct ReportPeer {
  std::string name, device = "cpu", precision;
  std::string absent;  ///< why it does not run; `run` is not called then
  /// Runs the rows as one batch. What it throws becomes the row's reason.
  std::function<PeerAnswer(std::span<const Encoding>)> run;
  std::function<int64_t()> memory;  ///< bytes at its peak, without what it takes without a model; may be empty
  int64_t model_bytes = 0;          ///< of its file; 0: unknown
  int64_t accuracy_batch = 16;      ///< rows of a call while accuracy is measured
};

struct ReportOptions {
  int64_t limit = 0;              ///< rows evaluated, spread evenly; 0 = all
  int64_t sensitivity_rows = 40;  ///< for the layers' picture; 0 leaves it out
  int64_t max_length = 0;
  std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 16}, {1, 64}, {1, 128}, {8, 16}, {8, 64}, {8, 128}};
  double seconds = 1.0;  ///< of timing a form at a shape
  int threads = 0;
  std::vector<ReportPeer> peers;
};

/// The same content three times.
struct Report {
  std::string html;  ///< one file: no script, no request to anywhere
  std::string markdown;
  std::string json;
};

/// Compiles, evaluates and times FP32, static and dynamic INT8 on this CPU, the same and FP16 on a GPU where there is
/// one, and the peers, all in turns. Accuracy and time of a row come from the same plan, and what failed in either has
/// a row that says why instead.
Report report(const Model& model, const Calibration& calibration, const Dataset& data,
              const ReportOptions& options = {}, const Progress& progress = {});

/// Writes `html` and, beside it under the same name, .md and .json; returns the three paths. Throws io.
std::vector<std::filesystem::path> save_report(const Report& report, const std::filesystem::path& html);

}  // namespace octet
