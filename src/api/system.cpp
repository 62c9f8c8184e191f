// What this machine is, and which kernel rows accept some shape on it.
#include <octet/system.h>

#include <fstream>

#include "core/target.h"
#include "core/threads.h"
#include "kernels/device.h"
#include "kernels/kernels.h"

namespace octet {

namespace {

using namespace kernels;

constexpr DType kFloats[] = {DType::f32, DType::f16, DType::bf16};
constexpr DType kTypes[] = {DType::s8, DType::u8, DType::f32, DType::f16, DType::bf16};

// Descriptors of the shapes that encoders have, one set a table: a row that accepts one of them is of use.
std::vector<GemmDesc> gemm_descs() {
  std::vector<GemmDesc> result;
  for (DType x : kTypes)
    for (DType y : kTypes)
      for (Activation activation : {Activation::none, Activation::gelu_erf})
        for (bool row_scale : {false, true}) {
          bool integer = x == DType::s8 || x == DType::u8;
          if (!integer && (row_scale || y == DType::s8 || y == DType::u8)) continue;
          result.push_back({.n = 768,
                            .k = 768,
                            .x = x,
                            .w = integer ? DType::s8 : x,
                            .y = y,
                            .row_scale = row_scale,
                            .activation = activation});
        }
  return result;
}
std::vector<AttentionDesc> attention_descs() {
  std::vector<AttentionDesc> result;
  for (int64_t head_dim : {32, 64}) {
    for (DType p : {DType::u8, DType::s8}) {
      for (DType y : kTypes) result.push_back({.heads = 12, .head_dim = head_dim, .qkv = DType::s8, .p = p, .y = y});
      for (DType x : kFloats)
        result.push_back({.heads = 12, .head_dim = head_dim, .qkv = x, .p = p, .y = x, .dynamic = true});
    }
    for (DType x : kFloats) result.push_back({.heads = 12, .head_dim = head_dim, .qkv = x, .p = DType::f32, .y = x});
  }
  return result;
}
std::vector<NormDesc> norm_descs() {
  std::vector<NormDesc> result;
  for (DType a : kTypes)
    for (bool residual : {false, true})
      for (DType y : kTypes)
        for (bool per_token : {false, true}) {
          if (per_token && y != DType::s8) continue;
          NormDesc desc{.n = 768, .a = a, .residual = residual, .b = a};
          desc.y[0] = {y, per_token};
          result.push_back(desc);
        }
  return result;
}
std::vector<EmbedDesc> embed_descs() {
  std::vector<EmbedDesc> result;
  for (DType table : kTypes)
    for (DType y : kTypes) {
      EmbedDesc desc{.n = 768, .tables = 3, .table = {table, table, table}, .norm = true};
      desc.y[0] = {y, false};
      result.push_back(desc);
    }
  return result;
}
std::vector<PoolDesc> pool_descs() {
  std::vector<PoolDesc> result;
  for (DType x : kTypes)
    for (DType y : kFloats)
      for (PoolKind kind : {PoolKind::first, PoolKind::mean, PoolKind::max})
        result.push_back({.n = 768, .kind = kind, .x = x, .y = y});
  return result;
}
std::vector<ElementwiseDesc> elementwise_descs() {
  using K = ElementwiseKind;
  std::vector<ElementwiseDesc> result;
  for (K kind : {K::activation, K::add, K::quantize, K::quantize_token, K::dequantize, K::fake_quant,
                 K::fake_quant_token, K::fake_quant_row_channel, K::normalize, K::convert})
    for (DType x : kTypes)
      for (DType y : kTypes)
        result.push_back({.kind = kind, .n = 768, .x = x, .y = y, .activation = Activation::gelu_erf});
  return result;
}
std::vector<ScoresDesc> scores_descs() {
  std::vector<ScoresDesc> result;
  for (ScoresKind kind : {ScoresKind::scores, ScoresKind::softmax, ScoresKind::context})
    result.push_back({.kind = kind, .heads = 12, .head_dim = 64});
  return result;
}

template <typename Kernel>
void add_rows(const char* table, std::span<const Kernel> rows, const std::vector<typename Kernel::Desc>& descs,
              const Target& cpu, std::vector<KernelInfo>* result) {
  const device::Info& gpu = device::find_device();
  for (const Kernel& row : rows) {
    KernelInfo info{
        .table = table, .name = std::string(row.name), .device = row.device == DeviceKind::cpu ? "cpu" : "cuda"};
    info.approximate = row.approximate;
    if (row.device == DeviceKind::cuda && !gpu.present) {
      info.reason = gpu.reason;
    } else {
      const Target& target = row.device == DeviceKind::cpu ? cpu : gpu.target;
      for (const auto& desc : descs) {
        const char* reason = row.refuse(desc, target);
        info.usable |= reason == nullptr;
        if (reason != nullptr && info.reason.empty()) info.reason = reason;
      }
      if (info.usable) info.reason.clear();
    }
    result->push_back(std::move(info));
  }
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (size_t at = line.find(": "); at != std::string::npos) return line.substr(at + 2);
  return "";
}

}  // namespace

SystemInfo system_info() {
  Target target = host_target();
  SystemInfo info;
  info.version = OCTET_VERSION;
  info.target = name(target);
  info.cpu = processor_name();
  for (const auto& [has, feature] : {std::pair{target.avx2, "avx2"},
                                     {target.avx_vnni, "avx_vnni"},
                                     {target.avx512, "avx512"},
                                     {target.avx512_vnni, "avx512_vnni"},
                                     {target.amx_int8, "amx_int8"},
                                     {target.amx_bf16, "amx_bf16"}})
    if (has) info.features.push_back(feature);
  info.cpus = available_cpus();
  add_rows("gemm", gemm_kernels(), gemm_descs(), target, &info.kernels);
  add_rows("attention", attention_kernels(), attention_descs(), target, &info.kernels);
  add_rows("norm", norm_kernels(), norm_descs(), target, &info.kernels);
  add_rows("embed", embed_kernels(), embed_descs(), target, &info.kernels);
  add_rows("pool", pool_kernels(), pool_descs(), target, &info.kernels);
  add_rows("elementwise", elementwise_kernels(), elementwise_descs(), target, &info.kernels);
  add_rows("scores", scores_kernels(), scores_descs(), target, &info.kernels);
  for (const KernelInfo& row : info.kernels) info.cuda_build |= row.device == "cuda";
  const device::Info& gpu = device::find_device();
  info.gpu = gpu.name;
  info.gpu_reason = gpu.reason;
  info.driver = gpu.driver;
  info.gpu_memory = gpu.memory;
  if (gpu.present) info.gpu_target = name(gpu.target);
  return info;
}

}  // namespace octet
