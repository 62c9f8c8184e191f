// The include rule of HACKING.md, executed: reads every #include line under src/ and include/.
#include <gtest/gtest.h>

#include <cctype>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "house/source_files.h"

namespace octet::house {
namespace {

struct Include {
  std::string name;
  bool angled = false;
  int line = 0;
};

std::vector<Include> includes_of(const SourceFile& file) {
  std::vector<Include> found;
  std::istringstream lines(file.text);
  std::string text;
  for (int line = 1; std::getline(lines, text); ++line) {
    size_t at = text.find_first_not_of(" \t");
    if (at == std::string::npos || text[at] != '#') continue;
    at = text.find_first_not_of(" \t", at + 1);
    if (at == std::string::npos || text.compare(at, 7, "include") != 0) continue;
    size_t open = text.find_first_of("<\"", at);
    if (open == std::string::npos) continue;
    size_t close = text.find(text[open] == '<' ? '>' : '"', open + 1);
    if (close == std::string::npos) continue;
    found.push_back({text.substr(open + 1, close - open - 1), text[open] == '<', line});
  }
  return found;
}

std::string at(const SourceFile& file, const Include& include) {
  return file.path + ":" + std::to_string(include.line) + " includes " + include.name;
}

/// "src/plan/session.cpp" -> "plan"; files directly in src give "".
std::string folder_of(const std::string& path) {
  size_t begin = path.find('/') + 1;
  size_t end = path.find('/', begin);
  return end == std::string::npos ? "" : path.substr(begin, end - begin);
}

// Which folders of src a folder may include, besides itself. `api` implements include/octet and joins them all.
const std::map<std::string, std::set<std::string>>& allowed_folders() {
  static const std::map<std::string, std::set<std::string>> allowed{
      {"core", {}},
      {"kernels", {"core"}},
      {"text", {"core"}},
      {"graph", {"core"}},
      {"hf", {"core", "graph"}},
      {"onnx", {"core", "graph"}},
      {"plan", {"core", "graph", "kernels"}},
      {"quant", {"core", "graph", "plan"}},
      {"train", {"core", "graph", "hf", "text", "quant", "plan"}},
      {"bench", {"core"}},
      {"api", {"core", "graph", "hf", "text", "onnx", "quant", "plan", "kernels", "bench"}},
      {"cli", {}},
  };
  return allowed;
}

TEST(House, IncludesFollowTheRule) {
  int seen = 0;
  for (const SourceFile& file : read_sources("src")) {
    if (!is_code(file.path)) continue;
    ++seen;
    std::string folder = folder_of(file.path);
    auto rule = allowed_folders().find(folder);
    if (rule == allowed_folders().end()) {
      ADD_FAILURE() << file.path << " lies in a folder that HACKING.md does not know";
      continue;
    }
    for (const Include& include : includes_of(file)) {
      if (include.angled) continue;
      size_t slash = include.name.find('/');
      std::string target = slash == std::string::npos ? folder : include.name.substr(0, slash);
      EXPECT_TRUE(target == folder || rule->second.contains(target)) << at(file, include);
      EXPECT_EQ(include.name.find(".."), std::string::npos) << at(file, include) << ": paths start at src/";
    }
  }
  EXPECT_GT(seen, 0) << "no sources found under " << OCTET_SOURCE;
}

bool starts_with_any(std::string_view text, const std::vector<std::string>& starts) {
  for (const std::string& start : starts)
    if (text.starts_with(start)) return true;
  return false;
}

TEST(House, ThirdPartyHeadersStayInTheirFolders) {
  const std::vector<std::string> torch{"torch/", "ATen/", "c10/"};
  const std::vector<std::string> cuda{"cuda", "cutlass/", "cute/", "cub/", "cooperative_groups", "mma.h", "nvtx"};
  const std::vector<std::string> command_line{"CLI/"};
  for (const SourceFile& file : read_sources("src")) {
    if (!is_code(file.path)) continue;
    std::string folder = folder_of(file.path);
    for (const Include& include : includes_of(file)) {
      if (!include.angled) continue;
      if (folder != "train") {
        EXPECT_FALSE(starts_with_any(include.name, torch)) << at(file, include);
      }
      if (!file.path.starts_with("src/kernels/cuda/")) {
        EXPECT_FALSE(starts_with_any(include.name, cuda)) << at(file, include);
      }
      if (folder != "onnx") {
        EXPECT_FALSE(include.name.starts_with("protozero/")) << at(file, include);
      }
      if (folder != "text") {
        EXPECT_FALSE(include.name.starts_with("utf8proc")) << at(file, include);
      }
      if (folder != "cli") {
        EXPECT_FALSE(starts_with_any(include.name, command_line)) << at(file, include);
      }
    }
  }
}

TEST(House, CommandLineUsesThePublicApiOnly) {
  for (const SourceFile& file : read_sources("src/cli")) {
    if (!is_code(file.path)) continue;
    for (const Include& include : includes_of(file)) {
      bool standard = include.name.find('/') == std::string::npos || include.name.starts_with("sys/");
      bool fine = include.angled ? standard || starts_with_any(include.name, {"octet/", "CLI/", "nlohmann/", "fmt/"})
                                 : include.name.starts_with("cli/");
      EXPECT_TRUE(fine) << at(file, include);
    }
  }
}

TEST(House, PublicHeadersStandAlone) {
  for (const SourceFile& file : read_sources("include")) {
    EXPECT_TRUE(file.path.starts_with("include/octet/")) << file.path;
    for (const Include& include : includes_of(file)) {
      bool own = include.name.starts_with("octet/");
      bool standard = include.angled && include.name.find('/') == std::string::npos && !include.name.ends_with(".h");
      EXPECT_TRUE(own || standard) << at(file, include);
    }
    std::istringstream lines(file.text);
    std::string line;
    while (std::getline(lines, line)) {
      size_t first = line.find_first_not_of(" \t");
      if (first == std::string::npos || line[first] != '#') continue;
      EXPECT_EQ(line.find("if", first) == first + 1, false) << file.path << ": " << line << " depends on the build";
    }
  }
}

// The linker may keep the copy of an inline standard-library function that was compiled for a wide instruction set and
// run it on a CPU without it, so such files and what they include see no standard-library templates.
TEST(House, InstructionSetFilesIncludeNoTemplates) {
  const std::set<std::string> allowed{"immintrin.h", "cstdint", "stdint.h", "cstddef",     "stddef.h",
                                      "string.h",    "cstring", "math.h",   "core/int8.h", "core/dtype_enum.h"};
  std::map<std::string, const SourceFile*> headers;
  std::vector<SourceFile> files = read_sources("src");
  for (const SourceFile& file : files) headers[file.path.substr(4)] = &file;
  for (const SourceFile& file : files) {
    bool isa = false;
    for (const char* suffix : {"_avx2", "_avxvnni", "_avx512", "_avx512vnni", "_amx"})
      isa |= file.path.starts_with("src/kernels/cpu/") && file.path.ends_with(std::string(suffix) + ".cpp");
    if (!isa) continue;
    std::set<std::string> done;
    std::vector<const SourceFile*> open{&file};
    while (!open.empty()) {
      const SourceFile* current = open.back();
      open.pop_back();
      for (const Include& include : includes_of(*current)) {
        if (allowed.contains(include.name) || !done.insert(include.name).second) continue;
        auto header = headers.find(include.name);
        bool ours = !include.angled && include.name.starts_with("kernels/") && header != headers.end();
        EXPECT_TRUE(ours) << at(*current, include) << " (reached from " << file.path << ")";
        if (ours) open.push_back(header->second);
      }
    }
  }
}

TEST(House, EveryFileSaysWhatLivesInIt) {
  for (const char* folder : {"src", "include"})
    for (const SourceFile& file : read_sources(folder)) {
      if (!is_code(file.path)) continue;
      EXPECT_TRUE(file.text.starts_with("// ")) << file.path << ": the first line is one sentence on what lives here";
    }
}

}  // namespace
}  // namespace octet::house
