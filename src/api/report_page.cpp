// A report as one HTML page: tables and SVG pictures, styled for light, dark, print and phones, without script.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "api/report_data.h"

namespace octet {

namespace {

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, std::isfinite(value) ? value : 0.0);
  return text;
}

std::string escape(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (c == '<') result += "&lt;";
    else if (c == '>') result += "&gt;";
    else if (c == '&') result += "&amp;";
    else if (c == '"') result += "&quot;";
    else if (static_cast<unsigned char>(c) >= 32) result += c;
  }
  return result;
}

constexpr double kHeight = 300, kLeft = 60, kRight = 16, kTop = 28, kBottom = 40;

/// A scale along one side of a picture, whose ends are ticks: 1, 2 or 5 times a power of ten.
class Axis {
 public:
  static Axis linear(double low, double high) {
    const double raw = std::max(high - low, 1e-9) / 4, power = std::pow(10, std::floor(std::log10(raw)));
    const double step = power * (raw <= power ? 1 : raw <= 2 * power ? 2 : raw <= 5 * power ? 5 : 10);
    Axis axis;
    axis.digits_ = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
    const double first = std::floor(low / step + 1e-9), last = std::max(std::ceil(high / step - 1e-9), first + 1);
    for (double i = first; i <= last; ++i) axis.ticks_.push_back(i * step);
    return axis;
  }
  /// One place for each of `count` things.
  static Axis units(size_t count) {
    Axis axis;
    for (size_t i = 0; i <= std::max<size_t>(count, 1); ++i) axis.ticks_.push_back(static_cast<double>(i));
    return axis;
  }
  static Axis logarithmic(double low, double high) {
    Axis axis;
    axis.log_ = true;
    const double steps[] = {1, 2, 5};
    const bool sparse = high > 1000 * low;
    for (int power = -9; power < 12; ++power)
      for (double step : steps)
        if (!sparse || step == 1) axis.ticks_.push_back(step * std::pow(10, power));
    auto first = std::upper_bound(axis.ticks_.begin(), axis.ticks_.end(), low * (1 + 1e-9)) - 1;
    auto last = std::lower_bound(axis.ticks_.begin(), axis.ticks_.end(), high * (1 - 1e-9));
    if (first == last) ++last;
    axis.ticks_ = std::vector<double>(first, last + 1);
    return axis;
  }
  /// 0 at the first tick, 1 at the last.
  double share(double value) const {
    const double low = ticks_.front(), high = ticks_.back();
    if (log_) return std::log(std::max(value, low) / low) / std::log(high / low);
    return (value - low) / (high - low);
  }
  const std::vector<double>& ticks() const { return ticks_; }
  std::string label(double tick) const {
    return number(tick, log_ ? std::max(0, static_cast<int>(std::ceil(-std::log10(tick) - 1e-9))) : digits_);
  }

 private:
  std::vector<double> ticks_;
  int digits_ = 0;
  bool log_ = false;
};

/// One picture with axes; a narrow one stands beside another.
class Picture {
 public:
  Picture(const std::string& title, double width, Axis across, Axis up)
      : width_(width), across_(std::move(across)), up_(std::move(up)) {
    body_ = "<svg viewBox=\"0 0 " + number(width, 0) + " 300\" role=\"img\" aria-label=\"" + escape(title) +
            "\"><title>" + escape(title) + "</title>";
  }
  static constexpr double kWhole = 640, kNarrow = 440;

  double x(double value) const { return kLeft + across_.share(value) * (width_ - kLeft - kRight); }
  double y(double value) const { return kHeight - kBottom - up_.share(value) * (kHeight - kTop - kBottom); }
  double floor() const { return kHeight - kBottom; }
  void text(double px, double py, const std::string& words, const char* anchor = "start") {
    body_ += "<text x=\"" + number(px, 1) + "\" y=\"" + number(py, 1) + "\" text-anchor=\"" + anchor + "\">" +
             escape(words) + "</text>";
  }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    body_ += "<line class=\"" + std::string(style) + "\" x1=\"" + number(x1, 1) + "\" y1=\"" + number(y1, 1) +
             "\" x2=\"" + number(x2, 1) + "\" y2=\"" + number(y2, 1) + "\"/>";
  }
  void bar(double px, double py, double width, double height, const std::string& style, const std::string& says) {
    body_ += "<rect class=\"" + style + "\" x=\"" + number(px, 2) + "\" y=\"" + number(py, 2) + "\" width=\"" +
             number(std::max(width, 0.0), 2) + "\" height=\"" + number(std::max(height, 0.0), 2) + "\"><title>" +
             escape(says) + "</title></rect>";
  }
  void dot(double px, double py, const std::string& style, const std::string& says) {
    body_ += "<circle class=\"" + style + "\" cx=\"" + number(px, 1) + "\" cy=\"" + number(py, 1) +
             "\" r=\"5\"><title>" + escape(says) + "</title></circle>";
  }
  void path(const std::vector<std::pair<double, double>>& points, const std::string& style) {
    body_ += "<polyline class=\"" + style + " trace\" points=\"";
    for (auto [px, py] : points) body_ += number(px, 1) + "," + number(py, 1) + " ";
    body_ += "\"/>";
  }
  void axes(const std::string& across, const std::string& up, bool ticks_across = true) {
    for (double tick : up_.ticks()) {
      line(kLeft, y(tick), width_ - kRight, y(tick), "grid");
      text(kLeft - 6, y(tick) + 4, up_.label(tick), "end");
    }
    if (ticks_across)
      for (double tick : across_.ticks()) text(x(tick), floor() + 16, across_.label(tick), "middle");
    text(width_ - kRight, kHeight - 6, across, "end");
    text(4, 14, up);
  }
  std::string done(const std::string& caption) const {
    return "<figure>" + body_ + "</svg><figcaption>" + escape(caption) + "</figcaption></figure>\n";
  }

 private:
  double width_;
  Axis across_, up_;
  std::string body_;
};

std::vector<const ReportForm*> measured(const ReportData& r) {
  std::vector<const ReportForm*> forms;
  for (const ReportForm& f : r.forms)
    if (f.absent.empty()) forms.push_back(&f);
  return forms;
}

std::string style_of(size_t form) { return "c" + std::to_string(form % 12); }

std::string legend(const ReportData& r) {
  std::string text = "<p class=\"legend\">";
  size_t i = 0;
  for (const ReportForm* f : measured(r))
    text += "<b><span class=\"" + style_of(i++) + "\">&#9632;</span> " + escape(f->label()) + "</b> ";
  return text + "</p>\n";
}

std::string pareto(const ReportData& r) {
  const std::vector<const ReportForm*> forms = measured(r);
  const bool metric = !r.metric.empty();
  double slow = 0, fast = 1e30, low = 1e30, high = -1e30;
  auto value = [&](const ReportForm& f) { return metric ? f.metric : f.cosine; };
  auto ms = [](const ReportForm& f) { return f.real.rows_per_s > 0 ? 1000 / f.real.rows_per_s : 1e-3; };
  for (const ReportForm* f : forms) {
    slow = std::max(slow, ms(*f)), fast = std::min(fast, ms(*f)), low = std::min(low, value(*f)),
    high = std::max(high, value(*f));
  }
  const double margin = std::max(0.001, (high - low) * 0.2);
  Picture p("Accuracy against time", Picture::kWhole, Axis::logarithmic(fast, slow),
            Axis::linear(low - margin, high + margin));
  p.axes("ms a row, real lengths (logarithmic)", metric ? r.metric : "cosine to FP32");
  std::vector<std::pair<double, double>> order, front;  // time, value
  for (const ReportForm* f : forms) order.emplace_back(ms(*f), -value(*f));
  std::sort(order.begin(), order.end());
  for (auto [time, less] : order)
    if (front.empty() || p.y(-less) < front.back().second) front.emplace_back(p.x(time), p.y(-less));
  p.path(front, "front");
  for (size_t i = 0; i < forms.size(); ++i) {
    const double px = p.x(ms(*forms[i])), py = p.y(value(*forms[i]));
    p.dot(px, py, style_of(i), forms[i]->label() + ": " + number(ms(*forms[i]), 3) + " ms");
  }
  return p.done("Accuracy against time: up and left is better. The line joins the forms that none beats in both.") +
         legend(r);
}

std::string latency(const ReportData& r) {
  const std::vector<const ReportForm*> forms = measured(r);
  std::map<int64_t, bool> batches;
  for (const BenchResult& b : forms.front()->shapes) batches[b.batch] = true;
  std::string all;
  for (const auto& [batch, unused] : batches) {
    double longest = 0, fastest = 1e30, slowest = 0;
    for (const ReportForm* f : forms)
      for (const BenchResult& b : f->shapes)
        if (b.batch == batch) {
          const auto length = static_cast<double>(b.seq);
          longest = std::max(longest, length);
          fastest = std::min(fastest, b.min_ms), slowest = std::max(slowest, b.p95_ms);
        }
    Picture p("Latency by length, batch " + std::to_string(batch), Picture::kNarrow, Axis::linear(0, longest),
              Axis::logarithmic(std::max(fastest, 1e-3), slowest));
    p.axes("tokens a row", "ms (logarithmic)");
    for (size_t i = 0; i < forms.size(); ++i) {
      std::vector<std::pair<double, double>> line;
      for (const BenchResult& b : forms[i]->shapes) {
        if (b.batch != batch) continue;
        line.emplace_back(p.x(static_cast<double>(b.seq)), p.y(b.median_ms));
        p.line(p.x(static_cast<double>(b.seq)), p.y(b.min_ms), p.x(static_cast<double>(b.seq)), p.y(b.p95_ms),
               "spread");
        p.dot(line.back().first, line.back().second, style_of(i),
              forms[i]->label() + " " + std::to_string(b.seq) + " tokens: " + number(b.median_ms, 3) + " ms");
      }
      std::sort(line.begin(), line.end());
      p.path(line, style_of(i));
    }
    all +=
        p.done("Batch " + std::to_string(batch) + ": medians; the bars reach from the fastest to the 95th percentile.");
  }
  return all;
}

std::string layers(const ReportData& r) {
  if (!r.layers || r.layers->rows.empty()) return "<p>Layer sensitivity was left out.</p>";
  std::vector<const SensitivityRow*> rows;
  for (const SensitivityRow& row : r.layers->rows) rows.push_back(&row);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const SensitivityRow* a, const SensitivityRow* b) { return a->layer < b->layer; });
  double most = 0;
  for (const SensitivityRow* row : rows) most = std::max(most, 100 * row->only->relative_error);
  Picture p("Error by layer", Picture::kWhole, Axis::units(rows.size()), Axis::linear(0, most));
  p.axes("layer", "% error", false);
  for (size_t i = 0; i < rows.size(); ++i) {
    const double error = 100 * rows[i]->only->relative_error, left = p.x(static_cast<double>(i) + 0.15),
                 right = p.x(static_cast<double>(i) + 0.85);
    p.bar(left, p.y(error), right - left, p.y(0) - p.y(error), "c1", rows[i]->name + ": " + number(error, 2) + " %");
    p.text((left + right) / 2, p.floor() + 16, rows[i]->layer < 0 ? "other" : std::to_string(rows[i]->layer), "middle");
  }
  return p.done("Relative error of the output with only this layer quantized, on " +
                std::to_string(r.layers->data_rows) + " rows.");
}

std::string histograms(const ReportData& r) {
  std::string all;
  for (const ReportHistogram& h : r.histograms) {
    double most = 1;
    for (double count : h.counts) most = std::max(most, count);
    Picture p(h.tensor, Picture::kNarrow, Axis::linear(0, h.bin_width * static_cast<double>(h.counts.size())),
              Axis::linear(0, std::log10(most)));
    p.axes("magnitude", "log10 of values");
    for (size_t b = 0; b < h.counts.size(); ++b) {
      if (h.counts[b] < 1) continue;
      const double left = p.x(h.bin_width * static_cast<double>(b)),
                   right = p.x(h.bin_width * static_cast<double>(b + 1));
      const double top = p.y(std::max(0.05, std::log10(h.counts[b])));
      p.bar(left, top, right - left - 0.5, p.y(0) - top, "c1", number(h.counts[b], 0));
    }
    const double edge = std::min(h.range, h.bin_width * static_cast<double>(h.counts.size()));
    p.line(p.x(edge), kTop, p.x(edge), p.y(0), "mark");
    all += p.done(h.tensor + ": range " + number(h.range, 3) + " (widest channel), largest " + number(h.largest, 3));
  }
  return all;
}

std::string times(const ReportData& r) {
  const std::vector<ReportKind> kinds = kinds_of(r);
  double most = 0;
  for (const ReportKind& kind : kinds) most = std::max({most, kind.ms, kind.floor_ms});
  Picture p("Time by kind of step", Picture::kWhole, Axis::units(kinds.size()), Axis::linear(0, most));
  p.axes("", "ms", false);
  size_t i = 0;
  for (const auto& [kind, ms, floor_ms] : kinds) {
    const auto at = static_cast<double>(i++);
    const double w = p.x(at + 0.4) - p.x(at + 0.1);
    p.bar(p.x(at + 0.1), p.y(ms), w, p.y(0) - p.y(ms), "c1", kind + ": " + number(ms, 4) + " ms");
    p.bar(p.x(at + 0.5), p.y(floor_ms), w, p.y(0) - p.y(floor_ms), "c0",
          kind + " floor: " + number(floor_ms, 4) + " ms");
    p.text(p.x(at + 0.5), p.floor() + (i % 2 == 0 ? 32 : 16), kind, "middle");
  }
  return p.done("Static INT8 at " + std::to_string(r.op_batch) + "x" + std::to_string(r.op_length) +
                ": measured, and beside it the floor: the larger of its products at the fastest product step's rate (" +
                number(r.best_gmacs, 0) +
                " G multiply-accumulates a second) and its bytes at the rate of copying memory (" +
                number(r.copy_gb_per_s, 1) + " GB/s). Data in caches can be faster than that.");
}

std::string megabytes(int64_t bytes) { return bytes > 0 ? number(static_cast<double>(bytes) / 1e6, 1) : "-"; }

std::string table(const ReportData& r) {
  std::string text = "<div class=\"wide\"><table><thead><tr><th>form<th>device<th>precision<th>" +
                     escape(r.metric.empty() ? "metric" : r.metric) +
                     "<th>cosine<th>INT8 %<th>size MB<th>memory MB<th>rows/s<th>speed-up</tr></thead><tbody>";
  const double base = r.forms.front().real.rows_per_s;
  for (const ReportForm& f : r.forms) {
    text += "<tr><td>" + escape(f.name) + "<td>" + escape(f.device) + "<td>" + escape(f.precision);
    if (!f.absent.empty()) {
      text += "<td colspan=\"7\" class=\"absent\">not measured: " + escape(f.absent) + "</tr>";
      continue;
    }
    text += "<td>" + (r.metric.empty() ? std::string("-") : number(f.metric, 4)) + "<td>" + number(f.cosine, 4) +
            "<td>" + (f.name == "octet" ? number(100 * f.int8_work_fraction, 1) : "-") + "<td>" +
            megabytes(f.weight_bytes) + "<td>" + megabytes(f.memory_bytes) + "<td>" + number(f.real.rows_per_s, 1) +
            "<td>" + number(base > 0 ? f.real.rows_per_s / base : 0, 2) + "x</tr>";
  }
  return text +
         "</tbody></table></div>\n<p>cosine: of the outputs to octet's FP32, mean over rows. rows/s: the data's own "
         "rows in "
         "file order, 32 a call. memory: weights and activations; of other engines what their process grew by.</p>\n";
}

std::string latency_table(const ReportData& r) {
  std::string text =
      "<div class=\"wide\"><table><thead><tr><th>form<th>shape<th>median "
      "ms<th>sd<th>min<th>95p<th>rows/s</tr></thead><tbody>";
  for (const ReportForm& f : r.forms)
    for (const BenchResult& b : f.shapes)
      text += "<tr><td>" + escape(f.label()) + "<td>" + std::to_string(b.batch) + "x" + std::to_string(b.seq) + "<td>" +
              number(b.median_ms, 3) + "<td>" + number(b.sd_ms, 3) + "<td>" + number(b.min_ms, 3) + "<td>" +
              number(b.p95_ms, 3) + "<td>" + number(b.rows_per_s, 1) + "</tr>";
  text += "</tbody></table></div>\n<pre>";
  for (const ReportForm& f : r.forms)
    if (!f.shapes.empty()) text += escape(timing_line(f.label(), f.shapes.front())) + "\n";
  return text + "</pre>\n";
}

std::string layer_table(const ReportData& r) {
  if (!r.layers) return "";
  std::string text =
      "<div class=\"wide\"><table><thead><tr><th>layer<th>only this quantized, dB<th>all but this, "
      "dB</tr></thead><tbody>";
  for (const SensitivityRow& row : r.layers->rows)
    text += "<tr><td>" + escape(row.name) + "<td>" + number(row.only->sqnr_db, 1) + "<td>" +
            number(row.all_but->sqnr_db, 1) + "</tr>";
  return text + "</tbody></table></div>\n";
}

std::string kind_table(const ReportData& r) {
  std::string text =
      "<div class=\"wide\"><table><thead><tr><th>steps<th>ms<th>floor, ms<th>of the floor</tr></thead><tbody>";
  for (const ReportKind& k : kinds_of(r))
    text += "<tr><td>" + escape(k.name) + "<td>" + number(k.ms, 4) + "<td>" + number(k.floor_ms, 4) + "<td>" +
            number(k.ms > 0 ? 100 * k.floor_ms / k.ms : 0, 0) + " %</tr>";
  return text + "</tbody></table></div>\n";
}

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#667;--paper:#fff;--line:#d5d9e0;--a:#8a93a3;--b:#1f6feb;--c:#d9822b;--m:#c62828}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa4b2;--paper:#12151a;--line:#343b46;--a:#7d8798;--b:#58a6ff;--c:#f0a35a;--m:#ff6b6b}}
*{box-sizing:border-box}body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}p,figcaption{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;overflow-wrap:normal}
thead{break-inside:avoid}tr{break-inside:avoid}th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}.absent{text-align:left;color:var(--soft);white-space:normal}
figure{margin:1rem 0;break-inside:avoid}svg{width:100%;max-width:44rem;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--ink)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
.grid{stroke:var(--line)}.mark{stroke:var(--m);stroke-width:2}.spread{stroke:var(--soft);stroke-width:2}
.c0{fill:var(--a);color:var(--a)}.c1{fill:var(--b);color:var(--b)}.c2{fill:var(--c);color:var(--c)}
.c3{fill:#2e9e6b;color:#2e9e6b}.c4{fill:#9467bd;color:#9467bd}.c5{fill:#c2559b;color:#c2559b}.c6{fill:#8c6d31;color:#8c6d31}
.c7{fill:#17a2b8;color:#17a2b8}.c8{fill:#b5a000;color:#b5a000}.c9{fill:#e0605e;color:#e0605e}.c10{fill:#5b7fd9;color:#5b7fd9}.c11{fill:#7a9a3a;color:#7a9a3a}
.trace{fill:none;stroke:currentColor;stroke-width:2}.front{color:var(--line)}.legend b{font-weight:400;white-space:nowrap;margin-right:.5rem}
pre{white-space:pre-wrap;font-size:.78rem;color:var(--soft)}
@media print{:root{--ink:#000;--soft:#333;--paper:#fff;--line:#bbb}body{max-width:none;font-size:11pt}h2{break-after:avoid}}
)";

}  // namespace

std::string report_html(const ReportData& r) {
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><link rel=\"icon\" href=\"data:,\"><title>octet "
      "report</title><style>" +
      std::string(kStyle) + "</style></head><body>\n<h1>" + escape(r.info.source) + "</h1>\n<p>" +
      std::to_string(r.rows) + " rows of " + escape(r.data) + ", " + std::to_string(r.tokens) + " tokens &middot; " +
      escape(r.cpu) + " (" + escape(r.target) + "), " + std::to_string(r.threads) + " threads" +
      (r.gpu.empty() ? "" : " &middot; " + escape(r.gpu)) + " &middot; octet " + escape(r.version) + ", placement " +
      escape(r.placement) + ", ranges by " + escape(r.method) + "</p>\n";
  if (!r.metric_reason.empty()) page += "<p>" + escape(r.metric_reason) + "</p>\n";
  page += table(r) + "<h2>Accuracy and time</h2>\n" + pareto(r) +
          "<h2>Latency by length and batch</h2>\n<div class=\"pair\">" + latency(r) + "</div>\n" + legend(r) +
          latency_table(r) + "<h2>Layers</h2>\n" + layers(r) + layer_table(r) + "<h2>Where the time goes</h2>\n" +
          times(r) + kind_table(r) +
          "<h2>Activations and their ranges</h2>\n<p>The tensors with the longest tails; the line is the chosen "
          "range.</p>\n<div class=\"pair\">" +
          histograms(r) + "</div>\n</body></html>\n";
  return page;
}

}  // namespace octet
