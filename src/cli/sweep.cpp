// octet sweep: what each quantizer costs, and which ones to leave in float.
#include <fmt/format.h>
#include <octet/sweep.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/shape.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, calibration, output, direction = "both", state, shape = "8x64";
  DataOptions data;
  SensitivityOptions how;
  SearchOptions search;
  int64_t leave = 0, top = 30, balance_rows = 0, bias_rows = 0;
  bool fresh = false, search_only = false, ranges = false;
  std::vector<std::string> methods;
  std::vector<int64_t> samples;
  int64_t judge_rows = 64;
  double min_int8_percent = 0;
};

Json to_json(const std::optional<OutputError>& e) {
  if (!e) return nullptr;
  Json value{{"sqnr_db", std::isfinite(e->sqnr_db) ? Json(e->sqnr_db) : Json(nullptr)},
             {"relative_error", e->relative_error},
             {"cosine", e->cosine},
             {"min_cosine", e->min_cosine}};
  value["kl"] = e->kl ? Json(*e->kl) : Json(nullptr);
  value["metric"] = e->metric ? Json(*e->metric) : Json(nullptr);
  return value;
}

Json to_json(const Sensitivity& s) {
  Json rows = Json::array();
  for (const SensitivityRow& row : s.rows)
    rows.push_back({{"name", row.name},
                    {"quantizers", row.quantizers},
                    {"layer", row.layer},
                    {"kind", row.kind},
                    {"tensor", row.tensor},
                    {"only", to_json(row.only)},
                    {"all_but", to_json(row.all_but)}});
  return {{"unit", s.unit},
          {"metric", s.metric.empty() ? Json(nullptr) : Json(s.metric)},
          {"metric_reason", s.metric_reason},
          {"float_metric", s.metric.empty() ? Json(nullptr) : Json(s.float_metric)},
          {"all", to_json(s.all)},
          {"rows", s.data_rows},
          {"texts", s.texts},
          {"tokens", s.tokens},
          {"truncated", s.truncated},
          {"batches", s.batches},
          {"resumed_batches", s.resumed_batches},
          {"resumed_runs", s.resumed_runs},
          {"computed_share", s.computed_share},
          {"seconds", s.seconds},
          {"units", rows}};
}

std::string decibels(const std::optional<OutputError>& e) {
  return !e ? "-" : std::isfinite(e->sqnr_db) ? fmt::format("{:.1f}", e->sqnr_db) : "exact";
}

void say(const Sensitivity& s, int64_t top, const Console& console) {
  if (!s.metric_reason.empty()) console.note(s.metric_reason);
  const bool metric = !s.metric.empty();
  std::vector<std::string> header{s.unit, "only dB", "cosine", "all but dB", "cosine"};
  if (metric) header.insert(header.end(), {"only " + s.metric, "all but"});
  Table table(header);
  auto cosine = [](const std::optional<OutputError>& e) { return e ? fmt::format("{:.6f}", e->cosine) : "-"; };
  auto value = [](const std::optional<OutputError>& e) { return e ? fmt::format("{:.4f}", *e->metric) : "-"; };
  int64_t shown = 0;
  for (const SensitivityRow& row : s.rows) {
    if (top > 0 && shown++ >= top) break;
    std::string name = short_sum(row.name);
    if (s.unit == "quantizer" && row.quantizers.size() > 1) name += fmt::format(" (+{})", row.quantizers.size() - 1);
    std::vector<std::string> cells{name, decibels(row.only), cosine(row.only), decibels(row.all_but),
                                   cosine(row.all_but)};
    if (metric) cells.insert(cells.end(), {value(row.only), value(row.all_but)});
    table.add(cells);
  }
  console.say(table.text());
  if (top > 0 && static_cast<int64_t>(s.rows.size()) > top)
    console.say(
        fmt::format("{} more, all less harmful; --top 0 shows them", static_cast<int64_t>(s.rows.size()) - top));
  console.say(fmt::format("float{}; everything quantized: {} dB, cosine {:.6f}{}",
                          metric ? fmt::format(" {} {:.4f}", s.metric, s.float_metric) : "", decibels(s.all),
                          s.all.cosine, metric ? fmt::format(", {} {:.4f}", s.metric, *s.all.metric) : ""));
  console.say(
      fmt::format("{} units on {} rows ({} tokens), {:.1f} s, {:.0f} % of the steps of whole passes{}", s.rows.size(),
                  format_count(s.data_rows), format_count(s.tokens), s.seconds, 100 * s.computed_share,
                  s.resumed_runs > 0 ? fmt::format("; {} runs were done before", format_count(s.resumed_runs)) : ""));
}

/// The calibration without its `count` most harmful units.
Calibration leave_out(const Calibration& calibration, const Sensitivity& s, int64_t count, Json* left) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < std::min<int64_t>(count, static_cast<int64_t>(s.rows.size())); ++i)
    for (const std::string& name : s.rows[static_cast<size_t>(i)].quantizers) names.push_back(name);
  *left = names;
  return without(calibration, names);
}

Json to_json(const StrengthResult& s) {
  Json edges = Json::array();
  for (const StrengthEdge& e : s.edges)
    edges.push_back({{"node", e.node}, {"before", e.before}, {"after", e.after}, {"strength", e.strength}});
  return edges;
}

void say(const StrengthResult& s, const Console& console) {
  double before = 0, after = 0;
  for (const StrengthEdge& e : s.edges) before += e.before, after += e.after;
  console.say(fmt::format("channel balancing: {} edges, error of their products {:.4g} before, {:.4g} after ({:.1f} s)",
                          s.edges.size(), before, after, s.seconds));
}

void run_search(const Model& model, const Calibration& calibration, const Dataset& data, const Options& options,
                const Console& console) {
  const SearchResult r = search(model, calibration, data, options.search, console.progress());
  if (!r.metric_reason.empty()) console.note(r.metric_reason);
  if (!r.strengths.edges.empty()) say(r.strengths, console);
  Table table({"in float", r.modelled ? "ms, modelled" : "ms", "sd", r.metric, "held out", "drop", "cosine", "INT8 %",
               "MB", ""},
              {0, 9});
  Json points = Json::array();
  table.add({"everything (fp32)", fmt::format("{:.3f}", r.float_ms), fmt::format("{:.3f}", r.float_sd_ms),
             fmt::format("{:.4f}", r.float_search_value), fmt::format("{:.4f}", r.float_held_out_value), "", "", "", "",
             ""});
  for (const SearchPoint& p : r.points) {
    auto if_pareto = [&](const char* form, double value) {
      return p.pareto ? fmt::format(fmt::runtime(form), value) : std::string("-");
    };
    std::string name = p.float_sites.empty() ? "nothing" : short_sum(p.float_sites[0]);
    if (p.float_sites.size() > 1) name += fmt::format(" and {} more", p.float_sites.size() - 1);
    table.add({name, fmt::format("{:.3f}", p.median_ms), fmt::format("{:.3f}", p.sd_ms),
               fmt::format("{:.4f}", p.search_value), if_pareto("{:.4f}", p.held_out_value),
               if_pareto("{:+.2f}", -p.held_out_drop), if_pareto("{:.4f}", p.held_out_cosine),
               fmt::format("{:.1f}", 100 * p.int8_work_fraction),
               fmt::format("{:.1f}", static_cast<double>(p.weight_bytes) / 1e6),
               p.chosen   ? "<- chosen"
               : p.pareto ? "Pareto"
                          : ""});
    points.push_back({{"float_sites", p.float_sites},
                      {"float_quantizers", p.float_quantizers},
                      {"predicted_ms", p.predicted_ms},
                      {"median_ms", p.median_ms},
                      {"sd_ms", p.sd_ms},
                      {"min_ms", p.min_ms},
                      {"search_value", p.search_value},
                      {"held_out_value", p.pareto ? Json(p.held_out_value) : Json(nullptr)},
                      {"held_out_drop", p.pareto ? Json(p.held_out_drop) : Json(nullptr)},
                      {"held_out_cosine", p.pareto ? Json(p.held_out_cosine) : Json(nullptr)},
                      {"int8_work_fraction", p.int8_work_fraction},
                      {"weight_bytes", p.weight_bytes},
                      {"pareto", p.pareto},
                      {"chosen", p.chosen}});
  }
  console.say(table.text());
  console.say(fmt::format(
      "{} rows searched on, {} held out; {}x{} tokens on {}{}; {:.1f} s", r.search_rows, r.held_out_rows,
      options.search.batch, options.search.length, r.device,
      r.modelled ? fmt::format(" (modelled, not measured; evaluated on {})", options.search.device) : "", r.seconds));
  if (!r.reason.empty()) console.note(r.reason);
  Json result{{"metric", r.metric},
              {"metric_reason", r.metric_reason},
              {"device", r.device},
              {"modelled", r.modelled},
              {"batch", options.search.batch},
              {"seq", options.search.length},
              {"search_rows", r.search_rows},
              {"held_out_rows", r.held_out_rows},
              {"float",
               {{"median_ms", r.float_ms},
                {"sd_ms", r.float_sd_ms},
                {"search_value", r.float_search_value},
                {"held_out_value", r.float_held_out_value}}},
              {"found", r.found},
              {"reason", r.reason},
              {"balance", to_json(r.strengths)},
              {"points", points},
              {"sites", to_json(r.sites)},
              {"seconds", r.seconds}};
  if (r.calibration && !options.output.empty()) {
    r.calibration->save(options.output);
    result["output"] = options.output;
    console.say(fmt::format("{}: the chosen plan's calibration", options.output));
  }
  console.result(result);
  const bool bounded = options.search.max_drop >= 0 || options.search.max_latency_ms > 0;
  if (bounded && !r.found)
    refuse(ErrorCode::unsupported,
           {.what = "no plan keeps the bounds",
            .expected = r.reason,
            .hint = "allow a larger --max-drop or --max-latency or less --min-int8, or calibrate otherwise"});
}

/// Methods and numbers of samples from one pass, then what --balance and --bias-correction ask for.
Calibration ranges_of(const Model& model, const CalibrateOptions& how, const Dataset& data, const Options& options,
                      const Console& console, Json* json) {
  EncodedRows encoded = encode_rows(model, data, options.how.max_length, 0, options.how.threads);
  RangeSearchOptions search{.calibrate = how};
  search.calibrate.threads = options.how.threads;
  if (!options.methods.empty()) search.methods = options.methods;
  if (!options.samples.empty()) search.samples = options.samples;
  search.judge_rows = options.judge_rows;
  RangeSearchResult r;
  Calibration chosen = search_ranges(model, encoded.rows, search, &r, console.progress());
  Table table({"method", "samples", "error %", "cosine", ""}, {0, 4});
  Json trials = Json::array();
  for (const RangeTrial& t : r.trials) {
    table.add({t.method, format_count(t.samples), fmt::format("{:.3f}", 100 * t.relative_error),
               fmt::format("{:.6f}", t.cosine), t.chosen ? "<- chosen" : ""});
    trials.push_back({{"method", t.method},
                      {"samples", t.samples},
                      {"relative_error", t.relative_error},
                      {"cosine", t.cosine},
                      {"chosen", t.chosen}});
  }
  console.say(table.text());
  if (search.samples.back() > r.calibration_rows)
    console.note(fmt::format("{} texts were there for statistics, fewer than the {} asked for",
                             format_count(r.calibration_rows), format_count(search.samples.back())));
  console.say(fmt::format(
      "one pass over {} texts ({:.1f} s), judged on {}; on {} held out: error {:.3f} %, cosine {:.6f} ({} on all: "
      "{:.3f} %); {:.1f} s",
      format_count(r.calibration_rows), r.pass_seconds, r.judge_rows, r.held_out_rows, 100 * r.held_out_error,
      r.held_out_cosine, search.methods.front(), 100 * r.first_held_out_error, r.seconds));
  *json = {{"trials", trials},
           {"per_tensor", r.per_tensor},
           {"calibration_rows", r.calibration_rows},
           {"judge_rows", r.judge_rows},
           {"held_out_rows", r.held_out_rows},
           {"held_out_error", r.held_out_error},
           {"held_out_cosine", r.held_out_cosine},
           {"first_held_out_error", r.first_held_out_error},
           {"seconds", r.seconds}};
  return chosen;
}

/// What comes before or instead of a sweep: ranges, strengths edge by edge, then biases.
void prepare_only(const Model& model, Calibration calibration, const Dataset& data, const Options& options,
                  const Console& console) {
  EncodedRows encoded = encode_rows(model, data, options.how.max_length, 0, options.how.threads);
  const int64_t per_row = static_cast<int64_t>(encoded.rows.size()) / data.rows();
  auto spread = [&](int64_t wanted) {
    std::vector<Encoding> rows;
    const int64_t count = std::min(wanted, data.rows());
    for (int64_t i = 0; i < count; ++i)
      for (int64_t t = 0; t < per_row; ++t)
        rows.push_back(encoded.rows[static_cast<size_t>(i * data.rows() / count * per_row + t)]);
    return rows;
  };
  Json result{{"output", options.output}};
  if (options.ranges) {
    CalibrateOptions how = calibration.options();
    how.bias_rows = 0;
    calibration = ranges_of(model, how, data, options, console, &result["ranges"]);
  }
  if (options.balance_rows > 0) {
    StrengthResult s;
    calibration =
        balance_edges(model, calibration, spread(options.balance_rows), &s, console.progress(), options.how.threads);
    say(s, console);
    result["balance"] = to_json(s), result["seconds"] = s.seconds;
  }
  if (options.bias_rows > 0) {
    calibration =
        correct_biases(model, calibration, spread(options.bias_rows), console.progress(), options.how.threads);
    console.say(fmt::format("biases corrected: {} linears", calibration.corrected_biases()));
    result["corrected_biases"] = calibration.corrected_biases();
  }
  calibration.save(options.output);
  console.result(result);
}

void sweep(Options& options, const Console& console) {
  if (!options.output.empty()) check_output(options.output);
  Model model = load_model(options.model);
  const std::string file = calibration_of({.path = options.model, .calibration = options.calibration}, console);
  if (file.empty())
    refuse(ErrorCode::invalid_argument, {.what = "cannot sweep without a calibration",
                                         .expected = "expected --calib FILE",
                                         .hint = "`octet calibrate` makes one"});
  Calibration calibration = Calibration::load(file);
  Dataset data = load_data(options.data);
  if (options.how.limit > data.rows())
    console.note(fmt::format("{} has {} rows, fewer than the {} asked for", data.source(), format_count(data.rows()),
                             format_count(options.how.limit)));
  if (options.search_only || options.search.max_drop >= 0 || options.search.max_latency_ms > 0) {
    const Shape shape = parse_shape(options.shape);
    options.search.batch = shape.batch, options.search.length = shape.seq;
    options.search.limit = options.how.limit;
    options.search.min_int8_work = options.min_int8_percent / 100;
    options.search.max_length = options.how.max_length;
    options.search.threads = options.how.threads;
    options.search.balance_rows = options.balance_rows;
    options.search.bias_rows = options.bias_rows;
    return run_search(model, calibration, data, options, console);
  }
  if (options.ranges || options.balance_rows + options.bias_rows > 0)
    return prepare_only(model, calibration, data, options, console);
  if (options.state.empty() && !options.output.empty()) options.state = options.output + ".state";
  if (options.state == "none") options.state.clear();
  if (!options.state.empty()) check_output(options.state);
  std::error_code error;
  if (options.fresh && !options.state.empty()) std::filesystem::remove(options.state, error);
  options.how.state = options.state;
  options.how.only = options.direction != "all-but";
  options.how.all_but = options.direction != "only";

  const Sensitivity s = sensitivity(model, calibration, data, options.how, console.progress());
  say(s, options.top, console);
  Json result = to_json(s);
  if (!options.output.empty()) {
    Json left;
    leave_out(calibration, s, options.leave, &left).save(options.output);
    result["output"] = options.output;
    result["left_in_float"] = left;
    console.say(fmt::format("{}: {} quantizers left in float", options.output, left.size()));
  }
  console.result(result);
  if (!options.state.empty()) std::filesystem::remove(options.state, error);
}

}  // namespace

void add_sweep(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "sweep", "What each quantizer costs in accuracy, and which ones to leave in float",
               "octet sweep minilm/ --calib minilm.calib.safetensors --data stsb_dev.tsv --limit 500");
  verb->add_option("model", options->model, "Hugging Face folder")->required();
  verb->add_option("--calib", options->calibration, "Calibration file (default: the folder's own)");
  add_data_options(verb, &options->data)->required();
  verb->add_option("--unit", options->how.unit,
                   "What is switched: quantizer, op (one part of all layers), layer or site (default: quantizer)")
      ->check(CLI::IsMember({"quantizer", "op", "layer", "site"}));
  verb->add_option("--direction", options->direction,
                   "only (just this unit quantized), all-but (everything else), or both (default)")
      ->check(CLI::IsMember({"only", "all-but", "both"}));
  verb->add_option("--limit", options->how.limit, "Rows used, spread evenly over the data (default: all)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--max-length", options->how.max_length, "Cut texts to this many tokens (default: the model's most)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--threads", options->how.threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  verb->add_option("--top", options->top, "Lines shown; 0: all (default: 30)")->check(CLI::NonNegativeNumber);
  verb->add_option("--seconds", options->search.seconds, "Search: of timing a plan (default: 1)")
      ->check(CLI::PositiveNumber);
  CLI::Option* device =
      verb->add_option("--device", options->search.device,
                       "Search: where plans are evaluated and timed, cpu or cuda (default: cpu); sensitivity is always "
                       "measured on the CPU")
          ->check(CLI::IsMember({"cpu", "cuda"}));
  CLI::Option* model_latency = verb->add_option(
      "--model-latency", options->search.latency_model,
      "Search: for a card that is not here (h100, a100, l4 ...) model the latency from its data sheet, marked as such");
  CLI::Option* min_int8 =
      verb->add_option("--min-int8", options->min_int8_percent,
                       "Search: keep at least this many percent of the matrix products' work in INT8 (default: 0)")
          ->check(CLI::Range(0.0, 100.0));
  CLI::Option* output =
      verb->add_option("-o,--output", options->output, "Write a calibration file, which compile takes");
  verb->add_option("--leave", options->leave, "Leave this many of the most harmful units in float (with -o)")
      ->check(CLI::NonNegativeNumber)
      ->needs(output);
  verb->add_option("--state", options->state,
                   "File that keeps what was measured, so that an interrupted sweep goes on (default: OUTPUT.state; "
                   "'none': no file)");
  verb->add_option("--save-every", options->how.save_every, "Seconds between writes of that file (default: 2)")
      ->check(CLI::NonNegativeNumber);
  verb->add_flag("--fresh", options->fresh, "Begin anew instead of going on from the state file");
  CLI::Option* search = verb->add_flag("--search", options->search_only,
                                       "Measure the plans that are best for their time, without choosing one");
  CLI::Option* drop = verb->add_option("--max-drop", options->search.max_drop,
                                       "Search: the fastest plan that loses at most this many hundredths of the metric")
                          ->check(CLI::NonNegativeNumber);
  CLI::Option* latency =
      verb->add_option("--max-latency", options->search.max_latency_ms,
                       "Search: the most accurate plan that takes at most this long, as in 1.5ms")
          ->transform(CLI::AsNumberWithUnit(std::map<std::string, double>{{"ms", 1.0}, {"us", 0.001}, {"s", 1000.0}}))
          ->check(CLI::PositiveNumber);
  verb->add_option("--shape", options->shape, "Search: rows x tokens that latency is measured at (default: 8x64)")
      ->check(check_shapes);
  verb->add_option("--candidates", options->search.candidates, "Search: plans measured, at most (default: 16)")
      ->check(CLI::Range(2, 1000));
  CLI::Option* balance =
      verb->add_option("--balance", options->balance_rows,
                       "Choose the strength of channel balancing edge by edge on this many rows; alone it needs -o")
          ->check(CLI::PositiveNumber);
  CLI::Option* bias =
      verb->add_option("--bias-correction", options->bias_rows,
                       "Fold the mean error of every linear on this many rows into its bias; alone it needs -o")
          ->check(CLI::PositiveNumber);
  CLI::Option* ranges =
      verb->add_flag("--ranges", options->ranges,
                     "Search methods and numbers of samples, from one pass of statistics over the data, and write the "
                     "calibration whose outputs are nearest to float (with -o; placement and options are --calib's)")
          ->needs(output);
  verb->add_option("--methods", options->methods, "With --ranges: the methods tried, separated by commas")
      ->delimiter(',')
      ->needs(ranges);
  verb->add_option("--samples", options->samples, "With --ranges: numbers of texts tried, as in 32,64,128,256")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->needs(ranges);
  verb->add_option("--judge-rows", options->judge_rows,
                   "With --ranges: texts to judge on, and as many held out (default: 64)")
      ->check(CLI::PositiveNumber)
      ->needs(ranges);
  verb->callback([=, &console] {
    const bool searches = search->count() + drop->count() + latency->count() > 0;
    if (balance->count() > 0 && !searches && output->count() == 0) throw CLI::RequiredError("--balance without -o");
    if (bias->count() > 0 && !searches && output->count() == 0)
      throw CLI::RequiredError("--bias-correction without -o");
    if (!searches)
      for (const CLI::Option* option : {device, model_latency, min_int8})
        if (option->count() > 0)
          throw CLI::RequiredError(option->get_name() + " without --search, --max-drop or --max-latency");
    if (searches && options->ranges) throw CLI::ExcludesError("--ranges", "the search");
    if (searches && options->leave > 0) throw CLI::ExcludesError("--leave", "the search");
    if (search->count() > 0 && drop->count() + latency->count() == 0 && output->count() > 0)
      throw CLI::RequiredError("-o with --search needs --max-drop or --max-latency: a bound");
    sweep(*options, console);
  });
}

}  // namespace octet::cli
