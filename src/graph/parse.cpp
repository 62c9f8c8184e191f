// Reads the text form of a graph, a line each for an input, a parameter, a node and an output.
#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "graph/graph.h"

namespace octet {

namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::map<std::string, Tensor>& parameters)
      : text_(text), parameters_(parameters) {}

  Graph run() {
    bool named = false;
    while (!text_.empty()) {
      size_t end = std::min(text_.find('\n'), text_.size());
      rest_ = text_.substr(0, end);
      text_.remove_prefix(std::min(end + 1, text_.size()));
      ++line_;
      skip_space();
      if (rest_.empty() || rest_.front() == '#') continue;
      if (!named) {
        if (word() != "graph") expected("a line that starts with: graph");
        graph_.name = quoted();
        named = true;
      } else {
        statement();
      }
      skip_space();
      if (!rest_.empty()) expected("the end of the line");
    }
    if (!named) expected("a line that starts with: graph");
    return std::move(graph_);
  }

 private:
  [[noreturn]] void expected(const std::string& what) const {
    std::string got(rest_.substr(0, 40));
    fail(ErrorCode::corrupt, {.what = "cannot read the graph",
                              .expected = "expected " + what + ", got '" + got + "'",
                              .where = "line " + std::to_string(line_)});
  }

  void statement() {
    // What the graph itself refuses (names taken, types that do not fit) is a fault of this text.
    try {
      if (rest_.front() == '%') return node();
      std::string_view kind = word();
      if (kind == "input") {
        std::string name = sigil('%');
        punctuation(":");
        graph_.add_input(name, type());
      } else if (kind == "param") {
        parameter();
      } else if (kind == "output") {
        std::string name = quoted();
        punctuation("=");
        ValueId value = use();
        if (value == kNone) expected("a value");
        graph_.set_output(name, value);
      } else {
        expected("input, param, output or a node");
      }
    } catch (const Error& error) {
      if (error.code() == ErrorCode::corrupt) throw;
      fail(ErrorCode::corrupt, {.what = error.what(), .where = "line " + std::to_string(line_)});
    }
  }

  void parameter() {
    std::string name = sigil('@');
    punctuation(":");
    ValueType declared = type();
    auto it = parameters_.find(name);
    if (it == parameters_.end()) {
      std::vector<std::string> known;
      for (const auto& entry : parameters_) known.push_back(entry.first);
      fail(ErrorCode::corrupt, {.what = "there is no tensor for parameter " + name,
                                .where = "line " + std::to_string(line_),
                                .hint = nearest_names(name, known)});
    }
    ValueType found{it->second.dtype(), it->second.shape()};
    if (found != declared)
      fail(ErrorCode::corrupt, {.what = "the tensor of parameter " + name + " has another type",
                                .expected = "expected " + to_string(declared) + ", got " + to_string(found),
                                .where = "line " + std::to_string(line_)});
    graph_.add_parameter(name, it->second);
  }

  void node() {
    std::string name = sigil('%');
    punctuation("=");
    std::string_view operation = word();
    std::optional<Op> op = parse_op(operation);
    if (!op) {
      rest_ = operation;
      expected("an operation");
    }
    punctuation("(");
    std::vector<ValueId> inputs;
    if (!accept(")")) {
      do inputs.push_back(use());
      while (accept(","));
      punctuation(")");
    }
    Attributes attributes;
    if (accept("{")) {
      do {
        std::string key(word());
        punctuation("=");
        if (!attributes.emplace(key, attribute()).second) expected("each attribute once (" + key + ")");
      } while (accept(","));
      punctuation("}");
    }
    punctuation(":");
    ValueType declared = type();
    ValueId made = graph_.add(*op, name, std::move(inputs), std::move(attributes));
    if (graph_.value(made).type != declared)
      fail(ErrorCode::corrupt,
           {.what = "the type of node " + name + " does not follow from its inputs",
            .expected = "expected " + to_string(graph_.value(made).type) + ", got " + to_string(declared),
            .where = "line " + std::to_string(line_)});
  }

  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t' || rest_.front() == '\r'))
      rest_.remove_prefix(1);
  }
  bool accept(std::string_view token) {
    skip_space();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  void punctuation(std::string_view token) {
    if (!accept(token)) expected("'" + std::string(token) + "'");
  }

  static bool in_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '/' || c == '-' || c == '+';
  }
  std::string_view word() {
    skip_space();
    size_t length = 0;
    while (length < rest_.size() && in_word(rest_[length])) ++length;
    if (length == 0) expected("a word");
    std::string_view found = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return found;
  }

  static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  }
  std::string quoted() {
    punctuation("\"");
    std::string out;
    while (!rest_.empty() && rest_.front() != '"') {
      char c = rest_.front();
      if (c == '\\') {
        if (rest_.size() >= 2 && (rest_[1] == '"' || rest_[1] == '\\')) {
          c = rest_[1];
          rest_.remove_prefix(1);
        } else if (rest_.size() >= 4 && rest_[1] == 'x' && hex(rest_[2]) >= 0 && hex(rest_[3]) >= 0) {
          c = static_cast<char>(hex(rest_[2]) * 16 + hex(rest_[3]));
          rest_.remove_prefix(3);
        } else {
          expected("one of the escapes \\\" \\\\ \\xNN");
        }
      }
      out += c;
      rest_.remove_prefix(1);
    }
    punctuation("\"");
    return out;
  }

  std::string sigil(char mark) {
    punctuation(std::string(1, mark));
    return rest_.starts_with('"') ? quoted() : std::string(word());
  }

  ValueId use() {
    skip_space();
    if (accept("none")) return kNone;
    if (rest_.empty() || (rest_.front() != '%' && rest_.front() != '@')) expected("a value");
    bool parameter = rest_.front() == '@';
    std::string name = sigil(rest_.front());
    ValueId value = graph_.find_value(name);
    if (value == kNone || graph_.is_parameter(value) != parameter)
      fail(ErrorCode::corrupt,
           {.what = std::string("there is no ") + (parameter ? "parameter " : "value ") + name + " before this line",
            .where = "line " + std::to_string(line_)});
    return value;
  }

  template <typename T>
  T parsed(std::string_view text, const char* what) {
    T value{};
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      rest_ = text;
      expected(what);
    }
    return value;
  }

  Attribute attribute() {
    skip_space();
    if (rest_.starts_with('"')) return quoted();
    std::string_view text = word();
    if (text.find_first_not_of("-0123456789") == std::string_view::npos) return parsed<int64_t>(text, "an integer");
    return parsed<double>(text, "a number");
  }

  ValueType type() {
    std::string_view text = word();
    std::optional<DType> dtype = parse_dtype(text);
    if (!dtype) {
      rest_ = text;
      expected("an element type");
    }
    ValueType made{*dtype, {}};
    punctuation("[");
    if (accept("]")) return made;
    do {
      std::string_view extent = word();
      if (extent == "tokens") made.shape.push_back(kTokens);
      else if (extent == "rows") made.shape.push_back(kRows);
      else if (extent == "length") made.shape.push_back(kLength);
      else if (extent == "offsets") made.shape.push_back(kOffsets);
      else {
        auto value = parsed<int64_t>(extent, "an extent");
        if (value < 0) expected("an extent of 0 or more");
        made.shape.push_back(value);
      }
    } while (accept(","));
    punctuation("]");
    return made;
  }

  std::string_view text_, rest_;
  const std::map<std::string, Tensor>& parameters_;
  Graph graph_;
  int line_ = 0;
};

}  // namespace

Graph parse_graph(std::string_view text, const std::map<std::string, Tensor>& parameters) {
  return Parser(text, parameters).run();
}

}  // namespace octet
