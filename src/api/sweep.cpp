// Sensitivity: every unit of quantizers flipped on every batch, with row-wise results that a state file keeps.
#include <octet/sweep.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "api/scoring.h"
#include "api/state.h"
#include "api/sweep_rows.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "quant/calibration_state.h"
#include "quant/quantize.h"
#include "quant/switched.h"

namespace octet {

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr const char* kStateKey = "octet_sweep";
constexpr int64_t kStateFormat = 2;

struct Unit {
  std::string name, kind, tensor;
  int64_t layer = -1;
  std::vector<size_t> members;  // of the switched graph
  std::vector<std::string> quantizers;
  size_t first = SIZE_MAX;
};

std::vector<Unit> units_of(const SwitchedGraph& graph, const std::string& unit) {
  std::vector<Unit> units;
  std::map<std::string, size_t> known;
  const std::vector<SwitchedQuantizer>& all = graph.quantizers();
  for (size_t q = 0; q < all.size(); ++q) {
    const int64_t layer = layer_of(all[q].name);
    std::string key = all[q].name;
    if (unit == "op") key = without_layer(all[q].name);
    if (unit == "site") key = all[q].site;
    if (unit == "layer") key = layer < 0 ? "outside the layers" : "layer " + std::to_string(layer);
    auto [at, fresh] = known.emplace(key, units.size());
    if (fresh) units.push_back({.name = key, .kind = unit == "layer" ? "" : all[q].kind, .layer = layer});
    Unit& u = units[at->second];
    u.members.push_back(q);
    u.quantizers.insert(u.quantizers.end(), all[q].names.begin(), all[q].names.end());
    u.first = std::min(u.first, all[q].first);
    if (u.layer != layer || unit == "op") u.layer = -1;
    if (unit == "quantizer") u.tensor = all[q].tensor;
  }
  return units;
}

/// What was measured of the variants, row by row. Variant 0 is the float model, 1 everything on, then the units: only,
/// all but.
struct Table {
  int64_t variants = 0, rows = 0, answers = 0;
  std::vector<double> energy;                  // by row: of the float outputs
  std::vector<double> noise, cosine, low, kl;  // [variants, rows]
  std::vector<float> answer;                   // [variants, answers]
  std::vector<int32_t> done;                   // by batch: variants measured, in the order of Sweep::batch

  Table(int64_t v, int64_t r, int64_t a, int64_t batches)
      : variants(v),
        rows(r),
        answers(a),
        energy(static_cast<size_t>(r)),
        noise(static_cast<size_t>(v * r)),
        cosine(noise.size()),
        low(noise.size()),
        kl(noise.size()),
        answer(static_cast<size_t>(v * a)),
        done(static_cast<size_t>(batches)) {}
};

template <typename T>
Tensor tensor_of(DType dtype, const std::vector<T>& values) {
  std::byte* bytes = nullptr;
  Tensor tensor = Tensor::allocate(dtype, {static_cast<int64_t>(values.size())}, &bytes);
  if (!values.empty()) std::memcpy(bytes, values.data(), values.size() * sizeof(T));
  return tensor;
}

void save(const Table& t, const std::filesystem::path& path, const std::string& work) {
  json header{{"format", kStateFormat}, {"work", work}};
  write_safetensors(path,
                    {{"energy", tensor_of(DType::f64, t.energy)},
                     {"noise", tensor_of(DType::f64, t.noise)},
                     {"cosine", tensor_of(DType::f64, t.cosine)},
                     {"low", tensor_of(DType::f64, t.low)},
                     {"kl", tensor_of(DType::f64, t.kl)},
                     {"answer", tensor_of(DType::f32, t.answer)},
                     {"done", tensor_of(DType::s32, t.done)}},
                    {{kStateKey, header.dump()}});
}

void restore(Table* t, const std::filesystem::path& path, const std::string& work) {
  const std::string where = path.string();
  Safetensors file = read_safetensors(path);
  auto found = file.metadata.find(kStateKey);
  if (found == file.metadata.end())
    fail(ErrorCode::invalid_argument, {.what = "cannot continue from " + where,
                                       .expected = "expected a state file of octet sweep",
                                       .hint = "name another file, or remove it"});
  const json header = parse_json(found->second, where);
  if (json_get<int64_t>(header, "format", where) != kStateFormat ||
      json_get<std::string>(header, "work", where) != work)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot continue from " + where,
          .expected = "it belongs to another model, calibration, data or options",
          .hint = "remove it to begin anew, or repeat the options of the interrupted run"});
  auto take = [&](const char* name, DType dtype, auto* values) {
    auto it = file.tensors.find(name);
    if (it == file.tensors.end() || it->second.dtype() != dtype ||
        it->second.elements() != static_cast<int64_t>(values->size()))
      fail(ErrorCode::corrupt, {.what = "cannot continue: " + std::string(name) + " is damaged",
                                .where = "in " + where,
                                .hint = "remove it"});
    if (!values->empty()) std::memcpy(values->data(), it->second.data(), values->size() * sizeof((*values)[0]));
  };
  take("energy", DType::f64, &t->energy);
  take("noise", DType::f64, &t->noise);
  take("cosine", DType::f64, &t->cosine);
  take("low", DType::f64, &t->low);
  take("kl", DType::f64, &t->kl);
  take("answer", DType::f32, &t->answer);
  take("done", DType::s32, &t->done);
  for (int32_t done : t->done)
    if (done < 0 || done > t->variants)
      fail(ErrorCode::corrupt,
           {.what = "cannot continue: done is damaged", .where = "in " + where, .hint = "remove it"});
}

double divergence(std::span<const float> from, std::span<const float> to) {
  auto log_sum = [](std::span<const float> x) {
    double top = *std::max_element(x.begin(), x.end()), sum = 0;
    for (float v : x) sum += std::exp(v - top);
    return top + std::log(sum);
  };
  const double a = log_sum(from), b = log_sum(to);
  double sum = 0;
  for (size_t i = 0; i < from.size(); ++i) sum += std::exp(from[i] - a) * ((from[i] - a) - (to[i] - b));
  return std::max(sum, 0.0);
}

class Sweep {
 public:
  Sweep(const Model& model, const SensitivityOptions& options, SweepRows rows)
      : info_(model.info()), options_(options), rows_(std::move(rows)) {}

  Sensitivity run(const Graph& quantized, const std::string& fingerprint, const Progress& progress) {
    const auto begin = Clock::now();
    SwitchedGraph graph(quantized, options_.threads, options_.unit != "site");
    std::vector<Unit> units = units_of(graph, options_.unit);
    if (units.empty())
      fail(ErrorCode::invalid_argument, {.what = "cannot sweep: the calibration places no quantizer that is on"});
    // From the back, so that a run finds the values before its unit as the base left them.
    std::stable_sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.first > b.first; });
    plan_batches_of_rows();
    Table table(2 + 2 * static_cast<int64_t>(units.size()), rows_.count(), answer_count(),
                static_cast<int64_t>(batches_.size()));
    std::string work = fingerprint;
    for (const Unit& unit : units) work += "|" + unit.name;
    work =
        hex(hash_text(work)) + "-" + options_.unit + (options_.only ? "-only" : "") + (options_.all_but ? "-all" : "");
    Sensitivity result;
    std::error_code error;
    if (!options_.state.empty() && std::filesystem::exists(options_.state, error)) {
      restore(&table, options_.state, work);
      for (int32_t done : table.done) result.resumed_batches += done == variants(units.size());
      for (int32_t done : table.done) result.resumed_runs += done;
    }
    auto saved = Clock::now();
    const int64_t total = static_cast<int64_t>(batches_.size());
    auto keep = [&](bool always) {
      if (options_.state.empty()) return;
      if (!always && std::chrono::duration<double>(Clock::now() - saved).count() < options_.save_every) return;
      save(table, options_.state, work);
      saved = Clock::now();
    };
    try {
      for (size_t b = 0; b < batches_.size(); ++b) {
        if (progress) progress("sensitivity", static_cast<int64_t>(b) * 100, total * 100);
        if (table.done[b] == variants(units.size())) continue;
        batch(graph, units, batches_[b], &table, &table.done[b], [&](double share) {
          keep(false);
          if (progress)
            progress("sensitivity", static_cast<int64_t>((static_cast<double>(b) + share) * 100), total * 100);
        });
      }
      keep(true);
    } catch (...) {  // whoever stops the work by throwing out of `progress` loses nothing that was measured
      keep(true);
      throw;
    }
    if (progress) progress("sensitivity", total * 100, total * 100);
    fill(table, units, &result);
    result.batches = total;
    result.computed_share =
        graph.possible() > 0 ? static_cast<double>(graph.computed()) / static_cast<double>(graph.possible()) : 0;
    result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    return result;
  }

 private:
  int64_t vectors_of(int64_t row) const {
    int64_t vectors = 0;
    for (const Encoding& text : rows_.texts(row)) vectors += answers_per_token(info_.task) ? text.size() : 1;
    return vectors;
  }
  /// Answers of a row: one a token for token classifiers, one a row otherwise; none where nothing is scored.
  int64_t answers_of(int64_t row) const {
    if (info_.task == Task::encoder || info_.task == Task::question_answering || has_several_labels(info_)) return 0;
    if (info_.task == Task::embedding) return rows_.per_row / 2;
    return info_.task == Task::token_classification ? vectors_of(row) : 1;
  }
  int64_t answer_count() {
    first_answer_.clear();
    int64_t sum = 0;
    for (int64_t r = 0; r < rows_.count(); ++r) {
      first_answer_.push_back(sum);
      sum += answers_of(r);
    }
    return sum;
  }

  void plan_batches_of_rows() {
    std::vector<int64_t> lengths;
    for (int64_t r = 0; r < rows_.count(); ++r) {
      int64_t tokens = 0;
      for (const Encoding& text : rows_.texts(r)) tokens += text.size();
      lengths.push_back(tokens);
    }
    batches_ = plan_batches(lengths, {.max_tokens = options_.batch_tokens});
  }

  /// Variants of a batch, all directions counted.
  int32_t variants(size_t units) const {
    return 2 + static_cast<int32_t>(units) * ((options_.only ? 1 : 0) + (options_.all_but ? 1 : 0));
  }

  /// Measures the variants of a batch from number `*done` on: float, each unit alone, everything on, all but each. A
  /// flipped run depends on its base alone, so a batch can be taken up in the middle.
  template <typename Report>
  void batch(SwitchedGraph& graph, const std::vector<Unit>& units, const std::vector<int64_t>& rows, Table* table,
             int32_t* done, const Report& report) {
    OwnedBatch batch;
    for (int64_t row : rows)
      for (const Encoding& text : rows_.texts(row)) batch.add(text);
    const Batch view = batch.view();
    graph.bind({.ids = view.ids, .offsets = view.offsets, .type_ids = view.type_ids});
    graph.run_base(false);
    const std::vector<float> reference(graph.output().begin(), graph.output().end());
    const int32_t begun = *done;
    int32_t number = 0;
    auto measured = [&](int64_t variant) {
      record(reference, graph.output(), rows, variant, table);
      *done = ++number;
      report(static_cast<double>(number) / variants(units.size()));
    };
    auto flip_all = [&](int64_t direction) {
      for (size_t u = 0; u < units.size(); ++u) {
        if (number < begun) {
          ++number;
          continue;
        }
        graph.run_flipped(units[u].members);
        measured(2 + 2 * static_cast<int64_t>(u) + direction);
      }
    };
    if (number < begun) ++number;
    else measured(0);
    if (options_.only) flip_all(0);
    graph.run_base(true);
    if (number < begun) ++number;
    else measured(1);
    if (options_.all_but) flip_all(1);
  }

  void record(std::span<const float> reference, std::span<const float> output, const std::vector<int64_t>& rows,
              int64_t variant, Table* table) {
    int64_t vectors = 0;
    for (int64_t row : rows) vectors += vectors_of(row);
    width_ = static_cast<int64_t>(output.size()) / vectors;
    const bool labels = info_.task == Task::sequence_classification || info_.task == Task::token_classification;
    size_t at = 0;
    for (int64_t row : rows) {
      const int64_t own = vectors_of(row);
      const auto size = static_cast<size_t>(own * width_);
      const std::span<const float> x = reference.subspan(at, size), y = output.subspan(at, size);
      at += size;
      double noise = 0, energy = 0;
      for (size_t i = 0; i < size; ++i) {
        const double d = static_cast<double>(y[i]) - x[i];
        noise += d * d, energy += static_cast<double>(x[i]) * x[i];
      }
      const auto cell = static_cast<size_t>(variant * table->rows + row);
      const Agreement near = agreement(y, x, width_);
      table->noise[cell] = noise;
      table->cosine[cell] = near.mean_cosine;
      table->low[cell] = near.min_cosine;
      if (labels) {
        double sum = 0;
        for (int64_t v = 0; v < own; ++v) {
          const auto from = static_cast<size_t>(v * width_), count = static_cast<size_t>(width_);
          sum += divergence(x.subspan(from, count), y.subspan(from, count));
        }
        table->kl[cell] = sum / static_cast<double>(own);
      }
      if (variant == 0) table->energy[static_cast<size_t>(row)] = energy;
      if (answers_of(row) > 0) {
        const std::vector<float> given = answers(info_, y, width_);
        std::copy(given.begin(), given.end(),
                  table->answer.begin() + variant * table->answers + first_answer_[static_cast<size_t>(row)]);
      }
    }
  }

  OutputError error_of(const Table& t, int64_t variant) const {
    OutputError e;
    double noise = 0, energy = 0, cosine = 0, kl = 0;
    e.min_cosine = 1;
    for (int64_t r = 0; r < t.rows; ++r) {
      const auto cell = static_cast<size_t>(variant * t.rows + r);
      noise += t.noise[cell], energy += t.energy[static_cast<size_t>(r)], cosine += t.cosine[cell], kl += t.kl[cell];
      e.min_cosine = std::min(e.min_cosine, t.low[cell]);
    }
    e.sqnr_db = noise > 0 ? 10 * std::log10(energy / noise) : INFINITY;
    e.relative_error = energy > 0 ? std::sqrt(noise / energy) : 0;
    e.cosine = cosine / static_cast<double>(t.rows);
    if (info_.task == Task::sequence_classification || info_.task == Task::token_classification)
      e.kl = kl / static_cast<double>(t.rows);
    if (rows_.expected) {
      Evaluation evaluation;
      score(info_, rows_.data, rows_.encoded, *rows_.expected,
            std::span(t.answer).subspan(static_cast<size_t>(variant * t.answers), static_cast<size_t>(t.answers)),
            &evaluation);
      e.metric = evaluation.value;
    }
    return e;
  }

  void fill(const Table& t, const std::vector<Unit>& units, Sensitivity* s) const {
    s->unit = options_.unit;
    s->data_rows = t.rows;
    s->texts = static_cast<int64_t>(rows_.encoded.size());
    s->truncated = rows_.truncated;
    for (const Encoding& text : rows_.encoded) s->tokens += text.size();
    s->metric_reason = rows_.reason;
    const OutputError real = error_of(t, 0);
    s->all = error_of(t, 1);
    if (rows_.expected) {
      Evaluation evaluation;
      score(info_, rows_.data, rows_.encoded, *rows_.expected,
            std::span(t.answer).first(static_cast<size_t>(t.answers)), &evaluation);
      s->metric = evaluation.metric;
      s->float_metric = *real.metric;
    }
    bool constant = rows_.expected.has_value();
    for (size_t u = 0; u < units.size(); ++u) {
      SensitivityRow row{.name = units[u].name,
                         .quantizers = units[u].quantizers,
                         .layer = units[u].layer,
                         .kind = units[u].kind,
                         .tensor = units[u].tensor};
      const int64_t variant = 2 + 2 * static_cast<int64_t>(u);
      if (options_.only) row.only = error_of(t, variant);
      if (options_.all_but) row.all_but = error_of(t, variant + 1);
      for (const auto* e : {&row.only, &row.all_but}) constant = constant && (!*e || (*e)->metric == real.metric);
      s->rows.push_back(std::move(row));
    }
    if (constant && s->all.metric == real.metric)
      s->metric_reason = "the " + s->metric + " is the same for every unit: judge by output error, or take more rows";
    auto harm = [](const SensitivityRow& row) {
      return row.only ? -row.only->sqnr_db : row.all_but ? row.all_but->sqnr_db : 0.0;
    };
    std::stable_sort(s->rows.begin(), s->rows.end(),
                     [&](const SensitivityRow& a, const SensitivityRow& b) { return harm(a) > harm(b); });
  }

  const ModelInfo& info_;
  const SensitivityOptions& options_;
  SweepRows rows_;
  std::vector<std::vector<int64_t>> batches_;
  std::vector<int64_t> first_answer_;
  int64_t width_ = 1;
};

}  // namespace

SweepRows sweep_rows(const Model& model, const Dataset& data, std::vector<int64_t> chosen, int64_t max_length,
                     int threads) {
  SweepRows rows{.data = data.pick(chosen)};
  const ModelInfo& info = model.info();
  EncodedRows encoded = encode_rows(model, rows.data, max_length, 0, threads);
  rows.encoded = std::move(encoded.rows);
  rows.truncated = encoded.truncated;
  rows.per_row = static_cast<int64_t>(rows.encoded.size()) / rows.data.rows();
  const bool answerable =
      info.task != Task::encoder && info.task != Task::question_answering && !has_several_labels(info);
  if (!answerable) rows.reason = "a sweep has no metric for this task: outputs are compared with float only";
  else if (!data.has_label()) rows.reason = "the data has no labels: outputs are compared with float only";
  else if (info.task == Task::embedding && !data.has_pair())
    rows.reason = "the data has no pairs: outputs are compared with float only";
  else rows.expected = expected_answers(info, rows.data, rows.data.rows());
  return rows;
}

std::vector<int64_t> spread_rows(int64_t rows, int64_t limit) {
  const int64_t count = limit > 0 ? std::min(limit, rows) : rows;
  std::vector<int64_t> chosen;
  for (int64_t r = 0; r < count; ++r) chosen.push_back(r * rows / count);
  return chosen;
}

Graph quantized_graph(const Model& model, const Calibration& calibration) {
  require_raised(model.state(), "sweep");
  Graph graph = model.state().graph;
  // Without bias corrections: the graph with everything off is the float model.
  quantize_graph(graph, {.calibration = &calibration, .model_hash = model.info().hash, .biases = false});
  return graph;
}

Sensitivity sensitivity(const Model& model, const Calibration& calibration, const SweepRows& rows,
                        const SensitivityOptions& options, const Progress& progress) {
  if (options.unit != "quantizer" && options.unit != "op" && options.unit != "layer" && options.unit != "site")
    fail(ErrorCode::invalid_argument, {.what = "there is no unit '" + options.unit + "' of quantizers",
                                       .expected = "expected quantizer, op, layer or site"});
  if (!options.only && !options.all_but)
    fail(ErrorCode::invalid_argument, {.what = "cannot sweep in no direction", .expected = "expected only or all_but"});
  const Graph graph = quantized_graph(model, calibration);
  // Whatever changes the numbers is part of the work's name.
  uint64_t hash = hash_text(model.info().hash + std::to_string(options.batch_tokens));
  for (const Node& node : graph.nodes())
    if (node.op == Op::fake_quant) {
      hash = hash_text(node.name + node.text("state", "on"), hash);
      for (size_t input = 1; input < 4; ++input)
        if (node.input(input) != kNone) {
          const Tensor& tensor = graph.parameter(node.input(input));
          hash = hash_bytes({tensor.data(), static_cast<size_t>(tensor.bytes())}, hash);
        }
    }
  for (const Encoding& text : rows.encoded) hash = hash_bytes(std::as_bytes(std::span(text.ids)), hash);
  for (int64_t r = 0; r < rows.data.rows(); ++r) hash = hash_text(rows.data.label(r), hash);
  return Sweep(model, options, rows).run(graph, hex(hash), progress);
}

Sensitivity sensitivity(const Model& model, const Calibration& calibration, const Dataset& data,
                        const SensitivityOptions& options, const Progress& progress) {
  return sensitivity(
      model, calibration,
      sweep_rows(model, data, spread_rows(data.rows(), options.limit), options.max_length, options.threads), options,
      progress);
}

Calibration without(const Calibration& calibration, std::span<const std::string> quantizers) {
  auto state = std::make_shared<Calibration::State>(calibration.state());
  for (const std::string& name : quantizers) {
    state->options.states.emplace_back(name, "off");
    auto found = state->ranges.find(name);
    if (found != state->ranges.end()) found->second.attributes["state"] = std::string("off");
  }
  return Calibration(std::move(state));
}

}  // namespace octet
