// Search by meaning: the five lines of a file nearest to a query.
//
//   example_search MODEL.octet FILE "a query"
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "embed.h"

namespace {

/// The first column of each line; a .tsv file begins with its column names.
std::vector<std::string> read_lines(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string("cannot open ") + path);
  std::vector<std::string> lines;
  std::string line;
  if (std::string_view(path).ends_with(".tsv")) std::getline(file, line);
  while (std::getline(file, line))
    if (!line.empty()) lines.push_back(line.substr(0, line.find('\t')));
  return lines;
}

double cosine(const float* a, const float* b, size_t width) {
  double dot = std::inner_product(a, a + width, b, 0.0);
  double length = std::sqrt(std::inner_product(a, a + width, a, 0.0) * std::inner_product(b, b + width, b, 0.0));
  return length > 0 ? dot / length : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: example_search MODEL.octet FILE QUERY\n");
    return 64;
  }
  try {
    example::Embedder embedder(argv[1]);
    std::vector<std::string> lines = read_lines(argv[2]);
    std::vector<float> rows = embedder.embed(lines);
    const std::string query_text = argv[3];
    std::vector<float> query = embedder.embed(std::span(&query_text, 1));

    std::vector<double> near(lines.size());
    for (size_t i = 0; i < lines.size(); ++i)
      near[i] = cosine(&rows[i * embedder.width()], query.data(), embedder.width());
    std::vector<size_t> order(lines.size());
    std::iota(order.begin(), order.end(), size_t{0});
    size_t shown = std::min<size_t>(5, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                      [&](size_t a, size_t b) { return near[a] != near[b] ? near[a] > near[b] : a < b; });
    std::printf("the %zu of %zu sentences nearest to \"%s\":\n", shown, lines.size(), argv[3]);
    for (size_t i = 0; i < shown; ++i) std::printf("  %.3f  %s\n", near[order[i]], lines[order[i]].c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "example_search: %s\n", error.what());
    return 2;
  }
}
