// Telling folders, plans and calibration files apart, and compiling in memory.
#include "cli/model_source.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace octet::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOwnCalibration = "octet_calibration.safetensors";  // training verbs leave it in their folder

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

void add_compile_options(CLI::App* verb, ModelSource* source) {
  verb->add_option("--precision", source->precision,
                   "Of a folder: int8, fp32, fp16 or bf16 (default: int8 with --calib, else fp32)");
  verb->add_option("--calib", source->calibration,
                   "Calibration file for a folder's INT8 ranges; 'none' for dynamic ranges");
  verb->add_option("--method", source->method, "Choose ranges again: max, percentile:P, entropy, mse or auto");
  verb->add_option("--device", source->device, "cpu, cuda or a target by name (default: cpu)");
  verb->add_option("--backend", source->backend,
                   "engine, or simulate: the fake-quant graph on float kernels; eval: or torch (default: engine)");
  verb->add_option("--tokenizer", source->tokenizer, "Folder with the tokenizer of an .onnx file");
  verb->add_flag("--as-is", source->as_is, "Run an .onnx file node by node in float, as it stands");
  verb->add_flag("--float-embeddings", source->float_embeddings, "Keep embedding tables in float");
}

PathKind kind_of(const std::string& path) {
  std::error_code error;
  if (!is_there(path))
    refuse(ErrorCode::not_found, {.what = fmt::format("cannot open {}", path),
                                  .expected = "expected a Hugging Face folder or a .octet file, found nothing",
                                  .where = fmt::format("in {}", fs::current_path(error).string())});
  if (fs::is_directory(path, error)) return PathKind::folder;
  std::string extension = fs::path(path).extension().string();
  if (extension == ".onnx") return PathKind::folder;
  return extension == ".safetensors" ? PathKind::calibration : PathKind::plan;
}

Model load_model(const std::string& path, const std::string& tokenizer, bool as_is) {
  switch (kind_of(path)) {
    case PathKind::folder: return Model::load(path, {.tokenizer = tokenizer, .as_is = as_is});
    case PathKind::plan:
      refuse(ErrorCode::invalid_argument,
             {.what = fmt::format("cannot use {} here", path),
              .expected = "expected a Hugging Face folder, got a file",
              .hint = "a compiled plan cannot be calibrated or compiled again; pass the folder it came from"});
    case PathKind::calibration: break;
  }
  refuse(ErrorCode::invalid_argument, {.what = fmt::format("cannot use {} here", path),
                                       .expected = "expected a Hugging Face folder, got a .safetensors file",
                                       .hint = "pass the folder that holds config.json and the weights"});
}

std::string calibration_of(const ModelSource& source, const Console& console) {
  if (source.calibration == "none") return "";
  if (!source.calibration.empty()) return source.calibration;
  fs::path own = fs::path(source.path) / kOwnCalibration;
  if (!is_there(own)) return "";
  console.note(fmt::format("using the calibration {}", own.string()));
  return own.string();
}

Plan compile_model(const Model& model, const ModelSource& source, const Console& console) {
  CompileOptions options;
  options.device = source.device;
  options.float_embeddings = source.float_embeddings;
  options.method = source.method;
  options.max_length = source.max_length;
  options.max_tokens = source.max_tokens;
  options.measure = source.measure;
  options.overflow_rows = source.overflow_rows;
  if (source.backend == "simulate") options.simulate = true;
  else if (source.backend == "torch" || source.backend == "ort" || source.backend == "openvino")
    refuse(ErrorCode::unsupported, {.what = fmt::format("cannot use backend {} here", source.backend),
                                    .expected = "expected engine or simulate; `octet eval` also has torch"});
  else if (source.backend != "engine")
    refuse(ErrorCode::invalid_argument,
           {.what = fmt::format("unknown backend {}", source.backend), .expected = "expected engine or simulate"});

  bool quantized = !source.calibration.empty() || options.simulate || model.info().quantizers > 0;
  options.precision = !source.precision.empty() ? parse_precision(source.precision)
                      : quantized               ? Precision::int8
                                                : Precision::fp32;
  std::string file = source.calibration;
  fs::path own = fs::path(source.path) / kOwnCalibration;
  if (file.empty() && options.precision == Precision::int8 && is_there(own)) {
    file = own.string();
    console.note(fmt::format("using the calibration {}", file));
  }
  if (!file.empty() && file != "none") {
    if (options.precision != Precision::int8)
      refuse(ErrorCode::invalid_argument,
             {.what = fmt::format("cannot use a calibration for {}", name(options.precision)),
              .expected = "calibrations hold INT8 ranges",
              .hint = "leave --calib out, or use --precision int8"});
    options.calibration = Calibration::load(file);
  } else if (!source.method.empty()) {
    refuse(ErrorCode::invalid_argument, {.what = "--method needs a calibration file",
                                         .expected = "there are no statistics to choose ranges from",
                                         .hint = "add --calib FILE; `octet calibrate` makes one"});
  }
  if (options.simulate && options.precision != Precision::int8)
    refuse(ErrorCode::invalid_argument, {.what = fmt::format("cannot simulate {}", name(options.precision)),
                                         .expected = "--backend simulate computes the INT8 graph in float"});
  return compile(model, options);
}

Plan load_plan(const ModelSource& source, const Console& console) {
  PathKind kind = kind_of(source.path);
  if (kind != PathKind::plan) {
    Model model = load_model(source.path, source.tokenizer, source.as_is);
    if (model.as_is() && !source.as_is)
      for (const std::string& note : model.notes()) console.note(note);
    return compile_model(model, source, console);
  }
  if (!source.precision.empty() || !source.calibration.empty() || !source.method.empty() || source.float_embeddings)
    refuse(ErrorCode::invalid_argument,
           {.what = fmt::format("{} is compiled already", source.path),
            .expected = "--precision, --calib, --method and --float-embeddings belong to a Hugging Face folder",
            .hint = "pass the folder, or leave the options out"});
  if (source.backend == "simulate")
    refuse(ErrorCode::invalid_argument,
           {.what = fmt::format("cannot simulate {}", source.path),
            .expected = "a compiled plan holds no float weights",
            .hint = "pass the Hugging Face folder and the --calib that it was compiled with"});
  if (source.backend != "engine")
    refuse(ErrorCode::unsupported, {.what = fmt::format("cannot run {} with backend {}", source.path, source.backend),
                                    .expected = "expected engine"});
  return Plan::load(source.path);
}

void check_output(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error))
    refuse(ErrorCode::invalid_argument,
           {.what = fmt::format("cannot write {}", path), .expected = "expected a file name, got a folder"});
  fs::path parent = fs::path(path).parent_path();
  if (parent.empty()) parent = ".";
  if (!fs::is_directory(parent, error))
    refuse(ErrorCode::io, {.what = fmt::format("cannot write {}", path),
                           .expected = fmt::format("there is no folder {}", parent.string()),
                           .hint = "make the folder first"});
  bool device = is_there(path) && !fs::is_regular_file(path, error);
  if (!device && access(parent.c_str(), W_OK) != 0)
    refuse(ErrorCode::io, {.what = fmt::format("cannot write {}", path),
                           .expected = std::strerror(errno),
                           .where = fmt::format("in {}", parent.string())});
}

std::string short_name(const std::string& path) {
  fs::path clean = fs::path(path).lexically_normal();
  return clean.filename().empty() ? clean.parent_path().filename().string() : clean.filename().string();
}

}  // namespace octet::cli
