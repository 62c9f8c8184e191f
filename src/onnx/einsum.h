// The equation of an Einsum node.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace octet::onnx {

struct Einsum {
  std::vector<std::string> in;  ///< a letter an axis
  std::string out;
};
/// Nothing for equations with an ellipsis or that are damaged.
std::optional<Einsum> parse_einsum(std::string_view equation);

/// Two operands as matrix products: batch letters are in both and in the result, contracted ones in both alone.
struct EinsumProduct {
  std::string batch, left, right, contracted;
};
/// Nothing where an operand repeats a letter or has one of its own that the result lacks.
std::optional<EinsumProduct> as_product(const Einsum& einsum);

}  // namespace octet::onnx
