// The demo's data: review sentences with a mean rating, made into two classes and split in a fixed way.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace example {

struct Review {
  std::string text;
  int label = 0;  ///< 1 for a rating of at least 0.5, 0 for at most -0.5
};

struct ReviewSplit {
  std::vector<Review> train;
  std::vector<Review> test;
};

/// Reads "id <tab> rating <tab> text" lines and leaves out the ratings nearer to zero than 0.5.
inline std::vector<Review> read_reviews(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path + "\n  hint: scripts/setup.sh demo fetches the reviews");
  std::vector<Review> reviews;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    size_t first = line.find('\t');
    size_t second = first == std::string::npos ? first : line.find('\t', first + 1);
    char* end = nullptr;
    double rating = second == std::string::npos ? 0 : std::strtod(line.c_str() + first + 1, &end);
    if (end != line.c_str() + second)
      throw std::runtime_error("cannot read a review\n  expected id, rating, text with tabs between\n  in " + path +
                               ", line " + std::to_string(number));
    if (std::fabs(rating) >= 0.5) reviews.push_back({line.substr(second + 1), rating > 0 ? 1 : 0});
  }
  return reviews;
}

/// The first `train` rows of a shuffle that is the same on every machine.
inline ReviewSplit split_reviews(std::vector<Review> reviews, size_t train) {
  if (reviews.size() <= train) throw std::runtime_error("too few reviews to split: " + std::to_string(reviews.size()));
  uint64_t state = 1;
  for (size_t i = reviews.size() - 1; i > 0; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(reviews[i], reviews[(state >> 33) % (i + 1)]);
  }
  auto middle = reviews.begin() + static_cast<std::ptrdiff_t>(train);
  return {{reviews.begin(), middle}, {middle, reviews.end()}};
}

}  // namespace example
