// Letters before and behind the arrow, and which of them are multiplied away.
#include "onnx/einsum.h"

#include <algorithm>

namespace octet::onnx {

std::optional<Einsum> parse_einsum(std::string_view equation) {
  std::string text;
  for (char c : equation)
    if (c != ' ') text += c;
  if (text.find('.') != std::string::npos) return std::nullopt;
  Einsum out;
  size_t arrow = text.find("->");
  std::string operands = text.substr(0, arrow);
  out.in.emplace_back();
  for (char c : operands) {
    if (c == ',') out.in.emplace_back();
    else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) out.in.back() += c;
    else return std::nullopt;
  }
  if (arrow != std::string::npos) {
    out.out = text.substr(arrow + 2);
    for (size_t i = 0; i < out.out.size(); ++i)
      if (operands.find(out.out[i]) == std::string::npos || out.out.find(out.out[i], i + 1) != std::string::npos ||
          out.out[i] == ',')
        return std::nullopt;
    return out;
  }
  // Without an arrow the result has the letters that occur once, in order.
  for (char c : operands)
    if (c != ',' && std::count(operands.begin(), operands.end(), c) == 1) out.out += c;
  std::sort(out.out.begin(), out.out.end());
  return out;
}

std::optional<EinsumProduct> as_product(const Einsum& einsum) {
  if (einsum.in.size() != 2) return std::nullopt;
  EinsumProduct p;
  for (size_t k = 0; k < 2; ++k)
    for (char c : einsum.in[k]) {
      if (std::count(einsum.in[k].begin(), einsum.in[k].end(), c) != 1) return std::nullopt;
      bool other = einsum.in[1 - k].find(c) != std::string::npos, out = einsum.out.find(c) != std::string::npos;
      if (!other && !out) return std::nullopt;
      if (!other) (k == 0 ? p.left : p.right) += c;
      else if (k == 0) (out ? p.batch : p.contracted) += c;
    }
  return p;
}

}  // namespace octet::onnx
