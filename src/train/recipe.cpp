// finetune and qat: from a folder and a data file to a trained folder.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <set>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "hf/folder.h"
#include "hf/model.h"
#include "quant/calibration_state.h"
#include "quant/placement.h"
#include "quant/quantize.h"
#include "train/trainer.h"

namespace octet {

namespace train {

namespace {

namespace fs = std::filesystem;
constexpr const char* kCalibration = "octet_calibration.safetensors";

[[noreturn]] void refuse(const std::string& what, const std::string& expected, const std::string& where = "",
                         const std::string& hint = "") {
  fail(ErrorCode::invalid_argument, {.what = what, .expected = expected, .where = where, .hint = hint});
}

void check(const TrainOptions& o) {
  auto positive = [](double value, const char* name) {
    if (!(value > 0) || !std::isfinite(value))
      refuse("cannot train with this " + std::string(name), "expected more than 0, got " + std::to_string(value));
  };
  auto not_negative = [](double value, const char* name) {
    if (!(value >= 0) || !std::isfinite(value))
      refuse("cannot train with this " + std::string(name), "expected 0 or more, got " + std::to_string(value));
  };
  positive(o.epochs, "number of epochs");
  positive(static_cast<double>(o.batch), "batch");
  positive(static_cast<double>(o.accumulate), "accumulation");
  positive(o.processes, "number of processes");
  positive(o.learning_rate, "learning rate");
  positive(static_cast<double>(o.log_every), "log interval");
  positive(o.epsilon, "epsilon");
  for (double value : {o.weight_decay, o.clip_norm, o.warmup, o.final_rate, static_cast<double>(o.max_steps),
                       static_cast<double>(o.max_length), static_cast<double>(o.evaluate_every),
                       static_cast<double>(o.checkpoint_every), static_cast<double>(o.new_labels)})
    not_negative(value, "weight decay, clip, warm-up, rate or count");
  if (!(o.dropout < 1)) refuse("cannot train with this dropout", "expected less than 1");
  if (!(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1))
    refuse("cannot train with these betas", "expected 0 to 1");
  if (o.schedule != "linear" && o.schedule != "cosine" && o.schedule != "constant")
    refuse("unknown schedule " + o.schedule, "expected linear, cosine or constant");
}

/// Label names of the training data when a new head is to get them: sorted, unless they are numbers.
std::vector<std::string> names_from(const Dataset& data) {
  std::set<std::string> names;
  for (int64_t r = 0; r < data.rows(); ++r) {
    if (data.number(r)) return {};
    names.insert(std::string(data.label(r)));
    if (names.size() > 10000) return {};
  }
  return {names.begin(), names.end()};
}

hf::LoadedModel load(const fs::path& folder, const Dataset* train, const TrainOptions& options) {
  hf::LoadOptions how;
  int64_t count = options.new_labels;
  if (count == 0) count = static_cast<int64_t>(options.labels.size());
  if (count > 0) how.new_labels = count;
  hf::LoadedModel model = hf::load_model(folder, how);
  if (count == 0) return model;
  std::vector<std::string> names = options.labels;
  if (names.empty() && count > 1 && train != nullptr && train->has_label()) names = names_from(*train);
  if (!names.empty() && static_cast<int64_t>(names.size()) != count) {
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(names.size(), 10); ++i) text += (i ? ", " : "") + names[i];
    refuse("cannot make a head of " + std::to_string(count) + " labels",
           "the data has " + std::to_string(names.size()) + ": " + text, "in " + (train ? train->source() : ""));
  }
  if (!names.empty()) model.config.labels = names;
  model.config.problem_type.clear();
  return model;
}

ModelInfo info_of(const hf::LoadedModel& model, const fs::path& folder) {
  ModelInfo info;
  info.family = model.config.model_type;
  info.max_length = model.max_tokens;
  info.source = folder.string();
  info.problem_type = model.config.problem_type;
  switch (model.config.head.value_or(hf::Head::encoder)) {
    case hf::Head::sequence_classification:
      info.task = model.config.problem_type == "regression" || model.config.num_labels == 1
                      ? Task::regression
                      : Task::sequence_classification;
      break;
    case hf::Head::token_classification: info.task = Task::token_classification; break;
    case hf::Head::question_answering: info.task = Task::question_answering; break;
    case hf::Head::sentence_embedding: info.task = Task::embedding; break;
    case hf::Head::encoder: break;
  }
  if (info.task == Task::sequence_classification || info.task == Task::token_classification)
    info.labels = model.config.labels;
  return info;
}

Loss loss_of(const ModelInfo& info) {
  if (has_several_labels(info)) return Loss::sets;
  switch (info.task) {
    case Task::sequence_classification: return Loss::classes;
    case Task::regression: return Loss::number;
    case Task::token_classification: return Loss::tokens;
    case Task::question_answering: return Loss::spans;
    case Task::encoder:
    case Task::embedding: break;
  }
  refuse("cannot train a model for " + std::string(name(info.task)), "it has no head to train", "in " + info.source,
         "--new-head labels=N gives it a classification head, labels=1 one for numbers");
}

/// First and last token of the answer; {0, 0} (the class token) when it was cut off.
std::pair<int64_t, int64_t> answer_span(const Dataset& data, int64_t row, const Encoding& encoding) {
  std::string_view context = data.pair(row), answer = data.label(row);
  size_t found = context.find(answer);
  if (answer.empty() || found == std::string_view::npos)
    refuse("a row's answer does not stand in its context", "got '" + std::string(answer.substr(0, 60)) + "'",
           data.source() + ", line " + std::to_string(data.line(row)));
  auto points = [](std::string_view text) {
    return static_cast<int32_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  };
  const int32_t begin = points(context.substr(0, found)), end = begin + points(answer);
  std::pair<int64_t, int64_t> span{0, 0};
  for (int64_t t = 0; t < encoding.size(); ++t) {
    const auto at = static_cast<size_t>(t);
    if (encoding.sequence_ids[at] != 1 || encoding.offsets[at].end <= begin || encoding.offsets[at].begin >= end)
      continue;
    if (span.first == 0) span.first = t;
    span.second = t;
  }
  return span;
}

struct Data {
  std::vector<Example> rows;
  EncodedRows encoded;
};

Data encode(const Tokenizer& tokenizer, const ModelInfo& info, const Dataset& data, const TrainOptions& options,
            Loss loss) {
  if (data.rows() == 0)
    refuse("cannot use the data: it has no rows", "the file is empty after its header", "in " + data.source(),
           "expected at least one row");
  if (!data.has_label())
    refuse("cannot train on data without labels", "expected a column of labels", "in " + data.source(),
           "name the column with --label");
  if (info.max_length > 0 && options.max_length > info.max_length)
    refuse("cannot read texts of " + std::to_string(options.max_length) + " tokens",
           "the model takes at most " + std::to_string(info.max_length), "in " + info.source);
  std::vector<int32_t> labels;
  std::vector<double> numbers;
  if (loss == Loss::classes) labels = resolve_labels(data, info.labels);
  if (loss == Loss::number) numbers = label_numbers(data);
  std::vector<int64_t> sets;
  if (loss == Loss::sets) sets = resolve_label_sets(data, info.labels);
  std::vector<std::string_view> texts, pairs;
  for (int64_t r = 0; r < data.rows(); ++r) {
    texts.push_back(data.text(r));
    if (data.has_pair()) pairs.push_back(data.pair(r));
  }
  const int64_t length = options.max_length > 0 ? options.max_length : info.max_length;
  Data made;
  made.encoded.rows = tokenizer.encode_batch(texts, pairs, {}, options.threads);
  for (size_t r = 0; r < texts.size(); ++r) {
    Encoding& row = made.encoded.rows[r];
    if (length > 0 && row.size() > length) {
      ++made.encoded.truncated;
      std::optional<std::string_view> pair;
      if (!pairs.empty()) pair = pairs[r];
      row = tokenizer.encode(texts[r], pair, {.max_length = length});
    }
    Example example{.ids = row.ids, .type_ids = row.type_ids};
    if (loss == Loss::classes) example.label = labels[r];
    if (loss == Loss::number) example.number = numbers[r];
    if (loss == Loss::sets) {
      const auto from = sets.begin() + static_cast<int64_t>(r * info.labels.size());
      example.label_set.assign(from, from + static_cast<int64_t>(info.labels.size()));
    }
    if (loss == Loss::tokens) example.token_labels = token_labels(info.labels, data, static_cast<int64_t>(r), row);
    if (loss == Loss::spans)
      std::tie(example.label, example.label_end) = answer_span(data, static_cast<int64_t>(r), row);
    made.rows.push_back(std::move(example));
  }
  return made;
}

void check_labels(const std::vector<Example>& rows, const Dataset& data) {
  std::set<int64_t> seen;
  for (const Example& row : rows) seen.insert(row.label);
  if (seen.size() < 2)
    refuse("cannot train a classifier on one class", "all " + std::to_string(rows.size()) + " rows have the same label",
           "in " + data.source(), "add rows of another class; --new-head labels=1 trains a number instead");
}

DropoutSites dropout_of(const fs::path& folder, const Graph& graph, const TrainOptions& options) {
  const fs::path path = hf::transformer_folder(folder) / "config.json";
  const nlohmann::json config = read_json(path);
  auto read = [&](const char* key, double fallback) {
    if (options.dropout >= 0) return options.dropout;
    double p = json_get_or<double>(config, key, fallback, path.string());
    if (!(p >= 0 && p < 1)) refuse(std::string("cannot use ") + key, "expected 0 to 1", "in " + path.string());
    return p;
  };
  const double hidden = read("hidden_dropout_prob", 0.1);
  return dropout_sites(graph, hidden, read("attention_probs_dropout_prob", 0.1), read("classifier_dropout", hidden));
}

std::map<std::string, std::string> settings_of(const TrainOptions& o, const Dataset& train,
                                               const std::string& model_hash) {
  auto number = [](double value) { return nlohmann::json(value).dump(); };
  uint64_t data = 0;
  for (int64_t r = 0; r < train.rows(); ++r)
    data = hash_text(train.label(r), hash_text(train.pair(r), hash_text(train.text(r), data)));
  return {{"model", model_hash},
          {"data", hex(data)},
          {"epochs", number(o.epochs)},
          {"max_steps", std::to_string(o.max_steps)},
          {"batch", std::to_string(o.batch)},
          {"accumulate", std::to_string(o.accumulate)},
          {"processes", std::to_string(o.processes)},
          {"max_length", std::to_string(o.max_length)},
          {"learning_rate", number(o.learning_rate)},
          {"weight_decay", number(o.weight_decay)},
          {"betas", number(o.beta1) + " " + number(o.beta2)},
          {"epsilon", number(o.epsilon)},
          {"clip_norm", number(o.clip_norm)},
          {"schedule", o.schedule},
          {"warmup", number(o.warmup)},
          {"final_rate", number(o.final_rate)},
          {"precision", o.precision},
          {"seed", std::to_string(o.seed)},
          {"evaluate_every", std::to_string(o.evaluate_every)},
          {"dropout", number(o.dropout)},
          {"group_by_length", o.group_by_length ? "yes" : "no"},
          {"restore_best", o.restore_best ? "yes" : "no"}};
}

void prepare_output(const fs::path& folder, const fs::path& output, const TrainOptions& options) {
  std::error_code ignored;
  if (fs::equivalent(folder, output, ignored))
    refuse("cannot train into the model's own folder", "got " + output.string());
  if (fs::exists(output, ignored) && !fs::is_directory(output, ignored))
    refuse("cannot write " + output.string(), "expected a folder, found a file");
  if (fs::exists(output / "checkpoint" / "state.safetensors", ignored) && !options.resume)
    refuse("cannot start in " + output.string(), "it holds the checkpoint of an unfinished run", "",
           "--resume goes on with it; remove the folder to start anew");
  std::error_code error;
  fs::create_directories(output, error);
  if (error) fail(ErrorCode::io, {.what = "cannot make the folder " + output.string(), .expected = error.message()});
}

std::string model_hash(const fs::path& folder, const TrainOptions& options) {
  int64_t count = options.new_labels > 0 ? options.new_labels : static_cast<int64_t>(options.labels.size());
  return Model::load(folder, {.new_labels = count}).info().hash;
}

Calibration load_calibration(const fs::path& folder, fs::path file) {
  if (file.empty()) {
    file = folder / kCalibration;
    std::error_code ignored;
    if (!fs::exists(file, ignored))
      fail(ErrorCode::not_found, {.what = "quantization-aware training needs ranges to start from",
                                  .expected = "expected a calibration file",
                                  .hint = "octet calibrate makes one; pass it with --calib"});
  }
  return Calibration::load(file);
}

/// The trained ranges under the names of the written folder.
void save_calibration(const Setup& setup, const hf::LoadedModel& model, const Calibration& from, const QatOptions& q,
                      const Trained& trained, const fs::path& output) {
  auto state = std::make_shared<Calibration::State>();
  const Calibration::State& old = from.state();
  state->options = old.options;
  state->data_hash = old.data_hash;
  state->samples = old.samples;
  state->tokens = old.tokens;
  for (const auto& entry : q.states) state->options.states.push_back(entry);
  for (auto& [pattern, value] : state->options.states) pattern = hf::written_name(model, pattern);
  for (const auto& [tensor, statistics] : old.statistics.tensors()) {
    state->statistics.set(hf::written_name(model, tensor), statistics);
    if (const ReferenceHistogram* reference = old.statistics.find_reference(tensor))
      state->statistics.set_reference(hf::written_name(model, tensor), *reference);
  }
  const Graph& graph = setup.graph;
  for (auto& [name, range] : stored_ranges(graph, {})) {
    StoredRange stored = range;
    stored.tensor = hf::written_name(model, range.tensor);
    const Node& node = graph.node(static_cast<size_t>(graph.find_node(name)));
    const bool weight = graph.is_parameter(node.input(0));
    if (auto before = old.ranges.find(name); before != old.ranges.end()) stored.method = before->second.method;
    auto now = trained.scales.find(name);
    if (weight && q.follow_weights) stored.scale = Tensor();  // follows from the weights again
    else if (weight && node.input(1) != kNone) stored.scale = graph.parameter(node.input(1));
    if (!weight && q.learn_ranges && now != trained.scales.end()) stored.scale = now->second, stored.method = "learned";
    state->ranges[hf::written_name(model, name)] = std::move(stored);
  }
  state->model_hash = Model::load(output).info().hash;
  Calibration(std::move(state)).save(output / kCalibration);
}

TrainResult train_folder(const fs::path& folder, const Dataset& train, const Dataset* dev, const fs::path& output,
                         const TrainOptions& options, const QatOptions* q, const TrainReport& report) {
  check(options);
  const bool leads = options.process == 0;
  if (leads) prepare_output(folder, output, options);
  hf::LoadedModel model = load(folder, &train, options);
  const ModelInfo info = info_of(model, folder);
  Setup setup;
  setup.options = options;
  setup.loss = loss_of(info);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  Data rows = encode(tokenizer, info, train, options, setup.loss), dev_rows;
  if (setup.loss == Loss::classes) check_labels(rows.rows, train);
  setup.train = std::move(rows.rows);
  if (dev != nullptr) {
    dev_rows = encode(tokenizer, info, *dev, options, setup.loss);
    setup.dev = dev_rows.rows;
    setup.score = [&](std::vector<float> outputs) {
      return score_outputs(info, *dev, dev_rows.encoded, std::move(outputs));
    };
  }
  setup.graph = model.graph;
  // Where values are dropped is a matter of the float graph; quantizers see what is left.
  setup.dropout = dropout_of(folder, setup.graph, options);
  const std::string hash = model_hash(folder, options);
  setup.settings = settings_of(options, train, hash);
  std::optional<Calibration> calibration;
  if (q != nullptr) {
    calibration = load_calibration(folder, q->calibration);
    quantize_graph(setup.graph, {.calibration = &*calibration, .method = q->method, .model_hash = hash});
    for (const auto& [pattern, state] : q->states) {
      if (state != "on" && state != "off") refuse("cannot set " + pattern + " to " + state, "expected on or off");
      set_state(setup.graph, pattern, state == "on");
    }
    setup.follow_weights = q->follow_weights;
    setup.learn_ranges = q->learn_ranges;
    setup.settings["qat"] = calibration->model_hash() + (q->follow_weights ? " follow" : " frozen") +
                            (q->learn_ranges ? " learn" : "") + " " + q->method + " " +
                            hex(hash_text(print(setup.graph)));
    if (!q->teacher.empty()) {
      hf::LoadedModel teacher = hf::load_model(q->teacher, {});
      if (teacher.config.num_labels != model.config.num_labels || teacher.config.head != model.config.head)
        refuse("cannot distill from " + q->teacher.string(), "expected the same task and number of labels");
      if (q->distill_hidden > 0 && (teacher.config.hidden_size != model.config.hidden_size ||
                                    teacher.config.num_layers != model.config.num_layers ||
                                    hf::written_name(teacher, "encoder.") != hf::written_name(model, "encoder.")))
        refuse("cannot distill layer outputs from " + q->teacher.string(), "expected the same family and sizes");
      setup.teacher = std::make_shared<const Graph>(teacher.graph);
      setup.distill_logits = q->distill_logits;
      setup.distill_hidden = q->distill_hidden;
      setup.temperature = q->temperature;
      setup.settings["teacher"] = Model::load(q->teacher).info().hash;
    }
  }
  setup.checkpoints = output / "checkpoint";
  setup.log = output / "metrics.jsonl";
  Trained trained = run_training(setup, report);
  trained.result.truncated = rows.encoded.truncated;
  if (!leads) return std::move(trained.result);
  hf::write_folder(folder, output, model, [&] {
    std::map<std::string, Tensor> parameters;
    for (const auto& [name, tensor] : trained.parameters)
      if (model.graph.find_value(name) != kNone) parameters[name] = tensor;
    return parameters;
  }());
  if (q != nullptr) save_calibration(setup, model, *calibration, *q, trained, output);
  std::error_code ignored;
  fs::remove_all(setup.checkpoints, ignored);
  return std::move(trained.result);
}

}  // namespace
}  // namespace train

TrainResult finetune(const std::filesystem::path& folder, const Dataset& train, const Dataset* dev,
                     const std::filesystem::path& output, const TrainOptions& options, const TrainReport& report) {
  return train::train_folder(folder, train, dev, output, options, nullptr, report);
}

TrainResult qat(const std::filesystem::path& folder, const Dataset& train, const Dataset* dev,
                const std::filesystem::path& output, const TrainOptions& options, const QatOptions& quantization,
                const TrainReport& report) {
  return train::train_folder(folder, train, dev, output, options, &quantization, report);
}

std::vector<float> run_torch(const std::filesystem::path& folder, const std::vector<Encoding>& rows,
                             const TorchRunOptions& options, const Progress& progress) {
  Graph graph = hf::load_model(folder, {}).graph;
  std::optional<Calibration> calibration;
  if (!options.calibration.empty()) calibration = Calibration::load(options.calibration);
  if (calibration || options.dynamic)
    quantize_graph(graph, {.calibration = calibration ? &*calibration : nullptr,
                           .method = options.method,
                           .model_hash = Model::load(folder).info().hash});
  std::vector<train::Example> examples;
  for (const Encoding& row : rows) examples.push_back({.ids = row.ids, .type_ids = row.type_ids});
  return train::run_rows(graph, examples, options, progress);
}

TorchRunner open_torch(const std::filesystem::path& folder, const TorchRunOptions& options) {
  Graph graph = hf::load_model(folder, {}).graph;
  return train::open_graph(graph, options);
}

extern "C" __attribute__((visibility("default"))) const TrainFunctions* octet_train_functions_2() {
  static const TrainFunctions functions{finetune, qat, run_torch, open_torch};
  return &functions;
}

}  // namespace octet
