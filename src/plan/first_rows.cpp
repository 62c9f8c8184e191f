// Finding the steps that only first tokens need, and running them on those.
#include "plan/first_rows.h"

#include <algorithm>
#include <cstring>

namespace octet {

using namespace kernels;

namespace {

constexpr int64_t kSlack = 128;  // behind each buffer: rounding to lines, and loads past its end

// Works on each token alone, with tokens in and out.
bool by_token(const Program& program, const Step& step) {
  if (const auto* d = std::get_if<ElementwiseDesc>(&step.desc)) {
    if (d->kind == ElementwiseKind::fake_quant_row_channel) return false;
    for (const Slot& slot : step.inputs)
      if (program.buffers[static_cast<size_t>(slot.buffer)].width != d->n) return false;
    return true;
  }
  return std::holds_alternative<GemmDesc>(step.desc) || std::holds_alternative<NormDesc>(step.desc);
}

GemmDesc columns(GemmDesc d, int64_t n) {
  d.n = n;
  return d;
}

template <typename T>
void forward(const T** pointer, int64_t elements) {
  if (*pointer != nullptr) *pointer += elements;
}

}  // namespace

FirstRows::FirstRows(const Prepared& prepared) : prepared_(prepared) {
  size_t steps = prepared.steps.size(), buffers = prepared.program->buffers.size();
  kind_.assign(steps, Kind::full);
  first_.assign(buffers, false);
  needs_.resize(steps);
  split_.assign(steps, 0);
  place_.assign(buffers, -1);
  scale_place_.assign(buffers, -1);
  if (!prepared.on_device() && !prepared.square) find();
}

// Whether the q of that attention comes from a product of q, k and v that nobody else reads.
bool FirstRows::splits(size_t attention) const {
  const Program& p = *prepared_.program;
  const Step& step = p.steps[attention];
  const auto& d = std::get<AttentionDesc>(step.desc);
  const Slot &q = step.inputs[0], &k = step.inputs[1], &v = step.inputs[2];
  const int64_t width = d.heads * d.head_dim;
  if (q.buffer != k.buffer || q.buffer != v.buffer || q.column != 0 || k.column < width || v.column < width)
    return false;
  size_t writer = p.steps.size();
  for (size_t s = 0; s < p.steps.size(); ++s) {
    for (const Slot& slot : p.steps[s].outputs)
      if (slot.buffer == q.buffer) {
        if (writer != p.steps.size()) return false;
        writer = s;
      }
    for (const Slot& slot : p.steps[s].inputs)
      if (slot.buffer == q.buffer && s != attention) return false;
  }
  if (writer >= attention) return false;
  const auto* gemm = std::get_if<GemmDesc>(&p.steps[writer].desc);
  if (gemm == nullptr || gemm->n != buffer(q.buffer).width || gemm->n <= width) return false;
  const auto& kernel = *std::get<Bound<GemmKernel, GemmArgs>>(prepared_.steps[writer]).kernel;
  // q must end where a panel of packed columns does: then one more column takes one more panel.
  if (kernel.packed_bytes(columns(*gemm, width + 1)) == kernel.packed_bytes(columns(*gemm, width))) return false;
  return kernel.packed_bytes(columns(*gemm, width)) + kernel.packed_bytes(columns(*gemm, gemm->n - width)) ==
         kernel.packed_bytes(*gemm);
}

void FirstRows::find() {
  const Program& p = *prepared_.program;
  std::vector<bool> read(p.buffers.size(), false), elsewhere(p.buffers.size(), false);
  for (const auto& [name, id] : p.outputs) elsewhere[static_cast<size_t>(id)] = true;
  auto tokens = [&](const Slot& slot) { return slot.buffer >= 0 && buffer(slot.buffer).extent == Extent::tokens; };
  auto only_first = [&](const Slot& slot) {
    auto b = static_cast<size_t>(slot.buffer);
    return tokens(slot) && read[b] && !elsewhere[b];
  };
  std::vector<size_t> split;  // attention steps
  // Readers come after writers, so that from the end all readers of a step's outputs are known.
  for (size_t s = p.steps.size(); s-- > 0;) {
    const Step& step = p.steps[s];
    const auto* pool = std::get_if<PoolDesc>(&step.desc);
    const bool attention = std::holds_alternative<AttentionDesc>(step.desc);
    bool first = pool != nullptr && pool->kind == PoolKind::first;
    if (attention || by_token(p, step))
      first = std::all_of(step.outputs.begin(), step.outputs.end(), only_first) &&
              std::all_of(step.inputs.begin(), step.inputs.end(), tokens);
    kind_[s] = first ? Kind::first : Kind::full;
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      if (step.inputs[i].buffer < 0) continue;
      auto b = static_cast<size_t>(step.inputs[i].buffer);
      read[b] = true;
      if (!first || (attention && i > 0)) elsewhere[b] = true;
    }
    any_ = any_ || (attention && first);
    if (attention && first && splits(s)) split.push_back(s);
  }
  if (!any_) return;
  for (size_t b = 0; b < p.buffers.size(); ++b)
    first_[b] = read[b] && !elsewhere[b] && p.buffers[b].extent == Extent::tokens;
  // What a step writes that runs on all tokens is brought together; a buffer with writers of both kinds is not met.
  for (size_t s = 0; s < p.steps.size(); ++s)
    for (const Slot& slot : p.steps[s].outputs)
      if (kind_[s] == Kind::full) first_[static_cast<size_t>(slot.buffer)] = false;
  for (size_t s = 0; s < p.steps.size(); ++s)
    for (const Slot& slot : p.steps[s].outputs)
      if (kind_[s] == Kind::first && !std::holds_alternative<PoolDesc>(p.steps[s].desc) &&
          !first_[static_cast<size_t>(slot.buffer)]) {
        any_ = false;
        kind_.assign(kind_.size(), Kind::full);
        return;
      }
  // A pool alone gains nothing by running on gathered rows.
  for (size_t s = 0; s < p.steps.size(); ++s)
    if (std::holds_alternative<PoolDesc>(p.steps[s].desc) && kind_[s] == Kind::first &&
        !first_[static_cast<size_t>(p.steps[s].inputs[0].buffer)])
      kind_[s] = Kind::full;
  auto place = [&](int32_t id) {
    auto b = static_cast<size_t>(id);
    if (place_[b] >= 0) return;
    place_[b] = row_bytes_;
    row_bytes_ += buffer(id).width * size_of(buffer(id).dtype);
    slack_ += 2 * kSlack;
    order_.push_back(id);
    if (!buffer(id).row_scale) return;
    scale_place_[b] = row_bytes_;
    row_bytes_ += 4;
  };
  for (size_t s : split) {
    const int32_t qkv = p.steps[s].inputs[0].buffer;
    const auto& d = std::get<AttentionDesc>(p.steps[s].desc);
    for (size_t w = 0; w < s; ++w)
      if (std::any_of(p.steps[w].outputs.begin(), p.steps[w].outputs.end(),
                      [&](const Slot& slot) { return slot.buffer == qkv; })) {
        kind_[w] = Kind::split;
        split_[w] = d.heads * d.head_dim;
      }
    place(qkv);  // its rows hold q alone
  }
  for (size_t s = 0; s < p.steps.size(); ++s) {
    if (kind_[s] == Kind::full) continue;
    const Step& step = p.steps[s];
    const size_t inputs = std::holds_alternative<AttentionDesc>(step.desc) ? 1 : step.inputs.size();
    for (size_t i = 0; i < inputs; ++i) {
      const int32_t id = step.inputs[i].buffer;
      const bool made = first_[static_cast<size_t>(id)] || place_[static_cast<size_t>(id)] >= 0;
      place(id);
      if (!made) needs_[s].push_back(id);
    }
    if (kind_[s] != Kind::first || std::holds_alternative<PoolDesc>(step.desc)) continue;
    for (const Slot& slot : step.outputs) place(slot.buffer);
  }
  slack_ += kSlack;
  steps_ = prepared_.steps;
  queries_ = prepared_.steps;
}

unsigned char* FirstRows::compact(const Slot& slot) const {
  auto b = static_cast<size_t>(slot.buffer);
  auto before = std::find(order_.begin(), order_.end(), slot.buffer) - order_.begin();
  int64_t at = (at_.rows + 1) * 4 + at_.rows * place_[b] + (2 * before + 1) * kSlack;
  return at_.memory + at / 64 * 64 + slot.column * size_of(buffer(slot.buffer).dtype);
}
float* FirstRows::compact_scale(int32_t id) const {
  auto b = static_cast<size_t>(id);
  if (scale_place_[b] < 0) return nullptr;
  auto before = std::find(order_.begin(), order_.end(), id) - order_.begin();
  int64_t at = (at_.rows + 1) * 4 + at_.rows * scale_place_[b] + (2 * before + 2) * kSlack;
  return reinterpret_cast<float*>(at_.memory + at / 64 * 64);
}

void FirstRows::bind(const Batch& batch) {
  at_ = batch;
  auto* starts = reinterpret_cast<int32_t*>(at_.memory);
  for (int64_t r = 0; r <= at_.rows; ++r) starts[r] = static_cast<int32_t>(r);
  for (size_t s = 0; s < kind_.size(); ++s)
    if (takes(s)) bind_step(s);
}

void FirstRows::bind_step(size_t s) {
  const Step& step = prepared_.program->steps[s];
  auto full = [&](const Slot& slot) {
    return at_.base + (*at_.offset)[static_cast<size_t>(slot.buffer)] +
           slot.column * size_of(buffer(slot.buffer).dtype);
  };
  auto output = [&](size_t i, NormOutput* out) {
    out->y = compact(step.outputs[i]);
    out->row_scale = compact_scale(step.outputs[i].buffer);
  };
  BoundStep& bound = steps_[s];
  if (auto* gemm = std::get_if<Bound<GemmKernel, GemmArgs>>(&bound)) {
    auto* of_first = kind_[s] == Kind::split ? &std::get<Bound<GemmKernel, GemmArgs>>(queries_[s]) : gemm;
    GemmArgs& a = of_first->args;
    a.m = at_.rows;
    a.x = compact(step.inputs[0]);
    a.ldx = buffer(step.inputs[0].buffer).width;
    a.row_scale = compact_scale(step.inputs[0].buffer);
    a.y = compact(step.outputs[0]);
    a.ldy = buffer(step.outputs[0].buffer).width;
    if (kind_[s] != Kind::split) return;
    const auto& d = std::get<GemmDesc>(step.desc);
    const int64_t width = split_[s];
    GemmArgs& rest = gemm->args;
    rest = std::get<Bound<GemmKernel, GemmArgs>>(prepared_.steps[s]).args;
    rest.m = at_.tokens;
    rest.x = full(step.inputs[0]);
    rest.ldx = a.ldx;
    auto scale = (*at_.scale_offset)[static_cast<size_t>(step.inputs[0].buffer)];
    rest.row_scale = scale < 0 ? nullptr : reinterpret_cast<float*>(at_.base + scale);
    rest.packed += gemm->kernel->packed_bytes(columns(d, width));
    forward(&rest.scale, width);
    forward(&rest.bias, width);
    forward(&rest.column_offset, width);
    forward(&rest.requant.inv_scale, width);
    rest.y = full({step.outputs[0].buffer, width});
    rest.ldy = a.ldy;
  } else if (auto* attention = std::get_if<Bound<AttentionKernel, AttentionArgs>>(&bound)) {
    AttentionArgs& a = attention->args;
    a.rows = at_.rows;
    a.offsets = at_.offsets;
    a.tokens = at_.tokens;
    a.max_length = at_.max_length;
    a.first_query = true;
    a.q = compact(step.inputs[0]);
    a.k = full(step.inputs[1]);
    a.v = full(step.inputs[2]);
    a.ldq = buffer(step.inputs[0].buffer).width;
    a.ldk = buffer(step.inputs[1].buffer).width;
    a.ldv = buffer(step.inputs[2].buffer).width;
    a.y = compact(step.outputs[0]);
    a.ldy = buffer(step.outputs[0].buffer).width;
    a.scratch = at_.scratch;
  } else if (auto* norm = std::get_if<Bound<NormKernel, NormArgs>>(&bound)) {
    norm->args.m = at_.rows;
    norm->args.a = compact(step.inputs[0]);
    if (step.inputs.size() > 1) norm->args.b = compact(step.inputs[1]);
    for (size_t i = 0; i < step.outputs.size(); ++i) output(i, &norm->args.out[i]);
  } else if (auto* elementwise = std::get_if<Bound<ElementwiseKernel, ElementwiseArgs>>(&bound)) {
    ElementwiseArgs& a = elementwise->args;
    a.m = at_.rows;
    a.x = compact(step.inputs[0]);
    if (step.inputs.size() > 1) a.x2 = compact(step.inputs[1]);
    a.rows = at_.rows;
    a.offsets = at_.offsets;
    a.row_scale = compact_scale(step.outputs[0].buffer);
    a.y = compact(step.outputs[0]);
  } else if (auto* pool = std::get_if<Bound<PoolKernel, PoolArgs>>(&bound)) {
    pool->args.rows = at_.rows;
    pool->args.offsets = reinterpret_cast<const int32_t*>(at_.memory);  // rows of one token
    pool->args.x = compact(step.inputs[0]);
    pool->args.y = full(step.outputs[0]);
  }
}

void FirstRows::gather(int32_t id) const {
  const Buffer& b = buffer(id);
  const auto bytes = static_cast<size_t>(b.width * size_of(b.dtype));
  const unsigned char* from = at_.base + (*at_.offset)[static_cast<size_t>(id)];
  unsigned char* to = compact({id, 0});
  for (int64_t r = 0; r < at_.rows; ++r)
    std::memcpy(to + static_cast<size_t>(r) * bytes, from + static_cast<size_t>(at_.offsets[r]) * bytes, bytes);
  if (!b.row_scale) return;
  const auto* scales = reinterpret_cast<const float*>(at_.base + (*at_.scale_offset)[static_cast<size_t>(id)]);
  for (int64_t r = 0; r < at_.rows; ++r) compact_scale(id)[r] = scales[at_.offsets[r]];
}

void FirstRows::run(size_t s, ThreadPool* pool) const {
  for (int32_t id : needs_[s]) gather(id);
  const Step& step = prepared_.program->steps[s];
  const Launch launch{.pool = pool};
  if (kind_[s] == Kind::split) {
    const auto& d = std::get<GemmDesc>(step.desc);
    const auto& q = std::get<Bound<GemmKernel, GemmArgs>>(queries_[s]);
    const auto& rest = std::get<Bound<GemmKernel, GemmArgs>>(steps_[s]);
    q.kernel->run(columns(d, split_[s]), q.args, launch);
    rest.kernel->run(columns(d, d.n - split_[s]), rest.args, launch);
    return;
  }
  std::visit(
      [&](const auto& bound) {
        if constexpr (!std::is_same_v<std::decay_t<decltype(bound)>, Positions>)
          bound.kernel->run(std::get<typename std::decay_t<decltype(*bound.kernel)>::Desc>(step.desc), bound.args,
                            launch);
      },
      steps_[s]);
}

}  // namespace octet
