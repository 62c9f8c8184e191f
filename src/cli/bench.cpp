// octet bench: times of one call, several models in turns.
#include <fmt/format.h>
#include <octet/bench.h>

#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/shape.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> models;
  ModelSource common;
  DataOptions data;
  std::string shapes;
  int64_t batch = 32, limit = 0, max_length = 0;
  int threads = 0;
  bool pin = false;
  BenchOptions how;
  StreamOptions stream;
  bool streams() const {
    return stream.batch_tokens > 0 || stream.sessions > 1 || stream.in_flight > 1 || stream.tokenizers > 0;
  }
};

Json to_json(const BenchResult& r) {
  return {{"model", r.model},         {"backend", r.backend},
          {"precision", r.precision}, {"device", r.device},
          {"batch", r.batch},         {"seq", r.seq},
          {"median_ms", r.median_ms}, {"mean_ms", r.mean_ms},
          {"sd_ms", r.sd_ms},         {"min_ms", r.min_ms},
          {"max_ms", r.max_ms},       {"p95_ms", r.p95_ms},
          {"p99_ms", r.p99_ms},       {"rows_per_s", r.rows_per_s},
          {"runs", r.runs},           {"busy", r.busy}};
}

class Bench {
 public:
  Bench(const Options& options, const Console& console) : options_(options), console_(console) {
    for (const std::string& model : options.models) {
      ModelSource source = options.common;
      source.path = model;
      if (kind_of(model) == PathKind::plan) {
        // The options of a folder do not touch compiled files that are timed beside it.
        source = ModelSource{.path = model};
      }
      plans_.push_back(load_plan(source, console));
    }
    for (const Plan& plan : plans_)
      sessions_.emplace_back(plan, SessionOptions{.threads = options.threads, .pin = options.pin});
  }

  void shape(const Shape& shape) {
    std::vector<Session*> sessions;
    for (Session& session : sessions_) sessions.push_back(&session);
    add(bench_interleaved(sessions, shape.batch, shape.seq, options_.how));
  }

  void rows(const Dataset& data) {
    std::vector<std::vector<Encoding>> rows;
    std::vector<Session*> sessions;
    for (size_t m = 0; m < sessions_.size(); ++m) {
      EncodedRows encoded = encode_rows(plans_[m], data, options_.max_length, options_.limit, options_.threads);
      note_truncated(console_, encoded.truncated, static_cast<int64_t>(encoded.rows.size()),
                     options_.max_length > 0 ? options_.max_length : plans_[m].info().max_length);
      rows.push_back(std::move(encoded.rows));
      sessions.push_back(&sessions_[m]);
    }
    if (!options_.streams()) return add(bench_rows_interleaved(sessions, rows, options_.batch, options_.how));
    std::vector<BenchResult> results;
    StreamOptions stream = options_.stream;
    stream.seconds = options_.how.seconds;
    for (size_t m = 0; m < plans_.size(); ++m) {
      results.push_back(bench_stream(plans_[m], data, rows[m], options_.batch, stream));
      console_.say(fmt::format("{}: a session was running {:.1f} % of the time", short_name(options_.models[m]),
                               100 * results.back().busy));
    }
    add(std::move(results));
  }

  void finish() const {
    console_.say("\n" + table_.text());
    console_.result(results_);
  }

 private:
  void add(std::vector<BenchResult> results) {
    for (size_t m = 0; m < results.size(); ++m) {
      BenchResult& r = results[m];
      r.model = short_name(options_.models[m]);
      results_.push_back(to_json(r));
      console_.say(timing_line(fmt::format("{} {} {}x{}", r.model, r.precision, r.batch, r.seq), r));
      table_.add({r.model, r.backend, r.precision, r.device, fmt::format("{}x{}", r.batch, r.seq),
                  fmt::format("{:.3f}", r.median_ms), fmt::format("{:.3f}", r.mean_ms), fmt::format("{:.3f}", r.sd_ms),
                  fmt::format("{:.3f}", r.p95_ms), fmt::format("{:.3f}", r.p99_ms), fmt::format("{:.1f}", r.rows_per_s),
                  fmt::format("{:.2f}x", results[0].rows_per_s > 0 ? r.rows_per_s / results[0].rows_per_s : 0)});
    }
  }

  const Options& options_;
  const Console& console_;
  std::vector<Plan> plans_;
  std::vector<Session> sessions_;
  Json results_ = Json::array();
  Table table_{
      {"model", "backend", "precision", "device", "shape", "median ms", "mean", "sd", "p95", "p99", "rows/s", "speed"},
      {0, 1, 2, 3}};
};

void bench(const Options& options, const Console& console) {
  std::vector<Shape> shapes;
  if (!options.shapes.empty()) shapes = parse_shapes(options.shapes);
  Bench work(options, console);
  for (const Shape& shape : shapes) work.shape(shape);
  if (!options.data.path.empty()) work.rows(load_data(options.data, options.limit));
  work.finish();
}

}  // namespace

void add_bench(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "bench", "Milliseconds of a call and rows per second; several models take turns",
               "octet bench minilm-fp32.octet minilm-int8.octet --shapes 1x16,8x128");
  verb->add_option("models", options->models, ".octet files or Hugging Face folders")->required();
  CLI::Option* shapes = verb->add_option("--shapes", options->shapes, "Rows x tokens, several with commas: 1x16,32x256")
                            ->check(check_shapes);
  CLI::Option* data = add_data_options(verb, &options->data);
  verb->add_option("--batch", options->batch, "Rows a call with --data (default: 32)")->check(CLI::PositiveNumber);
  verb->add_option("--batch-tokens", options->stream.batch_tokens, "Tokens a call with --data, instead of --batch")
      ->check(CLI::PositiveNumber)
      ->needs(data);
  verb->add_option("--sessions", options->stream.sessions, "Sessions that share the data's calls (default: 1)")
      ->check(CLI::PositiveNumber)
      ->needs(data);
  verb->add_option("--in-flight", options->stream.in_flight, "Calls of --data under way in each session (default: 1)")
      ->check(CLI::PositiveNumber)
      ->needs(data);
  verb->add_option("--tokenizers", options->stream.tokenizers,
                   "Threads that tokenize while the sessions run, instead of before")
      ->check(CLI::PositiveNumber)
      ->needs(data);
  verb->add_option("--limit", options->limit, "Rows of the data used (default: all)")->check(CLI::PositiveNumber);
  verb->add_option("--max-length", options->max_length, "Cut texts of the data to this many tokens")
      ->check(CLI::PositiveNumber);
  add_compile_options(verb, &options->common);
  verb->add_option("--threads", options->threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  CLI::Option* pin = verb->add_flag("--pin", options->pin, "Each thread but the first stays on one CPU");
  for (const char* other : {"--sessions", "--in-flight", "--tokenizers", "--batch-tokens"}) pin->excludes(other);
  verb->add_option("--warmup", options->how.warmup, "Calls before measuring (default: 3, on a GPU 30)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--repeats", options->how.repeats,
                   "Measured calls; passes over the data with --data (default: by --seconds)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--seconds", options->how.seconds, "Time to measure each model and shape (default: 2)")
      ->check(CLI::PositiveNumber);
  verb->callback([options, shapes, data, &console] {
    if (shapes->count() == 0 && data->count() == 0) throw CLI::RequiredError("--shapes or --data");
    bench(*options, console);
  });
}

}  // namespace octet::cli
