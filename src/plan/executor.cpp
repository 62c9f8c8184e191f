// Binding a program to kernels and memory, and running it.
#include "plan/executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "core/error.h"

namespace octet {

namespace {

using namespace kernels;

struct AlignedDelete {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using AlignedBytes = std::unique_ptr<unsigned char, AlignedDelete>;

AlignedBytes allocate_aligned(int64_t bytes) {
  return AlignedBytes(static_cast<unsigned char*>(::operator new(static_cast<size_t>((bytes + 127) / 64 * 64), std::align_val_t{64})));
}

constexpr int64_t round_up(int64_t value) { return (value + 63) / 64 * 64; }

// A kernel row and its arguments; pointers into the arena are filled by bind.
template <typename Kernel, typename Args>
struct Bound {
  const Kernel* kernel = nullptr;
  Args args;
};
struct Positions {};
using BoundStep = std::variant<Bound<GemmKernel, GemmArgs>, Bound<AttentionKernel, AttentionArgs>, Bound<NormKernel, NormArgs>,
                               Bound<EmbedKernel, EmbedArgs>, Bound<PoolKernel, PoolArgs>, Bound<ElementwiseKernel, ElementwiseArgs>,
                               Bound<ScoresKernel, ScoresArgs>, Positions>;

}  // namespace

struct Executor::State {
  std::shared_ptr<const Program> program;
  std::shared_ptr<ThreadPool> pool;
  Target target;
  bool keep_all = false;

  std::vector<BoundStep> steps;
  std::vector<AlignedBytes> packed;  // by step; empty but for gemm
  std::vector<size_t> first_use, last_use;  // by buffer

  // The bound batch.
  BatchView batch;
  int64_t rows = 0, tokens = 0, max_length = 0, square_tokens = 0;
  AlignedBytes arena;
  int64_t arena_capacity = 0, arena_used = 0;
  std::vector<int64_t> offset, scale_offset;  // by buffer
  std::vector<int32_t> zero_types;

  const Buffer& buffer(int32_t id) const { return program->buffers[static_cast<size_t>(id)]; }

  int64_t extent_of(const Buffer& b) const {
    switch (b.extent) {
      case Extent::tokens: return tokens;
      case Extent::rows: return rows;
      case Extent::scores: return square_tokens;
      case Extent::offsets: return rows + 1;
    }
    return 0;
  }
  int64_t elements(int32_t id) const { return extent_of(buffer(id)) * buffer(id).width; }

  unsigned char* memory(int32_t id) const { return arena.get() + offset[static_cast<size_t>(id)]; }
  void* at(const Slot& slot) const {
    return slot.buffer < 0 ? nullptr : memory(slot.buffer) + slot.column * size_of(buffer(slot.buffer).dtype);
  }
  float* scale_at(int32_t id) const {
    return buffer(id).row_scale ? reinterpret_cast<float*>(arena.get() + scale_offset[static_cast<size_t>(id)]) : nullptr;
  }

  // ------------------------------------------------------------ construction
  const Tensor& weight(const std::string& name) const {
    auto found = program->weights.find(name);
    if (found == program->weights.end())
      fail(ErrorCode::corrupt, {.what = "the plan lacks the weight " + name, .hint = "compile it again"});
    return found->second;
  }
  template <typename T>
  const T* param(const Step& step, const std::string& role) const {
    auto found = step.params.find(role);
    return found == step.params.end() ? nullptr : reinterpret_cast<const T*>(weight(found->second).data());
  }
  Requant requant(const Step& step, int index) const {
    std::string i = std::to_string(index);
    Requant r;
    r.inv_scale = param<float>(step, "inv_scale" + i);
    r.zero_point = static_cast<int32_t>(program->number(step, ("zero" + i).c_str(), 0));
    r.lo = static_cast<int32_t>(program->number(step, ("lo" + i).c_str(), -128));
    r.hi = static_cast<int32_t>(program->number(step, ("hi" + i).c_str(), 127));
    return r;
  }
  template <typename Kernel>
  const Kernel* kernel(const Step& step, std::span<const Kernel> table, const typename Kernel::Desc& desc) const {
    const Kernel* row = find_by_name(table, step.kernel);
    if (row != nullptr && row->device == target.device && row->refuse(desc, target) == nullptr) return row;
    row = find(table, desc, target);
    if (row == nullptr)
      fail(ErrorCode::unsupported, {.what = "cannot run step " + step.name + " on " + octet::name(target),
                                    .expected = "the plan asks for kernel " + step.kernel,
                                    .hint = "compile the model for this machine"});
    return row;
  }

  BoundStep prepare(const Step& step, AlignedBytes* pack) const {
    return std::visit([&](const auto& desc) -> BoundStep { return prepare(step, desc, pack); }, step.desc);
  }
  BoundStep prepare(const Step& step, const GemmDesc& desc, AlignedBytes* pack) const {
    Bound<GemmKernel, GemmArgs> b{kernel(step, gemm_kernels(), desc), {}};
    *pack = allocate_aligned(b.kernel->packed_bytes(desc));
    b.kernel->pack(desc, param<void>(step, "w"), pack->get());
    b.args.packed = pack->get();
    b.args.scale = param<float>(step, "scale");
    b.args.bias = param<float>(step, "bias");
    b.args.column_offset = param<int32_t>(step, "column_offset");
    b.args.requant = requant(step, 0);
    return b;
  }
  BoundStep prepare(const Step& step, const AttentionDesc& desc, AlignedBytes*) const {
    Bound<AttentionKernel, AttentionArgs> b{kernel(step, attention_kernels(), desc), {}};
    b.args.score_scale = param<float>(step, "score_scale");
    b.args.context_scale = param<float>(step, "context_scale");
    b.args.p_inv_scale = static_cast<float>(program->number(step, "p_inv_scale", 255));
    b.args.p_lo = static_cast<int32_t>(program->number(step, "p_lo", 0));
    b.args.p_hi = static_cast<int32_t>(program->number(step, "p_hi", 255));
    b.args.requant = requant(step, 0);
    if (desc.bias) {
      b.args.bias = param<float>(step, "bias");
      b.args.bias_length = weight(step.params.at("bias")).dim(1);
    }
    return b;
  }
  BoundStep prepare(const Step& step, const NormDesc& desc, AlignedBytes*) const {
    Bound<NormKernel, NormArgs> b{kernel(step, norm_kernels(), desc), {}};
    b.args.gamma = param<float>(step, "gamma");
    b.args.beta = param<float>(step, "beta");
    b.args.epsilon = static_cast<float>(program->number(step, "epsilon", 1e-12));
    b.args.a_scale = param<float>(step, "a_scale");
    b.args.b_scale = param<float>(step, "b_scale");
    b.args.a_zero = static_cast<int32_t>(program->number(step, "a_zero", 0));
    b.args.b_zero = static_cast<int32_t>(program->number(step, "b_zero", 0));
    for (int i = 0; i < desc.outputs; ++i) b.args.out[i].requant = requant(step, i);
    return b;
  }
  BoundStep prepare(const Step& step, const EmbedDesc& desc, AlignedBytes*) const {
    Bound<EmbedKernel, EmbedArgs> b{kernel(step, embed_kernels(), desc), {}};
    for (int t = 0; t < desc.tables; ++t) {
      b.args.table[t] = param<void>(step, "table" + std::to_string(t));
      b.args.table_scale[t] = param<float>(step, "table_scale" + std::to_string(t));
    }
    b.args.gamma = param<float>(step, "gamma");
    b.args.beta = param<float>(step, "beta");
    b.args.epsilon = static_cast<float>(program->number(step, "epsilon", 1e-12));
    for (int i = 0; i < desc.outputs; ++i) b.args.out[i].requant = requant(step, i);
    return b;
  }
  BoundStep prepare(const Step& step, const PoolDesc& desc, AlignedBytes*) const {
    Bound<PoolKernel, PoolArgs> b{kernel(step, pool_kernels(), desc), {}};
    b.args.x_scale = param<float>(step, "x_scale");
    b.args.x_zero = static_cast<int32_t>(program->number(step, "x_zero", 0));
    return b;
  }
  BoundStep prepare(const Step& step, const ElementwiseDesc& desc, AlignedBytes*) const {
    Bound<ElementwiseKernel, ElementwiseArgs> b{kernel(step, elementwise_kernels(), desc), {}};
    b.args.scale = param<float>(step, "scale");
    b.args.requant = requant(step, 0);
    return b;
  }
  BoundStep prepare(const Step& step, const ScoresDesc& desc, AlignedBytes*) const {
    Bound<ScoresKernel, ScoresArgs> b{kernel(step, scores_kernels(), desc), {}};
    b.args.scale = static_cast<float>(program->number(step, "scale", 1));
    if (desc.bias) {
      b.args.bias = param<float>(step, "bias");
      b.args.bias_length = weight(step.params.at("bias")).dim(1);
    }
    return b;
  }
  BoundStep prepare(const Step&, const PositionsDesc&, AlignedBytes*) const { return Positions{}; }

  // ------------------------------------------------------------ binding a batch
  void check(const BatchView& b) const {
    auto refuse = [](const std::string& expected, const std::string& hint = "") {
      fail(ErrorCode::invalid_argument, {.what = "cannot run this batch", .expected = expected, .hint = hint});
    };
    if (b.offsets.size() < 2) refuse("expected at least one row, got an empty batch");
    if (b.offsets.front() != 0) refuse("expected offsets to start at 0, got " + std::to_string(b.offsets.front()));
    if (b.offsets.back() != static_cast<int64_t>(b.ids.size()))
      refuse("expected the last offset to be the number of ids (" + std::to_string(b.ids.size()) + "), got " + std::to_string(b.offsets.back()));
    for (size_t r = 0; r + 1 < b.offsets.size(); ++r) {
      int64_t length = int64_t{b.offsets[r + 1]} - b.offsets[r];
      if (length <= 0) refuse("expected rows of at least one token, row " + std::to_string(r) + " has " + std::to_string(length));
      if (program->positions > 0 && length > program->positions)
        refuse("row " + std::to_string(r) + " has " + std::to_string(length) + " tokens, the model has " + std::to_string(program->positions) +
                   " positions",
               "truncate the text (--max-length)");
    }
    if (!b.type_ids.empty() && b.type_ids.size() != b.ids.size())
      refuse("expected as many type ids as ids (" + std::to_string(b.ids.size()) + "), got " + std::to_string(b.type_ids.size()));
    for (size_t t = 0; t < b.ids.size(); ++t) {
      if (b.ids[t] < 0 || (program->vocabulary > 0 && b.ids[t] >= program->vocabulary))
        refuse("token id " + std::to_string(b.ids[t]) + " at position " + std::to_string(t) + " is outside the vocabulary of " +
                   std::to_string(program->vocabulary),
               "use the tokenizer that belongs to the model");
      if (!b.type_ids.empty() && (b.type_ids[t] < 0 || b.type_ids[t] >= program->types))
        refuse("type id " + std::to_string(b.type_ids[t]) + " at position " + std::to_string(t) + " is outside 0.." +
               std::to_string(program->types - 1));
    }
  }

  // First-fit placement by lifetime: a buffer's bytes are free again after the last step that reads it.
  void layout() {
    size_t count = program->buffers.size();
    offset.assign(count, -1);
    scale_offset.assign(count, -1);
    struct Block {
      int64_t begin, end;
      size_t last;
    };
    std::vector<Block> live;
    int64_t high = 0;
    auto place = [&](int64_t bytes, size_t now, size_t last) {
      if (!keep_all) std::erase_if(live, [&](const Block& block) { return block.last < now; });
      std::sort(live.begin(), live.end(), [](const Block& a, const Block& b) { return a.begin < b.begin; });
      int64_t begin = 0;
      for (const Block& block : live) {
        if (begin + bytes <= block.begin) break;
        begin = std::max(begin, block.end);
      }
      live.push_back({begin, begin + bytes, last});
      high = std::max(high, begin + bytes);
      return begin;
    };
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return first_use[a] < first_use[b]; });
    for (size_t i : order) {
      const Buffer& b = program->buffers[i];
      int64_t n = extent_of(b) * b.width;
      offset[i] = place(round_up(n * size_of(b.dtype) + 64), first_use[i], last_use[i]);
      if (b.row_scale) scale_offset[i] = place(round_up(extent_of(b) * 4 + 64), first_use[i], last_use[i]);
    }
    int64_t scratch = 0;
    for (size_t s = 0; s < steps.size(); ++s)
      if (auto* a = std::get_if<Bound<AttentionKernel, AttentionArgs>>(&steps[s]))
        scratch = std::max(scratch, a->kernel->scratch_bytes(std::get<AttentionDesc>(program->steps[s].desc), max_length, pool->threads()));
    int64_t scratch_offset = high;
    high += round_up(scratch);
    if (high > arena_capacity) {
      arena.reset();
      try {
        arena = allocate_aligned(high);
      } catch (const std::bad_alloc&) {
        arena_capacity = 0;
        fail(ErrorCode::out_of_memory, {.what = "cannot run this batch", .expected = "it needs " + std::to_string(high >> 20) + " MiB of scratch memory",
                                        .hint = "use smaller batches"});
      }
      arena_capacity = high;
    }
    arena_used = high;
    for (BoundStep& step : steps)
      if (auto* a = std::get_if<Bound<AttentionKernel, AttentionArgs>>(&step)) a->args.scratch = arena.get() + scratch_offset;
  }

  int64_t leading(const Slot& slot) const { return buffer(slot.buffer).width; }
  const int32_t* offsets() const { return reinterpret_cast<const int32_t*>(memory(program->inputs.at("offsets"))); }

  void bind_output(const Step& step, size_t index, NormOutput* out) const {
    out->y = at(step.outputs[index]);
    out->row_scale = scale_at(step.outputs[index].buffer);
  }
  void bind_args(const Step& step, Bound<GemmKernel, GemmArgs>& b) const {
    const Slot& x = step.inputs[0];
    b.args.m = extent_of(buffer(x.buffer));
    b.args.x = at(x);
    b.args.ldx = leading(x);
    b.args.row_scale = scale_at(x.buffer);
    b.args.y = at(step.outputs[0]);
    b.args.ldy = leading(step.outputs[0]);
  }
  void bind_args(const Step& step, Bound<AttentionKernel, AttentionArgs>& b) const {
    AttentionArgs& a = b.args;
    a.rows = rows;
    a.offsets = offsets();
    a.tokens = tokens;
    a.max_length = max_length;
    a.q = at(step.inputs[0]);
    a.k = at(step.inputs[1]);
    a.v = at(step.inputs[2]);
    a.ldq = leading(step.inputs[0]);
    a.ldk = leading(step.inputs[1]);
    a.ldv = leading(step.inputs[2]);
    a.y = at(step.outputs[0]);
    a.ldy = leading(step.outputs[0]);
  }
  void bind_args(const Step& step, Bound<NormKernel, NormArgs>& b) const {
    b.args.m = extent_of(buffer(step.inputs[0].buffer));
    b.args.a = at(step.inputs[0]);
    if (step.inputs.size() > 1) b.args.b = at(step.inputs[1]);
    for (size_t i = 0; i < step.outputs.size(); ++i) bind_output(step, i, &b.args.out[i]);
  }
  void bind_args(const Step& step, Bound<EmbedKernel, EmbedArgs>& b) const {
    b.args.m = tokens;
    for (size_t t = 0; t < step.inputs.size(); ++t) b.args.index[t] = static_cast<const int32_t*>(at(step.inputs[t]));
    for (size_t i = 0; i < step.outputs.size(); ++i) bind_output(step, i, &b.args.out[i]);
  }
  void bind_args(const Step& step, Bound<PoolKernel, PoolArgs>& b) const {
    b.args.rows = rows;
    b.args.offsets = offsets();
    b.args.x = at(step.inputs[0]);
    b.args.y = at(step.outputs[0]);
  }
  void bind_args(const Step& step, Bound<ElementwiseKernel, ElementwiseArgs>& b) const {
    const Buffer& x = buffer(step.inputs[0].buffer);
    int64_t n = std::get<ElementwiseDesc>(step.desc).n;
    b.args.m = elements(step.inputs[0].buffer) / n;
    b.args.x = at(step.inputs[0]);
    if (step.inputs.size() > 1) b.args.x2 = at(step.inputs[1]);
    b.args.rows = rows;
    b.args.offsets = offsets();
    b.args.row_scale = scale_at(step.outputs[0].buffer);
    b.args.y = at(step.outputs[0]);
    (void)x;
  }
  void bind_args(const Step& step, Bound<ScoresKernel, ScoresArgs>& b) const {
    b.args.rows = rows;
    b.args.offsets = offsets();
    b.args.a = static_cast<const float*>(at(step.inputs[0]));
    if (step.inputs.size() > 1) b.args.b = static_cast<const float*>(at(step.inputs[1]));
    b.args.y = static_cast<float*>(at(step.outputs[0]));
  }
  void bind_args(const Step&, Positions&) const {}

  void bind(const BatchView& b) {
    check(b);
    batch = b;
    rows = static_cast<int64_t>(b.offsets.size()) - 1;
    tokens = static_cast<int64_t>(b.ids.size());
    max_length = square_tokens = 0;
    for (int64_t r = 0; r < rows; ++r) {
      int64_t length = b.offsets[static_cast<size_t>(r) + 1] - b.offsets[static_cast<size_t>(r)];
      max_length = std::max(max_length, length);
      square_tokens += length * length;
    }
    layout();
    for (size_t s = 0; s < steps.size(); ++s)
      std::visit([&](auto& bound) { bind_args(program->steps[s], bound); }, steps[s]);
    copy_input("ids", b.ids);
    copy_input("offsets", b.offsets);
    if (program->inputs.contains("type_ids")) {
      if (b.type_ids.empty()) {
        zero_types.assign(b.ids.size(), 0);
        copy_input("type_ids", zero_types);
      } else {
        copy_input("type_ids", b.type_ids);
      }
    }
  }
  void copy_input(const char* name, std::span<const int32_t> values) const {
    auto found = program->inputs.find(name);
    if (found != program->inputs.end()) std::memcpy(memory(found->second), values.data(), values.size_bytes());
  }

  // ------------------------------------------------------------ running
  void positions(const Step& step, const PositionsDesc& desc) const {
    auto* out = static_cast<int32_t*>(at(step.outputs[0]));
    for (int64_t r = 0; r < rows; ++r) {
      int64_t next = desc.start;
      for (int32_t t = batch.offsets[static_cast<size_t>(r)]; t < batch.offsets[static_cast<size_t>(r) + 1]; ++t) {
        bool pad = desc.padding_id >= 0 && batch.ids[static_cast<size_t>(t)] == desc.padding_id;
        out[t] = static_cast<int32_t>(pad ? desc.padding_id : next++);
      }
    }
  }
  void run_step(size_t s) {
    const Step& step = program->steps[s];
    Launch launch{.pool = pool.get()};
    std::visit(
        [&](auto& bound) {
          if constexpr (std::is_same_v<std::decay_t<decltype(bound)>, Positions>) positions(step, std::get<PositionsDesc>(step.desc));
          else bound.kernel->run(std::get<typename std::decay_t<decltype(*bound.kernel)>::Desc>(step.desc), bound.args, launch);
        },
        steps[s]);
  }
};

Executor::Executor(std::shared_ptr<const Program> program, std::shared_ptr<ThreadPool> pool, const Target& target, bool keep_all)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.program = std::move(program);
  s.pool = std::move(pool);
  s.target = target;
  s.keep_all = keep_all;
  const Program& p = *s.program;
  s.packed.resize(p.steps.size());
  for (size_t i = 0; i < p.steps.size(); ++i) s.steps.push_back(s.prepare(p.steps[i], &s.packed[i]));
  s.first_use.assign(p.buffers.size(), p.steps.size());
  s.last_use.assign(p.buffers.size(), 0);
  for (const auto& [name, id] : p.inputs) s.first_use[static_cast<size_t>(id)] = 0;
  for (size_t i = 0; i < p.steps.size(); ++i) {
    for (const std::vector<Slot>* slots : {&p.steps[i].inputs, &p.steps[i].outputs})
      for (const Slot& slot : *slots)
        if (slot.buffer >= 0) {
          size_t b = static_cast<size_t>(slot.buffer);
          s.first_use[b] = std::min(s.first_use[b], i);
          s.last_use[b] = std::max(s.last_use[b], i);
        }
  }
  // Offsets are read by kernels without being listed; outputs are read by the caller.
  s.last_use[static_cast<size_t>(p.inputs.at("offsets"))] = p.steps.size();
  for (const auto& [name, id] : p.outputs) s.last_use[static_cast<size_t>(id)] = p.steps.size();
}

Executor::~Executor() = default;
Executor::Executor(Executor&&) noexcept = default;

void Executor::bind(const BatchView& batch) { state_->bind(batch); }

void Executor::run(const Tap& tap) {
  for (size_t i = 0; i < state_->steps.size(); ++i) {
    state_->run_step(i);
    if (!tap) continue;
    for (const Slot& slot : state_->program->steps[i].outputs)
      tap(i, {.buffer = &state_->buffer(slot.buffer), .data = state_->memory(slot.buffer), .elements = state_->elements(slot.buffer),
              .row_scale = state_->scale_at(slot.buffer)});
  }
}

void Executor::run_step(size_t step) { state_->run_step(step); }
void* Executor::data(int32_t buffer) { return state_->memory(buffer); }
float* Executor::row_scale(int32_t buffer) { return state_->scale_at(buffer); }
int64_t Executor::elements(int32_t buffer) const { return state_->elements(buffer); }
const Program& Executor::program() const noexcept { return *state_->program; }
int64_t Executor::rows() const noexcept { return state_->rows; }
int64_t Executor::tokens() const noexcept { return state_->tokens; }
int64_t Executor::arena_bytes() const noexcept { return state_->arena_used; }

std::vector<double> Executor::time_steps(int repeats) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> samples(state_->steps.size());
  for (int r = 0; r < repeats; ++r)
    for (size_t i = 0; i < state_->steps.size(); ++i) {
      auto begin = Clock::now();
      state_->run_step(i);
      samples[i].push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    }
  std::vector<double> medians;
  for (std::vector<double>& s : samples) {
    std::nth_element(s.begin(), s.begin() + static_cast<int64_t>(s.size() / 2), s.end());
    medians.push_back(s.empty() ? 0 : s[s.size() / 2]);
  }
  return medians;
}

}  // namespace octet
