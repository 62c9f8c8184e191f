// The interpreter against the outputs that ONNX files of others bring along.
#include "onnx/dense.h"

#include <gtest/gtest.h>
#include <octet/error.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>

namespace octet::onnx {
namespace {

namespace fs = std::filesystem;

// Largest difference, relative beyond 1; infinite when types or shapes differ.
double difference(const Array& a, const Array& b) {
  if (a.shape != b.shape || a.real() != b.real()) return INFINITY;
  double worst = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    double x = a.at(i), y = b.at(i);
    if ((std::isnan(x) && std::isnan(y)) || x == y) continue;
    double d = std::fabs(x - y) / std::max(1.0, std::fabs(y));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}

std::vector<std::pair<fs::path, Array>> tensors(const fs::path& folder, const std::string& kind) {
  std::vector<std::pair<fs::path, Array>> out;
  for (int i = 0;; ++i) {
    fs::path path = folder / (kind + "_" + std::to_string(i) + ".pb");
    if (!fs::exists(path)) return out;
    out.emplace_back(path, Array::from(read_tensor(path)));
  }
}

void check_folder(const fs::path& folder, double bound, int64_t* data_sets) {
  auto file = std::make_shared<const File>(read_file(folder / "model.onnx"));
  Dense dense(file);
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
    auto in = tensors(entry.path(), "input"), expected = tensors(entry.path(), "output");
    std::map<std::string, Array> inputs;
    for (size_t i = 0; i < file->graph.inputs.size() && i < in.size(); ++i)
      inputs[file->graph.inputs[i].name] = in[i].second;
    std::vector<Array> got = dense.run(inputs);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_LE(difference(got[i], expected[i].second), got[i].type == ElemType::bf16 ? 0.02 : bound)
          << folder << " output " << i << " of type " << name(got[i].type) << to_string(got[i].shape);
    ++*data_sets;
  }
}

TEST(OnnxDense, SharedFilesGiveTheirOutputs) {
  fs::path shared = fs::path(OCTET_SHARED) / "onnx";
  if (!fs::exists(shared)) GTEST_SKIP() << "no " << shared;
  int64_t data_sets = 0;
  for (const auto& entry : fs::directory_iterator(shared))
    if (fs::exists(entry.path() / "model.onnx")) check_folder(entry.path(), 1e-4, &data_sets);
  EXPECT_GT(data_sets, 0);
}

// The node tests of the onnx package (Debian's libonnx-testdata has them, too).
TEST(OnnxDense, NodeTestsOfOnnx) {
  fs::path root;
  if (const char* given = std::getenv("OCTET_ONNX_NODE_TESTS")) root = given;
  for (const char* known : {"/usr/share/libonnx-testdata/data/node", "/usr/share/onnx/backend/test/data/node"})
    if (root.empty() && fs::exists(known)) root = known;
  if (root.empty() || !fs::exists(root)) GTEST_SKIP() << "no node tests; OCTET_ONNX_NODE_TESTS names their folder";
  int64_t ran = 0;
  std::map<std::string, int> skipped;
  std::set<std::string> operators;
  for (const auto& entry : fs::directory_iterator(root)) {
    fs::path path = entry.path() / "model.onnx";
    if (!fs::exists(path)) continue;
    SCOPED_TRACE(path.string());
    try {
      File file = read_file(path);
      if (file.opset() > 23 || file.opset() < 9 || !missing_operators(file).empty()) continue;
      for (const Node& node : file.graph.nodes) operators.insert(node.op);
      check_folder(entry.path(), 1e-3, &ran);
    } catch (const Error& error) {
      // Variants that octet refuses by name are no failures; anything else is.
      EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.what();
      ++skipped[error.what()];
    }
  }
  std::printf("%ld data sets of %zu operators\n", static_cast<long>(ran), operators.size());
  for (const auto& [why, count] : skipped) std::printf("refused %d: %s\n", count, why.c_str());
  EXPECT_GT(ran, 100);
}

}  // namespace
}  // namespace octet::onnx
