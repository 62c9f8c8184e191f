// What a report holds, before it is written down.
#pragma once

#include <octet/bench.h>
#include <octet/plan.h>
#include <octet/sweep.h>

#include <optional>
#include <string>
#include <vector>

namespace octet {

struct ReportForm {
  std::string name, device, precision;
  std::string absent;  ///< why it was not measured
  double metric = 0, cosine = 1;
  double int8_work_fraction = 0;
  int64_t weight_bytes = 0;  ///< a peer's: of its file
  int64_t memory_bytes = 0;  ///< weights and activations; a peer's: growth of its process; 0: unknown
  std::vector<BenchResult> shapes;
  BenchResult real;  ///< the data's own rows, 32 a batch

  std::string label() const { return name + " " + precision + (device == "cpu" ? "" : " " + device); }
};

struct ReportHistogram {
  std::string tensor, quantizer;
  double bin_width = 0, range = 0, largest = 0;
  std::vector<double> counts;
};

struct ReportOp {
  std::string name, kind, precision;
  double ms = 0, floor_ms = 0;
};

struct ReportData {
  ModelInfo info;
  std::string metric, metric_reason, cpu, target, version, data, placement, method;
  int64_t rows = 0, tokens = 0;
  int threads = 0;
  std::vector<ReportForm> forms;
  std::optional<Sensitivity> layers;
  std::vector<ReportHistogram> histograms;
  std::string gpu;  ///< empty: there is none
  std::vector<ReportOp> ops;
  int64_t op_batch = 0, op_length = 0;
  double copy_gb_per_s = 0, best_gmacs = 0;
};

/// Time of kinds of steps, in INT8 static on the CPU: (kind and precision, ms, floor).
struct ReportKind {
  std::string name;
  double ms = 0, floor_ms = 0;
};
std::vector<ReportKind> kinds_of(const ReportData& data);

std::string report_json(const ReportData& data);
std::string report_markdown(const ReportData& data);
std::string report_html(const ReportData& data);

}  // namespace octet
