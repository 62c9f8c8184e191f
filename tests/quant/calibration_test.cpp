// The calibration pass, its ranges, its files, and the quantized graphs made from them.
#include <octet/calibration.h>

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "core/error.h"
#include "core/safetensors.h"
#include "graph/passes.h"
#include "plan/executor.h"
#include "plan/lower.h"
#include "plan/tiny_encoder.h"
#include "quant/calibration_state.h"
#include "quant/quantize.h"

namespace octet {
namespace {

const std::vector<int> kLengths = {7, 1, 13, 20, 4, 9, 30, 2, 17, 11, 5, 8};

struct Rows {
  test::RandomBatch batch;
  std::vector<CalibrationRow> rows;
  explicit Rows(const std::vector<int>& lengths, uint32_t seed = 5) : batch(lengths, 50, seed) {
    for (size_t r = 0; r + 1 < batch.offsets.size(); ++r) {
      auto begin = static_cast<size_t>(batch.offsets[r]), size = static_cast<size_t>(batch.offsets[r + 1]) - begin;
      rows.push_back({std::span(batch.ids).subspan(begin, size), std::span(batch.types).subspan(begin, size)});
    }
  }
};

Calibration calibrated(const Graph& graph, std::span<const CalibrationRow> rows, CalibrateOptions options = {}) {
  return calibrate_graph(graph, rows, options, "0123456789abcdef", 0, {});
}

std::filesystem::path scratch(const std::string& name) {
  auto folder = std::filesystem::temp_directory_path() / ("octet-calibration-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  return folder / name;
}

template <typename Body>
std::string message(ErrorCode code, Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

/// Mean cosine of the rows' outputs of two graphs; both run in float, quantizers simulated.
double cosine(const Graph& a, const Graph& b, const Rows& rows) {
  std::vector<float> outputs[2];
  const Graph* graphs[] = {&a, &b};
  auto pool = std::make_shared<ThreadPool>(1);
  for (int i = 0; i < 2; ++i) {
    Executor executor(std::make_shared<const Program>(lower(*graphs[i], {.target = host_target(), .fuse = false})),
                      pool, host_target(), true);
    executor.bind({.ids = rows.batch.ids, .offsets = rows.batch.offsets, .type_ids = rows.batch.types});
    executor.run();
    int32_t buffer = executor.program().outputs[0].second;
    const auto* values = static_cast<const float*>(executor.data(buffer));
    outputs[i].assign(values, values + executor.elements(buffer));
  }
  size_t width = outputs[0].size() / rows.rows.size();
  double sum = 0.0;
  for (size_t r = 0; r < rows.rows.size(); ++r) {
    double ab = 0, aa = 0, bb = 0;
    for (size_t c = r * width; c < (r + 1) * width; ++c)
      ab += outputs[0][c] * outputs[1][c], aa += outputs[0][c] * outputs[0][c], bb += outputs[1][c] * outputs[1][c];
    sum += ab / std::sqrt(aa * bb);
  }
  return sum / static_cast<double>(rows.rows.size());
}

TEST(Calibration, SameForAnyThreadsAndMergesToOnePass) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  Calibration one = calibrated(graph, rows.rows, {.threads = 1}), three = calibrated(graph, rows.rows, {.threads = 3});
  EXPECT_TRUE(one.state().statistics == three.state().statistics);
  EXPECT_EQ(one.samples(), 12);
  EXPECT_EQ(one.tokens(), 127);
  std::span<const CalibrationRow> all(rows.rows);
  Calibration merged = Calibration::merge(calibrated(graph, all.first(5)), calibrated(graph, all.subspan(5)));
  EXPECT_EQ(merged.samples(), 12);
  EXPECT_EQ(merged.tokens(), 127);
  // Float products may differ in the last bits between batches, so counts are compared, not bits.
  for (const auto& [name, statistics] : one.state().statistics.tensors()) {
    const TensorStatistics* other = merged.state().statistics.find(name);
    ASSERT_NE(other, nullptr);
    EXPECT_EQ(other->elements(), statistics.elements());
    EXPECT_NEAR(other->amax(), statistics.amax(), 1e-5f * statistics.amax());
  }
  EXPECT_EQ(calibrated(graph, rows.rows, {.samples = 3}).tokens(), 7 + 4 + 17);  // spread over the rows
  EXPECT_EQ(calibrated(graph, rows.rows, {.samples = 3, .compatible = true}).tokens(), 7 + 1 + 13);
  EXPECT_EQ(calibrated(graph, rows.rows, {.max_length = 2}).tokens(), 23);
}

TEST(Calibration, PaddingOnlyOnRequest) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  EXPECT_EQ(calibrated(graph, rows.rows, {.max_length = 16, .include_padding = true}).tokens(), 12 * 16);
}

TEST(Calibration, DefaultSharesOneTensorAnEdge) {
  Graph graph = test::TinyEncoder{.layers = 3}.build();
  Rows rows(kLengths);
  Calibration calibration = calibrated(graph, rows.rows);
  Graph quantized = graph;
  EXPECT_EQ(quantize_graph(quantized, {.calibration = &calibration, .model_hash = "0123456789abcdef"}),
            "static (residual-channel, auto)");
  verify(quantized);
  share_quantizers(quantized);
  verify(quantized);
  for (const char* name : {"embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm",
                           "encoder.layer.0.output.LayerNorm", "encoder.layer.1.output.LayerNorm"}) {
    std::vector<size_t> users = quantized.users(quantized.find_value(name));
    ASSERT_EQ(users.size(), 1u) << name;
    EXPECT_EQ(quantized.node(users[0]).op, Op::fake_quant);
  }
  // A weight's column scale is its input's scale, bit for bit, so the product's ratio is one.
  const Node& input =
      quantized.node(static_cast<size_t>(quantized.find_node("encoder.layer.0.output.dense._input_quantizer")));
  const Node& weight =
      quantized.node(static_cast<size_t>(quantized.find_node("encoder.layer.0.output.dense._weight_quantizer")));
  std::span<const float> a = quantized.parameter(input.input(1)).as<float>(),
                         b = quantized.parameter(weight.input(3)).as<float>();
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  // Everything lowers to integers.
  Program program = lower(quantized, {.target = host_target()});
  int products = 0;
  for (const Step& step : program.steps) {
    if (const auto* gemm = std::get_if<kernels::GemmDesc>(&step.desc)) {
      EXPECT_EQ(gemm->x, DType::s8) << step.name << " " << step.note;
      ++products;
    }
    if (const auto* attention = std::get_if<kernels::AttentionDesc>(&step.desc)) {
      EXPECT_EQ(attention->p, DType::u8) << step.name << " " << step.note;
      ++products;
    }
    if (const auto* norm = std::get_if<kernels::NormDesc>(&step.desc)) {
      EXPECT_EQ(norm->a, DType::s8) << step.name;
      EXPECT_EQ(norm->b, DType::s8) << step.name;
    }
  }
  EXPECT_EQ(products, 3 * 5);  // q, k and v are one
}

TEST(Calibration, EveryPlacementAndMethodStaysClose) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths), fresh({6, 12, 25, 3}, 99);
  for (const char* placement : {"residual-channel", "residual-float", "qdqbert", "linear-only"}) {
    Calibration calibration = calibrated(graph, rows.rows, {.placement = placement});
    for (const char* method : {"", "max", "percentile:99.9", "entropy", "mse", "auto"}) {
      Graph quantized = graph;
      quantize_graph(quantized, {.calibration = &calibration, .method = method, .model_hash = "0123456789abcdef"});
      verify(quantized);
      EXPECT_GT(cosine(graph, quantized, fresh), 0.98) << placement << " " << method;
    }
  }
  Graph dynamic = graph;
  EXPECT_EQ(quantize_graph(dynamic, {}), "dynamic");
  EXPECT_GT(cosine(graph, dynamic, fresh), 0.995);
}

TEST(Calibration, CompatibleModeUsesTheReferenceHistogram) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  Calibration calibration =
      calibrated(graph, rows.rows, {.placement = "qdqbert", .method = "percentile:99", .compatible = true});
  const ReferenceHistogram* reference = calibration.state().statistics.find_reference("embeddings.LayerNorm");
  ASSERT_NE(reference, nullptr);
  for (const Calibration::Range& range : calibration.ranges())
    if (range.quantizer == "encoder.layer.0.attention.self.query._input_quantizer") {
      EXPECT_NEAR(range.hi, reference->percentile(99.0), 1e-5 * range.hi);
      EXPECT_EQ(range.method, "percentile:99, compatible");
    }
  EXPECT_NE(
      message(ErrorCode::unsupported, [&] { Calibration::merge(calibration, calibration); }).find("order of batches"),
      std::string::npos);
}

TEST(Calibration, SwitchesChangeRanges) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  auto range = [&](CalibrateOptions options, const std::string& name) {
    for (const Calibration::Range& range : calibrated(graph, rows.rows, options).ranges())
      if (range.quantizer == name) return range.hi;
    ADD_FAILURE() << name;
    return 0.0;
  };
  const std::string self = "encoder.layer.0.attention.self.";
  CalibrateOptions shared{.placement = "qdqbert", .method = "max", .share_qkv = true};
  double q = range(shared, self + "matmul_q_input_quantizer");
  EXPECT_EQ(q, range(shared, self + "matmul_k_input_quantizer"));
  EXPECT_EQ(q, range(shared, self + "matmul_v_input_quantizer"));
  EXPECT_NEAR(range({.placement = "qdqbert", .method = "max", .clip_gelu = 0.01},
                    "encoder.layer.0.output.dense._input_quantizer"),
              0.01, 1e-6);
  EXPECT_LT(range({.placement = "qdqbert", .method = "percentile:90"}, self + "matmul_q_input_quantizer"),
            range({.placement = "qdqbert", .method = "max"}, self + "matmul_q_input_quantizer"));
}

TEST(Calibration, HeadsAndNarrowTypes) {
  Graph graph = test::TinyEncoder{}.build();
  std::vector<float> values(32 * 32);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  ValueId x = graph.find_value("encoder.layer.1.output.LayerNorm"), offsets = graph.find_value("offsets");
  ValueId first = graph.add(Op::select_first, "first", {x, offsets});
  ValueId dense = graph.add(Op::linear, "pooler.dense",
                            {first, graph.add_parameter("pooler.dense.weight", Tensor::from(values, {32, 32}))});
  ValueId pooled = graph.add(Op::tanh, "pooler.tanh", {dense});
  values.resize(3 * 32);
  graph.set_output("logits",
                   graph.add(Op::linear, "classifier",
                             {pooled, graph.add_parameter("classifier.weight", Tensor::from(values, {3, 32}))}));
  Rows rows(kLengths), fresh({6, 12, 25, 3}, 99);
  CalibrateOptions all{.quantize_head = true, .quantize_pooler = true};
  Calibration calibration = calibrated(graph, rows.rows, all);
  Graph quantized = graph;
  quantize_graph(quantized, {.calibration = &calibration, .model_hash = "0123456789abcdef"});
  EXPECT_GT(cosine(graph, quantized, fresh), 0.98);
  share_quantizers(quantized);
  Program program = lower(quantized, {.target = host_target()});
  for (const Step& step : program.steps)
    if (const auto* gemm = std::get_if<kernels::GemmDesc>(&step.desc)) {
      EXPECT_EQ(gemm->x, DType::s8) << step.name << " " << step.note;
    }
  // Fewer bits, more error.
  double last = 0.0;
  for (const char* type : {"s3", "s5", "s8"}) {
    Calibration narrow =
        calibrated(graph, rows.rows, {.activation_type = type, .weight_type = type, .weight_method = "mse"});
    Graph less = graph;
    quantize_graph(less, {.calibration = &narrow, .model_hash = "0123456789abcdef"});
    double now = cosine(graph, less, fresh);
    EXPECT_GT(now, last) << type;
    last = now;
  }
}

TEST(Calibration, StatesGoIntoTheQuantizedGraph) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  Calibration calibration =
      calibrated(graph, rows.rows, {.states = {{"layer.1.*", "off"}, {"embeddings.word._weight_quantizer", "off"}}});
  Graph quantized = graph;
  quantize_graph(quantized, {.calibration = &calibration, .model_hash = "0123456789abcdef"});
  remove_off_quantizers(quantized, false);
  EXPECT_EQ(quantizer_names(quantized).size(), 20u + 2);
  Graph floating = graph;
  quantize_graph(floating, {.calibration = &calibration, .float_embeddings = true, .model_hash = "0123456789abcdef"});
  remove_off_quantizers(floating, false);
  EXPECT_EQ(quantizer_names(floating).size(), 20u);
  EXPECT_NE(message(ErrorCode::not_found,
                    [&] {
                      calibrated(graph, rows.rows, {.states = {{"layer.7.*", "off"}}});
                    })
                .find("layer.7"),
            std::string::npos);
}

TEST(Calibration, FilesRoundTrip) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  for (CalibrateOptions options :
       {CalibrateOptions{},
        CalibrateOptions{.placement = "qdqbert", .method = "percentile:99.99", .compatible = true}}) {
    options.states = {{"encoder.layer.1.*", "off"}};
    Calibration calibration = calibrated(graph, rows.rows, options);
    auto path = scratch("round.safetensors"), again = scratch("again.safetensors");
    calibration.save(path);
    Calibration loaded = Calibration::load(path);
    EXPECT_TRUE(loaded.state().statistics == calibration.state().statistics);
    EXPECT_EQ(loaded.options().states, options.states);
    loaded.save(again);
    std::ifstream a(path, std::ios::binary), b(again, std::ios::binary);
    std::stringstream left, right;
    left << a.rdbuf();
    right << b.rdbuf();
    EXPECT_EQ(left.str(), right.str());
    Graph first = graph, second = graph;
    quantize_graph(first, {.calibration = &calibration, .model_hash = "0123456789abcdef"});
    quantize_graph(second, {.calibration = &loaded, .model_hash = "0123456789abcdef"});
    EXPECT_EQ(print(first), print(second));
    for (const auto& [name, tensor] : first.parameters()) {
      const Tensor& other = second.parameters().at(name);
      ASSERT_EQ(std::memcmp(tensor.data(), other.data(), static_cast<size_t>(tensor.bytes())), 0) << name;
    }
    EXPECT_EQ(loaded.ranges().size(), calibration.ranges().size());
  }
}

TEST(Calibration, WrongModelPlacementAndOptionsAreRefused) {
  Graph graph = test::TinyEncoder{}.build();
  Rows rows(kLengths);
  Calibration calibration = calibrated(graph, rows.rows);
  Graph quantized = graph;
  EXPECT_NE(message(ErrorCode::invalid_argument,
                    [&] { quantize_graph(quantized, {.calibration = &calibration, .model_hash = "ffff"}); })
                .find("another model"),
            std::string::npos);
  message(ErrorCode::invalid_argument, [&] { quantize_graph(quantized, {.method = "max"}); });
  message(ErrorCode::invalid_argument,
          [&] { Calibration::merge(calibration, calibrated(graph, rows.rows, {.placement = "qdqbert"})); });
  message(ErrorCode::invalid_argument,
          [&] { Calibration::merge(calibration, calibrate_graph(graph, rows.rows, {}, "other", 0, {})); });
  message(ErrorCode::invalid_argument, [&] { calibrated(graph, {}); });
  for (CalibrateOptions options :
       {CalibrateOptions{.placement = "all"}, CalibrateOptions{.method = "percentile:101"},
        CalibrateOptions{.method = "best"}, CalibrateOptions{.balance = 1.5}, CalibrateOptions{.samples = 0},
        CalibrateOptions{.activation_type = "u8"}, CalibrateOptions{.weight_method = "entropy"},
        CalibrateOptions{.max_length = -1}, CalibrateOptions{.clip_gelu = -1.0},
        CalibrateOptions{.probabilities = "u4"}, CalibrateOptions{.states = {{"*", "maybe"}}},
        CalibrateOptions{.placement = "qdqbert", .balance = 0.5}})
    message(ErrorCode::invalid_argument, [&] { calibrated(graph, rows.rows, options); });
}

TEST(Calibration, DamagedFilesAreRefused) {
  Graph graph = test::TinyEncoder{.layers = 1}.build();
  Rows rows({5, 6});
  auto path = scratch("damaged.safetensors");
  calibrated(graph, rows.rows).save(path);
  std::ifstream in(path, std::ios::binary);
  std::stringstream buffer;
  buffer << in.rdbuf();
  const std::string whole = buffer.str();
  auto parse = [](const std::string& text) {
    auto owner = std::make_shared<std::vector<std::byte>>(text.size());
    std::ranges::copy(std::as_bytes(std::span(text)), owner->begin());
    return parse_calibration({owner, *owner}, "test");
  };
  for (size_t cut = 0; cut < whole.size(); cut += 1 + whole.size() / 200)
    message(ErrorCode::corrupt, [&] { parse(whole.substr(0, cut)); });

  Safetensors file = read_safetensors(path);
  auto with = [&](auto edit) {
    std::vector<std::pair<std::string, Tensor>> tensors(file.tensors.begin(), file.tensors.end());
    nlohmann::json header = nlohmann::json::parse(file.metadata.at("octet_calibration"));
    edit(header, tensors);
    auto edited = scratch("edited.safetensors");
    write_safetensors(edited, tensors, {{"octet_calibration", header.dump()}});
    return edited;
  };
  using Json = nlohmann::json;
  using Tensors = std::vector<std::pair<std::string, Tensor>>;
  EXPECT_NO_THROW(Calibration::load(with([](Json&, Tensors&) {})));
  message(ErrorCode::unsupported, [&] { Calibration::load(with([](Json& h, Tensors&) { h["format"] = 3; })); });
  message(ErrorCode::corrupt, [&] { Calibration::load(with([](Json& h, Tensors&) { h["biases"] = {"nowhere"}; })); });
  message(ErrorCode::corrupt, [&] {
    Calibration::load(with([](Json& h, Tensors&) { h["methods"] = {{"x", "best"}}; }));
  });
  for (const char* key : {"model", "samples", "options", "stats", "ranges"})
    message(ErrorCode::corrupt, [&] { Calibration::load(with([key](Json& h, Tensors&) { h.erase(key); })); });
  message(ErrorCode::corrupt,
          [&] { Calibration::load(with([](Json& h, Tensors&) { h["options"]["placement"] = "none"; })); });
  message(ErrorCode::corrupt, [&] {
    Calibration::load(with([](Json& h, Tensors&) { h["stats"]["embeddings.LayerNorm"]["exponent"] = 3; }));
  });
  message(ErrorCode::corrupt, [&] {
    Calibration::load(with([](Json& h, Tensors&) { h["stats"]["embeddings.LayerNorm"]["elements"] = 3; }));
  });
  message(ErrorCode::corrupt, [&] {
    Calibration::load(with([](Json& h, Tensors&) { h["stats"]["unknown"] = h["stats"]["embeddings.LayerNorm"]; }));
  });
  message(ErrorCode::corrupt, [&] {
    Calibration::load(with([](Json&, Tensors& tensors) {
      for (auto& [name, tensor] : tensors)
        if (name.ends_with(".bins")) tensor = Tensor::from(std::vector<int32_t>{1}, {1});
    }));
  });
  message(ErrorCode::corrupt, [&] {
    Calibration::load(with([](Json&, Tensors& tensors) {
      for (auto& [name, tensor] : tensors)
        if (name.ends_with(".scale")) tensor = Tensor::from(std::vector<float>{-1.0f}, {1});
    }));
  });
  // Scales of another shape pass the file's checks and stop at the graph.
  Calibration odd = Calibration::load(with([](Json&, Tensors& tensors) {
    for (auto& [name, tensor] : tensors)
      if (name.ends_with("output.dense._input_quantizer.scale"))
        tensor = Tensor::from(std::vector<float>{1.0f, 1.0f}, {2});
  }));
  message(ErrorCode::invalid_argument,
          [&] { quantize_graph(graph, {.calibration = &odd, .model_hash = "0123456789abcdef"}); });
  message(ErrorCode::not_found, [&] { Calibration::load(scratch("nowhere")); });
  const std::filesystem::path seeds = std::filesystem::path(OCTET_SOURCE) / "fuzz/corpus/calibration";
  EXPECT_EQ(Calibration::load(seeds / "small.safetensors").ranges().size(), 1u);
  message(ErrorCode::corrupt, [&] { Calibration::load(seeds / "unfit.safetensors"); });
}

TEST(Calibration, NonFiniteActivationsAreNamed) {
  Graph graph = test::TinyEncoder{.layers = 1}.build();
  std::vector<float> weight = graph.parameter(graph.find_value("encoder.layer.0.output.dense.weight")).to_f32();
  weight[3] = INFINITY;
  graph.set_parameter(graph.find_value("encoder.layer.0.output.dense.weight"), Tensor::from(weight, {32, 64}));
  Rows rows({5, 6});
  std::string text = message(ErrorCode::invalid_argument, [&] { calibrated(graph, rows.rows); });
  EXPECT_NE(text.find("add_local_input_quantizer (encoder.layer.0.output.dense): NaN or infinite values"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace octet
