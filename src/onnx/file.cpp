// Look-ups in nodes, and names of element types.
#include "onnx/file.h"

namespace octet::onnx {

std::string name(ElemType type) {
  switch (type) {
    case ElemType::none: return "no type";
    case ElemType::f32: return "float32";
    case ElemType::u8: return "uint8";
    case ElemType::s8: return "int8";
    case ElemType::u16: return "uint16";
    case ElemType::s16: return "int16";
    case ElemType::s32: return "int32";
    case ElemType::s64: return "int64";
    case ElemType::string: return "string";
    case ElemType::boolean: return "bool";
    case ElemType::f16: return "float16";
    case ElemType::f64: return "double";
    case ElemType::u32: return "uint32";
    case ElemType::u64: return "uint64";
    case ElemType::bf16: return "bfloat16";
    case ElemType::f8e4m3fn: return "float8e4m3fn";
    case ElemType::u4: return "uint4";
    case ElemType::s4: return "int4";
  }
  return "type " + std::to_string(static_cast<int32_t>(type));
}

bool is_float(ElemType type) noexcept {
  return type == ElemType::f32 || type == ElemType::f16 || type == ElemType::bf16 || type == ElemType::f64;
}

const Attribute* Node::find(std::string_view attribute) const noexcept {
  for (const Attribute& a : attributes)
    if (a.name == attribute) return &a;
  return nullptr;
}
int64_t Node::integer(std::string_view attribute, int64_t fallback) const {
  const Attribute* a = find(attribute);
  return a == nullptr ? fallback : a->integer;
}
double Node::number(std::string_view attribute, double fallback) const {
  const Attribute* a = find(attribute);
  return a == nullptr ? fallback : a->number;
}
std::string Node::text(std::string_view attribute, const std::string& fallback) const {
  const Attribute* a = find(attribute);
  return a == nullptr ? fallback : a->text;
}
std::vector<int64_t> Node::integers(std::string_view attribute, std::vector<int64_t> fallback) const {
  const Attribute* a = find(attribute);
  return a == nullptr ? std::move(fallback) : a->integers;
}
const std::string& Node::input(size_t index) const noexcept {
  static const std::string kAbsent;
  return index < inputs.size() ? inputs[index] : kAbsent;
}
std::string Node::label() const {
  std::string text = (domain.empty() ? "" : domain + ".") + op;
  if (!name.empty()) return text + " node " + name;
  return text + " node that makes " + (outputs.empty() ? "nothing" : outputs[0]);
}

int64_t File::opset() const noexcept {
  auto found = opsets.find("");
  return found == opsets.end() ? 0 : found->second;
}

}  // namespace octet::onnx
