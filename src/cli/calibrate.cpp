// octet calibrate: runs data through the float model and records the ranges of its quantizers.
#include <fmt/format.h>
#include <octet/import.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, output, tokenizer;
  DataOptions data;
  CalibrateOptions how;
  std::vector<std::string> states, merge;
  std::string amax;
  int64_t new_labels = 0;
};

std::vector<std::pair<std::string, std::string>> parse_states(const std::vector<std::string>& texts) {
  std::vector<std::pair<std::string, std::string>> states;
  for (const std::string& text : texts) {
    size_t at = text.rfind('=');
    std::string state = at == std::string::npos ? "" : text.substr(at + 1);
    if (at == 0 || (state != "on" && state != "off"))
      refuse(ErrorCode::invalid_argument,
             {.what = fmt::format("cannot read --set {}", text), .expected = "expected PATTERN=on or PATTERN=off"});
    states.emplace_back(text.substr(0, at), state);
  }
  return states;
}

void finish(const Calibration& calibration, const Options& options, double seconds, int64_t truncated,
            const Console& console) {
  calibration.save(options.output);
  std::vector<Calibration::Range> ranges = calibration.ranges();
  const CalibrateOptions& how = calibration.options();
  console.say(fmt::format("{}: {} quantizers of placement {}, ranges by {}{}, from {} texts ({} tokens), {:.1f} s",
                          options.output, ranges.size(), how.placement, how.method,
                          calibration.corrected_biases() > 0 ? ", biases corrected" : "",
                          format_count(calibration.samples()), format_count(calibration.tokens()), seconds));
  console.result({{"path", options.output},
                  {"model_hash", calibration.model_hash()},
                  {"placement", how.placement},
                  {"method", how.method},
                  {"samples", calibration.samples()},
                  {"tokens", calibration.tokens()},
                  {"quantizers", ranges.size()},
                  {"corrected_biases", calibration.corrected_biases()},
                  {"truncated", truncated},
                  {"seconds", seconds}});
}

void calibrate_verb(Options& options, const Console& console) {
  check_output(options.output);
  auto begin = std::chrono::steady_clock::now();
  auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  if (!options.merge.empty()) {
    Calibration merged = Calibration::load(options.merge[0]);
    for (size_t i = 1; i < options.merge.size(); ++i)
      merged = Calibration::merge(merged, Calibration::load(options.merge[i]));
    return finish(merged, options, seconds(), 0, console);
  }
  options.how.states = parse_states(options.states);
  if (kind_of(options.model) != PathKind::folder) load_model(options.model);  // says what to pass instead
  Model model = Model::load(options.model, {.new_labels = options.new_labels, .tokenizer = options.tokenizer});
  if (!options.amax.empty()) return finish(import_amax(model, options.amax), options, seconds(), 0, console);
  // All rows are read: the samples are spread over them. In compatible mode they are the first ones.
  Dataset data = load_data(options.data, options.how.compatible ? options.how.samples : 0);
  EncodedRows encoded = encode_rows(model, data, options.how.max_length, 0, options.how.threads);
  auto texts = static_cast<int64_t>(encoded.rows.size());
  int64_t length = options.how.max_length > 0 ? options.how.max_length : model.info().max_length;
  note_truncated(console, encoded.truncated, texts, length);
  options.how.bias_rows *= texts / data.rows();
  options.how.samples *= texts / data.rows();  // an embedding model reads a pair as two texts
  Calibration calibration = calibrate(model, encoded.rows, options.how, console.progress());
  finish(calibration, options, seconds(), encoded.truncated, console);
}

}  // namespace

void add_calibrate(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = add_verb(app, console, "calibrate",
                            "Find the ranges of a model's quantizers on example data, or merge calibration files",
                            "octet calibrate minilm/ --data train.tsv --samples 256 -o minilm.calib.safetensors");
  CalibrateOptions& how = options->how;
  CLI::Option* model = verb->add_option("model", options->model, "Hugging Face folder or .onnx file");
  verb->add_option("--tokenizer", options->tokenizer, "Folder with the tokenizer of an .onnx file");
  CLI::Option* data = add_data_options(verb, &options->data);
  verb->add_option("--samples", how.samples, "Rows used, spread evenly over the data (default: 256)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--placement", how.placement,
                   "residual-channel, residual-float, qdqbert or linear-only (default: residual-channel)");
  verb->add_option("--method", how.method,
                   "max, percentile:P, entropy, mse, or auto: per tensor by measured error (default: auto)");
  verb->add_option("--alpha,--balance", how.balance, "Strength of channel balancing, 0 to 1 (default: the placement's)")
      ->check(CLI::Range(0.0, 1.0));
  verb->add_option("--max-length", how.max_length, "Cut texts to this many tokens (default: the model's most)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--set", options->states,
                   "PATTERN=on or PATTERN=off for quantizers of that name or glob; may be repeated")
      ->allow_extra_args(false);
  verb->add_option("--probabilities", how.probabilities, "u8 or s8 (default: the placement's)")
      ->check(CLI::IsMember({"u8", "s8"}));
  verb->add_option("--clip-gelu", how.clip_gelu, "Upper bound of the GELU output's range (default: none)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--bias-correction", how.bias_rows,
                   "Fold the mean error of every linear on this many rows into its bias (default: off)")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--quantize-head", how.quantize_head, "Quantize the classification head too");
  verb->add_flag("--quantize-pooler", how.quantize_pooler, "Quantize the pooler too");
  verb->add_flag("--float-embeddings", how.float_embeddings, "Keep embedding tables in float");
  verb->add_flag("--share-qkv", how.share_qkv, "One range for query, key and value");
  verb->add_flag("--compatible", how.compatible, "Histograms as the reference system takes them");
  verb->add_flag("--include-padding", how.include_padding,
                 "Pad rows as the reference system does; only to reproduce it");
  verb->add_option("--new-head", options->new_labels, "labels=N: a fresh classification head")
      ->transform([](std::string text) { return text.starts_with("labels=") ? text.substr(7) : text; })
      ->check(CLI::PositiveNumber);
  verb->add_option("--device", how.device, "cpu or cuda: where the pass runs (default: cpu)")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  verb->add_option("--threads", how.threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  CLI::Option* amax = verb->add_option("--amax", options->amax,
                                       "Take the ranges from this checkpoint of pytorch-quantization (._amax) instead");
  CLI::Option* merge = verb->add_option("--merge", options->merge, "Merge these calibration files of one model instead")
                           ->expected(2, 1000);
  verb->add_option("-o,--output", options->output, "The calibration file")->required();
  verb->callback([options, model, data, amax, merge, &console] {
    if (amax->count() > 0 && (data->count() > 0 || merge->count() > 0))
      throw CLI::ExcludesError("--amax", "--data and --merge");
    if (merge->count() == 0 && (model->count() == 0 || (data->count() == 0 && amax->count() == 0)))
      throw CLI::RequiredError("MODEL and --data (or --amax, --merge)");
    if (merge->count() > 0 && (model->count() > 0 || data->count() > 0))
      throw CLI::ExcludesError("--merge", "MODEL and --data");
    calibrate_verb(*options, console);
  });
}

}  // namespace octet::cli
