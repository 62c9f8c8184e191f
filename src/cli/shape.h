// Shapes as users write them: "32x256" is 32 rows of 256 tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace octet::cli {

struct Shape {
  int64_t batch = 0, seq = 0;
};

/// Throws invalid_argument.
Shape parse_shape(const std::string& text);
/// The reason why `text` is no list of shapes, or nothing: a check for the command line.
std::string check_shapes(const std::string& text);
/// "1x16,32x256".
std::vector<Shape> parse_shapes(const std::string& text);

}  // namespace octet::cli
