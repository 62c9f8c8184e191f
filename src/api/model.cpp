// Loading a Hugging Face folder behind the public Model.
#include <octet/model.h>

#include <algorithm>

#include "api/as_is.h"
#include "api/state.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/threads.h"
#include "hf/model.h"

namespace octet {

bool has_several_labels(const ModelInfo& info) noexcept {
  return info.task == Task::sequence_classification && info.problem_type == "multi_label_classification";
}

std::string_view name(Task task) noexcept {
  switch (task) {
    case Task::encoder: return "encoder";
    case Task::embedding: return "embedding";
    case Task::sequence_classification: return "sequence_classification";
    case Task::regression: return "regression";
    case Task::token_classification: return "token_classification";
    case Task::question_answering: return "question_answering";
  }
  return "encoder";
}

namespace {

Task task_of(const hf::ModelConfig& config) {
  switch (config.head.value_or(hf::Head::encoder)) {
    case hf::Head::encoder: return Task::encoder;
    case hf::Head::sentence_embedding: return Task::embedding;
    case hf::Head::token_classification: return Task::token_classification;
    case hf::Head::question_answering: return Task::question_answering;
    case hf::Head::sequence_classification:
      return config.problem_type == "regression" || config.num_labels == 1 ? Task::regression
                                                                           : Task::sequence_classification;
  }
  return Task::encoder;
}

ModelInfo describe(const hf::LoadedModel& loaded, const std::filesystem::path& folder) {
  const hf::ModelConfig& config = loaded.config;
  ModelInfo info;
  info.family = config.model_type;
  info.task = task_of(config);
  info.vocabulary = config.vocab_size;
  info.layers = config.num_layers;
  info.heads = config.num_heads;
  info.hidden = config.hidden_size;
  info.intermediate = config.intermediate_size;
  info.max_length = loaded.max_tokens;
  if (config.sentence && config.sentence->max_seq_length > 0)
    info.max_length = std::min(info.max_length, config.sentence->max_seq_length);
  if (info.task == Task::sequence_classification || info.task == Task::token_classification)
    info.labels = config.labels;
  info.problem_type = config.problem_type;
  if (info.task == Task::embedding && config.sentence) {
    info.pooling = hf::name(config.sentence->pooling);
    info.normalize = config.sentence->normalize;
  }
  fingerprint(loaded.graph, info);
  info.source = folder.string();
  return info;
}

}  // namespace

void fingerprint(const Graph& graph, ModelInfo& info) {
  uint64_t hash = hash_text(print(graph));
  info.parameters = info.quantizers = 0;
  // Parts of about half a megabyte each, by rows: several threads, and tensors that are not made yet stay so.
  struct Part {
    const Tensor* tensor;
    int64_t begin, end;
    uint64_t hash = 0;
  };
  std::vector<Part> parts;
  constexpr int64_t kPart = 512 << 10;
  for (const auto& [name, tensor] : graph.parameters()) {
    hash = hash_text(name, hash);
    info.parameters += tensor.elements();
    if (tensor.elements() == 0) continue;
    const int64_t rows = tensor.shape().empty() ? 1 : tensor.shape()[0];
    int64_t step = std::max<int64_t>(1, kPart / (tensor.bytes() / rows));
    if (step >= 16) step -= step % 16;
    for (int64_t row = 0; row < rows; row += step) parts.push_back({&tensor, row, std::min(rows, row + step)});
  }
  // In the order of a mapped file, which a disk reads ahead; the hashes are joined by name.
  std::vector<Part*> order;
  for (Part& part : parts) order.push_back(&part);
  std::stable_sort(order.begin(), order.end(), [](const Part* a, const Part* b) {
    return std::less<>()(a->tensor->identity(), b->tensor->identity());
  });
  auto make = [&](int64_t begin, int64_t end) {
    std::vector<std::byte> scratch;
    for (int64_t i = begin; i < end; ++i) {
      Part& part = *order[static_cast<size_t>(i)];
      const int64_t rows = part.tensor->shape().empty() ? 1 : part.tensor->shape()[0];
      const auto size = static_cast<size_t>(part.tensor->bytes() / rows * (part.end - part.begin));
      if (part.tensor->is_deferred()) scratch.resize(std::max(scratch.size(), size));
      part.hash = hash_block({part.tensor->rows(part.begin, part.end, scratch.data()), size});
    }
  };
  constexpr int kMostThreads = 8;  // memory is the limit
  const int threads = parts.size() < 64 ? 1 : std::min(available_cpus(), kMostThreads);
  if (threads == 1) make(0, static_cast<int64_t>(parts.size()));
  else ThreadPool(threads).parallel_for(static_cast<int64_t>(parts.size()), 8, make);
  for (const Part& part : parts) hash = hash_bytes(std::as_bytes(std::span(&part.hash, 1)), hash);
  for (const Node& node : graph.nodes()) info.quantizers += node.op == Op::fake_quant;
  info.hash = hex(hash);
}

Model Model::load(const std::filesystem::path& folder, const LoadOptions& options) {
  if (folder.extension() == ".onnx") return Model(load_onnx(folder, options));
  hf::LoadOptions load{.check_finite = options.check_finite};
  if (options.new_labels > 0) load.new_labels = options.new_labels;
  hf::LoadedModel loaded = hf::load_model(folder, load);
  auto state = std::make_shared<State>();
  state->info = describe(loaded, folder);
  state->pad_id = loaded.config.pad_token_id;
  state->graph = std::move(loaded.graph);
  try {
    state->tokenizer = Tokenizer::load(folder);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found) throw;  // a folder without a tokenizer still runs on ids
  }
  return Model(std::move(state));
}

const ModelInfo& Model::info() const noexcept { return state_->info; }
bool Model::has_tokenizer() const noexcept { return state_->tokenizer.has_value(); }
const Tokenizer& Model::tokenizer() const {
  if (!state_->tokenizer)
    fail(ErrorCode::not_found,
         {.what = "the model has no tokenizer",
          .where = "in " + state_->info.source,
          .hint = "put tokenizer.json, vocab.txt, or vocab.json with merges.txt into the folder"});
  return *state_->tokenizer;
}
const std::vector<std::string>& Model::notes() const noexcept { return state_->notes; }
bool Model::as_is() const noexcept { return state_->as_is != nullptr; }
void require_raised(const Model::State& state, const std::string& what) {
  if (!state.as_is) return;
  fail(ErrorCode::unsupported,
       {.what = "cannot " + what + " " + state.info.source,
        .expected = "it runs node by node: " +
                    (state.as_is->why().empty() ? std::string("it was asked for as it stands") : state.as_is->why()),
        .hint = "export the encoder with [batch, sequence] inputs of ids and mask, without tokenizer or control flow"});
}
std::string Model::graph_text() const { return print(state_->graph); }

}  // namespace octet
