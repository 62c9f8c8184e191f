// What a MODEL argument may be, and the options that turn it into a plan.
#pragma once

#include <octet/plan.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/console.h"

namespace octet::cli {

/// A Hugging Face folder to be compiled in memory, or a compiled .octet file.
struct ModelSource {
  std::string path;
  std::string precision;    ///< of a folder; empty: int8 with a calibration or --backend simulate, else fp32
  std::string calibration;  ///< a file for a folder's INT8; "none" asks for dynamic ranges
  std::string method;       ///< chooses ranges again
  std::string device = "cpu";
  std::string backend = "engine";  ///< or "simulate"
  std::string tokenizer;           ///< folder with the tokenizer of an .onnx file
  bool float_embeddings = false;
  bool as_is = false;  ///< an .onnx file node by node
  int64_t max_length = 0;
  int64_t max_tokens = 0;
  bool measure = false;
  std::vector<Encoding> overflow_rows;
};

/// --precision, --calib, --method, --device, --float-embeddings, --backend.
void add_compile_options(CLI::App* verb, ModelSource* source);

/// The calibration file that was asked for, or the folder's own; empty when there is none or it is refused ('none').
std::string calibration_of(const ModelSource& source, const Console& console);

/// A Hugging Face folder. Explains what other kinds of path are.
Model load_model(const std::string& path, const std::string& tokenizer = "", bool as_is = false);
/// Loads a .octet file or compiles a folder. Notes what it decided by itself.
Plan load_plan(const ModelSource& source, const Console& console);
Plan compile_model(const Model& model, const ModelSource& source, const Console& console);

enum class PathKind { folder, plan, calibration };
/// Throws not_found (with near names). An .onnx file is used like a folder.
PathKind kind_of(const std::string& path);

/// Throws io or invalid_argument when a file cannot be made at `path`: no such folder, or a folder itself. Long work
/// comes after it.
void check_output(const std::string& path);

/// A model's last path component, for tables.
std::string short_name(const std::string& path);

}  // namespace octet::cli
