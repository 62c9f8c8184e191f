// The calibration pass over the unfused float program, and graphs with their ranges set.
#include "quant/quantize.h"

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "core/hash.h"
#include "core/threads.h"
#include "plan/device_observer.h"
#include "plan/executor.h"
#include "plan/lower.h"
#include "quant/calibration_state.h"

namespace octet {

namespace {

constexpr int64_t kBatchTokens = 4096, kBatchTokensOnGpu = 16384;
constexpr int64_t kReferenceBatch = 32;  // rows, as the reference collects

/// Most tokens that the graph's position tables allow.
int64_t longest_row(const Graph& graph) {
  int64_t longest = INT64_MAX;
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::embedding) continue;
    int64_t maker = graph.producer(node.input(1));
    if (maker < 0 || graph.node(static_cast<size_t>(maker)).op != Op::positions) continue;
    longest = std::min(longest, graph.value(node.input(0)).type.shape.at(0) -
                                    graph.node(static_cast<size_t>(maker)).integer("start", 0));
  }
  return longest;
}

/// A batch that owns its ids.
struct Batch {
  std::vector<int32_t> ids, offsets{0}, types;
  void add(const CalibrationRow& row, int64_t length, int64_t padded, int64_t pad_id) {
    ids.insert(ids.end(), row.ids.begin(), row.ids.begin() + length);
    if (row.type_ids.empty()) types.insert(types.end(), static_cast<size_t>(length), 0);
    else types.insert(types.end(), row.type_ids.begin(), row.type_ids.begin() + length);
    for (int64_t i = length; i < padded; ++i) {
      ids.push_back(static_cast<int32_t>(pad_id));
      types.push_back(0);
    }
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

}  // namespace

Calibration calibrate_graph(const Graph& graph, std::span<const CalibrationRow> rows, const CalibrateOptions& options,
                            const std::string& model_hash, int64_t pad_id, const Progress& progress) {
  Graph placed = graph;
  place_quantizers(placed, options);
  const MethodOptions method = method_of(options, "");
  if (options.samples <= 0 || options.max_length < 0)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot calibrate on so few rows",
          .expected = "expected samples > 0 and max_length >= 0, got " + std::to_string(options.samples) + " and " +
                      std::to_string(options.max_length)});
  if (options.bias_rows < 0)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot correct biases", .expected = "expected rows >= 0, got " + std::to_string(options.bias_rows)});
  const auto count = static_cast<size_t>(std::min<int64_t>(options.samples, static_cast<int64_t>(rows.size())));
  int64_t limit = longest_row(graph);
  if (options.max_length > 0) limit = std::min(limit, options.max_length);
  if (options.include_padding && limit == INT64_MAX)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot include padding", .expected = "expected max_length, for the model has no longest row"});

  auto state = std::make_shared<Calibration::State>();
  state->options = options;
  state->model_hash = model_hash;

  std::map<std::string, int64_t, std::less<>> wanted;  // channels by value
  for (const auto& [value, channels] : observed_values(graph)) wanted.emplace(graph.value(value).name, channels);
  auto pool = std::make_shared<ThreadPool>(options.threads);
  if (options.device != "cpu" && options.device != "cuda")
    fail(ErrorCode::invalid_argument,
         {.what = "cannot calibrate on '" + options.device + "'", .expected = "expected cpu or cuda"});
  const bool on_gpu = options.device == "cuda";
  if (on_gpu && options.compatible)
    fail(ErrorCode::unsupported, {.what = "cannot calibrate in compatible mode on a GPU",
                                  .expected = "its histograms are taken on the CPU",
                                  .hint = "use --device cpu"});
  const Target target = on_gpu ? gpu_target() : host_target();
  DeviceObserver observer;
  Executor executor(std::make_shared<const Program>(lower(graph, {.target = target, .fuse = false})), pool, target);
  std::vector<Statistics> parts(static_cast<size_t>(pool->threads()));

  auto collect = [&](size_t, const TapView& view) {
    auto found = wanted.find(view.buffer->value);
    if (found == wanted.end()) return;
    OCTET_CHECK(view.buffer->dtype == DType::f32, "the calibration pass runs in f32");
    if (on_gpu) return observer.collect(found->first, view, found->second);
    const int64_t channels = found->second, groups = view.elements / channels;
    const auto* values = static_cast<const float*>(view.data);
    if (options.compatible)
      state->statistics.collect_reference(found->first, {values, static_cast<size_t>(view.elements)});
    const int64_t share = (groups + pool->threads() - 1) / pool->threads();
    pool->parallel_for(pool->threads(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        int64_t from = std::min(groups, part * share), to = std::min(groups, from + share);
        parts[static_cast<size_t>(part)].collect(
            found->first, {values + from * channels, static_cast<size_t>((to - from) * channels)}, channels);
      }
    });
  };

  uint64_t data_hash = 0;
  Batch batch;
  auto flush = [&] {
    if (batch.rows() == 0) return;
    executor.bind({.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.types});
    executor.run(collect);
    state->tokens += static_cast<int64_t>(batch.ids.size());
    batch = Batch();
  };
  for (size_t r = 0; r < count; ++r) {
    // Files are often sorted by source, so rows from everywhere say more than the first ones.
    const CalibrationRow& row = rows[options.compatible ? r : r * rows.size() / count];
    if (progress) progress("calibrate", static_cast<int64_t>(r), static_cast<int64_t>(count));
    const int64_t length = std::min<int64_t>(limit, static_cast<int64_t>(row.ids.size()));
    if (length == 0) continue;
    const int64_t padded = options.include_padding ? limit : length;
    const bool full = options.compatible ? batch.rows() == kReferenceBatch
                                         : static_cast<int64_t>(batch.ids.size()) + padded >
                                               (on_gpu ? kBatchTokensOnGpu : kBatchTokens);
    if (full) flush();
    batch.add(row, length, padded, pad_id);
    data_hash = hash_bytes(std::as_bytes(row.ids.first(static_cast<size_t>(length))), data_hash);
    ++state->samples;
  }
  flush();
  if (progress) progress("calibrate", static_cast<int64_t>(count), static_cast<int64_t>(count));
  if (state->samples == 0)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot calibrate without rows", .hint = "give a file with at least one text"});
  for (const Statistics& part : parts) state->statistics.merge(part);
  for (auto& [tensor, seen] : observer.read())
    state->statistics.set(
        tensor, TensorStatistics::restore(seen.exponent, std::move(seen.bins), seen.elements, seen.nonfinite,
                                          std::move(seen.minimum), std::move(seen.maximum), "statistics of the GPU"));
  state->data_hash = hex(data_hash);
  state->ranges = stored_ranges(placed, choose_ranges(placed, state->statistics, method));
  Calibration made(std::move(state));
  if (options.bias_rows == 0) return made;
  std::vector<CalibrationRow> chosen;
  const size_t most = std::min(count, static_cast<size_t>(options.bias_rows));
  for (size_t r = 0; r < most; ++r) {
    CalibrationRow row = rows[r * rows.size() / most];
    const auto length = static_cast<size_t>(std::min<int64_t>(limit, static_cast<int64_t>(row.ids.size())));
    if (length == 0) continue;
    chosen.push_back({row.ids.first(length), row.type_ids.empty() ? row.type_ids : row.type_ids.first(length)});
  }
  return correct_graph_biases(graph, made, chosen, nullptr, options.threads, progress);
}

std::string quantize_graph(Graph& graph, const QuantizeOptions& options) {
  if (options.calibration == nullptr) {
    if (!options.method.empty())
      fail(ErrorCode::invalid_argument,
           {.what = "cannot choose ranges by method " + options.method + " without a calibration",
            .hint = "run octet calibrate first"});
    place_dynamic(graph, {.float_embeddings = options.float_embeddings});
    return "dynamic";
  }
  const Calibration::State& state = options.calibration->state();
  if (state.model_hash != options.model_hash)
    fail(ErrorCode::invalid_argument, {.what = "the calibration belongs to another model",
                                       .expected = "expected hash " + options.model_hash + ", got " + state.model_hash,
                                       .hint = "calibrate this model"});
  CalibrateOptions placement = state.options;
  placement.float_embeddings = placement.float_embeddings || options.float_embeddings;
  if (options.float_embeddings && !state.options.float_embeddings) {
    // States are checked against the full placement: a pattern may name an embedding that now has no quantizer.
    Graph full = graph;
    place_quantizers(full, state.options);
    std::erase_if(placement.states, [&](const auto& entry) {
      Graph trial = graph;
      place(trial, placement_of(placement));
      std::vector<std::string> names = quantizer_names(trial);
      return std::none_of(names.begin(), names.end(),
                          [&](const std::string& name) { return name_matches(name, entry.first); });
    });
  }
  place_quantizers(graph, placement);
  const MethodOptions method = method_of(state, options.method);
  if (options.method.empty() && !state.ranges.empty()) {
    apply_ranges(graph, state.ranges, method);
    if (options.biases) apply_biases(graph, state.biases);
  } else choose_ranges(graph, state.statistics, method);
  return "static (" + state.options.placement + ", " + method.method.name() + ")";
}

}  // namespace octet
