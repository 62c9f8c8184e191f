// What a quantization-aware training step costs: float and quantized runs of the same model in turns, medians.
//   bench_train_step FOLDER [--device cuda] [--precision fp16] [--rows 32] [--length 128] [--steps 40] [--rounds 7]
#include <octet/calibration.h>
#include <octet/plan.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "hf/model.h"
#include "quant/quantize.h"
#include "train/trainer.h"

namespace {

using namespace octet;

double middle(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

struct Variant {
  std::string name;
  train::Setup setup;
  std::vector<double> steps, rounds;  // milliseconds: of every step; medians of the rounds
};

int run(int argc, char** argv) {
  std::map<std::string, std::string> options{{"--device", "cuda"}, {"--precision", "fp16"}, {"--rows", "32"},
                                             {"--length", "128"},  {"--steps", "40"},       {"--rounds", "7"}};
  for (int i = 2; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  auto number = [&](const char* key) { return static_cast<int64_t>(std::stoll(options.at(key))); };
  const int64_t rows = number("--rows"), length = number("--length"), steps = number("--steps");
  const std::string folder = argv[1];
  const Model model = Model::load(folder);
  const Graph graph = hf::load_model(folder).graph;
  uint64_t seed = 7;
  auto next = [&seed] { return (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33; };
  std::vector<train::Example> examples;
  std::vector<Encoding> encodings;
  for (int64_t r = 0; r < rows * 8; ++r) {
    train::Example e;
    for (int64_t t = 0; t < length; ++t) e.ids.push_back(static_cast<int32_t>(5 + next() % 900));
    e.type_ids.assign(static_cast<size_t>(length), 0);
    e.label = static_cast<int64_t>(next() % 2);
    if (r < 16) encodings.push_back({.ids = e.ids, .type_ids = e.type_ids});
    examples.push_back(std::move(e));
  }
  std::vector<Variant> variants;
  for (const char* name : {"float, fused attention", "float", "qdqbert", "residual-channel"}) {
    Variant v{.name = name};
    v.setup.graph = graph;
    const std::string placement = name;
    if (!placement.starts_with("float"))
      quantize_graph(v.setup.graph, {.calibration = new Calibration(calibrate(
                                         model, encodings, {.placement = placement, .method = "max", .samples = 16})),
                                     .model_hash = model.info().hash});
    v.setup.dropout = train::dropout_sites(graph, 0.1, 0.1, 0.1);
    v.setup.train = examples;
    v.setup.options = {.max_steps = steps,
                       .batch = rows,
                       .precision = options.at("--precision"),
                       .device = options.at("--device"),
                       .log_every = 1};
    v.setup.options.fused_attention = placement == "float, fused attention";
    variants.push_back(std::move(v));
  }
  for (int64_t round = 0; round < number("--rounds"); ++round)
    for (Variant& v : variants) {
      std::vector<double> times;
      double before = 0;
      train::run_training(v.setup, [&](const TrainStep& s) {
        if (s.step > steps / 4) times.push_back((s.seconds - before) * 1e3);
        before = s.seconds;
      });
      v.steps.insert(v.steps.end(), times.begin(), times.end());
      v.rounds.push_back(middle(times));
    }
  const double base = middle(variants[1].steps);
  std::printf("%s, %s, %lld rows of %lld tokens, %lld rounds of %lld steps in turns; ms a step\n",
              options.at("--device").c_str(), options.at("--precision").c_str(), static_cast<long long>(rows),
              static_cast<long long>(length), static_cast<long long>(number("--rounds")),
              static_cast<long long>(steps));
  for (const Variant& v : variants) {
    std::vector<double> ratios;
    for (size_t r = 0; r < v.rounds.size(); ++r) ratios.push_back(v.rounds[r] / variants[1].rounds[r]);
    const auto [low, high] = std::minmax_element(v.rounds.begin(), v.rounds.end());
    std::printf("%-24s median %7.2f  rounds %7.2f .. %7.2f  to float %.3f (median of rounds %.3f, worst %.3f)\n",
                v.name.c_str(), middle(v.steps), *low, *high, middle(v.steps) / base, middle(ratios),
                *std::max_element(ratios.begin(), ratios.end()));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: bench_train_step FOLDER [--device cuda|cpu] [--precision fp16|bf16|fp32] [--rows N] "
                 "[--length N] [--steps N] [--rounds N]\n");
    return 2;
  }
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
