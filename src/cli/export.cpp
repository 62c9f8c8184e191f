// octet export: a model becomes an ONNX file, float or QDQ.
#include <fmt/format.h>
#include <octet/onnx.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

struct Options {
  ModelSource source;
  std::string output, weights = "float", precision;
  int64_t opset = 13;
};

void export_verb(const Options& options, const Console& console) {
  check_output(options.output);
  if (options.weights != "float" && options.weights != "int8")
    refuse(ErrorCode::invalid_argument,
           {.what = fmt::format("unknown form of weights {}", options.weights), .expected = "expected float or int8"});
  if (!options.precision.empty() && options.precision != "fp32" && options.precision != "fp16")
    refuse(ErrorCode::invalid_argument, {.what = fmt::format("cannot export in {}", options.precision),
                                         .expected = "expected fp32 or fp16; INT8 comes from --calib"});
  Model model = load_model(options.source.path, options.source.tokenizer);
  ExportOptions how{.opset = options.opset,
                    .method = options.source.method,
                    .int8_weights = options.weights == "int8",
                    .float_embeddings = options.source.float_embeddings,
                    .half = options.precision == "fp16"};
  std::string file = calibration_of(options.source, console);
  if (!file.empty()) how.calibration = Calibration::load(file);
  else if (how.int8_weights || !how.method.empty())
    refuse(ErrorCode::invalid_argument, {.what = "--weights int8 and --method need a calibration",
                                         .expected = "the model has no ranges",
                                         .hint = "add --calib FILE; `octet calibrate` makes one"});
  export_onnx(model, options.output, how);
  std::error_code error;
  auto bytes = static_cast<int64_t>(std::filesystem::file_size(options.output, error));
  console.say(fmt::format("{}: {}, opset {}, {}", options.output, format_bytes(static_cast<double>(error ? 0 : bytes)),
                          options.opset,
                          how.calibration ? fmt::format("QDQ with {} weights", options.weights)
                          : how.half      ? "float16"
                                          : "float32"));
  console.result({{"path", options.output},
                  {"bytes", error ? 0 : bytes},
                  {"opset", options.opset},
                  {"quantized", how.calibration.has_value()},
                  {"weights", how.half ? "float16" : options.weights}});
}

}  // namespace

void add_export(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = add_verb(app, console, "export", "Write a model as an ONNX file, float or quantized (QDQ)",
                            "octet export minilm/ --calib minilm.calib.safetensors --weights int8 -o minilm.qdq.onnx");
  verb->add_option("model", options->source.path, "Hugging Face folder or .onnx file")->required();
  verb->add_option("--tokenizer", options->source.tokenizer, "Folder with the tokenizer of an .onnx file");
  verb->add_option("--calib", options->source.calibration,
                   "Calibration file: write QDQ; 'none' ignores the folder's own");
  verb->add_option("--method", options->source.method, "Choose ranges again: max, percentile:P, entropy, mse or auto");
  verb->add_option("--weights", options->weights, "Quantized weights as float or int8 (default: float)");
  verb->add_option("--precision", options->precision, "fp32 or fp16, of a file without quantizers (default: fp32)");
  verb->add_option("--opset", options->opset, "13 to 23 (default: 13)");
  verb->add_flag("--float-embeddings", options->source.float_embeddings, "No quantizers on embedding tables");
  verb->add_option("-o,--output", options->output, "The .onnx file")->required();
  verb->callback([options, &console] { export_verb(*options, console); });
}

}  // namespace octet::cli
