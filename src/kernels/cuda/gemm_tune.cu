// Which tile of the sm_90a GEMMs is fastest for a shape: by measuring the likely ones, once a process.
#include <cuda_runtime.h>

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/norm.h"
#include "kernels/device.h"
#include "kernels/tiles.h"

namespace octet::kernels::cuda {
namespace {

__global__ void fill(uint4* p, int64_t groups, uint32_t mask) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < groups; i += int64_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u, y = x ^ x >> 15;
    p[i] = make_uint4(x & mask, y & mask, (y * 2246822519u) & mask, (x * 3266489917u) & mask);
  }
}

constexpr int kLaunches = 16;                       // of a measured chain
constexpr int kRounds = 5;                          // of replays of every chain
constexpr size_t kCandidates = 8;                   // the rest of the cost model's order is not tried
constexpr int64_t kCacheBytes = int64_t(64) << 20;  // operands rotate over more than the second-level cache
constexpr int64_t kMostBytes = int64_t(1) << 30;

/// Enqueues launch i; dependent: on the one before it. Returns a cudaError_t.
using Go = std::function<int(int i, bool dependent)>;

int64_t element_bytes(DType type) { return type == DType::f16 ? 2 : type == DType::f32 ? 4 : 1; }

/// Operands of a shape, several sets of them.
struct Operands {
  unsigned char* memory = nullptr;
  float* vectors = nullptr;
  int64_t x = 0, w = 0, y = 0, sets = 0;
  cudaStream_t stream;
  // All on one stream: a wait for the whole device would spoil a capture that goes on elsewhere.
  Operands(const GemmDesc& desc, int64_t m, cudaStream_t on) : stream(on) {
    const auto round = [](int64_t bytes) { return (bytes + 1023) / 1024 * 1024; };
    x = round(m * desc.k * element_bytes(desc.x)), w = round(packed_rows(desc.n) * desc.k * element_bytes(desc.w));
    y = round(m * desc.n * element_bytes(desc.y));
    sets = std::clamp<int64_t>(kCacheBytes / (x + w + y) + 1, 2, kLaunches);
    if (sets * (x + w + y) > kMostBytes) return;
    const int64_t floats = std::max(m, desc.n);
    if (cudaMallocAsync(&memory, sets * (x + w + y), stream) != cudaSuccess ||
        cudaMallocAsync(&vectors, floats * 4, stream) != cudaSuccess) {
      cudaGetLastError();
      return;
    }
    // Halves stay finite without their highest exponent bit.
    fill<<<528, 256, 0, stream>>>(reinterpret_cast<uint4*>(memory), sets * (x + w + y) / 16,
                                  desc.x == DType::f16 ? 0xbfffbfffu : 0xffffffffu);
    cudaMemsetAsync(vectors, 0x3c, floats * 4, stream);  // 0.0115
  }
  ~Operands() {
    if (memory != nullptr) cudaFreeAsync(memory, stream);
    if (vectors != nullptr) cudaFreeAsync(vectors, stream);
    cudaStreamSynchronize(stream);
  }
  Operands(const Operands&) = delete;
  bool usable() const { return memory != nullptr && vectors != nullptr; }
  GemmArgs args(const GemmDesc& desc, int64_t m, int set) const {
    unsigned char* base = memory + set % sets * (x + w + y);
    GemmArgs a;
    a.m = m, a.x = base, a.ldx = desc.k, a.packed = base + x, a.y = base + x + w, a.ldy = desc.n;
    a.scale = a.bias = a.requant.inv_scale = vectors;
    a.row_scale = desc.row_scale ? vectors : nullptr;
    return a;
  }
};

/// A chain of dependent launches as a graph.
struct Chain {
  cudaGraphExec_t graph = nullptr;
  std::vector<float> ms;
  Chain(cudaStream_t stream, const Go& go) {
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) != cudaSuccess) return;
    bool good = true;
    for (int i = 0; i < kLaunches; ++i) good = good && go(i, i > 0) == 0;
    cudaGraph_t captured = nullptr;
    good = cudaStreamEndCapture(stream, &captured) == cudaSuccess && good;
    if (!good || cudaGraphInstantiate(&graph, captured, 0) != cudaSuccess) graph = nullptr;
    if (captured != nullptr) cudaGraphDestroy(captured);
  }
  Chain(Chain&& other) noexcept : graph(std::exchange(other.graph, nullptr)), ms(std::move(other.ms)) {}
  Chain& operator=(Chain&&) = delete;
  ~Chain() {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
  float median() {
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
  }
};

/// The quickest of several ways, or -1. Replays go in turns and medians decide: large products run into the power limit
/// after a few milliseconds, and whoever is measured before that looks best.
int quickest(cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end, const std::vector<Go>& ways) {
  std::vector<Chain> chains;
  for (const Go& go : ways) chains.emplace_back(stream, go);
  constexpr float kHopeless = 1.25f;
  for (int round = 0; round <= kRounds; ++round) {
    float least = 1e30f;
    for (Chain& chain : chains) {
      if (chain.graph == nullptr) continue;
      float ms = 0;
      const bool good = cudaEventRecord(begin, stream) == cudaSuccess &&
                        cudaGraphLaunch(chain.graph, stream) == cudaSuccess &&
                        cudaEventRecord(end, stream) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess &&
                        cudaEventElapsedTime(&ms, begin, end) == cudaSuccess;
      if (!good) ms = 1e30f;
      if (round > 0 || !good) chain.ms.push_back(ms);  // the first one warms up
      if (round > 0) least = std::min(least, ms);
    }
    if (round != 1) continue;
    for (Chain& chain : chains)
      if (chain.graph != nullptr && chain.ms[0] > kHopeless * least)
        cudaGraphExecDestroy(std::exchange(chain.graph, nullptr));
  }
  int best = -1;
  for (size_t i = 0; i < chains.size(); ++i)
    if (chains[i].graph != nullptr && chains[i].median() < 1e29f &&
        (best < 0 || chains[i].median() < chains[static_cast<size_t>(best)].median()))
      best = static_cast<int>(i);
  return best;
}

/// Calls try_all(operands, measure) with a stream that may be captured, whatever else is being captured.
template <typename TryAll>
void with_operands(const GemmDesc& desc, int64_t m, TryAll try_all) {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  if (cudaThreadExchangeStreamCaptureMode(&mode) != cudaSuccess) return;
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
      cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess) {
    const Operands operands(desc, m, stream);
    if (operands.usable())
      try_all(operands, stream, [&](const std::vector<Go>& ways) { return quickest(stream, begin, end, ways); });
  }
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  if (stream != nullptr) cudaStreamDestroy(stream);
  cudaGetLastError();
  cudaThreadExchangeStreamCaptureMode(&mode);
}

const GemmTile* fastest(const GemmDesc& desc, int64_t m, int multiprocessors) {
  std::vector<const GemmTile*> tiles = by_cost(desc, m, multiprocessors);
  if (tiles.size() < 2) return tiles.empty() ? nullptr : tiles[0];
  tiles.resize(std::min(tiles.size(), kCandidates));
  int best = 0;
  with_operands(desc, m, [&](const Operands& operands, cudaStream_t stream, auto quickest_of) {
    std::vector<Go> ways;
    for (const GemmTile* tile : tiles)
      ways.emplace_back([&, tile](int i, bool dependent) {
        return launch(desc, operands.args(desc, m, i), *tile, stream, dependent);
      });
    best = std::max(0, quickest_of(ways));
  });
  return tiles[static_cast<size_t>(best)];
}

/// The same for the pair of a GEMM and its LayerNorm; `apart` is the best tile of the GEMM alone.
const GemmNormTile* fastest_with_norm(const GemmDesc& desc, int64_t m, const GemmTile& apart) {
  const GemmNormTile* best = nullptr;
  with_operands(desc, m, [&](const Operands& operands, cudaStream_t stream, auto quickest_of) {
    const auto residual = [&](int i) { return operands.args(desc, m, i + 1).y; };
    std::vector<Go> ways;
    ways.emplace_back([&](int i, bool dependent) {
      const GemmArgs args = operands.args(desc, m, i);
      if (const int error = launch(desc, args, apart, stream, dependent)) return error;
      NormArgs norm;
      norm.a = {.data = args.y, .type = DType::s8, .ld = desc.n, .scale = operands.vectors};
      norm.b = {.data = residual(i), .type = DType::s8, .ld = desc.n, .scale = operands.vectors};
      norm.gamma = norm.beta = operands.vectors;
      norm.out[0] = {.data = args.y, .type = DType::s8, .ld = desc.n, .inv_scale = operands.vectors};
      norm.tokens = m, norm.hidden = (int)desc.n, norm.dependent_launch = true;
      return (int)add_norm(norm, stream);
    });
    std::vector<const GemmNormTile*> tiles;
    constexpr int64_t kFewRows = 4096, kManyRows = 256;  // more or fewer rows than a tile could be good for
    for (const GemmNormTile& tile : gemm_norm_tiles())
      if (tile.columns == desc.n && !(tile.few ? m > kFewRows : m < kManyRows)) tiles.push_back(&tile);
    for (const GemmNormTile* tile : tiles)
      ways.emplace_back([&, tile](int i, bool dependent) {
        const GemmArgs args = operands.args(desc, m, i);
        kernels::NormArgs norm;
        norm.m = m, norm.b = residual(i), norm.out[0].y = args.y;
        norm.a_scale = norm.b_scale = norm.gamma = norm.beta = norm.out[0].requant.inv_scale = operands.vectors;
        return launch_with_norm(desc, args, norm, *tile, stream, dependent);
      });
    if (const int quickest = quickest_of(ways); quickest > 0) best = tiles[static_cast<size_t>(quickest - 1)];
  });
  return best;
}

std::mutex guard;
std::map<std::string, const GemmTile*> found;  // for this process's device
std::map<std::string, const GemmNormTile*> found_with_norm;

/// Few shapes to measure: m in steps of a quarter of the power of two below.
int64_t rounded(int64_t m) {
  if (m <= 64) return (m + 15) / 16 * 16;
  int64_t step = 16;
  while (step * 8 <= m) step *= 2;
  return (m + step - 1) / step * step;
}
constexpr const char* kWithNorm = " norm";
constexpr const char* kApart = "apart";
std::string key_of(const GemmDesc& desc, int64_t m) {
  std::string key = std::to_string(rounded(m)) + "x" + std::to_string(desc.n) + "x" + std::to_string(desc.k) + " " +
                    std::string(name(desc.x)) + " " + std::string(name(desc.y));
  if (desc.activation == Activation::gelu_erf) key += " gelu";
  if (desc.row_scale) key += " token";
  return key;
}

}  // namespace

const GemmTile* tuned(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept {
  try {
    std::lock_guard lock(guard);
    auto [at, fresh] = found.try_emplace(key_of(desc, m), nullptr);
    // A plan's choice may be of another version.
    if (fresh || (at->second != nullptr && refuse(desc, *at->second) != nullptr))
      at->second = fastest(desc, rounded(m), multiprocessors);
    return at->second;
  } catch (...) {
    return choose(desc, m, multiprocessors);
  }
}

const GemmNormTile* tuned_with_norm(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept {
  try {
    const GemmTile* apart = tuned(desc, m, multiprocessors);
    if (apart == nullptr) return nullptr;
    std::lock_guard lock(guard);
    auto [at, fresh] = found_with_norm.try_emplace(key_of(desc, m), nullptr);
    if (fresh || (at->second != nullptr && at->second->columns != desc.n))
      at->second = fastest_with_norm(desc, rounded(m), *apart);
    return at->second;
  } catch (...) {
    return nullptr;
  }
}

void remember(const GemmDesc& desc, int64_t m, const GemmTile& tile) {
  std::lock_guard lock(guard);
  found[key_of(desc, m)] = &tile;
}

}  // namespace octet::kernels::cuda

namespace octet::kernels::device {

std::vector<int64_t> tile_rows(int64_t most) {
  std::vector<int64_t> rows;
  for (int64_t m = 1; m <= most; m = rows.back() + 1) rows.push_back(cuda::rounded(m));
  return rows;
}

std::string tile_key(const GemmDesc& desc, int64_t m, bool with_norm) {
  return cuda::key_of(desc, m) + (with_norm ? cuda::kWithNorm : "");
}

void measure_tile(const GemmDesc& desc, int64_t m, bool with_norm) {
  const Info& here = find_device();
  if (!here.present || here.target.sm != 90 || cuda::choose(desc, m, here.target.sm_count) == nullptr) return;
  cuda::tuned(desc, m, here.target.sm_count);
  if (with_norm) cuda::tuned_with_norm(desc, m, here.target.sm_count);
}

void remember_tiles(const Tiles& tiles) {
  std::lock_guard lock(cuda::guard);
  for (const auto& [key, tile] : tiles) {
    if (key.ends_with(cuda::kWithNorm)) {
      const std::string gemm = key.substr(0, key.size() - std::string(cuda::kWithNorm).size());
      if (tile == cuda::kApart) cuda::found_with_norm[gemm] = nullptr;
      for (const cuda::GemmNormTile& t : cuda::gemm_norm_tiles())
        if (t.name == tile) cuda::found_with_norm[gemm] = &t;
    } else {
      for (const cuda::GemmTile& t : cuda::gemm_tiles())
        if (t.name == tile) cuda::found[key] = &t;
    }
  }
}

Tiles known_tiles() {
  std::lock_guard lock(cuda::guard);
  Tiles tiles;
  for (const auto& [key, tile] : cuda::found)
    if (tile != nullptr) tiles[key] = tile->name;
  for (const auto& [key, tile] : cuda::found_with_norm)
    tiles[key + cuda::kWithNorm] = tile != nullptr ? std::string(tile->name) : cuda::kApart;
  return tiles;
}

}  // namespace octet::kernels::device
