// Which tile of the sm_90a GEMMs is fastest for a shape: by measuring the likely ones, once a process.
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/norm.h"

namespace octet::kernels::cuda {
namespace {

__global__ void fill(uint4* p, int64_t groups, uint32_t mask) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < groups; i += int64_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u, y = x ^ x >> 15;
    p[i] = make_uint4(x & mask, y & mask, (y * 2246822519u) & mask, (x * 3266489917u) & mask);
  }
}

constexpr int kLaunches = 16;                       // of a measured chain
constexpr size_t kCandidates = 8;                   // the rest of the cost model's order is not tried
constexpr int64_t kCacheBytes = int64_t(64) << 20;  // operands rotate over more than the second-level cache
constexpr int64_t kMostBytes = int64_t(1) << 30;

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

/// Microseconds of one `go(i, dependent)` in a chain of dependent launches; negative when it cannot be measured.
template <typename Go>
double measure(cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end, Go go) {
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) != cudaSuccess) return -1;
  bool good = true;
  for (int i = 0; i < kLaunches; ++i) good = good && go(i, i > 0) == 0;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  good = cudaStreamEndCapture(stream, &graph) == cudaSuccess && good;
  good = good && cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess;
  float least = 1e30f;
  for (int r = 0; good && r < 4; ++r) {
    float ms = 0;
    good = cudaEventRecord(begin, stream) == cudaSuccess && cudaGraphLaunch(executable, stream) == cudaSuccess &&
           cudaEventRecord(end, stream) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess &&
           cudaEventElapsedTime(&ms, begin, end) == cudaSuccess;
    if (r > 0) least = std::min(least, ms);
  }
  if (executable != nullptr) cudaGraphExecDestroy(executable);
  if (graph != nullptr) cudaGraphDestroy(graph);
  return good ? 1e3 * least / kLaunches : -1;
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
    if (operands.usable()) try_all(operands, stream, [&](auto go) { return measure(stream, begin, end, go); });
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
  const GemmTile* best = tiles[0];
  with_operands(desc, m, [&](const Operands& operands, cudaStream_t stream, auto measured) {
    double least = 1e30;
    for (const GemmTile* tile : tiles) {
      const double us = measured(
          [&](int i, bool dependent) { return launch(desc, operands.args(desc, m, i), *tile, stream, dependent); });
      if (us > 0 && us < least) best = tile, least = us;
    }
  });
  return best;
}

/// The same for the pair of a GEMM and its LayerNorm; `apart` is the best tile of the GEMM alone.
const GemmNormTile* fastest_with_norm(const GemmDesc& desc, int64_t m, const GemmTile& apart) {
  const GemmNormTile* best = nullptr;
  with_operands(desc, m, [&](const Operands& operands, cudaStream_t stream, auto measured) {
    const auto residual = [&](int i) { return operands.args(desc, m, i + 1).y; };
    double least = measured([&](int i, bool dependent) {
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
    for (const GemmNormTile& tile : gemm_norm_tiles()) {
      const double us = measured([&](int i, bool dependent) {
        const GemmArgs args = operands.args(desc, m, i);
        kernels::NormArgs norm;
        norm.m = m, norm.b = residual(i), norm.out[0].y = args.y;
        norm.a_scale = norm.b_scale = norm.gamma = norm.beta = norm.out[0].requant.inv_scale = operands.vectors;
        return launch_with_norm(desc, args, norm, tile, stream, dependent);
      });
      if (us > 0 && us < least) best = &tile, least = us;
    }
  });
  return best;
}

using Key = std::tuple<int64_t, int64_t, DType, DType, Activation, bool, int64_t>;
std::mutex guard;
std::map<Key, const GemmTile*> found;  // for this process's device
std::map<Key, const GemmNormTile*> found_with_norm;

/// Few shapes to measure: m in steps of a quarter of the power of two below.
int64_t rounded(int64_t m) {
  if (m <= 64) return (m + 15) / 16 * 16;
  int64_t step = 16;
  while (step * 8 <= m) step *= 2;
  return (m + step - 1) / step * step;
}
Key key_of(const GemmDesc& desc, int64_t m) {
  return {desc.n, desc.k, desc.x, desc.y, desc.activation, desc.row_scale, rounded(m)};
}

}  // namespace

const GemmTile* tuned(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept {
  try {
    std::lock_guard lock(guard);
    auto [at, fresh] = found.try_emplace(key_of(desc, m), nullptr);
    if (fresh) at->second = fastest(desc, rounded(m), multiprocessors);
    return at->second;
  } catch (...) {
    return choose(desc, m, multiprocessors);
  }
}

const GemmNormTile* tuned_with_norm(const GemmDesc& desc, int64_t m, int multiprocessors) noexcept {
  constexpr int64_t kLeast = 256;  // below, too few blocks would work
  if (m < kLeast) return nullptr;
  try {
    const GemmTile* apart = tuned(desc, m, multiprocessors);
    if (apart == nullptr) return nullptr;
    std::lock_guard lock(guard);
    auto [at, fresh] = found_with_norm.try_emplace(key_of(desc, m), nullptr);
    if (fresh) at->second = fastest_with_norm(desc, rounded(m), *apart);
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
