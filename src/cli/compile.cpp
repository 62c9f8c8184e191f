// octet compile: a Hugging Face folder becomes a .octet file.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ModelSource source;
  std::string output;
  DataOptions data;
  int64_t samples = 32;
};

void compile_verb(Options options, const Console& console) {
  check_output(options.output);
  auto begin = std::chrono::steady_clock::now();
  Model model = load_model(options.source.path, options.source.tokenizer, options.source.as_is);
  if (options.source.precision.empty()) options.source.precision = model.as_is() ? "fp32" : "int8";
  for (const std::string& note : model.notes()) console.note(note);
  if (!options.data.path.empty()) {
    Dataset data = load_data(options.data, options.samples);
    options.source.overflow_rows = encode_rows(model, data, options.source.max_length, options.samples, 0).rows;
  }
  Plan plan = compile_model(model, options.source, console);
  plan.save(options.output);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  Explanation explanation = plan.explain({.repeats = 0});
  struct Kind {
    int64_t steps = 0, int8 = 0;
  };
  std::map<std::string, Kind> kinds;
  for (const ExplainedOp& op : explanation.ops) {
    Kind& kind = kinds[op.kind];
    ++kind.steps;
    kind.int8 += op.precision == "int8";
  }
  std::error_code error;
  auto bytes = static_cast<int64_t>(std::filesystem::file_size(options.output, error));
  if (error) bytes = 0;
  double full = 4.0 * static_cast<double>(model.info().parameters);
  console.say(fmt::format("{}: {} ({:.0f} % of {} in FP32), {} for {}, ranges {}", options.output,
                          format_bytes(static_cast<double>(bytes)),
                          full > 0 ? 100 * static_cast<double>(bytes) / full : 0, format_bytes(full),
                          name(plan.precision()), explanation.device, explanation.ranges));
  Json ops = Json::object();
  Table table({"op", "steps", "int8"});
  for (const auto& [kind, count] : kinds) {
    ops[kind] = {{"steps", count.steps}, {"int8", count.int8}};
    table.add({kind, std::to_string(count.steps), std::to_string(count.int8)});
  }
  console.say(table.text());
  console.say(fmt::format("matrix products in INT8: {:.1f} % of the work\n{:.1f} s",
                          100 * explanation.int8_work_fraction, seconds));
  console.result({{"path", options.output},
                  {"bytes", bytes},
                  {"weight_bytes", plan.weight_bytes()},
                  {"precision", name(plan.precision())},
                  {"device", explanation.device},
                  {"ranges", explanation.ranges},
                  {"int8_work_fraction", explanation.int8_work_fraction},
                  {"ops", ops},
                  {"seconds", seconds}});
}

}  // namespace

void add_compile(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "compile", "Compile a Hugging Face folder to a .octet file",
               "octet compile minilm/ --calib minilm.calib.safetensors --precision int8 --device cpu -o minilm.octet");
  ModelSource& source = options->source;
  verb->add_option("model", source.path, "Hugging Face folder or .onnx file")->required();
  verb->add_option("--tokenizer", source.tokenizer, "Folder with the tokenizer of an .onnx file");
  verb->add_option("--precision", source.precision, "int8, fp32, fp16 or bf16 (default: int8)");
  verb->add_option("--calib", source.calibration,
                   "Calibration file; without one INT8 finds its ranges at run time; 'none' ignores the folder's own");
  verb->add_option("--method", source.method, "Choose ranges again: max, percentile:P, entropy, mse or auto");
  verb->add_option("--device", source.device, "cpu, cuda or a target by name (default: cpu)");
  verb->add_flag("--as-is", source.as_is, "Keep an .onnx file's nodes as they stand, in float");
  verb->add_flag("--float-embeddings", source.float_embeddings, "Keep embedding tables in float");
  verb->add_option("--max-length", source.max_length, "Most tokens of a text (default: the model's)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--max-tokens", source.max_tokens,
                   "Most tokens of a batch, bounds the scratch memory (default: 16384 on a GPU, any on a CPU)")
      ->check(CLI::NonNegativeNumber);
  verb->add_flag("--measure", source.measure,
                 "GPU: measure the tiles of all shapes and keep them in the plan and the cache");
  CLI::Option* data = add_data_options(verb, &options->data);
  verb->add_option("--samples", options->samples,
                   "FP16 with --data: rows run in FP32 to find values that FP16 cannot hold (default: 32)")
      ->check(CLI::PositiveNumber)
      ->needs(data);
  verb->add_option("-o,--output", options->output, "The .octet file")->required();
  verb->callback([options, &console] { compile_verb(*options, console); });
}

}  // namespace octet::cli
