// octet transplant: writes a model as another family, and proves on text that it computes the same.
#include <fmt/format.h>
#include <octet/evaluate.h>
#include <octet/session.h>
#include <octet/transplant.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, output;
  TransplantOptions how;
  DataOptions data;
  int64_t limit = 64;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t extent : shape) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

// Without data: the longest text that fits, and shorter ones.
const char* kText =
    "The committee met on Tuesday, although three of its members were abroad; nobody had expected that the vote would "
    "be "
    "so close, and the chair asked for a second count. ";

void transplant_verb(const Options& options, const Console& console) {
  if (kind_of(options.model) != PathKind::folder) load_model(options.model);
  TransplantResult result = transplant(options.model, options.output, options.how);
  Table table({"from", "to", "shape", ""}, {0, 1, 2, 3});
  Json rows = Json::array();
  for (const TransplantRow& row : result.rows) {
    std::string shape = shape_text(row.shape_from);
    if (!row.to.empty() && row.shape_to != row.shape_from) shape += " -> " + shape_text(row.shape_to);
    table.add({row.from, row.to.empty() ? "-" : row.to, shape, row.note});
    rows.push_back({{"from", row.from},
                    {"to", row.to},
                    {"shape", row.shape_from},
                    {"shape_to", row.shape_to},
                    {"note", row.note}});
  }
  console.say(table.text());
  for (const std::string& loss : result.losses) console.say("lost: " + loss);

  Model before = Model::load(options.model), after = Model::load(options.output);
  if (!before.has_tokenizer()) {
    console.note("the folder has no tokenizer: no text was run through both models");
    console.result({{"path", options.output}, {"from", result.from}, {"into", result.into}, {"tensors", rows}});
    return;
  }
  std::vector<Encoding> texts;
  if (!options.data.path.empty()) {
    texts = encode_rows(before, load_data(options.data, options.limit), 0, options.limit).rows;
  } else {
    std::string longer;
    while (longer.size() < static_cast<size_t>(8 * before.info().max_length)) longer += kText;
    for (size_t length : {size_t{20}, size_t{150}, size_t{700}, longer.size()})
      texts.push_back(
          before.tokenizer().encode(longer.substr(0, length), std::nullopt, {.max_length = before.info().max_length}));
  }
  auto outputs = [&](const Model& model) {
    Plan plan = compile(model, {.precision = Precision::fp32});
    Session session(plan);
    return run_all(session, texts);
  };
  std::vector<float> a = outputs(before), b = outputs(after);
  double largest = 0, scale = 0;
  bool equal = a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
    scale = std::max(scale, std::fabs(static_cast<double>(a[i])));
  }
  int64_t longest = 0;
  for (const Encoding& text : texts) longest = std::max(longest, text.size());
  console.say(
      fmt::format("{} -> {}: {} tensors; {} texts of up to {} tokens: outputs {} (largest difference {:.3g} of {:.3g})",
                  result.from, result.into, result.rows.size(), texts.size(), longest,
                  equal ? "equal bit for bit" : "differ", largest, scale));
  console.result({{"path", options.output},
                  {"from", result.from},
                  {"into", result.into},
                  {"equal_bits", equal},
                  {"max_difference", largest},
                  {"texts", texts.size()},
                  {"longest", longest},
                  {"losses", result.losses},
                  {"tensors", rows}});
}

}  // namespace

void add_transplant(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "transplant", "Write a model as one of another family, with proof of equality",
               "octet transplant roberta/ --into bert -o roberta-in-bert/");
  verb->add_option("model", options->model, "Hugging Face folder")->required();
  verb->add_option("--into", options->how.into, "bert or roberta")->required();
  verb->add_flag("--lossy", options->how.lossy, "Also where the other family cannot compute the same");
  add_data_options(verb, &options->data);
  verb->add_option("--limit", options->limit, "Rows of the data for the proof (default: 64)")
      ->check(CLI::PositiveNumber);
  verb->add_option("-o,--output", options->output, "The folder to write")->required();
  verb->callback([options, &console] { transplant_verb(*options, console); });
}

}  // namespace octet::cli
