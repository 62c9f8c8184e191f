// What each operation takes: number of inputs and attributes with their kinds. One table for inference, verifier and
// parser.
#pragma once

#include <span>
#include <string_view>

#include "graph/graph.h"

namespace octet {

enum class AttributeKind : uint8_t { integer, number, text };

struct AttributeSignature {
  std::string_view key;
  AttributeKind kind = AttributeKind::integer;
  bool required = false;
};

struct Signature {
  Op op = Op::add;
  std::string_view name;
  size_t required_inputs = 1;
  size_t inputs = 1;  ///< with the optional ones, which come last
  std::span<const AttributeSignature> attributes;
};

const Signature& signature(Op op) noexcept;

/// Bits and sign of a quantizer's type ("s8"), or bits 0 when it is none of s2..s8, u2..u8.
struct QuantType {
  int bits = 0;
  bool is_unsigned = false;
};
QuantType parse_quant_type(std::string_view text) noexcept;

}  // namespace octet
