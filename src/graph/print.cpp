// The text form of a graph; parse.cpp reads it back.
#include <algorithm>
#include <charconv>
#include <string>

#include "graph/graph.h"

namespace octet {

namespace {

bool is_bare(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '/' || c == '-';
  });
}

std::string quoted(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string use(const Graph& graph, ValueId value) {
  if (value == kNone) return "none";
  const std::string& name = graph.value(value).name;
  return (graph.is_parameter(value) ? "@" : "%") + (is_bare(name) ? name : quoted(name));
}

std::string number(double value) {
  char buffer[40];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  std::string text(buffer, end);
  // Without a sign of its own a whole number would be read back as an integer.
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

std::string attribute_text(const Attribute& attribute) {
  if (const auto* integer = std::get_if<int64_t>(&attribute)) return std::to_string(*integer);
  if (const auto* value = std::get_if<double>(&attribute)) return number(*value);
  return quoted(std::get<std::string>(attribute));
}

}  // namespace

std::string to_string(const ValueType& type) {
  std::string text = std::string(name(type.dtype)) + "[";
  for (size_t i = 0; i < type.shape.size(); ++i) {
    if (i != 0) text += ", ";
    switch (type.shape[i]) {
      case kTokens: text += "tokens"; break;
      case kRows: text += "rows"; break;
      case kLength: text += "length"; break;
      case kOffsets: text += "offsets"; break;
      default: text += std::to_string(type.shape[i]);
    }
  }
  return text + "]";
}

std::string print(const Graph& graph) {
  std::string text = "graph " + quoted(graph.name) + "\n";
  for (ValueId input : graph.inputs())
    text += "input " + use(graph, input) + " : " + to_string(graph.value(input).type) + "\n";
  for (size_t i = 0; i < graph.values().size(); ++i) {
    auto id = static_cast<ValueId>(i);
    if (graph.is_parameter(id) && graph.find_value(graph.value(id).name) == id)
      text += "param " + use(graph, id) + " : " + to_string(graph.value(id).type) + "\n";
  }
  for (const Node& node : graph.nodes()) {
    text += use(graph, node.output) + " = " + std::string(name(node.op)) + "(";
    for (size_t i = 0; i < node.inputs.size(); ++i) text += (i == 0 ? "" : ", ") + use(graph, node.inputs[i]);
    text += ")";
    if (!node.attributes.empty()) {
      text += " {";
      for (auto it = node.attributes.begin(); it != node.attributes.end(); ++it)
        text += (it == node.attributes.begin() ? "" : ", ") + it->first + "=" + attribute_text(it->second);
      text += "}";
    }
    text += " : " + to_string(graph.value(node.output).type) + "\n";
  }
  for (const auto& [output, value] : graph.outputs())
    text += "output " + quoted(output) + " = " + use(graph, value) + "\n";
  return text;
}

}  // namespace octet
