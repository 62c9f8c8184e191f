// Compiling, saving, loading and explaining plans.
#include <octet/plan.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "api/as_is.h"
#include "api/state.h"
#include "api/tiles.h"
#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "graph/passes.h"
#include "kernels/device.h"
#include "plan/lower.h"
#include "plan/overflow.h"
#include "plan/program_json.h"
#include "quant/placement.h"
#include "quant/quantize.h"

namespace octet {

using nlohmann::json;

std::string_view name(Precision precision) noexcept {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::fp16: return "fp16";
    case Precision::bf16: return "bf16";
    case Precision::int8: return "int8";
  }
  return "fp32";
}

Precision parse_precision(std::string_view text) {
  for (Precision p : {Precision::fp32, Precision::fp16, Precision::bf16, Precision::int8})
    if (name(p) == text) return p;
  fail(ErrorCode::invalid_argument,
       {.what = "unknown precision '" + std::string(text) + "'", .expected = "expected int8, fp16, bf16 or fp32"});
}

namespace {

constexpr int kFormat = 2;  // 1 had the tokenizer as JSON alone
constexpr const char* kVocabulary = "octet.tokenizer.vocabulary";

Target target_for(const CompileOptions& options) {
  if (options.device == "cpu") return host_target();
  // The GPU that is here, or a named one, which need not be.
  const kernels::device::Info& device = kernels::device::find_device();
  if (options.device != "cuda") return parse_target(options.device);
  if (!device.present)
    fail(ErrorCode::device, {.what = "cannot compile for the GPU of this machine",
                             .expected = device.reason,
                             .hint = "name its target, as in --device sm90a, or compile with --device cpu"});
  return device.target;
}

DType float_type(const CompileOptions& options, const Target& target) {
  if (options.precision == Precision::fp16) return DType::f16;
  if (options.precision == Precision::bf16) return DType::bf16;
  return target.device == DeviceKind::cuda && options.precision == Precision::int8 ? DType::f16 : DType::f32;
}

// On the GPU that is here if the plan is for it, else on the CPU, a few rows at a time.
std::map<std::string, double> overflow(const Graph& graph, const Target& target, const std::vector<Encoding>& rows) {
  const kernels::device::Info& here = kernels::device::find_device();
  const bool gpu = here.present && target.device == DeviceKind::cuda && here.target.sm == target.sm;
  constexpr size_t kRows = 16;
  std::vector<OwnedBatch> batches;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (r % kRows == 0) batches.emplace_back();
    batches.back().add(rows[r]);
  }
  std::vector<BatchView> views;
  for (const OwnedBatch& b : batches) views.push_back({.ids = b.ids, .offsets = b.offsets, .type_ids = b.type_ids});
  return find_overflow(graph, gpu ? here.target : host_target(), views, std::make_shared<ThreadPool>(0));
}

}  // namespace

std::shared_ptr<const Prepared> Plan::State::prepared() const {
  std::lock_guard lock(mutex_);
  if (!prepared_ || !still_stands(*prepared_)) prepared_ = prepare(program, target);
  return prepared_;
}

Plan compile(const Model& model, const CompileOptions& options) {
  const Model::State& source = model.state();
  auto state = std::make_shared<Plan::State>();
  state->info = source.info;
  if (options.max_length > 0) state->info.max_length = std::min(state->info.max_length, options.max_length);
  state->precision = options.precision;
  state->simulate = options.simulate;
  state->tokenizer = source.tokenizer;
  state->target = target_for(options);
  if (options.precision != Precision::int8 && options.calibration)
    fail(ErrorCode::invalid_argument, {.what = "cannot use a calibration for " + std::string(name(options.precision)),
                                       .hint = "compile with --precision int8, or without the calibration"});
  if (state->target.device == DeviceKind::cpu &&
      (options.precision == Precision::fp16 || options.precision == Precision::bf16))
    fail(ErrorCode::unsupported, {.what = "cannot compile " + std::string(name(options.precision)) + " for a CPU",
                                  .expected = "CPU plans are int8 or fp32"});
  if (source.as_is) {
    if (options.precision != Precision::fp32 || options.simulate || state->target.device != DeviceKind::cpu)
      require_raised(source, "compile to anything but fp32 on a CPU");
    state->as_is = source.as_is;
    state->program = std::make_shared<Program>();
    state->provenance = {{"octet", OCTET_VERSION},
                         {"model_hash", source.info.hash},
                         {"source", source.info.source},
                         {"target", name(state->target)},
                         {"ranges", "the file's own, node by node"}};
    return Plan(std::move(state));
  }
  Graph graph = source.graph;
  auto& facts = state->provenance;
  facts["octet"] = OCTET_VERSION;
  facts["model_hash"] = source.info.hash;
  facts["source"] = source.info.source;
  facts["target"] = name(state->target);
  facts["ranges"] = "float";
  if (options.precision == Precision::int8) {
    QuantizeOptions quantize{
        .method = options.method, .float_embeddings = options.float_embeddings, .model_hash = source.info.hash};
    if (options.calibration) quantize.calibration = &*options.calibration;
    if (source.info.quantizers == 0) {
      facts["ranges"] = quantize_graph(graph, quantize);
    } else if (options.calibration) {
      fail(ErrorCode::invalid_argument, {.what = "cannot calibrate what is quantized already",
                                         .expected = source.info.source + " has quantizers with their own ranges",
                                         .hint = "leave the calibration out, or pass the float model"});
    } else {
      facts["ranges"] = "the file's own quantizers";
    }
  }
  if (options.precision != Precision::int8 && source.info.quantizers > 0) {
    set_state(graph, "*", false);
    remove_off_quantizers(graph, true);
    facts["ranges"] = "float; the file's quantizers are left out";
  }
  std::map<std::string, double> wide;
  if (!options.overflow_rows.empty()) {
    if (options.precision != Precision::fp16)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot look for overflow in " + std::string(name(options.precision)),
            .hint = "only FP16 overflows: compile with --precision fp16, or without rows"});
    wide = overflow(graph, state->target, options.overflow_rows);
    facts["overflow"] =
        std::to_string(options.overflow_rows.size()) + " rows run, " + std::to_string(wide.size()) + " values in FP32";
  }
  auto program = std::make_shared<Program>(lower(graph, {.target = state->target,
                                                         .float_type = float_type(options, state->target),
                                                         .wide = std::move(wide),
                                                         .fuse = !options.simulate,
                                                         .exact = options.simulate}));
  constexpr int64_t kTokensOnGpu = 16384;
  program->max_tokens = options.max_tokens > 0                     ? options.max_tokens
                        : state->target.device == DeviceKind::cuda ? kTokensOnGpu
                                                                   : 0;
  program->max_length = options.max_length;
  choose_tiles(*program, state->target, options.measure);
  state->program = std::move(program);
  return Plan(std::move(state));
}

// ---------------------------------------------------------------- files

namespace {

json to_json(const ModelInfo& info) {
  return {{"family", info.family},
          {"task", name(info.task)},
          {"vocabulary", info.vocabulary},
          {"layers", info.layers},
          {"heads", info.heads},
          {"hidden", info.hidden},
          {"intermediate", info.intermediate},
          {"max_length", info.max_length},
          {"labels", info.labels},
          {"problem_type", info.problem_type},
          {"pooling", info.pooling},
          {"normalize", info.normalize},
          {"parameters", info.parameters},
          {"hash", info.hash},
          {"source", info.source}};
}

ModelInfo info_from_json(const json& in, const std::string& where) {
  ModelInfo info;
  info.family = json_get<std::string>(in, "family", where);
  std::string task = json_get<std::string>(in, "task", where);
  bool known = false;
  for (int i = 0; i <= static_cast<int>(Task::question_answering); ++i)
    if (name(static_cast<Task>(i)) == task) info.task = static_cast<Task>(i), known = true;
  if (!known) fail(ErrorCode::corrupt, {.what = "unknown task \"" + task + "\"", .where = "in " + where});
  info.vocabulary = json_get<int64_t>(in, "vocabulary", where);
  info.layers = json_get<int64_t>(in, "layers", where);
  info.heads = json_get<int64_t>(in, "heads", where);
  info.hidden = json_get<int64_t>(in, "hidden", where);
  info.intermediate = json_get<int64_t>(in, "intermediate", where);
  info.max_length = json_get<int64_t>(in, "max_length", where);
  info.labels = json_get<std::vector<std::string>>(in, "labels", where);
  info.problem_type = json_get<std::string>(in, "problem_type", where);
  info.pooling = json_get<std::string>(in, "pooling", where);
  info.normalize = json_get<bool>(in, "normalize", where);
  info.parameters = json_get<int64_t>(in, "parameters", where);
  info.hash = json_get<std::string>(in, "hash", where);
  info.source = json_get<std::string>(in, "source", where);
  return info;
}

}  // namespace

void Plan::save(const std::filesystem::path& path) const {
  const State& state = *state_;
  json header{{"format", kFormat},          {"model", to_json(state.info)}, {"precision", name(state.precision)},
              {"simulate", state.simulate}, {"target", name(state.target)}, {"provenance", state.provenance}};
  if (state.as_is) header["as_is"] = state.as_is->why();
  else header["program"] = octet::to_json(*state.program);
  std::map<std::string, std::string> metadata{{"octet.plan", header.dump()}};
  std::vector<std::pair<std::string, Tensor>> tensors(state.program->weights.begin(), state.program->weights.end());
  if (state.as_is) {
    std::string graph = state.as_is->bytes();
    std::byte* to = nullptr;
    tensors.emplace_back("onnx", Tensor::allocate(DType::u8, {static_cast<int64_t>(graph.size())}, &to));
    std::memcpy(to, graph.data(), graph.size());
  }
  if (state.tokenizer) {
    Tokenizer::Packed packed = state.tokenizer->pack();
    metadata["octet.tokenizer"] = packed.json;
    if (!packed.vocabulary.empty()) {
      std::byte* bytes = nullptr;
      tensors.emplace_back(kVocabulary,
                           Tensor::allocate(DType::u8, {static_cast<int64_t>(packed.vocabulary.size())}, &bytes));
      std::memcpy(bytes, packed.vocabulary.data(), packed.vocabulary.size());
    }
  }
  write_safetensors(path, tensors, metadata);
}

namespace {

// A plan for a CPU runs on any; one for a GPU runs on the GPU that is here, if its kernels do.
Target target_of_file(const std::string& name) {
  Target target = parse_target(name);
  if (target.device == DeviceKind::cpu) return host_target();
  const kernels::device::Info& device = kernels::device::find_device();
  return device.present && device.target.sm == target.sm ? device.target : target;
}

// What reads results relies on their shape for the task.
void check_output(const Plan::State& state, const std::string& where) {
  const Buffer& out = state.program->buffers[static_cast<size_t>(state.program->outputs.front().second)];
  Task task = state.info.task;
  bool per_token = task == Task::encoder || task == Task::token_classification || task == Task::question_answering;
  bool labels = task == Task::token_classification || task == Task::sequence_classification;
  int64_t width = task == Task::question_answering ? 2
                  : labels                         ? static_cast<int64_t>(state.info.labels.size())
                                                   : out.width;
  if ((out.extent == Extent::tokens) != per_token || out.width != width)
    fail(ErrorCode::corrupt, {.what = "the plan is damaged",
                              .expected = "expected an output of width " + std::to_string(width) + " a " +
                                          (per_token ? "token" : "text") + " for " + std::string(name(task)),
                              .where = "in " + where,
                              .hint = "compile it again"});
}

}  // namespace

Plan Plan::load(const std::filesystem::path& path) {
  std::string where = path.string();
  Safetensors file = read_safetensors(path);
  auto found = file.metadata.find("octet.plan");
  if (found == file.metadata.end())
    fail(ErrorCode::invalid_argument,
         {.what = "cannot load " + where + " as a plan", .expected = "expected a file that octet compile wrote"});
  json header = parse_json(found->second, where);
  if (int64_t format = json_get<int64_t>(header, "format", where); format < 1 || format > kFormat)
    fail(ErrorCode::unsupported,
         {.what = "cannot load " + where,
          .expected = "expected plan format 1 to " + std::to_string(kFormat) + ", got " + std::to_string(format),
          .hint = "compile the model with this version of octet"});
  auto state = std::make_shared<State>();
  state->info = info_from_json(json_get<json>(header, "model", where), where);
  state->precision = parse_precision(json_get<std::string>(header, "precision", where));
  state->simulate = json_get<bool>(header, "simulate", where);
  std::string target = json_get<std::string>(header, "target", where);
  state->target = target_of_file(target);
  json facts = json_get<json>(header, "provenance", where);  // items() of a temporary would dangle
  for (const auto& [key, value] : facts.items())
    if (value.is_string()) state->provenance[key] = value.get<std::string>();
  Tensor vocabulary;  // keeps its bytes
  std::span<const std::byte> packed;
  if (auto tensor = file.tensors.find(kVocabulary); tensor != file.tensors.end()) {
    vocabulary = tensor->second;
    packed = {vocabulary.data(), static_cast<size_t>(vocabulary.bytes())};
    file.tensors.erase(tensor);
  }
  if (header.contains("as_is")) {
    auto held = file.tensors.find("onnx");
    if (held == file.tensors.end())
      fail(ErrorCode::corrupt,
           {.what = "the plan is damaged", .expected = "it holds no ONNX graph", .where = "in " + where});
    state->as_is = AsIs::from_bytes(held->second, json_get<std::string>(header, "as_is", where), where);
    state->program = std::make_shared<Program>();
  } else {
    state->program = std::make_shared<Program>(
        program_from_json(json_get<json>(header, "program", where), std::move(file.tensors), where));
    check_output(*state, where);
  }
  if (auto tokenizer = file.metadata.find("octet.tokenizer"); tokenizer != file.metadata.end())
    state->tokenizer = Tokenizer::from_packed(tokenizer->second, packed, where);
  return Plan(std::move(state));
}

const ModelInfo& Plan::info() const noexcept { return state_->info; }
Precision Plan::precision() const noexcept { return state_->precision; }
const std::map<std::string, std::string>& Plan::provenance() const noexcept { return state_->provenance; }
bool Plan::has_tokenizer() const noexcept { return state_->tokenizer.has_value(); }
const Tokenizer& Plan::tokenizer() const {
  if (!state_->tokenizer)
    fail(ErrorCode::not_found, {.what = "the plan has no tokenizer", .hint = "compile it from a folder with one"});
  return *state_->tokenizer;
}
int64_t Plan::weight_bytes() const noexcept {
  if (state_->as_is) return state_->as_is->weight_bytes();
  int64_t bytes = 0;
  for (const auto& [name, tensor] : state_->program->weights) bytes += tensor.bytes();
  return bytes;
}

// ---------------------------------------------------------------- explain

namespace {

constexpr const char* kKinds[] = {"gemm", "attention", "norm", "embed", "pool", "elementwise", "scores", "positions"};

int64_t step_bytes(const Program& program, const Step& step, int64_t batch, int64_t length) {
  int64_t bytes = 0;
  for (const auto& [role, weight] : step.params) {
    const Tensor& tensor = program.weights.at(weight);
    // Of an embedding table only the rows of the batch are touched.
    bytes += role.starts_with("table")
                 ? std::min(tensor.bytes(), batch * length * tensor.bytes() / std::max<int64_t>(1, tensor.dim(0)))
                 : tensor.bytes();
  }
  for (const std::vector<Slot>* slots : {&step.inputs, &step.outputs})
    for (const Slot& slot : *slots) {
      if (slot.buffer < 0) continue;
      const Buffer& b = program.buffers[static_cast<size_t>(slot.buffer)];
      int64_t extent = b.extent == Extent::rows     ? batch
                       : b.extent == Extent::scores ? batch * length * length
                                                    : batch * length;
      bytes += extent * b.width * size_of(b.dtype);
    }
  return bytes;
}

}  // namespace

namespace {

// The larger of two times: products at the rate of the tensor cores at the highest clock, bytes at that of device
// memory (operands that lie in the second-level cache may beat it).
double floor_ms(const ExplainedOp& op, const Target& target) {
  const kernels::device::Info& device = kernels::device::find_device();
  if (target.device != DeviceKind::cuda || !device.present) return 0;
  // Multiply-adds of s8 a clock and multiprocessor, dense; 16-bit floats half of it, f32 without tensor cores 128.
  int sm = device.target.sm;
  double s8 = sm == 90 ? 4096 : sm == 80 ? 2048 : 1024;
  double rate = op.precision == "int8" ? s8 : op.precision == "fp32" || op.precision == "f32" ? 128 : s8 / 2;
  double products = op.macs / (rate * device.target.sm_count * device.clock_hz);
  double bytes = static_cast<double>(op.bytes) / std::max(1.0, device.memory_bytes_s);
  return 1e3 * std::max(products, bytes);
}

}  // namespace

Explanation Plan::explain(const ExplainOptions& options) const {
  const State& state = *state_;
  const Program& program = *state.program;
  Explanation out;
  out.device = octet::name(state.target);
  auto ranges = state.provenance.find("ranges");
  out.ranges = ranges == state.provenance.end() ? "" : ranges->second;
  out.batch = options.batch;
  out.length = state.info.max_length > 0 ? std::min(options.length, state.info.max_length) : options.length;
  if (out.batch < 1 || out.length < 1)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot explain a shape of " + std::to_string(out.batch) + "x" + std::to_string(out.length)});

  if (state.as_is) {
    out.ops = state.as_is->explain(out.batch, out.length, options.repeats);
    double work = 0, integers = 0;
    for (const ExplainedOp& op : out.ops) {
      out.ms += op.ms, work += op.macs;
      if (op.precision == "int8") integers += op.macs;
    }
    out.int8_work_fraction = work > 0 ? integers / work : 0;
    return out;
  }
  std::vector<double> times(program.steps.size());
  bool runnable = state.target.device == DeviceKind::cpu || kernels::device::find_device().present;
  if (options.repeats > 0 && runnable) {
    auto pool = std::make_shared<ThreadPool>(options.threads);
    Executor executor(state.prepared(), pool);
    std::vector<int32_t> ids(static_cast<size_t>(out.batch * out.length)), offsets(static_cast<size_t>(out.batch) + 1);
    uint64_t random = 12345;
    for (int32_t& id : ids) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      id = static_cast<int32_t>((random >> 33) % static_cast<uint64_t>(std::max<int64_t>(1, program.vocabulary)));
    }
    for (size_t r = 0; r < offsets.size(); ++r) offsets[r] = static_cast<int32_t>(static_cast<int64_t>(r) * out.length);
    executor.bind({.ids = ids, .offsets = offsets, .type_ids = {}});
    executor.run();
    times = executor.time_steps(options.repeats);
  }
  double total = 0, int8 = 0, all = 0;
  for (double t : times) total += t;
  out.ms = total;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    ExplainedOp op{
        .name = step.name, .kind = kKinds[step.desc.index()], .kernel = step.kernel, .precision = precision_of(step)};
    op.macs = static_cast<double>(out.batch) * multiply_accumulates(program, step, out.length);
    op.bytes = step_bytes(program, step, out.batch, out.length);
    op.ms = times[i];
    op.share = total > 0 ? times[i] / total : 0;
    if (state.target.device == DeviceKind::cuda) op.kernel += tile_of(program, i, out.batch, out.length);
    op.floor_ms = floor_ms(op, state.target);
    for (const kernels::Refusal& refusal : step.refused)
      op.refused.push_back(std::string(refusal.kernel) + ": " + refusal.reason);
    const bool island = state.precision == Precision::fp16 && step.note.starts_with(kWideNote);
    if (island || (state.precision == Precision::int8 && op.precision != "int8")) op.note = step.note;
    all += op.macs;
    if (op.precision == "int8") int8 += op.macs;
    out.ops.push_back(std::move(op));
  }
  out.int8_work_fraction = all > 0 ? int8 / all : 0;
  return out;
}

}  // namespace octet
