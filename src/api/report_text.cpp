// A report as JSON and as Markdown.
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/report_data.h"

namespace octet {

namespace {

using Json = nlohmann::ordered_json;

Json to_json(const BenchResult& b) {
  return {{"batch", b.batch},           {"seq", b.seq},       {"median_ms", b.median_ms},
          {"mean_ms", b.mean_ms},       {"sd_ms", b.sd_ms},   {"min_ms", b.min_ms},
          {"max_ms", b.max_ms},         {"p95_ms", b.p95_ms}, {"p99_ms", b.p99_ms},
          {"rows_per_s", b.rows_per_s}, {"runs", b.runs}};
}

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

}  // namespace

std::string report_json(const ReportData& r) {
  Json forms = Json::array();
  for (const ReportForm& f : r.forms) {
    Json form{{"name", f.name}, {"device", f.device}, {"precision", f.precision}};
    if (!f.absent.empty()) {
      form["absent"] = f.absent;
    } else {
      form["metric"] = r.metric.empty() ? Json(nullptr) : Json(f.metric);
      form["cosine"] = f.cosine;
      form["weight_bytes"] = f.weight_bytes > 0 ? Json(f.weight_bytes) : Json(nullptr);
      form["memory_bytes"] = f.memory_bytes > 0 ? Json(f.memory_bytes) : Json(nullptr);
      form["int8_work_fraction"] = f.int8_work_fraction;
      form["shapes"] = Json::array();
      for (const BenchResult& b : f.shapes) form["shapes"].push_back(to_json(b));
      form["real"] = to_json(f.real);
      form["timing_line"] = f.shapes.empty() ? "" : timing_line(f.label(), f.shapes.front());
    }
    forms.push_back(std::move(form));
  }
  Json layers = Json::array(), histograms = Json::array(), ops = Json::array();
  if (r.layers)
    for (const SensitivityRow& row : r.layers->rows)
      layers.push_back(
          {{"name", row.name},
           {"layer", row.layer},
           {"only_sqnr_db", std::isfinite(row.only->sqnr_db) ? Json(row.only->sqnr_db) : Json(nullptr)},
           {"all_but_sqnr_db", std::isfinite(row.all_but->sqnr_db) ? Json(row.all_but->sqnr_db) : Json(nullptr)}});
  for (const ReportHistogram& h : r.histograms)
    histograms.push_back({{"tensor", h.tensor},
                          {"quantizer", h.quantizer},
                          {"bin_width", h.bin_width},
                          {"range", h.range},
                          {"largest", h.largest},
                          {"counts", h.counts}});
  for (const ReportOp& op : r.ops)
    ops.push_back(
        {{"name", op.name}, {"kind", op.kind}, {"precision", op.precision}, {"ms", op.ms}, {"floor_ms", op.floor_ms}});
  Json all{{"model", r.info.source},
           {"hash", r.info.hash},
           {"octet", r.version},
           {"cpu", r.cpu},
           {"target", r.target},
           {"gpu", r.gpu.empty() ? Json(nullptr) : Json(r.gpu)},
           {"threads", r.threads},
           {"data", r.data},
           {"rows", r.rows},
           {"tokens", r.tokens},
           {"metric", r.metric.empty() ? Json(nullptr) : Json(r.metric)},
           {"metric_reason", r.metric_reason},
           {"placement", r.placement},
           {"method", r.method},
           {"forms", forms},
           {"layers", layers},
           {"histograms", histograms},
           {"ops",
            {{"batch", r.op_batch},
             {"seq", r.op_length},
             {"copy_gb_per_s", r.copy_gb_per_s},
             {"best_gmacs", r.best_gmacs},
             {"steps", ops}}}};
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string report_markdown(const ReportData& r) {
  std::string text = "# " + r.info.source + "\n\n" + std::to_string(r.rows) + " rows of " + r.data + ", " +
                     std::to_string(r.tokens) + " tokens. " + r.cpu + " (" + r.target + "), " +
                     std::to_string(r.threads) + " threads. octet " + r.version + ", placement " + r.placement +
                     ", ranges by " + r.method + ".\n\n";
  if (!r.metric_reason.empty()) text += r.metric_reason + "\n\n";
  auto megabytes = [](int64_t bytes) {
    return bytes > 0 ? number(static_cast<double>(bytes) / 1e6, 1) : std::string("-");
  };
  text += "| form | device | precision | " + (r.metric.empty() ? "metric" : r.metric) +
          " | cosine to FP32 | products in INT8 | size, MB | memory, MB | real rows/s | speed-up "
          "|\n|---|---|---|---|---|---|---|---|---|---|\n";
  const double base = r.forms.front().real.rows_per_s;
  for (const ReportForm& f : r.forms) {
    text += "| " + f.name + " | " + f.device + " | " + f.precision + " | ";
    if (!f.absent.empty()) {
      text += "not measured: " + f.absent + " | | | | | | |\n";
      continue;
    }
    text += (r.metric.empty() ? "-" : number(f.metric, 4)) + " | " + number(f.cosine, 4) + " | " +
            (f.name == "octet" ? number(100 * f.int8_work_fraction, 1) + " %" : "-") + " | " +
            megabytes(f.weight_bytes) + " | " + megabytes(f.memory_bytes) + " | " + number(f.real.rows_per_s, 1) +
            " | " + number(base > 0 ? f.real.rows_per_s / base : 0, 2) + "x |\n";
  }
  text += "\n| form | shape | median ms | sd | min | 95p | rows/s |\n|---|---|---|---|---|---|---|\n";
  for (const ReportForm& f : r.forms)
    for (const BenchResult& b : f.shapes)
      text += "| " + f.label() + " | " + std::to_string(b.batch) + "x" + std::to_string(b.seq) + " | " +
              number(b.median_ms, 3) + " | " + number(b.sd_ms, 3) + " | " + number(b.min_ms, 3) + " | " +
              number(b.p95_ms, 3) + " | " + number(b.rows_per_s, 1) + " |\n";
  text += "\n```\n";
  for (const ReportForm& f : r.forms)
    if (!f.shapes.empty()) text += timing_line(f.label(), f.shapes.front()) + "\n";
  text += "```\n";
  if (r.layers) {
    text += "\n| layer | only this quantized, dB | all but this, dB |\n|---|---|---|\n";
    for (const SensitivityRow& row : r.layers->rows)
      text += "| " + row.name + " | " + number(row.only->sqnr_db, 1) + " | " + number(row.all_but->sqnr_db, 1) + " |\n";
  }
  text += "\n| INT8 static at " + std::to_string(r.op_batch) + "x" + std::to_string(r.op_length) +
          " on the CPU | ms | floor, ms |\n|---|---|---|\n";
  for (const ReportKind& kind : kinds_of(r))
    text += "| " + kind.name + " | " + number(kind.ms, 4) + " | " + number(kind.floor_ms, 4) + " |\n";
  text += "\nFloor: products at the best rate seen in this plan (" + number(r.best_gmacs, 0) +
          " G multiply-adds a second), everything else at the rate of copying memory (" + number(r.copy_gb_per_s, 1) +
          " GB/s).\n\n| activation | range | largest |\n|---|---|---|\n";
  for (const ReportHistogram& h : r.histograms)
    text += "| " + h.tensor + " | " + number(h.range, 3) + " | " + number(h.largest, 3) + " |\n";
  return text;
}

}  // namespace octet
