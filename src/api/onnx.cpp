// ONNX files behind the public API: reading them as models, writing models as them.
#include <octet/onnx.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "api/as_is.h"
#include "api/state.h"
#include "core/error.h"
#include "core/json.h"
#include "graph/passes.h"
#include "onnx/decompose.h"
#include "onnx/dense.h"
#include "onnx/export.h"
#include "onnx/raise.h"
#include "quant/quantize.h"

namespace octet {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Labels of a config.json, by id; empty when there is none.
std::vector<std::string> labels_beside(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder / "config.json", error)) return {};
  json config = parse_json(read_text(folder / "config.json"), (folder / "config.json").string());
  std::vector<std::string> labels;
  auto found = config.find("id2label");
  if (found == config.end() || !found->is_object()) return {};
  for (size_t i = 0; i < found->size(); ++i) {
    auto label = found->find(std::to_string(i));
    if (label == found->end() || !label->is_string()) return {};
    labels.push_back(label->get<std::string>());
  }
  return labels;
}

// What the graph itself says.
ModelInfo describe_graph(const Graph& graph, const onnx::Raised& raised) {
  ModelInfo info;
  info.family = "onnx";
  for (const Node& node : graph.nodes()) {
    if (node.op == Op::attention_scores) {
      ++info.layers;
      info.heads = node.integer("heads", 0);
      info.hidden = graph.value(node.input(0)).type.shape.at(1);
    } else if (node.op == Op::linear) {
      info.intermediate = std::max(info.intermediate, graph.value(node.output).type.shape.at(1));
    } else if (node.op == Op::embedding) {
      const std::string& index = graph.value(node.input(1)).name;
      if (index == "ids") info.vocabulary = graph.value(node.input(0)).type.shape.at(0);
    }
  }
  info.max_length = raised.max_length;
  const auto& [name, value] = graph.outputs().front();
  const Shape& shape = graph.value(value).type.shape;
  bool tokens = shape.at(0) == kTokens;
  if (raised.question_answering) {
    info.task = Task::question_answering;
  } else if (name.find("logits") != std::string::npos ||
             (!tokens && name.find("embed") == std::string::npos && name.find("pool") == std::string::npos)) {
    info.task = tokens             ? Task::token_classification
                : shape.at(1) == 1 ? Task::regression
                                   : Task::sequence_classification;
    if (info.task != Task::regression)
      for (int64_t i = 0; i < shape.at(1); ++i) info.labels.push_back("LABEL_" + std::to_string(i));
  } else {
    info.task = tokens ? Task::encoder : Task::embedding;
  }
  return info;
}

// What octet's own export wrote about the model.
void read_metadata(const std::string& text, const std::string& where, Model::State& state) {
  json facts = parse_json(text, where);
  ModelInfo& info = state.info;
  std::string task = json_get<std::string>(facts, "task", where);
  for (int i = 0; i <= static_cast<int>(Task::question_answering); ++i)
    if (name(static_cast<Task>(i)) == task) info.task = static_cast<Task>(i);
  info.family = json_get<std::string>(facts, "family", where);
  info.intermediate = json_get<int64_t>(facts, "intermediate", where);
  info.max_length = json_get<int64_t>(facts, "max_length", where);
  info.labels = json_get<std::vector<std::string>>(facts, "labels", where);
  info.problem_type = json_get<std::string>(facts, "problem_type", where);
  info.pooling = json_get<std::string>(facts, "pooling", where);
  info.normalize = json_get<bool>(facts, "normalize", where);
  state.pad_id = json_get<int64_t>(facts, "pad_id", where);
}

void attach_tokenizer(const std::vector<fs::path>& folders, bool required, Model::State& state) {
  for (const fs::path& folder : folders) {
    try {
      state.tokenizer = Tokenizer::load(folder);
      break;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::not_found || required) throw;
    }
  }
}

std::shared_ptr<Model::State> load_as_is(std::shared_ptr<onnx::File> file, const std::string& why, const fs::path& path,
                                         const std::vector<fs::path>& folders, bool tokenizer) {
  if (std::string missing = onnx::missing_operators(*file); !missing.empty())
    fail(ErrorCode::unsupported,
         {.what = "cannot compile " + path.string(),
          .expected = "octet lacks these operators:" + missing +
                      (why.empty() ? "" : "\n  and it is no encoder that octet can follow: " + why),
          .hint = "export the encoder alone, without tokenizer, generation or control flow, or with the exporter's or "
                  "optimizer's fusions off"});
  auto state = std::make_shared<Model::State>();
  state->as_is = AsIs::open(std::move(file), why);
  state->as_is->describe(&state->info);
  state->info.source = path.string();
  state->notes.push_back("it runs node by node in float on primitive kernels: " +
                         (why.empty() ? std::string("asked for as it stands") : why));
  if (!state->info.labels.empty())
    for (const fs::path& folder : folders)
      if (std::vector<std::string> labels = labels_beside(folder); labels.size() == state->info.labels.size()) {
        state->info.labels = labels;
        break;
      }
  attach_tokenizer(folders, tokenizer, *state);
  return state;
}

}  // namespace

std::shared_ptr<Model::State> load_onnx(const fs::path& path, const LoadOptions& options) {
  if (options.new_labels > 0)
    fail(ErrorCode::unsupported, {.what = "cannot give " + path.string() + " a fresh head",
                                  .hint = "pass the Hugging Face folder that it was exported from"});
  auto held = std::make_shared<onnx::File>(onnx::read_file(path));
  onnx::File& file = *held;
  onnx::decompose(file);
  onnx::RaiseResult result;
  if (!options.as_is) result = onnx::raise(file);
  const fs::path own = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::vector<fs::path> folders{options.tokenizer};
  if (options.tokenizer.empty()) folders = {own, own / ".."};
  if (!result.raised) return load_as_is(held, result.obstacle, path, folders, !options.tokenizer.empty());
  auto state = std::make_shared<Model::State>();
  state->graph = std::move(result.raised->graph);
  verify(state->graph);
  state->notes = result.raised->notes;
  state->info = describe_graph(state->graph, *result.raised);
  for (const Node& node : state->graph.nodes())
    if (node.op == Op::positions) state->pad_id = std::max<int64_t>(0, node.integer("padding_id", -1));
  if (auto found = file.metadata.find("octet.model"); found != file.metadata.end())
    read_metadata(found->second, path.string(), *state);
  else if (!state->info.labels.empty())
    for (const fs::path& folder : folders)
      if (std::vector<std::string> labels = labels_beside(folder); labels.size() == state->info.labels.size()) {
        state->info.labels = labels;
        break;
      }
  state->info.source = path.string();
  fingerprint(state->graph, state->info);
  attach_tokenizer(folders, !options.tokenizer.empty(), *state);
  return state;
}

std::vector<OnnxCheck> check_onnx(const fs::path& path, const fs::path& data_set) {
  auto file = std::make_shared<onnx::File>(onnx::read_file(path));
  onnx::decompose(*file);
  onnx::Dense dense(file);
  std::map<std::string, onnx::Array> inputs;
  for (size_t i = 0; i < file->graph.inputs.size(); ++i)
    inputs[file->graph.inputs[i].name] =
        onnx::Array::from(onnx::read_tensor(data_set / ("input_" + std::to_string(i) + ".pb")));
  std::vector<onnx::Array> outputs = dense.run(inputs);
  std::vector<OnnxCheck> checks;
  for (size_t i = 0; i < outputs.size(); ++i) {
    OnnxCheck check{file->graph.outputs[i].name, outputs[i].shape};
    const fs::path expected = data_set / ("output_" + std::to_string(i) + ".pb");
    std::error_code error;
    if (fs::exists(expected, error)) {
      onnx::Array want = onnx::Array::from(onnx::read_tensor(expected));
      check.compared = true;
      if (want.shape != outputs[i].shape)
        fail(ErrorCode::invalid_argument,
             {.what = "output " + check.output + " has another shape than " + expected.string(),
              .expected = "expected " + to_string(want.shape) + ", got " + to_string(outputs[i].shape)});
      for (int64_t k = 0; k < want.count(); ++k) {
        double x = outputs[i].at(k), y = want.at(k), d = std::fabs(x - y) / std::max(1.0, std::fabs(y));
        if (x == y || (std::isnan(x) && std::isnan(y))) continue;
        check.max_error = std::isnan(d) ? HUGE_VAL : std::max(check.max_error, d);
      }
    }
    checks.push_back(std::move(check));
  }
  return checks;
}

void export_onnx(const Model& model, const std::filesystem::path& path, const ExportOptions& options) {
  const Model::State& source = model.state();
  require_raised(source, "export");
  Graph graph = source.graph;
  if (options.calibration) {
    if (options.half)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot export a calibrated model in float16", .hint = "leave out the calibration, or float16"});
    quantize_graph(graph, {.calibration = &*options.calibration,
                           .method = options.method,
                           .float_embeddings = options.float_embeddings,
                           .model_hash = source.info.hash});
    remove_off_quantizers(graph, false);
    graph.remove_dead();
  }
  const ModelInfo& info = source.info;
  json facts{{"family", info.family},         {"task", name(info.task)},
             {"layers", info.layers},         {"heads", info.heads},
             {"hidden", info.hidden},         {"intermediate", info.intermediate},
             {"vocabulary", info.vocabulary}, {"max_length", info.max_length},
             {"labels", info.labels},         {"problem_type", info.problem_type},
             {"pooling", info.pooling},       {"normalize", info.normalize},
             {"pad_id", source.pad_id}};
  onnx::ExportOptions how{.opset = options.opset, .int8_weights = options.int8_weights, .half = options.half};
  how.metadata["octet.model"] = facts.dump();
  onnx::write_file(onnx::export_graph(graph, how), path);
}

}  // namespace octet
