// The rows of the tables that run on CUDA: descriptors and arguments of the engine, translated for the kernels of this
// folder.
#include "kernels/rows.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/general.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/pool.h"
#include "kernels/device.h"

namespace octet::kernels::cuda {

namespace {

cudaStream_t stream_of(const Launch& launch) { return static_cast<cudaStream_t>(launch.stream); }
bool is_half(DType type) { return type == DType::f16 || type == DType::bf16; }
bool is_float(DType type) { return is_half(type) || type == DType::f32; }
bool is_8bit(DType type) { return type == DType::s8 || type == DType::u8; }
int narrow(int64_t value) { return static_cast<int>(value); }

// Every kernel here waits for its predecessor itself, so all of them may start early.
constexpr bool kDependent = true;

// ---------------------------------------------------------------- gemm

const char* refuse_sm90(const GemmDesc& desc, const Target& target, DType type) noexcept {
  if (target.sm != 90) return "needs compute capability 9.0";
  if (desc.x != type) return type == DType::s8 ? "takes s8 inputs" : "takes f16 inputs";
  const char* reason = "no tile takes it";
  for (const GemmTile& tile : gemm_tiles()) {
    if (tile.type != type) continue;
    reason = refuse(desc, tile);
    if (reason == nullptr) return nullptr;
  }
  return reason;
}
const char* refuse_s8(const GemmDesc& desc, const Target& target) noexcept {
  return refuse_sm90(desc, target, DType::s8);
}
const char* refuse_f16(const GemmDesc& desc, const Target& target) noexcept {
  return refuse_sm90(desc, target, DType::f16);
}

int64_t padded_bytes(const GemmDesc& desc) noexcept { return packed_rows(desc.n) * desc.k * size_of(desc.w); }
void pack_padded(const GemmDesc& desc, const void* w, unsigned char* packed) noexcept {
  size_t used = static_cast<size_t>(desc.n * desc.k * size_of(desc.w));
  std::memcpy(packed, w, used);
  std::memset(packed + used, 0, static_cast<size_t>(padded_bytes(desc)) - used);
}
void run_sm90(const GemmDesc& desc, const GemmArgs& args, const Launch& launch_on) noexcept {
  const GemmTile* tile = tuned(desc, args.m, device::find_device().target.sm_count);
  int error = tile == nullptr ? static_cast<int>(cudaErrorInvalidConfiguration)
                              : launch(desc, args, *tile, static_cast<CUstream_st*>(launch_on.stream), kDependent);
  device::note_failure(error, tile == nullptr ? "gemm_sm90a" : tile->name.data());
}

const char* refuse_pair(const GemmDesc& desc, const NormDesc& norm) noexcept { return refuse_with_norm(desc, norm); }
bool run_sm90_with_norm(const GemmDesc& desc, const GemmArgs& args, const kernels::NormArgs& norm,
                        const Launch& launch_on) noexcept {
  const GemmNormTile* tile = tuned_with_norm(desc, args.m, device::find_device().target.sm_count);
  if (tile == nullptr) return false;
  const int error = launch_with_norm(desc, args, norm, *tile, static_cast<CUstream_st*>(launch_on.stream), kDependent);
  device::note_failure(error, tile->name.data());
  return true;
}

// A dot product a warp: for the few outputs of poolers and classifiers.
const char* refuse_dense(const GemmDesc& desc, const Target&) noexcept {
  if (!is_float(desc.x) || desc.w != desc.x) return "takes float inputs";
  if (!is_float(desc.y)) return "writes floats";
  if (desc.k % 8 != 0) return "k must be a multiple of 8";
  if (desc.exact) return "sums in f32";
  if (desc.n > 64 && desc.activation != Activation::tanh) return "meant for few outputs and poolers";
  return nullptr;
}
int64_t plain_bytes(const GemmDesc& desc) noexcept { return desc.n * desc.k * size_of(desc.w); }
void pack_plain(const GemmDesc& desc, const void* w, unsigned char* packed) noexcept {
  std::memcpy(packed, w, static_cast<size_t>(plain_bytes(desc)));
}

Unary unary(Activation activation) noexcept {
  switch (activation) {
    case Activation::none: return Unary::none;
    case Activation::relu: return Unary::relu;
    case Activation::tanh: return Unary::tanh;
    case Activation::gelu_erf: return Unary::gelu_erf;
    case Activation::gelu_tanh: return Unary::gelu_tanh;
  }
  return Unary::none;
}
void run_dense(const GemmDesc& desc, const GemmArgs& args, const Launch& launch_on) noexcept {
  DenseArgs dense_args;
  dense_args.in = {.data = args.x, .type = desc.x, .ld = args.ldx};
  dense_args.weight = args.packed;
  dense_args.weight_type = desc.w;
  dense_args.bias = args.bias;
  dense_args.activation = unary(desc.activation);
  dense_args.out = {.data = args.y, .type = desc.y, .ld = args.ldy};
  dense_args.rows = narrow(args.m);
  dense_args.inputs = narrow(desc.k);
  dense_args.outputs = narrow(desc.n);
  dense_args.dependent_launch = kDependent;
  device::note_failure(dense(dense_args, stream_of(launch_on)), "gemm_dense_cuda");
}

const char* refuse_gemm(const GemmDesc& desc) noexcept {
  if (desc.exact) return "sums in f32";
  if (is_8bit(desc.x) ? desc.w != DType::s8 : !is_float(desc.x) || desc.w != desc.x) return "operand types";
  if (!is_8bit(desc.y) && !is_float(desc.y)) return "output type";
  return nullptr;
}
const char* refuse_sm80(const GemmDesc& desc, const Target& target) noexcept {
  if (target.sm < 80) return "needs compute capability 8.0";
  if (const char* reason = refuse_gemm(desc)) return reason;
  if (desc.x == DType::f32) return "takes 8-bit, f16 and bf16 inputs";
  return desc.k * size_of(desc.x) % 16 != 0 ? "rows of k are not a multiple of 16 bytes" : nullptr;
}
const char* refuse_s8_sm80(const GemmDesc& desc, const Target& target) noexcept {
  return is_8bit(desc.x) ? refuse_sm80(desc, target) : "takes 8-bit inputs";
}
const char* refuse_half_sm80(const GemmDesc& desc, const Target& target) noexcept {
  return is_8bit(desc.x) ? "takes f16 and bf16 inputs" : refuse_sm80(desc, target);
}
void run_gemm_sm80(const GemmDesc& desc, const GemmArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(gemm_sm80(desc, args, stream_of(launch_on)), "gemm_sm80");
}
const char* refuse_gemm_any(const GemmDesc& desc, const Target&) noexcept { return refuse_gemm(desc); }
void run_gemm_any(const GemmDesc& desc, const GemmArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(gemm_any(desc, args, stream_of(launch_on)), "gemm_any_cuda");
}

// ---------------------------------------------------------------- attention

bool head_dim_fits(int64_t head_dim) noexcept { return head_dim == 32 || head_dim == 64 || head_dim == 128; }
const char* refuse_attention_s8(const AttentionDesc& desc, const Target&) noexcept {
  if (desc.dynamic) return "takes fixed scales only";
  if (desc.qkv != DType::s8) return "takes s8 inputs";
  if (desc.p != DType::u8) return "quantizes probabilities to u8";
  if (desc.y != DType::s8 && !is_float(desc.y)) return "writes s8 or floats";
  if (!head_dim_fits(desc.head_dim)) return "head sizes 32, 64 and 128";
  return nullptr;
}
int64_t no_scratch(const AttentionDesc&, int64_t, int) noexcept { return 0; }
void run_attention_s8(const AttentionDesc& desc, const AttentionArgs& args, const Launch& launch_on) noexcept {
  AttentionS8Args a;
  a.q = static_cast<const int8_t*>(args.q);
  a.k = static_cast<const int8_t*>(args.k);
  a.v = static_cast<const int8_t*>(args.v);
  a.q_ld = args.ldq;
  a.k_ld = args.ldk;
  a.v_ld = args.ldv;
  a.offsets = args.offsets;
  a.score_scale = args.score_scale;
  a.bias = args.bias;
  a.bias_head_stride = args.bias_head_stride;
  a.bias_ld = args.bias_query_stride;
  a.prob_inv_scale = args.p_inv_scale;
  a.prob_hi = args.p_hi;
  a.context_scale = args.context_scale;
  a.out_inv_scale = args.requant.inv_scale;
  a.out = args.y;
  a.out_ld = args.ldy;
  a.out_type = desc.y;
  a.rows = narrow(args.rows);
  a.heads = narrow(desc.heads);
  a.head_dim = narrow(desc.head_dim);
  a.max_length = narrow(args.max_length);
  a.dependent_launch = kDependent;
  device::note_failure(attention_s8(a, stream_of(launch_on)), "attention_s8u8_cuda");
}

const char* refuse_attention_half(const AttentionDesc& desc, const Target&) noexcept {
  if (desc.dynamic || !is_half(desc.qkv)) return "takes f16 or bf16 inputs";
  if (desc.y != desc.qkv) return "writes the type of its inputs";
  if (!head_dim_fits(desc.head_dim)) return "head sizes 32, 64 and 128";
  return nullptr;
}
const char* refuse_attention_half_sm90(const AttentionDesc& desc, const Target& target) noexcept {
  if (target.sm != 90) return "needs compute capability 9.0";
  if (const char* reason = refuse_attention_half(desc, target)) return reason;
  if (desc.head_dim != 64) return "heads of 64";
  return desc.bias ? "takes no bias" : nullptr;
}
AttentionHalfArgs half_args(const AttentionDesc& desc, const AttentionArgs& args) noexcept {
  AttentionHalfArgs a;
  a.q = args.q;
  a.k = args.k;
  a.v = args.v;
  a.q_ld = args.ldq;
  a.k_ld = args.ldk;
  a.v_ld = args.ldv;
  a.offsets = args.offsets;
  a.score_scale = args.float_scale;
  a.bias = args.bias;
  a.bias_head_stride = args.bias_head_stride;
  a.bias_ld = args.bias_query_stride;
  a.out = args.y;
  a.out_ld = args.ldy;
  a.type = desc.qkv;
  a.rows = narrow(args.rows);
  a.heads = narrow(desc.heads);
  a.head_dim = narrow(desc.head_dim);
  a.max_length = narrow(args.max_length);
  a.dependent_launch = kDependent;
  a.tokens = args.tokens;
  return a;
}
void run_attention_half(const AttentionDesc& desc, const AttentionArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(attention_half(half_args(desc, args), stream_of(launch_on)), "attention_half_cuda");
}
void run_attention_half_sm90(const AttentionDesc& desc, const AttentionArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(attention_half_sm90(half_args(desc, args), stream_of(launch_on)), "attention_half_sm90a");
}

const char* refuse_attention_any(const AttentionDesc& desc, const Target& target) noexcept {
  if (desc.head_dim > 1024) return "head sizes up to 1024";
  if (desc.y != DType::s8 && !is_float(desc.y)) return "writes s8 or floats";
  if (target.shared_bytes < 99 * 1024) return "needs 99 KB of shared memory a block";
  if (desc.dynamic) return is_float(desc.qkv) && is_8bit(desc.p) ? nullptr : "dynamic: floats, 8-bit probabilities";
  if (desc.qkv == DType::s8) return is_8bit(desc.p) ? nullptr : "s8 inputs need 8-bit probabilities";
  return is_float(desc.qkv) && is_float(desc.p) ? nullptr : "operand types";
}
void run_attention_any(const AttentionDesc& desc, const AttentionArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(attention_any(desc, args, stream_of(launch_on)), "attention_any_cuda");
}
void run_scores(const ScoresDesc& desc, const ScoresArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(scores_f32(desc, args, stream_of(launch_on)), "scores_f32_cuda");
}

// ---------------------------------------------------------------- norm and embed

const char* refuse_outputs(int count, const OutputDesc* outputs) noexcept {
  for (int i = 0; i < count; ++i)
    if (outputs[i].dtype != DType::s8 && !is_float(outputs[i].dtype)) return "writes s8 or floats";
  return nullptr;
}
MatrixOut output(const OutputDesc& desc, const NormOutput& out, int64_t n) noexcept {
  return {.data = out.y,
          .type = desc.dtype,
          .ld = n,
          .inv_scale = out.requant.inv_scale,
          .row_scale = desc.per_token ? out.row_scale : nullptr};
}

const char* refuse_norm(const NormDesc& desc, const Target&) noexcept {
  if (desc.n % 16 != 0 || desc.n > 4096) return "widths are multiples of 16 up to 4096";
  if ((desc.a != DType::s8 && !is_float(desc.a)) || (desc.residual && desc.b != DType::s8 && !is_float(desc.b)))
    return "takes s8 or floats";
  return refuse_outputs(desc.outputs, desc.y);
}
void run_norm(const NormDesc& desc, const kernels::NormArgs& args, const Launch& launch_on) noexcept {
  NormArgs a;
  a.a = {.data = args.a, .type = desc.a, .ld = desc.n, .scale = args.a_scale};
  if (desc.residual) a.b = {.data = args.b, .type = desc.b, .ld = desc.n, .scale = args.b_scale};
  a.gamma = args.gamma;
  a.beta = args.beta;
  a.eps = args.epsilon;
  for (int i = 0; i < desc.outputs; ++i) a.out[i] = output(desc.y[i], args.out[i], desc.n);
  a.tokens = args.m;
  a.hidden = narrow(desc.n);
  a.dependent_launch = kDependent;
  device::note_failure(add_norm(a, stream_of(launch_on)), "norm_cuda");
}

const char* refuse_embed(const EmbedDesc& desc, const Target&) noexcept {
  if (desc.n % 16 != 0 || desc.n > 4096) return "widths are multiples of 16 up to 4096";
  for (int t = 0; t < desc.tables; ++t)
    if (desc.table[t] != DType::s8 && !is_float(desc.table[t])) return "takes s8 or float tables";
  return refuse_outputs(desc.outputs, desc.y);
}
void run_embed(const EmbedDesc& desc, const kernels::EmbedArgs& args, const Launch& launch_on) noexcept {
  EmbedArgs a;
  // The kernel's names for its three tables do not matter: each is a table with its own index.
  EmbeddingTable* tables[] = {&a.word, &a.type, &a.position};
  const int32_t** indices[] = {&a.ids, &a.type_ids, &a.positions};
  for (int t = 0; t < desc.tables; ++t) {
    *tables[t] = {.data = args.table[t], .type = desc.table[t], .row_scale = args.table_scale[t]};
    *indices[t] = args.index[t];
  }
  a.position_mode = Positions::given;
  if (desc.norm) {
    a.gamma = args.gamma;
    a.beta = args.beta;
    a.eps = args.epsilon;
  }
  for (int i = 0; i < desc.outputs; ++i) a.out[i] = output(desc.y[i], args.out[i], desc.n);
  a.tokens = args.m;
  a.hidden = narrow(desc.n);
  a.dependent_launch = kDependent;
  device::note_failure(embed(a, stream_of(launch_on)), "embed_cuda");
}

// ---------------------------------------------------------------- pool and elementwise

const char* refuse_pool(const PoolDesc& desc, const Target&) noexcept {
  if (desc.n % 8 != 0 || desc.n > 8192) return "widths are multiples of 8 up to 8192";
  if (desc.x != DType::s8 && !is_float(desc.x)) return "takes s8 or floats";
  return is_float(desc.y) ? nullptr : "writes floats";
}
void run_pool(const PoolDesc& desc, const kernels::PoolArgs& args, const Launch& launch_on) noexcept {
  PoolArgs a;
  a.in = {.data = args.x, .type = desc.x, .ld = desc.n, .scale = args.x_scale};
  a.offsets = args.offsets;
  a.out = {.data = args.y, .type = desc.y, .ld = desc.n};
  a.pooling = desc.kind == PoolKind::first  ? Pooling::first
              : desc.kind == PoolKind::mean ? Pooling::mean
                                            : Pooling::max;
  a.normalize = desc.normalize;
  a.rows = narrow(args.rows);
  a.columns = narrow(desc.n);
  a.dependent_launch = kDependent;
  device::note_failure(pool(a, stream_of(launch_on)), "pool_cuda");
}

const char* refuse_elementwise(const ElementwiseDesc& desc, const Target&) noexcept {
  if (desc.n % 8 != 0) return "widths are multiples of 8";
  switch (desc.kind) {
    case ElementwiseKind::activation:
    case ElementwiseKind::add:
    case ElementwiseKind::convert: return is_float(desc.x) && is_float(desc.y) ? nullptr : "takes floats";
    case ElementwiseKind::quantize: return is_float(desc.x) && desc.y == DType::s8 ? nullptr : "writes s8";
    case ElementwiseKind::dequantize: return desc.x == DType::s8 && is_float(desc.y) ? nullptr : "takes s8";
    default: return "not on a GPU";
  }
}
void run_elementwise(const ElementwiseDesc& desc, const kernels::ElementwiseArgs& args,
                     const Launch& launch_on) noexcept {
  ElementwiseArgs a;
  a.a = {.data = args.x, .type = desc.x, .ld = desc.n, .scale = args.scale};
  if (desc.kind == ElementwiseKind::add) a.b = {.data = args.x2, .type = desc.x, .ld = desc.n};
  if (desc.kind == ElementwiseKind::activation) a.activation = unary(desc.activation);
  a.out = {.data = args.y, .type = desc.y, .ld = desc.n, .inv_scale = args.requant.inv_scale};
  a.rows = args.m;
  a.columns = narrow(desc.n);
  a.dependent_launch = kDependent;
  device::note_failure(elementwise(a, stream_of(launch_on)), "elementwise_cuda");
}

// The general rows: every type, zero point and range.
const char* refuse_wide(int64_t n) noexcept { return n > kWidestRow ? "widths up to 8192" : nullptr; }
const char* refuse_types(int count, const OutputDesc* outputs) noexcept {
  for (int i = 0; i < count; ++i)
    if (!is_8bit(outputs[i].dtype) && !is_float(outputs[i].dtype)) return "output type";
  return nullptr;
}
const char* refuse_norm_any(const NormDesc& desc, const Target&) noexcept {
  if (const char* reason = refuse_wide(desc.n)) return reason;
  if ((!is_8bit(desc.a) && !is_float(desc.a)) || (desc.residual && !is_8bit(desc.b) && !is_float(desc.b)))
    return "operand types";
  return refuse_types(desc.outputs, desc.y);
}
void run_norm_any(const NormDesc& desc, const kernels::NormArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(norm_any(desc, args, stream_of(launch_on)), "norm_any_cuda");
}
const char* refuse_embed_any(const EmbedDesc& desc, const Target&) noexcept {
  if (const char* reason = refuse_wide(desc.n)) return reason;
  for (int t = 0; t < desc.tables; ++t)
    if (desc.table[t] != DType::s8 && !is_float(desc.table[t])) return "table types";
  return refuse_types(desc.outputs, desc.y);
}
void run_embed_any(const EmbedDesc& desc, const kernels::EmbedArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(embed_any(desc, args, stream_of(launch_on)), "embed_any_cuda");
}
const char* refuse_pool_any(const PoolDesc& desc, const Target&) noexcept {
  if (const char* reason = refuse_wide(desc.n)) return reason;
  return (is_8bit(desc.x) || is_float(desc.x)) && is_float(desc.y) ? nullptr : "types";
}
void run_pool_any(const PoolDesc& desc, const kernels::PoolArgs& args, const Launch& launch_on) noexcept {
  device::note_failure(pool_any(desc, args, stream_of(launch_on)), "pool_any_cuda");
}
const char* refuse_elementwise_any(const ElementwiseDesc& desc, const Target&) noexcept {
  const bool floats = is_float(desc.x) && is_float(desc.y);
  switch (desc.kind) {
    case ElementwiseKind::activation:
    case ElementwiseKind::add:
    case ElementwiseKind::convert: return floats ? nullptr : "takes floats";
    case ElementwiseKind::normalize: return !floats ? "takes floats" : refuse_wide(desc.n);
    case ElementwiseKind::quantize: return is_float(desc.x) && is_8bit(desc.y) ? nullptr : "floats to 8 bits";
    case ElementwiseKind::quantize_token:
      return !is_float(desc.x) || desc.y != DType::s8 ? "floats to s8" : refuse_wide(desc.n);
    case ElementwiseKind::dequantize: return is_8bit(desc.x) && is_float(desc.y) ? nullptr : "8 bits to floats";
    case ElementwiseKind::fake_quant:
    case ElementwiseKind::fake_quant_token:
    case ElementwiseKind::fake_quant_row_channel:
      if (desc.x != DType::f32 || desc.y != DType::f32) return "takes f32";
      return desc.kind == ElementwiseKind::fake_quant_token ? refuse_wide(desc.n) : nullptr;
  }
  return "unknown kind";
}
void run_elementwise_any(const ElementwiseDesc& desc, const kernels::ElementwiseArgs& args,
                         const Launch& launch_on) noexcept {
  device::note_failure(elementwise_any(desc, args, stream_of(launch_on)), "elementwise_any_cuda");
}

template <typename Kernel>
Kernel row(std::string_view name, bool approximate) {
  Kernel kernel;
  kernel.name = name;
  kernel.device = DeviceKind::cuda;
  kernel.approximate = approximate;
  return kernel;
}
template <typename Kernel, typename Refuse, typename Run>
Kernel simple(std::string_view name, Refuse refuse_row, Run run_row) {
  Kernel kernel = row<Kernel>(name, true);
  kernel.symmetric = true;
  kernel.refuse = refuse_row;
  kernel.run = run_row;
  return kernel;
}
/// A row that computes what the reference does, for every range.
template <typename Kernel>
Kernel general(Kernel kernel, bool approximate = false) {
  kernel.symmetric = false;
  kernel.approximate = approximate;
  return kernel;
}
template <typename Refuse, typename Bytes, typename Pack, typename Run>
GemmKernel gemm(std::string_view name, Refuse refuse_row, Bytes bytes, Pack pack, Run run_row) {
  GemmKernel kernel = simple<GemmKernel>(name, refuse_row, run_row);
  kernel.packed_bytes = bytes;
  kernel.pack = pack;
  return kernel;
}
GemmKernel with_norm(GemmKernel kernel) {
  kernel.refuse_with_norm = refuse_pair;
  kernel.run_with_norm = run_sm90_with_norm;
  return kernel;
}
template <typename Refuse, typename Run>
AttentionKernel attention(std::string_view name, Refuse refuse_row, Run run_row) {
  AttentionKernel kernel = simple<AttentionKernel>(name, refuse_row, run_row);
  kernel.scratch_bytes = no_scratch;
  return kernel;
}
AttentionKernel attention_general() {
  AttentionKernel kernel = general(attention("attention_any_cuda", refuse_attention_any, run_attention_any));
  kernel.scratch_bytes_a_token = attention_any_scratch;
  return kernel;
}

}  // namespace

std::span<const GemmKernel> gemm_rows() noexcept {
  static const GemmKernel rows[] = {
      with_norm(gemm("gemm_s8_sm90a", refuse_s8, padded_bytes, pack_padded, run_sm90)),
      gemm("gemm_f16_sm90a", refuse_f16, padded_bytes, pack_padded, run_sm90),
      gemm("gemm_dense_cuda", refuse_dense, plain_bytes, pack_plain, run_dense),
      general(gemm("gemm_s8_sm80", refuse_s8_sm80, plain_bytes, pack_plain, run_gemm_sm80)),
      general(gemm("gemm_half_sm80", refuse_half_sm80, plain_bytes, pack_plain, run_gemm_sm80), true),
      general(gemm("gemm_any_cuda", refuse_gemm_any, plain_bytes, pack_plain, run_gemm_any))};
  return rows;
}
std::span<const AttentionKernel> attention_rows() noexcept {
  static const AttentionKernel rows[] = {
      attention("attention_s8u8_cuda", refuse_attention_s8, run_attention_s8),
      attention("attention_half_sm90a", refuse_attention_half_sm90, run_attention_half_sm90),
      attention("attention_half_cuda", refuse_attention_half, run_attention_half), attention_general()};
  return rows;
}
std::span<const NormKernel> norm_rows() noexcept {
  static const NormKernel rows[] = {simple<NormKernel>("norm_cuda", refuse_norm, run_norm),
                                    general(simple<NormKernel>("norm_any_cuda", refuse_norm_any, run_norm_any))};
  return rows;
}
std::span<const EmbedKernel> embed_rows() noexcept {
  static const EmbedKernel rows[] = {simple<EmbedKernel>("embed_cuda", refuse_embed, run_embed),
                                     general(simple<EmbedKernel>("embed_any_cuda", refuse_embed_any, run_embed_any))};
  return rows;
}
std::span<const PoolKernel> pool_rows() noexcept {
  static const PoolKernel rows[] = {simple<PoolKernel>("pool_cuda", refuse_pool, run_pool),
                                    general(simple<PoolKernel>("pool_any_cuda", refuse_pool_any, run_pool_any))};
  return rows;
}
std::span<const ElementwiseKernel> elementwise_rows() noexcept {
  static const ElementwiseKernel rows[] = {
      simple<ElementwiseKernel>("elementwise_cuda", refuse_elementwise, run_elementwise),
      general(simple<ElementwiseKernel>("elementwise_any_cuda", refuse_elementwise_any, run_elementwise_any))};
  return rows;
}
std::span<const ScoresKernel> scores_rows() noexcept {
  static const ScoresKernel rows[] = {general(simple<ScoresKernel>(
      "scores_f32_cuda",
      [](const ScoresDesc& desc, const Target&) noexcept -> const char* {
        return desc.exact ? "sums in f32" : nullptr;
      },
      run_scores))};
  return rows;
}

}  // namespace octet::kernels::cuda
