// Rules about the text of the repository: no addresses of package hosts, no authors' machines, files of a readable
// size.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "house/source_files.h"

namespace octet::house {
namespace {

std::vector<SourceFile> all_text() {
  std::vector<SourceFile> files;
  for (const char* folder :
       {"src", "include", "tests", "fuzz", "bench", "examples", "docs", "scripts", "cmake", "tools", ".ci"})
    for (SourceFile& file : read_sources(folder)) files.push_back(std::move(file));
  for (const char* name : {"README.md", "HACKING.md", "CMakeLists.txt", "CMakePresets.json", "Makefile"}) {
    std::ifstream in(std::filesystem::path(OCTET_SOURCE) / name, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    files.push_back({name, text.str()});
  }
  return files;
}

// Downloads go through the user's own package settings, so no host belongs into the repository. Test data may quote
// addresses as text to tokenize.
TEST(House, NoAddressesInTheRepository) {
  const std::string scheme = "http";
  for (const SourceFile& file : all_text()) {
    if (file.path.starts_with("tests/data/") || file.path.starts_with("fuzz/corpus/")) continue;
    for (const std::string& start : {scheme + "://", scheme + "s://"}) {
      for (size_t at = file.text.find(start); at != std::string::npos; at = file.text.find(start, at + 1)) {
        std::string address = file.text.substr(at, std::min<size_t>(60, file.text.find_first_of(" \n\"')>", at) - at));
        // Names of XML vocabularies (in SVG) and hosts reserved for examples are not places to fetch from.
        bool harmless =
            address.find("www.w3.org/") != std::string::npos || address.find("example.") != std::string::npos;
        EXPECT_TRUE(harmless) << file.path << ": " << address;
      }
    }
  }
}

// The README's program is a piece of an example that is compiled.
TEST(House, ReadmeCodeIsCompiled) {
  auto read = [](const char* name) {
    std::ifstream in(std::filesystem::path(OCTET_SOURCE) / name);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) {
      size_t first = line.find_first_not_of(' ');
      lines.push_back(first == std::string::npos ? "" : line.substr(first));
    }
    return lines;
  };
  std::vector<std::string> readme = read("README.md"), example = read("examples/hello.cpp");
  size_t at = 0;
  int shown = 0;
  bool inside = false;
  for (const std::string& line : readme) {
    if (line == "```cpp" || (inside && line == "```")) {
      inside = !inside;
      continue;
    }
    if (!inside || line.empty()) continue;
    ++shown;
    while (at < example.size() && example[at] != line) ++at;
    ASSERT_LT(at, example.size()) << "not in examples/hello.cpp: " << line;
  }
  EXPECT_GT(shown, 3);
}

TEST(House, LicenseIsApache2) {
  std::ifstream in(std::filesystem::path(OCTET_SOURCE) / "LICENSE");
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_NE(text.str().find("Apache License"), std::string::npos);
  EXPECT_NE(text.str().find("Version 2.0"), std::string::npos);
}

// A soft limit: printed, not enforced.
TEST(House, LongFilesArePrinted) {
  constexpr int kSoftLimit = 500;
  for (const SourceFile& file : all_text()) {
    if (!is_code(file.path)) continue;
    auto lines = std::count(file.text.begin(), file.text.end(), '\n');
    if (lines > kSoftLimit)
      std::printf("%s has %ld lines (soft limit %d)\n", file.path.c_str(), static_cast<long>(lines), kSoftLimit);
  }
}

}  // namespace
}  // namespace octet::house
