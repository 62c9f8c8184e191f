// What is exported: TensorRT's rules, the same bytes after a round trip, the same integers as compiled directly.
#include "onnx/export.h"

#include <gtest/gtest.h>
#include <octet/onnx.h>
#include <octet/plan.h>
#include <octet/session.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "api/state.h"
#include "core/error.h"

namespace octet::onnx {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

fs::path scratch(const std::string& name) {
  fs::path folder = fs::path(testing::TempDir()) / "octet_onnx_export";
  fs::create_directories(folder);
  return folder / name;
}

const char* const kModels[] = {"bert-classification",
                               "roberta-classification",
                               "bert-sentence-mean",
                               "bert-sentence-max",
                               "bert-qa",
                               "bert-regression",
                               "bert-token",
                               "mpnet-classification",
                               "mpnet-sentence-mean",
                               "mpnet-qa",
                               "roberta-sentence-cls"};

Model model_of(const std::string& name) { return Model::load(fs::path(OCTET_TEST_DATA) / "hf" / name); }

Calibration calibration_of(const Model& model, const std::string& placement) {
  std::vector<Encoding> rows(6);
  for (size_t r = 0; r < rows.size(); ++r)
    for (int32_t i = 0; i < 5 + static_cast<int32_t>(r); ++i) {
      rows[r].ids.push_back(5 + (i * 7 + static_cast<int32_t>(r) * 11) % 50);
      rows[r].type_ids.push_back(0);
    }
  return calibrate(model, rows, {.placement = placement, .threads = 1});
}

TEST(OnnxExport, RoundTripGivesTheSameBytes) {
  for (const char* name : kModels)
    for (int64_t opset : {13, 17, 20, 23}) {
      SCOPED_TRACE(std::string(name) + " opset " + std::to_string(opset));
      export_onnx(model_of(name), scratch("a.onnx"), {.opset = opset});
      export_onnx(Model::load(scratch("a.onnx")), scratch("b.onnx"), {.opset = opset});
      EXPECT_EQ(bytes_of(scratch("a.onnx")), bytes_of(scratch("b.onnx")));
    }
}

TEST(OnnxExport, QuantizedRoundTripGivesTheSameBytes) {
  for (const char* name : {"bert-classification", "roberta-classification", "mpnet-classification"})
    for (const char* placement : {"qdqbert", "residual-channel", "linear-only", "residual-float"}) {
      SCOPED_TRACE(std::string(name) + " " + placement);
      Model model = model_of(name);
      export_onnx(model, scratch("qa.onnx"), {.calibration = calibration_of(model, placement)});
      Model again = Model::load(scratch("qa.onnx"));
      EXPECT_GT(again.info().quantizers, 0);
      EXPECT_TRUE(again.notes().empty()) << again.notes()[0];
      export_onnx(again, scratch("qb.onnx"));
      EXPECT_EQ(bytes_of(scratch("qa.onnx")), bytes_of(scratch("qb.onnx")));
    }
}

// Compiled from its own QDQ file, a model computes the same integers.
TEST(OnnxExport, OwnFileCompilesToTheSamePlan) {
  for (bool int8_weights : {false, true})
    for (const char* placement : {"qdqbert", "residual-channel", "residual-float"}) {
      SCOPED_TRACE(std::string(placement) + (int8_weights ? " int8" : " float"));
      Model model = model_of("bert-classification");
      Calibration calibration = calibration_of(model, placement);
      Plan direct = compile(model, {.calibration = calibration});
      export_onnx(model, scratch("own.onnx"), {.calibration = calibration, .int8_weights = int8_weights});
      Plan own = compile(Model::load(scratch("own.onnx")));
      const Program &a = *direct.state()->program, &b = *own.state()->program;
      ASSERT_EQ(a.steps.size(), b.steps.size());
      for (size_t i = 0; i < a.steps.size(); ++i) EXPECT_EQ(a.steps[i].kernel, b.steps[i].kernel) << a.steps[i].name;
      for (const auto& [name, tensor] : a.weights) {
        if (tensor.dtype() != DType::s8) continue;
        auto found = b.weights.find(name);
        ASSERT_NE(found, b.weights.end()) << name;
        EXPECT_EQ(0, std::memcmp(tensor.data(), found->second.data(), static_cast<size_t>(tensor.bytes()))) << name;
      }
      std::vector<int32_t> ids{2, 7, 9, 30, 3, 2, 8, 3}, offsets{0, 5, 8};
      Session first(direct, {.threads = 1}), second(own, {.threads = 1});
      Output x = first.run({ids, offsets, {}}), y = second.run({ids, offsets, {}});
      for (size_t i = 0; i < x.values.size(); ++i) EXPECT_EQ(x.values[i], y.values[i]);
    }
}

// The rules of TensorRT's explicit quantization, each stated, on the reference's placement.
TEST(OnnxExport, TensorRtRules) {
  Model model = model_of("bert-classification");
  export_onnx(model, scratch("trt.onnx"), {.calibration = calibration_of(model, "qdqbert")});
  File file = read_file(scratch("trt.onnx"));
  std::map<std::string, const TensorData*> held;
  for (const TensorData& t : file.graph.initializers) held[t.name] = &t;
  std::map<std::string, const Node*> maker;
  std::map<std::string, std::vector<const Node*>> readers;
  for (const Node& node : file.graph.nodes) {
    for (const std::string& output : node.outputs) maker[output] = &node;
    for (const std::string& input : node.inputs) readers[input].push_back(&node);
  }
  int pairs = 0, weights = 0;
  for (const Node& node : file.graph.nodes) {
    if (node.op != "QuantizeLinear") continue;
    ++pairs;
    SCOPED_TRACE(node.label());
    // 1. Scales and zero points are constants.
    ASSERT_TRUE(held.contains(node.input(1)) && held.contains(node.input(2)));
    const TensorData &scale = *held[node.input(1)], &zero = *held[node.input(2)];
    // 2. Symmetric: int8 with zero points 0.
    EXPECT_EQ(zero.type, ElemType::s8);
    for (int8_t z : zero.data.as<int8_t>()) EXPECT_EQ(z, 0);
    // 3. Scales are float32, positive and finite.
    EXPECT_EQ(scale.type, ElemType::f32);
    for (float s : scale.data.as<float>()) EXPECT_TRUE(s > 0 && std::isfinite(s));
    bool weight = held.contains(node.input(0));
    if (weight) {
      // 4. Weights have a scale an output channel, along axis 0.
      ++weights;
      EXPECT_EQ(node.integer("axis", 1), 0);
      EXPECT_EQ(scale.data.elements(), held[node.input(0)]->data.dim(0));
    } else {
      // 5. Activations have one scale, a scalar, and no axis.
      EXPECT_TRUE(scale.data.shape().empty());
      EXPECT_EQ(node.find("axis"), nullptr);
    }
    // 6. Every Q is followed by one DQ with the same scale and nothing else.
    ASSERT_EQ(readers[node.outputs[0]].size(), 1u);
    const Node& dq = *readers[node.outputs[0]][0];
    EXPECT_EQ(dq.op, "DequantizeLinear");
    EXPECT_EQ(dq.input(1), node.input(1));
    // 7. A DQ leads to a product, a sum, or (weights) the Transpose before a product: layers that have INT8 forms.
    for (const Node* reader : readers[dq.outputs[0]])
      EXPECT_TRUE(reader->op == "MatMul" || reader->op == "Add" || (weight && reader->op == "Transpose")) << reader->op;
  }
  // 8. Both operands of every quantized product are quantized.
  for (const Node& node : file.graph.nodes) {
    if (node.op != "MatMul") continue;
    auto quantized = [&](std::string value) {
      const Node* from = maker[value];
      if (from != nullptr && from->op == "Transpose" && maker[from->input(0)] != nullptr) from = maker[from->input(0)];
      return from != nullptr && from->op == "DequantizeLinear";
    };
    EXPECT_EQ(quantized(node.input(0)), quantized(node.input(1))) << node.label();
  }
  // 9. The reference's twenty a layer: six weights and six inputs, four operands of attention, two sums of two.
  EXPECT_EQ(pairs, 20 * model.info().layers);
  EXPECT_EQ(weights, 6 * model.info().layers);
}

TEST(OnnxExport, RefusesWhatQdqCannotSay) {
  Model model = model_of("bert-classification");
  std::vector<Encoding> rows(1);
  rows[0].ids = {2, 5, 6, 3};
  rows[0].type_ids = {0, 0, 0, 0};
  Calibration four = calibrate(model, rows, {.placement = "linear-only", .threads = 1, .weight_type = "s4"});
  try {
    export_onnx(model, scratch("no.onnx"), {.calibration = four});
    FAIL() << "4-bit weights were written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("has type s4"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace octet::onnx
