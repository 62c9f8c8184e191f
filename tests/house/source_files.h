// The project's own files, as the house tests read them.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace octet::house {

struct SourceFile {
  std::string path;  ///< relative to the project, with slashes: "src/core/error.h"
  std::string text;
};

/// Every regular file under `folder` of the project, sorted; nothing when the folder does not exist.
inline std::vector<SourceFile> read_sources(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<SourceFile> files;
  fs::path root = OCTET_SOURCE;
  if (!fs::exists(root / folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    files.push_back({fs::relative(entry.path(), root).generic_string(), text.str()});
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return files;
}

inline bool is_code(const std::string& path) {
  for (const char* ending : {".h", ".cpp", ".cu", ".cuh"})
    if (path.ends_with(ending)) return true;
  return false;
}

}  // namespace octet::house
