// Files of many exporters, raised and run, against what ONNX Runtime or the file's own data say.
#include "onnx/raise.h"

#include <gtest/gtest.h>
#include <octet/error.h>

#include <cstdlib>
#include <set>

#include "onnx/dense.h"
#include "onnx/raised.h"

namespace octet::onnx {
namespace {

namespace fs = std::filesystem;

std::vector<Array> arrays(const fs::path& folder, const std::string& kind) {
  std::vector<Array> out;
  for (int i = 0;; ++i) {
    fs::path path = folder / (kind + "_" + std::to_string(i) + ".pb");
    if (!fs::exists(path)) return out;
    out.push_back(Array::from(read_tensor(path)));
  }
}

bool has_quantizers(const octet::Graph& graph) {
  for (const octet::Node& node : graph.nodes())
    if (node.op == Op::fake_quant) return true;
  return false;
}

double difference(const std::vector<Array>& a, const std::vector<Array>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t k = 0; k < a.size() && k < b.size(); ++k) {
    if (a[k].shape != b[k].shape) return INFINITY;
    for (int64_t i = 0; i < a[k].count(); ++i)
      worst = std::max(worst, std::fabs(a[k].at(i) - b[k].at(i)) / std::max(1.0, std::fabs(b[k].at(i))));
  }
  return worst;
}

// The file without its quantizers: how far they move its answers is what other runtimes' roundings are measured by.
std::shared_ptr<File> without_quantizers(const File& file) {
  auto out = std::make_shared<File>(file);
  std::set<std::string> rounded;
  for (Node& node : out->graph.nodes)
    if (node.op == "QuantizeLinear") {
      rounded.insert(node.outputs[0]);
      node.op = "Identity", node.inputs.resize(1);
    } else if (node.op == "DequantizeLinear" && rounded.contains(node.input(0))) {
      node.op = "Identity", node.inputs.resize(1);
    } else if (node.op != "Constant" && !node.inputs.empty() && rounded.contains(node.input(0))) {
      rounded.insert(node.outputs.begin(), node.outputs.end());  // integers that are moved
    }
  return out;
}

// Folders with model.onnx and test_data_set_0.
void check(const fs::path& folder) {
  SCOPED_TRACE(folder.string());
  auto file = std::make_shared<File>(read_file(folder / "model.onnx"));
  std::string name = folder.filename().string();
  decompose(*file);
  std::map<std::string, Array> inputs;
  std::vector<Array> in = arrays(folder / "test_data_set_0", "input");
  std::vector<Array> expected = arrays(folder / "test_data_set_0", "output");
  for (size_t i = 0; i < file->graph.inputs.size() && i < in.size(); ++i) inputs[file->graph.inputs[i].name] = in[i];
  double dense = difference(Dense(file).run(inputs), expected);
  RaiseResult result = raise(*file);
  bool quantized = file->metadata.contains("quantized") || name.find("q-") != std::string::npos;
  bool half = false;  // computed in 16 bits by others, in 32 here
  for (const TensorData& t : file->graph.initializers)
    half = half || (t.type == ElemType::f16 && t.data.elements() > 64);
  // One flipped rounding moves a quantized model's answer by a step; runtimes differ in such roundings.
  EXPECT_LE(dense, quantized ? 0.05 : half ? 5e-3 : 1e-4) << "dense";
  ASSERT_TRUE(result.raised.has_value()) << result.obstacle;
  verify(result.raised->graph);
  PaddedBatch batch = batch_of(*file, inputs);
  const octet::Graph& graph = result.raised->graph;
  bool dynamic = false;
  for (const octet::Node& node : graph.nodes()) dynamic = dynamic || !node.text("dynamic", "").empty();
  for (const Node& node : file->graph.nodes) dynamic = dynamic || node.op == "DynamicQuantizeLinear";
  double noise = 0;
  if (has_quantizers(graph)) noise = difference(Dense(without_quantizers(*file)).run(inputs), expected);
  // Ranges found at run time are a token's here. Quantizers that were left out (result.raised->notes) took noise along.
  bool left_out = !result.raised->notes.empty();
  double bound = has_quantizers(graph) || quantized ? std::max(dynamic ? 0.15 : 0.05, (left_out ? 1.5 : 0.35) * noise)
                 : half                             ? 5e-3
                                                    : 1e-4;
  const std::vector<ValueInfo>* names = &file->graph.outputs;
  double unfused = raised_difference(graph, batch, expected, result.raised->question_answering, false, names);
  double fused = raised_difference(graph, batch, expected, result.raised->question_answering, true, names);
  EXPECT_LE(unfused, bound) << "unfused";
  EXPECT_LE(fused, bound) << "fused";
  std::printf("%-44s dense %.1e  unfused %.1e  fused %.1e  quantizers %.1e\n", name.c_str(), dense, unfused, fused,
              noise);
}

void check_all(const fs::path& root) {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(root))
    if (fs::exists(entry.path() / "model.onnx") && fs::exists(entry.path() / "test_data_set_0"))
      folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  ASSERT_FALSE(folders.empty());
  for (const fs::path& folder : folders) {
    try {
      check(folder);
    } catch (const Error& error) {
      ADD_FAILURE() << folder << ": " << error.what();
    }
  }
}

TEST(OnnxRaise, CommittedMatrix) { check_all(fs::path(OCTET_TEST_DATA) / "onnx"); }

// All that tools/make_onnx_matrix.py makes, more than is committed.
TEST(OnnxRaise, WholeMatrix) {
  const char* root = std::getenv("OCTET_ONNX_MATRIX");
  if (root == nullptr) GTEST_SKIP() << "OCTET_ONNX_MATRIX names no folder";
  check_all(root);
}

// Files of any kind, encoders or not: each is raised and agrees, or agrees run node by node, or is refused with what
// stands in the way.
TEST(OnnxRaise, AnyFiles) {
  const char* root = std::getenv("OCTET_ONNX_ANY");
  if (root == nullptr) GTEST_SKIP() << "OCTET_ONNX_ANY names no folder";
  for (const auto& entry : fs::directory_iterator(root)) {
    if (!fs::exists(entry.path() / "test_data_set_0")) continue;
    auto file = std::make_shared<File>(read_file(entry.path() / "model.onnx"));
    decompose(*file);
    RaiseResult result = raise(*file);
    try {
      if (result.raised) {
        check(entry.path());
        continue;
      }
      std::map<std::string, Array> inputs;
      std::vector<Array> in = arrays(entry.path() / "test_data_set_0", "input");
      for (size_t i = 0; i < file->graph.inputs.size() && i < in.size(); ++i)
        inputs[file->graph.inputs[i].name] = in[i];
      double dense = difference(Dense(file).run(inputs), arrays(entry.path() / "test_data_set_0", "output"));
      EXPECT_LE(dense, 5e-3) << entry.path();
      std::printf("%-44s dense %.1e  not raised: %s\n", entry.path().filename().c_str(), dense,
                  result.obstacle.c_str());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported) << entry.path();
      std::printf("%-44s refused: %s\n", entry.path().filename().c_str(), error.what());
    }
  }
}

TEST(OnnxRaise, SharedFiles) {
  fs::path shared = fs::path(OCTET_SHARED) / "onnx";
  if (!fs::exists(shared)) GTEST_SKIP() << "no " << shared;
  check(shared / "bert_squad_tiny");
  // A classifier without data: the interpreter is the yardstick, on a row with padding.
  auto file = std::make_shared<File>(read_file(shared / "distilbert_sst2_tiny" / "model.onnx"));
  std::vector<int64_t> ids{101, 7, 8, 9, 102, 101, 30, 102, 0, 0}, mask{1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  std::map<std::string, Array> inputs{{"input_ids", Array::of(ids).reshaped({2, 5})},
                                      {"attention_mask", Array::of(mask).reshaped({2, 5})}};
  RaiseResult result = raise(*file);
  ASSERT_TRUE(result.raised.has_value()) << result.obstacle;
  EXPECT_LE(raised_difference(result.raised->graph, batch_of(*file, inputs), Dense(file).run(inputs), false, true),
            1e-4);
  // Its attention runs along the batch: not text by text, and said so.
  RaiseResult odd = raise(read_file(shared / "bert_like_vespa" / "model.onnx"));
  EXPECT_FALSE(odd.raised.has_value());
  EXPECT_NE(odd.obstacle.find("Add_1"), std::string::npos) << odd.obstacle;
}

}  // namespace
}  // namespace octet::onnx
