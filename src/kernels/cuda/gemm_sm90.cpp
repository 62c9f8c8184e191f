// Host side of the sm_90a GEMMs: the tiles, what they refuse, which one suits, and the launch.
#include "kernels/cuda/gemm_sm90.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>

#include "kernels/cuda/gemm_sm90_instances.h"
#include "kernels/cuda/gemm_sm90_norm.h"

namespace octet::kernels::cuda {
namespace {

/// Microseconds on an H200, for `choose`: launch and first data, end of a tile, more of it with GELU, a block of k.
struct Cost {
  double start, tile, gelu, block;
};
struct Instance {
  GemmTile tile;
  const void* (*kernel)(Out out, bool gelu);
  Cost cost;
};

constexpr Instance kInstances[] = {
    {{"stationary_s8_192_c2_g2", GemmFamily::stationary, DType::s8, 128, 192, 2, 1, 2},
     stationary_s8_192_c2_g2,
     {4.2, 0.35, 1.1, 0.46}},
    {{"stationary_s8_192_c1_g2", GemmFamily::stationary, DType::s8, 128, 192, 1, 1, 2},
     stationary_s8_192_c1_g2,
     {3.9, 0.45, 0.9, 0.49}},
    {{"stationary_s8_128_c2_g3", GemmFamily::stationary, DType::s8, 128, 128, 2, 1, 3},
     stationary_s8_128_c2_g3,
     {3.9, 0.2, 0.1, 0.33}},
    {{"stationary_s8_128_c1_g3", GemmFamily::stationary, DType::s8, 128, 128, 1, 1, 3},
     stationary_s8_128_c1_g3,
     {3.7, 0.25, 0.1, 0.35}},
    {{"stream_s8_256x192_c2x1", GemmFamily::stream, DType::s8, 256, 192, 2, 1, 1},
     stream_s8_256x192_c2x1,
     {1.0, 4.7, 1.0, 0.93}},
    {{"stream_s8_256x192_c1x2", GemmFamily::stream, DType::s8, 256, 192, 1, 2, 1},
     stream_s8_256x192_c1x2,
     {1.0, 4.8, 1.0, 0.96}},
    {{"stream_s8_256x192_c2x2", GemmFamily::stream, DType::s8, 256, 192, 2, 2, 1},
     stream_s8_256x192_c2x2,
     {6.0, 2.7, 1.0, 1.0}},
    {{"stream_s8_128x192_c2x1", GemmFamily::stream, DType::s8, 128, 192, 2, 1, 1},
     stream_s8_128x192_c2x1,
     {2.6, 1.5, 0.4, 0.48}},
    {{"stream_s8_128x128_c2x1", GemmFamily::stream, DType::s8, 128, 128, 2, 1, 1},
     stream_s8_128x128_c2x1,
     {2.4, 1.15, 0.3, 0.3}},
    {{"stream_s8_128x96_c1x2", GemmFamily::stream, DType::s8, 128, 96, 1, 2, 1},
     stream_s8_128x96_c1x2,
     {1.4, 1.25, 0.25, 0.25}},
    {{"stream_s8_256x128_c2x1", GemmFamily::stream, DType::s8, 256, 128, 2, 1, 1},
     stream_s8_256x128_c2x1,
     {2.6, 2.2, 0.6, 0.64}},
    {{"small_s8_64x16_k4", GemmFamily::small, DType::s8, 64, 16, 1, 1, 4}, small_s8_64x16_k4, {1.3, 0.6, 0.05, 0.11}},
    {{"small_s8_64x32_k4", GemmFamily::small, DType::s8, 64, 32, 1, 1, 4}, small_s8_64x32_k4, {1.4, 0.55, 0.05, 0.078}},
    {{"small_s8_64x48_k4", GemmFamily::small, DType::s8, 64, 48, 1, 1, 4}, small_s8_64x48_k4, {1.6, 1.15, 0.1, 0.13}},
    {{"small_s8_64x64_k4", GemmFamily::small, DType::s8, 64, 64, 1, 1, 4}, small_s8_64x64_k4, {1.6, 1.03, 0.1, 0.138}},
    {{"small_s8_64x96_k2", GemmFamily::small, DType::s8, 64, 96, 1, 1, 2}, small_s8_64x96_k2, {1.8, 1.35, 0.2, 0.186}},
    {{"small_s8_64x128_k2", GemmFamily::small, DType::s8, 64, 128, 1, 1, 2}, small_s8_64x128_k2, {1.9, 1.4, 0.25, 0.2}},
    {{"small_s8_64x192_k2", GemmFamily::small, DType::s8, 64, 192, 1, 1, 2}, small_s8_64x192_k2, {2.2, 1.7, 0.4, 0.24}},
    {{"stream_f16_256x192_c2x1", GemmFamily::stream, DType::f16, 256, 192, 2, 1, 1},
     stream_f16_256x192_c2x1,
     {3.0, 2.1, 2.0, 1.07}},
    {{"stream_f16_256x192_c1x2", GemmFamily::stream, DType::f16, 256, 192, 1, 2, 1},
     stream_f16_256x192_c1x2,
     {3.0, 2.1, 2.0, 1.12}},
    {{"stream_f16_128x192_c2x1", GemmFamily::stream, DType::f16, 128, 192, 2, 1, 1},
     stream_f16_128x192_c2x1,
     {2.9, 1.8, 1.0, 0.56}},
    {{"stream_f16_128x128_c2x1", GemmFamily::stream, DType::f16, 128, 128, 2, 1, 1},
     stream_f16_128x128_c2x1,
     {2.4, 1.3, 0.6, 0.38}},
    {{"small_f16_64x32_k4", GemmFamily::small, DType::f16, 64, 32, 1, 1, 4}, small_f16_64x32_k4, {1.4, 0.6, 0.1, 0.09}},
    {{"small_f16_64x64_k4", GemmFamily::small, DType::f16, 64, 64, 1, 1, 4}, small_f16_64x64_k4, {1.6, 1.1, 0.2, 0.16}},
    {{"small_f16_64x128_k2", GemmFamily::small, DType::f16, 64, 128, 1, 1, 2},
     small_f16_64x128_k2,
     {1.9, 1.5, 0.4, 0.24}}};
constexpr int kCount = std::size(kInstances);
constexpr int kSharedBytes = 232448;  // what a block may have on 9.0

constexpr auto kTiles = [] {
  std::array<GemmTile, kCount> tiles;
  for (int i = 0; i < kCount; ++i) tiles[i] = kInstances[i].tile;
  return tiles;
}();

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int element_bytes(DType type) { return type == DType::f16 ? 2 : type == DType::f32 ? 4 : 1; }
int k_blocks(const GemmDesc& desc) { return (int)divide_up(desc.k * element_bytes(desc.x), kBlockBytes); }

struct Shared {
  int stages = 0;
  int bytes = 0;
};
/// How the tile divides shared memory for this k.
Shared shared_of(const GemmDesc& desc, const GemmTile& tile) {
  const int blocks = k_blocks(desc), w = tile.columns * kBlockBytes;
  const int vectors = 3 * tile.columns * 4 * (tile.family == GemmFamily::stationary ? tile.split : 1),
            extra = vectors + kBarrierBytes;
  const int free = kSharedBytes - extra;
  if (tile.family == GemmFamily::stationary) {
    const int x = blocks * tile.rows * kBlockBytes, stages = std::min(8, (free - x) / w);
    return {stages, x + stages * w + extra};
  }
  const int stage = tile.rows * kBlockBytes + w;
  const int most = tile.family == GemmFamily::small ? std::min(32, blocks) : 12;
  int stages = std::min(most, free / stage);
  // A stage that is used again must belong to the same warpgroup: another one could take its first filling for the
  // second.
  if (stages < blocks) stages -= stages % tile.split;
  const int sums = tile.family == GemmFamily::small ? tile.split * 128 * tile.columns / 2 * 4 : 0;
  return {stages, std::max(stages * stage, sums) + extra};
}

using Encode = decltype(&cuTensorMapEncodeTiled);
/// The driver's function, found at run time so that nothing links against the driver.
Encode encode_function() {
  static const Encode function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) !=
        cudaSuccess)
      found = nullptr;
    return (Encode)found;
  }();
  return function;
}

bool encode(CUtensorMap* map, DType type, int rank, const void* base, const cuuint64_t* sizes,
            const cuuint64_t* strides, const cuuint32_t* box) {
  const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
  const Encode function = encode_function();
  return function != nullptr &&
         function(map, type == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, rank,
                  (void*)base, sizes, strides, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/// x as [m, k] in boxes of `rows` rows and 128 bytes.
bool encode_x(CUtensorMap* map, const GemmDesc& desc, const GemmArgs& args, int rows) {
  const int e = element_bytes(desc.x);
  const cuuint64_t sizes[] = {(cuuint64_t)desc.k, (cuuint64_t)args.m}, strides[] = {(cuuint64_t)(args.ldx * e)};
  const cuuint32_t box[] = {(cuuint32_t)(kBlockBytes / e), (cuuint32_t)rows};
  return encode(map, desc.x, 2, args.x, sizes, strides, box);
}

/// w as [n / group, i, t, e, k] with n = group g + (group / 4) t + 2i + e: the order of columns in
/// gemm_sm90_device.cuh.
bool encode_w(CUtensorMap* map, const GemmDesc& desc, const GemmArgs& args, int rows, int group) {
  const int e = element_bytes(desc.x);
  const cuuint64_t k = desc.k, pitch = k * e, v = group / 4;
  const cuuint64_t sizes[] = {k, 2, 4, v / 2, (cuuint64_t)(packed_rows(desc.n) / group)};
  const cuuint64_t strides[] = {pitch, v * pitch, 2 * pitch, group * pitch};
  const cuuint32_t box[] = {(cuuint32_t)(kBlockBytes / e), 2, 4, (cuuint32_t)(v / 2), (cuuint32_t)(rows / group)};
  return encode(map, desc.w, 5, args.packed, sizes, strides, box);
}

int multiprocessors() {
  static const int count = [] {
    int device = 0, value = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device);
    return value;
  }();
  return count;
}

Out out_of(DType type) { return type == DType::f16 ? Out::f16 : type == DType::f32 ? Out::f32 : Out::s8; }

/// Constants of the epilogue: see GemmDevice.
struct Quantization {
  float span, shift, base;
};
Quantization quantization(const Requant& r) {
  const float span = (float)(r.hi - r.lo);
  return {span, (float)(r.zero_point - r.lo) / span, kRoundMagic + (float)r.lo};
}

std::atomic<bool> shared_set[kCount][3][2];  // the shared-memory limit of an instance has been raised

}  // namespace

std::span<const GemmTile> gemm_tiles() noexcept { return kTiles; }

const char* refuse(const GemmDesc& desc, const GemmTile& tile) noexcept {
  if (desc.x != tile.type || desc.w != tile.type) return "other operand types";
  const bool integer = desc.x == DType::s8;
  if (desc.y != DType::f16 && desc.y != DType::f32 && !(integer && (desc.y == DType::s8 || desc.y == DType::u8)))
    return "output type is none of s8, u8 (from 8-bit operands), f16, f32";
  if (desc.activation != Activation::none && desc.activation != Activation::gelu_erf)
    return "activation is neither none nor erf GELU";
  if (desc.k * element_bytes(desc.x) % 16 != 0) return "rows of k are not a multiple of 16 bytes";
  if (desc.n % 8 != 0) return "n is not a multiple of 8";
  if (desc.column_offset) return "input with a zero point";
  if (desc.row_scale && !(integer && (desc.y == DType::f16 || desc.y == DType::f32)))
    return "a scale per token needs a float output";
  if (tile.family == GemmFamily::stationary && shared_of(desc, tile).stages < 3)
    return "k is too long to keep x in shared memory";
  return nullptr;
}

int launch(const GemmDesc& desc, const GemmArgs& args, const GemmTile& tile, CUstream_st* stream,
           bool dependent) noexcept {
  const int index = (int)(&tile - kTiles.data());
  const Out out = out_of(desc.y);
  const bool gelu = desc.activation == Activation::gelu_erf;
  const void* kernel = kInstances[index].kernel(out, gelu);
  const Shared shared = shared_of(desc, tile);
  std::atomic<bool>& set = shared_set[index][(int)out][gelu];
  if (!set.load(std::memory_order_relaxed)) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return error;
    set.store(true, std::memory_order_relaxed);
  }

  const int cm = tile.cluster_m, cn = tile.cluster_n, cluster = cm * cn;
  GemmDevice device{};
  device.m = (int)args.m, device.n = (int)desc.n, device.k_blocks = k_blocks(desc);
  device.tiles_m = (int)divide_up(args.m, (int64_t)tile.rows * cm),
  device.tiles_n = (int)divide_up(desc.n, (int64_t)tile.columns * cn);
  device.stages = shared.stages;
  device.ldy = (int)args.ldy, device.y = args.y;
  device.scale = args.scale, device.bias = desc.bias ? args.bias : nullptr, device.inv_scale = args.requant.inv_scale;
  device.row_scale = desc.row_scale ? args.row_scale : nullptr;
  const Quantization q = quantization(args.requant);
  device.span = q.span, device.shift = q.shift, device.base = q.base;
  device.folded = out == Out::s8 && !gelu;
  device.inv_factor = out != Out::s8 ? 1.0f : gelu ? 0.5f / q.span : 1.0f / q.span;

  CUtensorMap x_map, w_map;
  const int group = tile.columns % 32 == 0 ? 32 : 16;
  if (!encode_x(&x_map, desc, args, tile.rows / cn) || !encode_w(&w_map, desc, args, tile.columns / cm, group))
    return cudaErrorInvalidValue;

  const int64_t tiles = (int64_t)device.tiles_m * device.tiles_n;
  int64_t clusters = tiles;
  if (tile.family != GemmFamily::small) {
    const int64_t most = std::max(1, multiprocessors() / cluster);
    clusters = divide_up(tiles, divide_up(tiles, most));  // the fewest that need no more turns
  }
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};
  config.gridDim = dim3((unsigned)(clusters * cluster));
  config.blockDim = dim3(tile.family == GemmFamily::small        ? 128 * tile.split + 32
                         : tile.family == GemmFamily::stationary ? 128 * (tile.split + 1)
                                                                 : 384);
  config.dynamicSmemBytes = shared.bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {(unsigned)cluster, 1, 1};
  }
  if (dependent) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  void* parameters[] = {&x_map, &w_map, &device};
  return cudaLaunchKernelExC(&config, kernel, parameters);
}

namespace {

constexpr GemmNormTile kNormTiles[] = {
    {"norm_s8_128x384_c2", 128, 2, 768},  {"norm_s8_64x384_c2", 64, 2, 768},
    {"norm_s8_64x192_c4", 64, 4, 768},    {"norm_s8_few_c6", 64, 6, 768, true},
    {"norm_s8_few_c8", 64, 8, 768, true}, {"norm_s8_few_1024_c8", 64, 8, 1024, true}};
constexpr const void* (*kNormKernels[])() = {gemm_norm_128x384_c2, gemm_norm_64x384_c2, gemm_norm_64x192_c4,
                                             gemm_norm_few_c6,     gemm_norm_few_c8,    gemm_norm_few_1024_c8};
static_assert(std::size(kNormTiles) == std::size(kNormKernels));
std::atomic<bool> norm_set[std::size(kNormTiles)];

}  // namespace

std::span<const GemmNormTile> gemm_norm_tiles() noexcept { return kNormTiles; }

const char* refuse_with_norm(const GemmDesc& desc, const NormDesc& norm) noexcept {
  if (desc.x != DType::s8 || desc.w != DType::s8 || desc.y != DType::s8 || desc.activation != Activation::none ||
      desc.row_scale || desc.column_offset || desc.k % 16 != 0)
    return "takes s8 x s8 -> s8 without activation and row scales";
  if ((desc.n != 768 && desc.n != 1024) || norm.n != desc.n) return "takes 768 or 1024 columns";
  if (norm.a != DType::s8 || !norm.residual || norm.b != DType::s8 || norm.outputs != 1 ||
      norm.y[0].dtype != DType::s8 || norm.y[0].per_token)
    return "takes an s8 residual and one s8 output with fixed ranges";
  return nullptr;
}

int launch_with_norm(const GemmDesc& desc, const GemmArgs& args, const kernels::NormArgs& norm,
                     const GemmNormTile& tile, CUstream_st* stream, bool dependent) noexcept {
  const int index = (int)(&tile - kNormTiles), cluster = tile.cluster, n = tile.columns / cluster;
  if (desc.n != tile.columns) return cudaErrorInvalidValue;
  const void* kernel = kNormKernels[index]();
  if (!norm_set[index].load(std::memory_order_relaxed)) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return error;
    norm_set[index].store(true, std::memory_order_relaxed);
  }
  const int stage = (tile.rows + n) * kBlockBytes, extra = 6 * n * 4 + 2 * 3 * cluster * tile.rows * 4 + kBarrierBytes;
  GemmNormDevice device{};
  device.m = (int)args.m, device.k_blocks = k_blocks(desc), device.tiles = (int)divide_up(args.m, tile.rows);
  device.stages = std::min(12, (kSharedBytes - extra) / stage);
  device.residual = (const int8_t*)norm.b, device.y = (int8_t*)norm.out[0].y;
  device.scale = args.scale, device.bias = desc.bias ? args.bias : nullptr, device.inv_scale = args.requant.inv_scale;
  device.q_scale = norm.a_scale, device.residual_scale = norm.b_scale;
  device.gamma = norm.gamma, device.beta = norm.beta, device.out_inv = norm.out[0].requant.inv_scale;
  device.eps = norm.epsilon;
  const Quantization q = quantization(args.requant);
  device.span = q.span, device.shift = q.shift, device.base = q.base, device.inv_factor = 1.0f / q.span;
  device.magic = kRoundMagic + (float)args.requant.zero_point;

  CUtensorMap x_map, w_map, residual_map;
  const cuuint64_t sizes[] = {(cuuint64_t)desc.n, (cuuint64_t)args.m}, strides[] = {(cuuint64_t)desc.n};
  const cuuint32_t box[] = {128, (cuuint32_t)tile.rows};
  if (!encode_x(&x_map, desc, args, tile.few ? tile.rows : tile.rows / cluster) ||
      !encode_w(&w_map, desc, args, n, 32) || !encode(&residual_map, DType::s8, 2, norm.b, sizes, strides, box))
    return cudaErrorInvalidValue;
  const int64_t most = std::max(1, multiprocessors() / cluster);
  const int64_t clusters = tile.few ? device.tiles : divide_up(device.tiles, divide_up(device.tiles, most));
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config{};
  config.gridDim = dim3((unsigned)(clusters * cluster));
  config.blockDim = dim3(tile.few ? 288 : 512);
  config.dynamicSmemBytes = (size_t)(tile.few ? norm_few_shared(n, cluster) : device.stages * stage + extra);
  config.stream = stream;
  config.attrs = attributes;
  attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
  attributes[config.numAttrs++].val.clusterDim = {(unsigned)cluster, 1, 1};
  if (dependent) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  void* parameters[] = {&x_map, &w_map, &residual_map, &device};
  void* few[] = {&x_map, &w_map, &device};
  return cudaLaunchKernelExC(&config, kernel, tile.few ? few : parameters);
}

namespace {

/// Estimated microseconds of a tile that does not refuse.
double estimate(const GemmDesc& desc, int64_t m, int sms, int index) noexcept {
  const GemmTile& tile = kTiles[index];
  const Cost& cost = kInstances[index].cost;
  const int cluster = tile.cluster_m * tile.cluster_n;
  const int64_t tiles =
      divide_up(m, (int64_t)tile.rows * tile.cluster_m) * divide_up(desc.n, (int64_t)tile.columns * tile.cluster_n);
  const double turns = (double)divide_up(tiles, std::max(1, sms / cluster));
  const bool gelu = desc.activation == Activation::gelu_erf;
  const double turn = cost.tile + (gelu ? cost.gelu : 0.0) + cost.block * k_blocks(desc);
  // Blocks for few rows are not persistent: each turn starts anew.
  return tile.family == GemmFamily::small ? turns * (cost.start + turn) : cost.start + turns * turn;
}

}  // namespace

std::vector<const GemmTile*> by_cost(const GemmDesc& desc, int64_t m, int sms) {
  std::vector<std::pair<double, const GemmTile*>> order;
  for (int i = 0; i < kCount; ++i)
    if (refuse(desc, kTiles[i]) == nullptr) order.emplace_back(estimate(desc, m, sms, i), &kTiles[i]);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const GemmTile*> tiles;
  for (const auto& [us, tile] : order) tiles.push_back(tile);
  return tiles;
}

const GemmTile* choose(const GemmDesc& desc, int64_t m, int sms) noexcept {
  const GemmTile* best = nullptr;
  double least = 0;
  for (int i = 0; i < kCount; ++i) {
    if (refuse(desc, kTiles[i]) != nullptr) continue;
    const double us = estimate(desc, m, sms, i);
    if (best == nullptr || us < least) best = &kTiles[i], least = us;
  }
  return best;
}

}  // namespace octet::kernels::cuda
