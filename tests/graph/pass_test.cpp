// Passes over the text files of passes/: parameter values, a graph, the name of a pass, and the graph after it.
//
//   # values @name: 1 2 3        (default: all zero; after the pass they are compared where given)
//   graph ...
//   == pass_name
//   graph ...                    or: error: part of its message
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#include "core/error.h"
#include "graph/passes.h"

namespace octet {
namespace {

const std::map<std::string, std::function<void(Graph&)>> kPasses = {
    {"remove_off_quantizers", [](Graph& g) { remove_off_quantizers(g, false); }},
    {"remove_off_quantizers awaiting", [](Graph& g) { remove_off_quantizers(g, true); }},
    {"share_quantizers", share_quantizers},
    {"fold_weight_quantizers", fold_weight_quantizers},
    {"remove_dead", [](Graph& g) { g.remove_dead(); }},
};

using Values = std::map<std::string, std::vector<float>>;

/// Lines of graph text, and the comments with values taken out.
std::string read_half(const std::string& text, Values& values) {
  std::istringstream lines(text);
  std::string line, graph;
  while (std::getline(lines, line)) {
    if (line.starts_with("# values @")) {
      size_t colon = line.find(": ");
      std::istringstream numbers(line.substr(colon + 2));
      std::vector<float>& list = values[line.substr(10, colon - 10)];
      for (float number; numbers >> number;) list.push_back(number);
    } else if (!line.empty() && line[0] != '#') {
      graph += line + "\n";
    }
  }
  return graph;
}

/// Tensors for the `param` lines.
std::map<std::string, Tensor> parameters(const std::string& graph, const Values& values) {
  std::map<std::string, Tensor> tensors;
  std::istringstream lines(graph);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("param @")) continue;
    size_t colon = line.find(" : "), open = line.find('[', colon);
    std::string name = line.substr(7, colon - 7);
    DType dtype = *parse_dtype(line.substr(colon + 3, open - colon - 3));
    std::string extents = line.substr(open + 1);
    std::replace_if(
        extents.begin(), extents.end(), [](char c) { return c == ',' || c == ']'; }, ' ');
    std::istringstream numbers(extents);
    Shape shape;
    for (int64_t extent; numbers >> extent;) shape.push_back(extent);
    std::vector<float> list(static_cast<size_t>(count(shape)), 0.0f);
    if (auto it = values.find(name); it != values.end()) list = it->second;
    if (dtype == DType::s32)
      tensors[name] = Tensor::from(std::span<const int32_t>(std::vector<int32_t>(list.begin(), list.end())), shape);
    else tensors[name] = Tensor::from(std::span<const float>(list), shape);
  }
  return tensors;
}

TEST(Passes, FilesHoldGraphsBeforeAndAfter) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(OCTET_SOURCE) / "tests/graph/passes")) {
    SCOPED_TRACE(entry.path().filename().string());
    std::ifstream in(entry.path());
    std::stringstream buffer;
    buffer << in.rdbuf();
    std::string text = buffer.str();
    size_t split = text.find("\n== ");
    ASSERT_NE(split, std::string::npos);
    size_t end = text.find('\n', split + 1);
    std::string pass = text.substr(split + 4, end - split - 4);
    ASSERT_TRUE(kPasses.contains(pass)) << pass;
    Values before_values, after_values;
    std::string before = read_half(text.substr(0, split), before_values),
                after = read_half(text.substr(end + 1), after_values);
    Graph graph = parse_graph(before, parameters(before, before_values));
    EXPECT_EQ(print(graph), before);
    verify(graph);
    ++files;
    if (after.starts_with("error: ")) {
      try {
        kPasses.at(pass)(graph);
        ADD_FAILURE() << "no error";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(after.substr(7, after.size() - 8)), std::string::npos) << error.what();
      }
      continue;
    }
    kPasses.at(pass)(graph);
    verify(graph);
    EXPECT_EQ(print(graph), after);
    for (const auto& [name, wanted] : after_values) {
      ASSERT_NE(graph.find_value(name), kNone) << name;
      std::vector<float> got = graph.parameter(graph.find_value(name)).to_f32();
      EXPECT_EQ(got, wanted) << name;
    }
  }
  EXPECT_GE(files, 6);
}

}  // namespace
}  // namespace octet
