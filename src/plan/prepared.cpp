// Binding a program to kernels and its weights to the memory that they read.
#include "plan/prepared.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"

namespace octet {

using namespace kernels;

namespace {

class Binder {
 public:
  explicit Binder(Prepared& prepared) : prepared_(prepared), program_(*prepared.program) {
    for (const auto& [name, tensor] : program_.weights) weight_bytes_left_ += (tensor.bytes() + 64 + 255) / 256 * 256;
  }

  void bind() {
    prepared_.packed.resize(program_.steps.size());
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      prepared_.steps.push_back(
          std::visit([&](const auto& desc) -> BoundStep { return prepare(step, desc, i); }, step.desc));
    }
    if (prepared_.on_device()) device::synchronize(nullptr);
    find_lifetimes();
    for (const Buffer& buffer : program_.buffers) prepared_.square |= buffer.extent == Extent::scores;
  }

 private:
  void find_lifetimes() {
    const Program& p = program_;
    std::vector<size_t>&first_use = prepared_.first_use, &last_use = prepared_.last_use;
    first_use.assign(p.buffers.size(), p.steps.size());
    last_use.assign(p.buffers.size(), 0);
    for (const auto& [name, id] : p.inputs) first_use[static_cast<size_t>(id)] = 0;
    for (size_t i = 0; i < p.steps.size(); ++i)
      for (const std::vector<Slot>* slots : {&p.steps[i].inputs, &p.steps[i].outputs})
        for (const Slot& slot : *slots)
          if (slot.buffer >= 0) {
            size_t b = static_cast<size_t>(slot.buffer);
            first_use[b] = std::min(first_use[b], i);
            last_use[b] = std::max(last_use[b], i);
          }
    // Offsets are read by kernels without being listed; outputs are read by the caller.
    last_use[static_cast<size_t>(p.inputs.at("offsets"))] = p.steps.size();
    for (const auto& [name, id] : p.outputs) last_use[static_cast<size_t>(id)] = p.steps.size();
  }

  const Tensor& weight(const std::string& name) const {
    auto found = program_.weights.find(name);
    if (found == program_.weights.end())
      fail(ErrorCode::corrupt, {.what = "the plan lacks the weight " + name, .hint = "compile it again"});
    return found->second;
  }
  template <typename T>
  const T* host_param(const Step& step, const std::string& role) const {
    auto found = step.params.find(role);
    return found == step.params.end() ? nullptr : reinterpret_cast<const T*>(weight(found->second).data());
  }
  // Where the kernel reads it: on a GPU the first use uploads it.
  template <typename T>
  const T* param(const Step& step, const std::string& role) {
    if (!prepared_.on_device()) return host_param<T>(step, role);
    auto found = step.params.find(role);
    if (found == step.params.end()) return nullptr;
    const Tensor& tensor = weight(found->second);
    const void*& address = uploaded_[found->second];
    if (address == nullptr) address = upload(tensor.data(), tensor.bytes());
    return static_cast<const T*>(address);
  }

  // Weights of a GPU lie one behind the other in a few large allocations.
  const void* upload(const void* data, int64_t bytes) {
    const int64_t size = (bytes + 64 + 255) / 256 * 256;
    if (size > chunk_left_) {
      constexpr int64_t kChunk = 64 << 20;
      // What is still to come is not known; a chunk is never larger than all weights need.
      int64_t rest = std::max(size, std::min(kChunk, weight_bytes_left_ + (1 << 20)));
      prepared_.device_memory.emplace_back(device::allocate(rest));
      next_ = static_cast<unsigned char*>(prepared_.device_memory.back().get());
      chunk_left_ = rest;
    }
    void* address = next_;
    device::to_device(address, data, bytes, nullptr);
    next_ += size;
    chunk_left_ -= size;
    weight_bytes_left_ -= size;
    return address;
  }
  Requant requant(const Step& step, int index) {
    std::string i = std::to_string(index);
    Requant r;
    r.inv_scale = param<float>(step, "inv_scale" + i);
    r.zero_point = static_cast<int32_t>(program_.number(step, ("zero" + i).c_str(), 0));
    r.lo = static_cast<int32_t>(program_.number(step, ("lo" + i).c_str(), -128));
    r.hi = static_cast<int32_t>(program_.number(step, ("hi" + i).c_str(), 127));
    return r;
  }
  template <typename Kernel>
  const Kernel* kernel(const Step& step, std::span<const Kernel> table, const typename Kernel::Desc& desc) const {
    const Kernel* row = find_by_name(table, step.kernel);
    if (row != nullptr && row->device == prepared_.target.device &&
        refuse(*row, desc, prepared_.target, symmetric(step)) == nullptr)
      return row;
    row = find(table, desc, prepared_.target, nullptr, symmetric(step));
    if (row == nullptr)
      fail(ErrorCode::unsupported, {.what = "cannot run step " + step.name + " on " + octet::name(prepared_.target),
                                    .expected = "the plan asks for kernel " + step.kernel,
                                    .hint = "compile the model for this machine"});
    return row;
  }

  // [heads, L, L], or [heads, 2 L - 1] by key - query + L - 1.
  template <typename Args>
  void bind_bias(const Step& step, Args& args) {
    const Tensor& bias = weight(step.params.at("bias"));
    args.bias = param<float>(step, "bias");
    args.bias_head_stride = bias.elements() / bias.dim(0);
    args.bias_query_stride = bias.dim(1);
    if (bias.shape().size() == 2) {
      args.bias += bias.dim(1) / 2;
      args.bias_query_stride = -1;
    }
  }

  BoundStep prepare(const Step& step, const GemmDesc& desc, size_t index) {
    Bound<GemmKernel, GemmArgs> b{kernel(step, gemm_kernels(), desc), {}};
    AlignedBytes bytes = allocate_aligned(b.kernel->packed_bytes(desc));
    const void* w = host_param<void>(step, "w");
    b.kernel->pack(desc, w, bytes.get());
    release_pages(w, static_cast<size_t>(desc.n * desc.k * size_of(desc.w)));
    b.args.packed = bytes.get();
    if (prepared_.on_device())
      b.args.packed = static_cast<const unsigned char*>(upload(bytes.get(), b.kernel->packed_bytes(desc)));
    else prepared_.packed[index] = std::move(bytes);
    b.args.scale = param<float>(step, "scale");
    b.args.bias = param<float>(step, "bias");
    b.args.column_offset = param<int32_t>(step, "column_offset");
    b.args.requant = requant(step, 0);
    return b;
  }
  BoundStep prepare(const Step& step, const AttentionDesc& desc, size_t) {
    Bound<AttentionKernel, AttentionArgs> b{kernel(step, attention_kernels(), desc), {}};
    b.args.score_scale = param<float>(step, "score_scale");
    b.args.float_scale = *host_param<float>(step, "score_scale");
    b.args.context_scale = param<float>(step, "context_scale");
    b.args.p_inv_scale = static_cast<float>(program_.number(step, "p_inv_scale", 255));
    b.args.p_lo = static_cast<int32_t>(program_.number(step, "p_lo", 0));
    b.args.p_hi = static_cast<int32_t>(program_.number(step, "p_hi", 255));
    b.args.requant = requant(step, 0);
    if (desc.bias) {
      bind_bias(step, b.args);
    }
    return b;
  }
  BoundStep prepare(const Step& step, const NormDesc& desc, size_t) {
    Bound<NormKernel, NormArgs> b{kernel(step, norm_kernels(), desc), {}};
    b.args.gamma = param<float>(step, "gamma");
    b.args.beta = param<float>(step, "beta");
    b.args.epsilon = static_cast<float>(program_.number(step, "epsilon", 1e-12));
    b.args.a_scale = param<float>(step, "a_scale");
    b.args.b_scale = param<float>(step, "b_scale");
    b.args.a_zero = static_cast<int32_t>(program_.number(step, "a_zero", 0));
    b.args.b_zero = static_cast<int32_t>(program_.number(step, "b_zero", 0));
    for (int i = 0; i < desc.outputs; ++i) b.args.out[i].requant = requant(step, i);
    return b;
  }
  BoundStep prepare(const Step& step, const EmbedDesc& desc, size_t) {
    Bound<EmbedKernel, EmbedArgs> b{kernel(step, embed_kernels(), desc), {}};
    for (int t = 0; t < desc.tables; ++t) {
      b.args.table[t] = param<void>(step, "table" + std::to_string(t));
      b.args.table_scale[t] = param<float>(step, "table_scale" + std::to_string(t));
    }
    b.args.gamma = param<float>(step, "gamma");
    b.args.beta = param<float>(step, "beta");
    b.args.epsilon = static_cast<float>(program_.number(step, "epsilon", 1e-12));
    for (int i = 0; i < desc.outputs; ++i) b.args.out[i].requant = requant(step, i);
    return b;
  }
  BoundStep prepare(const Step& step, const PoolDesc& desc, size_t) {
    Bound<PoolKernel, PoolArgs> b{kernel(step, pool_kernels(), desc), {}};
    b.args.x_scale = param<float>(step, "x_scale");
    b.args.x_zero = static_cast<int32_t>(program_.number(step, "x_zero", 0));
    return b;
  }
  BoundStep prepare(const Step& step, const ElementwiseDesc& desc, size_t) {
    Bound<ElementwiseKernel, ElementwiseArgs> b{kernel(step, elementwise_kernels(), desc), {}};
    b.args.scale = param<float>(step, "scale");
    b.args.requant = requant(step, 0);
    return b;
  }
  BoundStep prepare(const Step& step, const ScoresDesc& desc, size_t) {
    Bound<ScoresKernel, ScoresArgs> b{kernel(step, scores_kernels(), desc), {}};
    b.args.scale = static_cast<float>(program_.number(step, "scale", 1));
    if (desc.bias) {
      bind_bias(step, b.args);
    }
    return b;
  }
  BoundStep prepare(const Step&, const PositionsDesc&, size_t) { return Positions{}; }

  Prepared& prepared_;
  const Program& program_;
  std::map<std::string, const void*> uploaded_;  // by weight
  unsigned char* next_ = nullptr;
  int64_t chunk_left_ = 0, weight_bytes_left_ = 0;
};

}  // namespace

Prepared::Prepared(std::shared_ptr<const Program> p, const Target& t) : program(std::move(p)), target(t) {
  if (on_device()) {
    generation = device::generation();
    if (program->tiles_gpu == device::find_device().name) device::remember_tiles(program->tiles);
  }
  Binder(*this).bind();
}

std::shared_ptr<const Prepared> prepare(std::shared_ptr<const Program> program, const Target& target) {
  if (target.device != DeviceKind::cuda) return std::make_shared<Prepared>(std::move(program), target);
  const device::Info& here = device::find_device();
  auto refuse = [&](const std::string& reason) {
    fail(ErrorCode::device, {.what = "cannot run a plan for " + octet::name(target) + " here",
                             .expected = reason,
                             .hint = "compile with --device cpu, or run it where the GPU is"});
  };
  if (!here.present) refuse(here.reason);
  // Kernels for 9.0 are for that alone; the others run on all later ones.
  if (target.sm > here.target.sm || (target.sm == 90 && here.target.sm != 90))
    refuse("this machine has " + here.name + " (" + octet::name(here.target) + ")");
  device::recover();
  return std::make_shared<Prepared>(std::move(program), target);
}

bool still_stands(const Prepared& prepared) {
  if (!prepared.on_device()) return true;
  device::recover();
  return prepared.generation == device::generation();
}

}  // namespace octet
