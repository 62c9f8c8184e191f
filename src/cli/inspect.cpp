// octet inspect: facts about a model, a plan, a calibration file, or this machine.
#include <fmt/format.h>
#include <octet/system.h>

#include <nlohmann/json.hpp>

#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string path;
  std::string tokenizer;
  bool graph = false;
};

void inspect_machine(const Console& console) {
  SystemInfo info = system_info();
  Json rows = Json::array();
  Table table({"table", "kernel", "device", "here", ""}, {0, 1, 2, 3, 4});
  for (const KernelInfo& k : info.kernels) {
    rows.push_back({{"table", k.table},
                    {"name", k.name},
                    {"device", k.device},
                    {"usable", k.usable},
                    {"reason", k.reason},
                    {"approximate", k.approximate}});
    table.add({k.table, k.name, k.device, k.usable ? "yes" : "no",
               k.usable ? (k.approximate ? "within one step" : "") : k.reason});
  }
  std::string features = fmt::format("{}", fmt::join(info.features, " "));
  console.say(fmt::format("octet      {}{}", info.version, info.cuda_build ? ", with CUDA kernels" : ", CPU only"));
  console.say(fmt::format("processor  {}", info.cpu.empty() ? "unknown" : info.cpu));
  console.say(fmt::format("cpus       {}", info.cpus));
  console.say(fmt::format("features   {}", features.empty() ? "none that octet uses" : features));
  console.say(fmt::format("target     {}", info.target));
  console.say(info.gpu_target.empty() ? fmt::format("gpu        none: {}\n", info.gpu_reason)
                                      : fmt::format("gpu        {}, {}, {}, driver {}\n", info.gpu, info.gpu_target,
                                                    format_bytes(static_cast<double>(info.gpu_memory)), info.driver));
  console.say(table.text());
  console.result({{"version", info.version},
                  {"cpu", info.cpu},
                  {"cpus", info.cpus},
                  {"features", info.features},
                  {"target", info.target},
                  {"cuda_build", info.cuda_build},
                  {"gpu", info.gpu_target.empty() ? Json(nullptr)
                                                  : Json{{"name", info.gpu},
                                                         {"target", info.gpu_target},
                                                         {"memory", info.gpu_memory},
                                                         {"driver", info.driver}}},
                  {"kernels", rows}});
}

void inspect_calibration(const std::string& path, const Console& console) {
  Calibration calibration = Calibration::load(path);
  const CalibrateOptions& options = calibration.options();
  Json ranges = Json::array();
  Table table({"quantizer", "tensor", "type", "method", "lo", "hi", "largest", "scales"}, {0, 1, 2, 3});
  for (const Calibration::Range& r : calibration.ranges()) {
    ranges.push_back({{"quantizer", r.quantizer},
                      {"tensor", r.tensor},
                      {"type", r.type},
                      {"method", r.method},
                      {"lo", r.lo},
                      {"hi", r.hi},
                      {"observed_amax", r.observed_amax},
                      {"channels", r.channels}});
    table.add({r.quantizer, r.tensor, r.type, r.method, fmt::format("{:.4g}", r.lo), fmt::format("{:.4g}", r.hi),
               fmt::format("{:.4g}", r.observed_amax), std::to_string(r.channels)});
  }
  console.say(fmt::format("calibration of model {}: placement {}, method {}, {} rows, {} tokens, {} quantizers\n",
                          calibration.model_hash(), options.placement, options.method,
                          format_count(calibration.samples()), format_count(calibration.tokens()), ranges.size()));
  console.say(table.text());
  console.result({{"model_hash", calibration.model_hash()},
                  {"placement", options.placement},
                  {"method", options.method},
                  {"samples", calibration.samples()},
                  {"tokens", calibration.tokens()},
                  {"ranges", ranges}});
}

Json describe(const ModelInfo& info, const Console& console) {
  auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) console.say(fmt::format("{:<12}{}", name, value));
  };
  std::string labels;
  for (size_t i = 0; i < info.labels.size() && i < 12; ++i) labels += (i ? ", " : "") + info.labels[i];
  if (info.labels.size() > 12) labels += fmt::format(", ... ({} labels)", info.labels.size());
  line("source", info.source);
  line("family", info.family);
  line("task", std::string(name(info.task)));
  line("sizes", fmt::format("{} layers, {} wide, {} heads, {} in the middle", info.layers, info.hidden, info.heads,
                            info.intermediate));
  line("vocabulary", format_count(info.vocabulary));
  line("length", fmt::format("at most {} tokens", info.max_length));
  line("parameters", fmt::format("{} ({} in FP32)", format_count(info.parameters),
                                 format_bytes(4.0 * static_cast<double>(info.parameters))));
  line("labels", labels);
  line("problem", info.problem_type);
  if (!info.pooling.empty()) line("pooling", info.pooling + (info.normalize ? ", then length 1" : ""));
  if (info.quantizers > 0) line("quantizers", format_count(info.quantizers));
  line("hash", info.hash);
  return {{"source", info.source},
          {"family", info.family},
          {"task", name(info.task)},
          {"layers", info.layers},
          {"heads", info.heads},
          {"hidden", info.hidden},
          {"intermediate", info.intermediate},
          {"vocabulary", info.vocabulary},
          {"max_length", info.max_length},
          {"labels", info.labels},
          {"problem_type", info.problem_type},
          {"pooling", info.pooling},
          {"normalize", info.normalize},
          {"parameters", info.parameters},
          {"quantizers", info.quantizers},
          {"hash", info.hash}};
}

Json describe(const Tokenizer* tokenizer, const Console& console) {
  if (tokenizer == nullptr) {
    console.say("tokenizer   none");
    return nullptr;
  }
  console.say(
      fmt::format("{:<12}{}, {} tokens", "tokenizer", tokenizer->model_name(), format_count(tokenizer->vocab_size())));
  return {{"model", tokenizer->model_name()}, {"vocabulary", tokenizer->vocab_size()}};
}

void inspect(const Options& options, const Console& console) {
  if (options.path.empty()) return inspect_machine(console);
  Json result;
  switch (kind_of(options.path)) {
    case PathKind::calibration: return inspect_calibration(options.path, console);
    case PathKind::folder: {
      Model model = load_model(options.path, options.tokenizer);
      if (options.graph && !console.json) return console.say(model.graph_text());
      result = describe(model.info(), console);
      for (const std::string& note : model.notes()) console.say(fmt::format("{:<12}{}", "note", note));
      if (!model.notes().empty()) result["notes"] = model.notes();
      std::optional<Tokenizer> tokenizer;
      if (model.has_tokenizer()) tokenizer = model.tokenizer();
      result["tokenizer"] = describe(tokenizer ? &*tokenizer : nullptr, console);
      if (options.graph) result["graph"] = model.graph_text();
      break;
    }
    case PathKind::plan: {
      Plan plan = Plan::load(options.path);
      if (options.graph)
        refuse(ErrorCode::invalid_argument,
               {.what = fmt::format("cannot print the graph of {}", options.path),
                .expected = "a compiled plan has steps, not a graph",
                .hint = "`octet explain` lists the steps; the Hugging Face folder has the graph"});
      result = describe(plan.info(), console);
      std::optional<Tokenizer> tokenizer;
      if (plan.has_tokenizer()) tokenizer = plan.tokenizer();
      result["tokenizer"] = describe(tokenizer ? &*tokenizer : nullptr, console);
      console.say(fmt::format("{:<12}{}", "precision", name(plan.precision())));
      console.say(fmt::format("{:<12}{}", "weights", format_bytes(static_cast<double>(plan.weight_bytes()))));
      console.say("\nprovenance");
      for (const auto& [key, value] : plan.provenance()) console.say(fmt::format("  {:<18}{}", key, value));
      result["precision"] = name(plan.precision());
      result["weight_bytes"] = plan.weight_bytes();
      result["provenance"] = plan.provenance();
      break;
    }
  }
  console.result(result);
}

}  // namespace

void add_inspect(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = add_verb(app, console, "inspect",
                            "Facts about a model, a .octet file or a calibration file; without one, about this machine",
                            "octet inspect minilm/");
  verb->add_option("model", options->path, "Hugging Face folder, .onnx or .octet file, or calibration .safetensors");
  verb->add_option("--tokenizer", options->tokenizer, "Folder with the tokenizer of an .onnx file");
  verb->add_flag("--graph", options->graph, "Print a folder's graph in its text form");
  verb->callback([options, &console] { inspect(*options, console); });
}

}  // namespace octet::cli
