// Reading shapes.
#include "cli/shape.h"

#include <fmt/format.h>

#include <charconv>

#include "cli/console.h"

namespace octet::cli {

Shape parse_shape(const std::string& text) {
  Shape shape;
  const char* end = text.data() + text.size();
  auto [middle, first] = std::from_chars(text.data(), end, shape.batch);
  if (first == std::errc() && middle < end && (*middle == 'x' || *middle == 'X')) {
    auto [last, second] = std::from_chars(middle + 1, end, shape.seq);
    if (second == std::errc() && last == end && shape.batch > 0 && shape.seq > 0) return shape;
  }
  refuse(ErrorCode::invalid_argument,
         {.what = fmt::format("cannot read the shape {}", text), .expected = "expected rows x tokens, such as 32x256"});
}

std::vector<Shape> parse_shapes(const std::string& text) {
  std::vector<Shape> shapes;
  for (size_t begin = 0;;) {
    size_t end = text.find(',', begin);
    shapes.push_back(parse_shape(text.substr(begin, end - begin)));
    if (end == std::string::npos) return shapes;
    begin = end + 1;
  }
}

std::string check_shapes(const std::string& text) {
  try {
    parse_shapes(text);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace octet::cli
