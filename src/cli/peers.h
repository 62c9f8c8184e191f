// Other engines for a report: a Python with ONNX Runtime and OpenVINO, libtorch, trtexec; each a row, or why not.
#pragma once

#include <octet/report.h>

#include <filesystem>
#include <string>
#include <vector>

namespace octet::cli {

struct PeerOptions {
  std::string python = "python3";   ///< "none": no rows of its engines
  std::string trtexec = "trtexec";  ///< found on the PATH, or a path; "none"
  bool torch = true;
  std::filesystem::path folder;  ///< the Hugging Face folder
  std::filesystem::path files;   ///< where exported files are put
  int threads = 0;
};

/// Exports the model and starts what is here. The rows keep their processes alive.
std::vector<ReportPeer> find_peers(const Model& model, const Calibration& calibration, const PeerOptions& options);

}  // namespace octet::cli
