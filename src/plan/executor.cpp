// Running a program: the arena's layout, the binding of a batch, CUDA graphs.
#include "plan/executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>

#include "core/error.h"
#include "kernels/device.h"
#include "plan/first_rows.h"
#include "plan/prepared.h"

namespace octet {

using namespace kernels;

struct Executor::State {
  std::shared_ptr<const Prepared> prepared;
  std::shared_ptr<const Program> program;
  std::shared_ptr<ThreadPool> pool;
  bool keep_all = false;
  std::vector<BoundStep> steps;  // prepared->steps with this executor's pointers
  std::vector<bool> joined;      // the step runs inside the GEMM before it, on rows that are still in the cache
  std::vector<size_t> first_use;
  std::optional<FirstRows> first_rows;  // none with keep_all
  bool lean = false;                    // the bound batch runs through first_rows where that takes a step

  // The bound batch; on a GPU `rows`, `tokens` and `max_length` are those of its bucket.
  int64_t rows = 0, tokens = 0, max_length = 0, square_tokens = 0;
  int64_t batch_rows = 0, batch_tokens = 0;
  unsigned char* base = nullptr;  // of the arena, where the kernels run
  int64_t arena_capacity = 0, arena_used = 0;
  // Where everything of a shape lies in the arena.
  struct Layout {
    std::vector<int64_t> offset, scale_offset;  // by buffer
    int64_t input_bytes = 0, scratch_offset = 0, first_offset = 0, bytes = 0;
  };
  Layout at_shape;
  std::vector<int64_t>&offset = at_shape.offset, &scale_offset = at_shape.scale_offset;
  int64_t& input_bytes = at_shape.input_bytes;
  bool stale = true;  // the steps' arguments are those of another shape
  AlignedBytes arena;
  std::vector<unsigned char> mirror;  // host copies that data() of a GPU run hands out

  // GPU only: inputs are staged in pinned memory at the same offsets as in the arena's front, outputs behind them.
  struct Bucket {
    int64_t rows, tokens, max_length;
    bool staged;  // copies inputs from and outputs to the staging memory
    auto operator<=>(const Bucket&) const = default;
  };
  void* stream = nullptr;
  DeviceBytes device_arena;
  PinnedBytes staging;
  int64_t staging_capacity = 0;
  std::vector<int64_t> output_offset;  // by output, in staging
  std::map<Bucket, void*> graphs;
  std::map<Bucket, Layout> layouts;
  bool under_way = false;  // started and not yet waited for
  PinnedBytes bad_batch;   // set by the device when a batch in its memory has ids or offsets that no plan takes

  ~State() {
    drop_graphs();
    if (stream != nullptr && prepared->generation == device::generation()) device::destroy_stream(stream);
  }
  void drop_graphs() {
    if (prepared->generation == device::generation())
      for (auto& [bucket, graph] : graphs) device::destroy_graph(graph);
    graphs.clear();
  }
  // What stands on a GPU that was lost since is gone.
  void check_generation() const {
    if (on_device() && prepared->generation != device::generation())
      fail(ErrorCode::device, {.what = "cannot run: the GPU was lost and set up again since this session was made",
                               .hint = "make a new session of the plan"});
  }
  bool on_device() const { return prepared->on_device(); }

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
  // Of the batch itself, without the bucket's rounding.
  int64_t elements(int32_t id) const {
    const Buffer& b = buffer(id);
    int64_t extent = b.extent == Extent::tokens    ? batch_tokens
                     : b.extent == Extent::rows    ? batch_rows
                     : b.extent == Extent::offsets ? batch_rows + 1
                                                   : square_tokens;
    return extent * b.width;
  }

  unsigned char* memory(int32_t id) const { return base + offset[static_cast<size_t>(id)]; }
  void* at(const Slot& slot) const {
    return slot.buffer < 0 ? nullptr : memory(slot.buffer) + slot.column * size_of(buffer(slot.buffer).dtype);
  }
  float* scale_at(int32_t id) const {
    return buffer(id).row_scale ? reinterpret_cast<float*>(base + scale_offset[static_cast<size_t>(id)]) : nullptr;
  }

  // ------------------------------------------------------------ binding a batch
  void check(const BatchView& b) const {
    auto refuse = [](const std::string& expected, const std::string& hint = "") {
      fail(ErrorCode::invalid_argument, {.what = "cannot run this batch", .expected = expected, .hint = hint});
    };
    if (b.offsets.size() < 2) refuse("expected at least one row, got an empty batch");
    if (program->max_tokens > 0 && static_cast<int64_t>(b.ids.size()) > program->max_tokens)
      refuse("the plan takes batches of at most " + std::to_string(program->max_tokens) + " tokens, got " +
                 std::to_string(b.ids.size()),
             "split the batch, or compile with a larger --max-tokens");
    if (b.offsets.front() != 0) refuse("expected offsets to start at 0, got " + std::to_string(b.offsets.front()));
    if (b.offsets.back() != static_cast<int64_t>(b.ids.size()))
      refuse("expected the last offset to be the number of ids (" + std::to_string(b.ids.size()) + "), got " +
             std::to_string(b.offsets.back()));
    for (size_t r = 0; r + 1 < b.offsets.size(); ++r) {
      int64_t length = int64_t{b.offsets[r + 1]} - b.offsets[r];
      if (length <= 0)
        refuse("expected rows of at least one token, row " + std::to_string(r) + " has " + std::to_string(length));
      if (program->positions > 0 && length > program->positions)
        refuse("row " + std::to_string(r) + " has " + std::to_string(length) + " tokens, the model has " +
                   std::to_string(program->positions) + " positions",
               "truncate the text (--max-length)");
      if (program->max_length > 0 && length > program->max_length)
        refuse("row " + std::to_string(r) + " has " + std::to_string(length) + " tokens, the plan takes " +
                   std::to_string(program->max_length),
               "truncate the text, or compile with a larger --max-length");
    }
    if (!b.type_ids.empty() && b.type_ids.size() != b.ids.size())
      refuse("expected as many type ids as ids (" + std::to_string(b.ids.size()) + "), got " +
             std::to_string(b.type_ids.size()));
    for (size_t t = 0; t < b.ids.size(); ++t) {
      if (b.ids[t] < 0 || (program->vocabulary > 0 && b.ids[t] >= program->vocabulary))
        refuse("token id " + std::to_string(b.ids[t]) + " at position " + std::to_string(t) +
                   " is outside the vocabulary of " + std::to_string(program->vocabulary),
               "use the tokenizer that belongs to the model");
      if (!b.type_ids.empty() && (b.type_ids[t] < 0 || b.type_ids[t] >= program->types))
        refuse("type id " + std::to_string(b.type_ids[t]) + " at position " + std::to_string(t) + " is outside 0.." +
               std::to_string(program->types - 1));
    }
  }

  // Buffers that the host fills before a run: the inputs and the positions.
  std::vector<int32_t> host_filled() const {
    std::vector<int32_t> ids;
    for (const auto& [name, id] : program->inputs) ids.push_back(id);
    for (const Step& step : program->steps)
      if (std::holds_alternative<PositionsDesc>(step.desc)) ids.push_back(step.outputs[0].buffer);
    return ids;
  }

  // First-fit placement by lifetime: a buffer's bytes are free again after the last step that reads it. What the host
  // fills lies in front and stays, so that one copy brings it to a GPU.
  void layout() {
    size_t count = program->buffers.size();
    offset.assign(count, -1);
    scale_offset.assign(count, -1);
    int64_t front = 0;
    for (int32_t id : host_filled()) {
      offset[static_cast<size_t>(id)] = front;
      front += round_up(extent_of(buffer(id)) * size_of(buffer(id).dtype) + 64);
    }
    input_bytes = front;
    struct Block {
      int64_t begin, end;
      size_t last;
    };
    std::vector<Block> live;
    int64_t high = front;
    auto place = [&](int64_t bytes, size_t now, size_t last) {
      if (!keep_all) std::erase_if(live, [&](const Block& block) { return block.last < now; });
      std::sort(live.begin(), live.end(), [](const Block& a, const Block& b) { return a.begin < b.begin; });
      int64_t begin = front;
      for (const Block& block : live) {
        if (begin + bytes <= block.begin) break;
        begin = std::max(begin, block.end);
      }
      live.push_back({begin, begin + bytes, last});
      high = std::max(high, begin + bytes);
      return begin;
    };
    const std::vector<size_t>& last_use = prepared->last_use;
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return first_use[a] < first_use[b]; });
    for (size_t i : order) {
      const Buffer& b = program->buffers[i];
      if (offset[i] < 0)
        offset[i] = place(round_up(extent_of(b) * b.width * size_of(b.dtype) + 64), first_use[i], last_use[i]);
      if (b.row_scale) scale_offset[i] = place(round_up(extent_of(b) * 4 + 64), first_use[i], last_use[i]);
    }
    int64_t scratch = 0;
    for (size_t s = 0; s < steps.size(); ++s)
      if (auto* a = std::get_if<Bound<AttentionKernel, AttentionArgs>>(&steps[s])) {
        const auto& desc = std::get<AttentionDesc>(program->steps[s].desc);
        int64_t bytes = a->kernel->scratch_bytes(desc, max_length, pool->threads());
        if (a->kernel->scratch_bytes_a_token != nullptr) bytes += tokens * a->kernel->scratch_bytes_a_token(desc) + 64;
        scratch = std::max(scratch, bytes);
      }
    at_shape.scratch_offset = high;
    at_shape.first_offset = high + round_up(scratch);
    at_shape.bytes = at_shape.first_offset + (lean ? round_up(first_rows->bytes(rows)) : 0);
  }

  void grow(int64_t bytes) {
    arena_capacity = 0;
    base = nullptr;
    if (on_device()) {
      drop_graphs();  // they hold the old addresses
      device_arena.reset();
      // Kernels may read a last tile beyond the last buffer.
      constexpr int64_t kSlack = 1 << 16;
      device_arena.reset(device::allocate(bytes + kSlack));
      // Tokens that only fill a bucket are computed and ignored; what attention leaves out of them is read all the
      // same.
      device::clear(device_arena.get(), bytes + kSlack, stream);
      device::synchronize(stream);
      base = static_cast<unsigned char*>(device_arena.get());
    } else {
      arena.reset();
      try {
        arena = allocate_aligned(bytes);
      } catch (const std::bad_alloc&) {
        fail(ErrorCode::out_of_memory,
             {.what = "cannot run this batch",
              .expected = "it needs " + std::to_string(bytes >> 20) + " MiB of scratch memory",
              .hint = "use smaller batches"});
      }
      base = arena.get();
    }
    arena_capacity = bytes;
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
    int64_t n = std::get<ElementwiseDesc>(step.desc).n;
    const Buffer& x = buffer(step.inputs[0].buffer);
    b.args.m = extent_of(x) * x.width / n;
    b.args.x = at(step.inputs[0]);
    if (step.inputs.size() > 1) b.args.x2 = at(step.inputs[1]);
    b.args.rows = rows;
    b.args.offsets = offsets();
    b.args.row_scale = scale_at(step.outputs[0].buffer);
    b.args.y = at(step.outputs[0]);
  }
  void bind_args(const Step& step, Bound<ScoresKernel, ScoresArgs>& b) const {
    b.args.rows = rows;
    b.args.offsets = offsets();
    b.args.a = static_cast<const float*>(at(step.inputs[0]));
    if (step.inputs.size() > 1) b.args.b = static_cast<const float*>(at(step.inputs[1]));
    b.args.y = static_cast<float*>(at(step.outputs[0]));
  }
  void bind_args(const Step&, Positions&) const {}

  // Few enough buckets to be captured once each, close enough to waste little work: steps of an eighth of the power of
  // two below.
  static int64_t bucket(int64_t value, int64_t least) {
    if (value <= least) return least;
    int64_t step = least;
    while (step * 16 <= value) step *= 2;
    return (value + step - 1) / step * step;
  }

  void bind(const BatchView& b) {
    check(b);
    rows = batch_rows = static_cast<int64_t>(b.offsets.size()) - 1;
    tokens = batch_tokens = static_cast<int64_t>(b.ids.size());
    max_length = square_tokens = 0;
    for (int64_t r = 0; r < rows; ++r) {
      int64_t length = b.offsets[static_cast<size_t>(r) + 1] - b.offsets[static_cast<size_t>(r)];
      max_length = std::max(max_length, length);
      square_tokens += length * length;
    }
    if (on_device()) {
      tokens = bucket(tokens, 16);
      rows = bucket(rows, 1);
      max_length = bucket(max_length, 16);
    }
    bind_shape();
    fill(b);
  }
  void bind_shape() {
    lean = first_rows && first_rows->any() && tokens >= 2 * rows;
    if (on_device() && !prepared->square) {  // few shapes, each met often
      constexpr size_t kMostLayouts = 4096;
      if (layouts.size() >= kMostLayouts) layouts.clear();
      auto [at, fresh] = layouts.try_emplace({rows, tokens, max_length, false});
      if (fresh) {
        layout();
        at->second = at_shape;
      } else {
        at_shape = at->second;
      }
    } else {
      layout();
    }
    if (at_shape.bytes > arena_capacity) grow(at_shape.bytes);
    arena_used = at_shape.bytes;
    stale = true;
  }
  // A graph holds its steps' arguments, so they are only needed where steps run.
  void bind_steps() {
    if (!stale) return;
    stale = false;
    for (size_t s = 0; s < steps.size(); ++s) {
      std::visit([&](auto& bound) { bind_args(program->steps[s], bound); }, steps[s]);
      if (auto* a = std::get_if<Bound<AttentionKernel, AttentionArgs>>(&steps[s]))
        a->args.scratch = base + at_shape.scratch_offset;
    }
    if (lean)
      first_rows->bind({.rows = rows,
                        .tokens = tokens,
                        .max_length = max_length,
                        .offsets = offsets(),
                        .base = base,
                        .offset = &offset,
                        .scale_offset = &scale_offset,
                        .memory = base + at_shape.first_offset,
                        .scratch = base + at_shape.scratch_offset});
  }

  // Writes what the host provides: into the arena, or into its staging copy for a GPU.
  void fill(const BatchView& b) {
    unsigned char* front = base;
    if (on_device()) {
      int64_t need = input_bytes;
      output_offset.clear();
      for (const auto& [name, id] : program->outputs) {
        output_offset.push_back(need);
        need += round_up(extent_of(buffer(id)) * buffer(id).width * size_of(buffer(id).dtype));
      }
      if (need > staging_capacity) {
        drop_graphs();
        staging.reset();
        staging.reset(device::allocate_pinned(need));
        staging_capacity = need;
      }
      front = static_cast<unsigned char*>(staging.get());
      std::memset(front, 0, static_cast<size_t>(input_bytes));
    }
    auto write = [&](int32_t id, std::span<const int32_t> values) {
      std::memcpy(front + offset[static_cast<size_t>(id)], values.data(), values.size_bytes());
    };
    write(program->inputs.at("ids"), b.ids);
    write(program->inputs.at("offsets"), b.offsets);
    auto* starts = reinterpret_cast<int32_t*>(front + offset[static_cast<size_t>(program->inputs.at("offsets"))]);
    for (int64_t r = batch_rows + 1; r <= rows; ++r) starts[r] = static_cast<int32_t>(batch_tokens);
    if (auto types = program->inputs.find("type_ids"); types != program->inputs.end()) {
      if (!b.type_ids.empty()) write(types->second, b.type_ids);
      else std::memset(front + offset[static_cast<size_t>(types->second)], 0, static_cast<size_t>(tokens) * 4);
    }
    for (const Step& step : program->steps)
      if (const auto* desc = std::get_if<PositionsDesc>(&step.desc))
        positions(b, *desc, reinterpret_cast<int32_t*>(front + offset[static_cast<size_t>(step.outputs[0].buffer)]));
  }

  // A batch that lies on the device: checked there, without waiting.
  void enqueue(const DeviceBatchView& b, float* out, void* on) {
    auto refuse = [](const std::string& expected) {
      fail(ErrorCode::invalid_argument, {.what = "cannot run this batch", .expected = expected});
    };
    if (!on_device()) refuse("batches in device memory need a plan for a GPU");
    if (prepared->square) refuse("the fake-quant graph does not run batches in device memory");
    if (b.rows < 1 || b.tokens < b.rows || b.max_length < 1 || b.max_length > b.tokens || b.ids == nullptr ||
        b.offsets == nullptr || out == nullptr)
      refuse("expected rows of at least one token and the pointers of ids, offsets and output");
    int64_t longest = program->positions > 0 ? program->positions : INT64_MAX;
    if (program->max_length > 0) longest = std::min(longest, program->max_length);
    if (b.max_length > longest)
      refuse("rows have up to " + std::to_string(b.max_length) + " tokens, the plan takes " + std::to_string(longest));
    if (program->max_tokens > 0 && b.tokens > program->max_tokens)
      refuse("the plan takes batches of at most " + std::to_string(program->max_tokens) + " tokens, got " +
             std::to_string(b.tokens));
    if (!bad_batch) {
      bad_batch.reset(device::allocate_pinned(64));
      *static_cast<int32_t*>(bad_batch.get()) = 0;
    }
    check_device_batches();
    batch_rows = b.rows;
    batch_tokens = b.tokens;
    square_tokens = 0;
    tokens = bucket(b.tokens, 16);
    rows = bucket(b.rows, 1);
    max_length = bucket(b.max_length, 16);
    bind_shape();
    auto* types = program->inputs.contains("type_ids") ? memory_of_input("type_ids") : nullptr;
    device::stage_batch({.ids = b.ids,
                         .offsets = b.offsets,
                         .type_ids = b.type_ids,
                         .rows = b.rows,
                         .tokens = b.tokens,
                         .padded_rows = rows,
                         .padded_tokens = tokens,
                         .max_length = b.max_length,
                         .vocabulary = program->vocabulary,
                         .types = program->types,
                         .out_ids = memory_of_input("ids"),
                         .out_offsets = memory_of_input("offsets"),
                         .out_types = types,
                         .bad = static_cast<int32_t*>(bad_batch.get())},
                        on);
    for (const Step& step : program->steps)
      if (const auto* desc = std::get_if<PositionsDesc>(&step.desc))
        device::positions(memory_of_input("ids"), memory_of_input("offsets"), rows, static_cast<int32_t>(desc->start),
                          static_cast<int32_t>(desc->padding_id),
                          reinterpret_cast<int32_t*>(memory(step.outputs[0].buffer)), on);
    device::launch(graph(false), on);
    int32_t id = program->outputs[0].second;
    device::on_device(out, memory(id), elements(id) * size_of(buffer(id).dtype), on);
  }
  int32_t* memory_of_input(const char* name) const {
    return reinterpret_cast<int32_t*>(memory(program->inputs.at(name)));
  }
  void check_device_batches() {
    if (!bad_batch) return;
    auto* bad = static_cast<volatile int32_t*>(bad_batch.get());
    if (*bad == 0) return;
    *bad = 0;
    fail(ErrorCode::invalid_argument,
         {.what = "a batch in device memory was refused by the device; its results are not valid",
          .expected = "expected ids below " + std::to_string(program->vocabulary) + ", type ids below " +
                      std::to_string(program->types) +
                      ", offsets from 0 to the number of tokens, and rows of 1 to max_length tokens"});
  }

  static void positions(const BatchView& b, const PositionsDesc& desc, int32_t* out) {
    for (size_t r = 0; r + 1 < b.offsets.size(); ++r) {
      int64_t next = desc.start;
      for (int32_t t = b.offsets[r]; t < b.offsets[r + 1]; ++t) {
        bool pad = desc.padding_id >= 0 && b.ids[static_cast<size_t>(t)] == desc.padding_id;
        out[t] = static_cast<int32_t>(pad ? desc.padding_id : next++);
      }
    }
  }

  // ------------------------------------------------------------ running
  // Whether step s + 1 works on rows that step s, a GEMM, has just finished and nobody else reads.
  bool joins(size_t s) const {
    if (s + 1 >= steps.size()) return false;
    auto* gemm = std::get_if<Bound<GemmKernel, GemmArgs>>(&steps[s]);
    if (gemm == nullptr) return false;
    const Step &first = program->steps[s], &second = program->steps[s + 1];
    if (on_device()) {
      auto* norm = std::get_if<Bound<NormKernel, NormArgs>>(&steps[s + 1]);
      if (norm == nullptr || norm->kernel->name != "norm_cuda" || gemm->kernel->run_with_norm == nullptr ||
          gemm->kernel->refuse_with_norm(std::get<GemmDesc>(first.desc), std::get<NormDesc>(second.desc)) != nullptr)
        return false;
    } else if (!gemm->kernel->finishes) {
      return false;
    } else if (const auto* d = std::get_if<ElementwiseDesc>(&second.desc)) {
      if (d->kind != ElementwiseKind::quantize_token && d->kind != ElementwiseKind::quantize) return false;
    } else if (!std::holds_alternative<NormDesc>(second.desc)) {
      return false;
    }
    const Slot &y = first.outputs[0], &a = second.inputs[0];
    if (a.buffer != y.buffer || a.column != 0 || y.column != 0) return false;
    if (second.inputs.size() > 1 && second.inputs[1].buffer == y.buffer) return false;
    return buffer(y.buffer).width == std::get<GemmDesc>(first.desc).n &&
           prepared->last_use[static_cast<size_t>(y.buffer)] == s + 1;
  }
  // Before the first layout: a joined step writes its outputs while the GEMM still reads.
  void join_steps() {
    first_use = prepared->first_use;
    joined.assign(steps.size(), false);
    if (keep_all) return;
    for (size_t s = 0; s < steps.size(); ++s) {
      if (joined[s] || !joins(s)) continue;
      joined[s + 1] = true;
      for (const Slot& slot : program->steps[s + 1].outputs) {
        size_t& use = first_use[static_cast<size_t>(slot.buffer)];
        use = std::min(use, s);
      }
    }
  }

  struct Rows {
    const Step& step;
    const BoundStep& bound;
  };
  static void* forward(void* data, int64_t bytes) { return static_cast<unsigned char*>(data) + bytes; }
  // The joined step on rows [row, row + rows), whose input is `x`.
  static void finish(const void* context, int64_t row, int64_t rows, const void* x) {
    const auto& [step, bound] = *static_cast<const Rows*>(context);
    if (const auto* norm = std::get_if<Bound<NormKernel, NormArgs>>(&bound)) {
      const auto& d = std::get<NormDesc>(step.desc);
      NormArgs a = norm->args;
      a.m = rows;
      a.a = x;
      if (d.residual) a.b = static_cast<const unsigned char*>(a.b) + row * d.n * size_of(d.b);
      for (int o = 0; o < d.outputs; ++o) {
        a.out[o].y = forward(a.out[o].y, row * d.n * size_of(d.y[o].dtype));
        if (a.out[o].row_scale != nullptr) a.out[o].row_scale += row;
      }
      norm->kernel->run(d, a, {});
      return;
    }
    const auto& elementwise = std::get<Bound<ElementwiseKernel, ElementwiseArgs>>(bound);
    const auto& d = std::get<ElementwiseDesc>(step.desc);
    ElementwiseArgs a = elementwise.args;
    a.m = rows;
    a.x = x;
    a.y = forward(a.y, row * d.n * size_of(d.y));
    if (a.row_scale != nullptr) a.row_scale += row;
    elementwise.kernel->run(d, a, {});
  }
  void run_joined(size_t s) {
    bind_steps();
    auto& gemm = std::get<Bound<GemmKernel, GemmArgs>>(steps[s]);
    if (on_device()) {
      const auto& norm = std::get<Bound<NormKernel, NormArgs>>(steps[s + 1]).args;
      const bool both =
          gemm.kernel->run_with_norm(std::get<GemmDesc>(program->steps[s].desc), gemm.args, norm, {.stream = stream});
      device::check_launch(program->steps[s].name);
      if (both) return;
      run_step(s);
      return run_step(s + 1);
    }
    Rows rows{program->steps[s + 1], steps[s + 1]};
    GemmArgs a = gemm.args;
    a.finish = finish;
    a.finish_context = &rows;
    gemm.kernel->run(std::get<GemmDesc>(program->steps[s].desc), a, {.pool = pool.get()});
  }

  void run_step(size_t s) {
    bind_steps();
    const Step& step = program->steps[s];
    Launch launch{.pool = pool.get(), .stream = stream};
    std::visit(
        [&](auto& bound) {
          // Positions were filled with the batch.
          if constexpr (!std::is_same_v<std::decay_t<decltype(bound)>, Positions>)
            bound.kernel->run(std::get<typename std::decay_t<decltype(*bound.kernel)>::Desc>(step.desc), bound.args,
                              launch);
        },
        steps[s]);
    if (on_device()) device::check_launch(step.name);
  }

  // A step as a whole run does it: where only first tokens count, on those.
  void run_lean(size_t s) {
    bind_steps();
    if (lean && first_rows->takes(s)) first_rows->run(s, pool.get());
    else run_step(s);
  }
  void run_steps() {
    for (size_t i = 0; i < steps.size(); ++i) {
      if (i + 1 < steps.size() && joined[i + 1] && !(lean && first_rows->takes(i + 1))) run_joined(i++);
      else run_lean(i);
    }
  }

  void copy_in() { device::transfer(base, staging.get(), input_bytes, stream); }
  void copy_out() {
    auto* host = static_cast<unsigned char*>(staging.get());
    for (size_t o = 0; o < program->outputs.size(); ++o) {
      int32_t id = program->outputs[o].second;
      device::transfer(host + output_offset[o], memory(id),
                       extent_of(buffer(id)) * buffer(id).width * size_of(buffer(id).dtype), stream);
    }
  }

  // All steps of the bound shape on `stream`; with `staged`, between the copies.
  void* graph(bool staged = true) {
    Bucket key{rows, tokens, max_length, staged};
    auto found = graphs.find(key);
    if (found != graphs.end()) return found->second;
    constexpr size_t kMostGraphs = 512;
    if (graphs.size() >= kMostGraphs) drop_graphs();
    void* made = device::capture(stream, [&] {
      if (staged) copy_in();
      run_steps();
      if (staged) copy_out();
    });
    graphs.emplace(key, made);
    return made;
  }
};

Executor::Executor(std::shared_ptr<const Prepared> prepared, std::shared_ptr<ThreadPool> pool, bool keep_all)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.prepared = std::move(prepared);
  s.program = s.prepared->program;
  s.pool = std::move(pool);
  s.keep_all = keep_all;
  s.steps = s.prepared->steps;
  s.join_steps();
  if (!keep_all && !s.on_device()) s.first_rows.emplace(*s.prepared);
  if (s.on_device()) s.stream = device::create_stream();
}

Executor::Executor(std::shared_ptr<const Program> program, std::shared_ptr<ThreadPool> pool, const Target& target,
                   bool keep_all)
    : Executor(prepare(std::move(program), target), std::move(pool), keep_all) {}

Executor::~Executor() = default;
Executor::Executor(Executor&&) noexcept = default;
Executor& Executor::operator=(Executor&&) noexcept = default;

void Executor::bind(const BatchView& batch) {
  finish();  // the staging memory is still read
  state_->check_generation();
  state_->bind(batch);
}

void Executor::start() {
  State& s = *state_;
  s.check_generation();
  if (!s.on_device()) return s.run_steps();
  if (s.prepared->square) {  // sizes depend on every row: no graph would serve twice
    s.copy_in();
    s.run_steps();
    s.copy_out();
  } else {
    device::launch(s.graph(), s.stream);
  }
  s.under_way = true;
}

void Executor::finish() {
  State& s = *state_;
  if (!s.under_way) return;
  s.under_way = false;
  s.check_generation();
  device::synchronize(s.stream);
}

void Executor::run(const Tap& tap) {
  State& s = *state_;
  if (!tap) {
    start();
    return finish();
  }
  s.check_generation();
  if (s.on_device()) s.copy_in();
  for (size_t i = 0; i < s.steps.size(); ++i) {
    s.run_step(i);
    for (const Slot& slot : s.program->steps[i].outputs)
      tap(i, {.buffer = &s.buffer(slot.buffer),
              .data = s.memory(slot.buffer),
              .elements = s.elements(slot.buffer),
              .row_scale = s.scale_at(slot.buffer),
              .stream = s.stream});
  }
  if (s.on_device()) {
    s.copy_out();
    device::synchronize(s.stream);
  }
}

void Executor::enqueue(const DeviceBatchView& batch, float* output, void* stream) {
  state_->check_generation();
  state_->enqueue(batch, output, stream);
}

void Executor::wait(void* stream) {
  state_->check_generation();
  device::synchronize(stream);
  state_->check_device_batches();
}

void Executor::run_step(size_t step) {
  state_->run_step(step);
  if (state_->on_device()) device::synchronize(state_->stream);
}

const void* Executor::output(size_t output) {
  State& s = *state_;
  if (!s.on_device()) return s.memory(s.program->outputs.at(output).second);
  return static_cast<unsigned char*>(s.staging.get()) + s.output_offset.at(output);
}

void* Executor::data(int32_t buffer) {
  OCTET_CHECK(!state_->on_device(), "memory of a GPU handed out");
  return state_->memory(buffer);
}
float* Executor::row_scale(int32_t buffer) {
  OCTET_CHECK(!state_->on_device(), "memory of a GPU handed out");
  return state_->scale_at(buffer);
}

void Executor::read(int32_t buffer, void* values, float* row_scales) {
  State& s = *state_;
  const Buffer& b = s.buffer(buffer);
  int64_t bytes = s.elements(buffer) * size_of(b.dtype),
          scale_bytes = b.row_scale && row_scales != nullptr ? s.elements(buffer) / b.width * 4 : 0;
  if (!s.on_device()) {
    std::memcpy(values, s.memory(buffer), static_cast<size_t>(bytes));
    if (scale_bytes > 0) std::memcpy(row_scales, s.scale_at(buffer), static_cast<size_t>(scale_bytes));
    return;
  }
  device::to_host(values, s.memory(buffer), bytes, s.stream);
  if (scale_bytes > 0) device::to_host(row_scales, s.scale_at(buffer), scale_bytes, s.stream);
  device::synchronize(s.stream);
}

void Executor::write(int32_t buffer, const void* values, const float* row_scales) {
  State& s = *state_;
  const Buffer& b = s.buffer(buffer);
  int64_t bytes = s.elements(buffer) * size_of(b.dtype),
          scale_bytes = b.row_scale && row_scales != nullptr ? s.elements(buffer) / b.width * 4 : 0;
  if (!s.on_device()) {
    std::memcpy(s.memory(buffer), values, static_cast<size_t>(bytes));
    if (scale_bytes > 0) std::memcpy(s.scale_at(buffer), row_scales, static_cast<size_t>(scale_bytes));
    return;
  }
  device::to_device(s.memory(buffer), values, bytes, s.stream);
  if (scale_bytes > 0) device::to_device(s.scale_at(buffer), row_scales, scale_bytes, s.stream);
  device::synchronize(s.stream);
}

int64_t Executor::elements(int32_t buffer) const { return state_->elements(buffer); }
const Program& Executor::program() const noexcept { return *state_->program; }
int64_t Executor::rows() const noexcept { return state_->batch_rows; }
int64_t Executor::tokens() const noexcept { return state_->batch_tokens; }
int64_t Executor::arena_bytes() const noexcept { return state_->arena_used; }

namespace {

double median(std::vector<double>& samples) {
  if (samples.empty()) return 0;
  auto middle = samples.begin() + static_cast<int64_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

}  // namespace

std::vector<double> Executor::time_steps(int repeats) {
  using Clock = std::chrono::steady_clock;
  State& s = *state_;
  std::vector<std::vector<double>> samples(s.steps.size());
  for (int r = 0; r < repeats; ++r)
    for (size_t i = 0; i < s.steps.size(); ++i) {
      if (s.on_device()) {
        if (s.joined[i]) {  // its time is in the step before
          samples[i].push_back(0);
          continue;
        }
        const bool joined = i + 1 < s.steps.size() && s.joined[i + 1];
        // One launch is shorter than the clock's noise.
        constexpr int kLaunches = 20;
        samples[i].push_back(device::time_ms(s.stream,
                                             [&] {
                                               for (int l = 0; l < kLaunches; ++l)
                                                 if (joined) s.run_joined(i);
                                                 else s.run_step(i);
                                             }) /
                             kLaunches);
        continue;
      }
      auto begin = Clock::now();
      s.run_lean(i);
      samples[i].push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    }
  std::vector<double> medians;
  for (std::vector<double>& sample : samples) medians.push_back(median(sample));
  return medians;
}

std::vector<double> Executor::time_replays(int repeats) {
  State& s = *state_;
  OCTET_CHECK(s.on_device(), "graph replays need a GPU");
  std::vector<double> samples;
  void* graph = s.graph();
  for (int r = 0; r < repeats; ++r)
    samples.push_back(device::time_ms(s.stream, [&] { device::launch(graph, s.stream); }));
  return samples;
}

}  // namespace octet
