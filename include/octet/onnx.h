// ONNX files: writing a model as one, float or quantized (QDQ). Reading is Model::load.
#pragma once

#include <octet/calibration.h>
#include <octet/model.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace octet {

struct ExportOptions {
  int64_t opset = 13;  ///< 13 to 23
  /// Ranges; without them the file is float. Must belong to this model (hash).
  std::optional<Calibration> calibration;
  std::string method;             ///< chooses ranges again, as in CompileOptions
  bool int8_weights = false;      ///< quantized weights as int8 tensors: a quarter of the size
  bool float_embeddings = false;  ///< no quantizers on embedding tables
  bool half = false;              ///< a float16 file (without a calibration)
};

/// Writes `path`, and `path`.data beside it for models above 2 GB. Equal models and options give equal bytes. Throws
/// unsupported (quantizers that QDQ cannot express, all at once), invalid_argument, io.
void export_onnx(const Model& model, const std::filesystem::path& path, const ExportOptions& options = {});

/// One output of an ONNX file on a data set of its own.
struct OnnxCheck {
  std::string output;
  std::vector<int64_t> shape;
  double max_error = 0;   ///< largest difference to the data set's, relative beyond 1; 0 when it has none
  bool compared = false;  ///< the data set has this output
};

/// Runs the file as it stands, padding and all, on the reference kernels: `data_set` holds input_0.pb, input_1.pb ...
/// and maybe output_0.pb ... (the form of ONNX's test data). Throws unsupported with all operators that octet lacks.
std::vector<OnnxCheck> check_onnx(const std::filesystem::path& path, const std::filesystem::path& data_set);

}  // namespace octet
