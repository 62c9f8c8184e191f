// Which tile of the sm_90a GEMMs is fastest for a shape: by measuring the likely ones, once a process.
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "kernels/cuda/gemm_sm90.h"

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

/// Microseconds of one launch in a chain of dependent ones; negative when it cannot be measured.
double measure(const GemmDesc& desc, int64_t m, const GemmTile& tile, const Operands& operands, cudaStream_t stream,
               cudaEvent_t begin, cudaEvent_t end) {
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) != cudaSuccess) return -1;
  bool good = true;
  for (int i = 0; i < kLaunches; ++i) good = good && launch(desc, operands.args(desc, m, i), tile, stream, i > 0) == 0;
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

const GemmTile* fastest(const GemmDesc& desc, int64_t m, int multiprocessors) {
  std::vector<const GemmTile*> tiles = by_cost(desc, m, multiprocessors);
  if (tiles.size() < 2) return tiles.empty() ? nullptr : tiles[0];
  tiles.resize(std::min(tiles.size(), kCandidates));
  // This may happen while another stream of this thread is captured.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  if (cudaThreadExchangeStreamCaptureMode(&mode) != cudaSuccess) return tiles[0];
  const GemmTile* best = tiles[0];
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
      cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess) {
    const Operands operands(desc, m, stream);
    double least = 1e30;
    for (const GemmTile* tile : tiles) {
      if (!operands.usable()) break;
      const double us = measure(desc, m, *tile, operands, stream, begin, end);
      if (us > 0 && us < least) best = tile, least = us;
    }
  }
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  if (stream != nullptr) cudaStreamDestroy(stream);
  cudaGetLastError();
  cudaThreadExchangeStreamCaptureMode(&mode);
  return best;
}

using Key = std::tuple<int64_t, int64_t, DType, DType, Activation, bool, int64_t>;
std::mutex guard;
std::map<Key, const GemmTile*> found;  // for this process's device

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

void remember(const GemmDesc& desc, int64_t m, const GemmTile& tile) {
  std::lock_guard lock(guard);
  found[key_of(desc, m)] = &tile;
}

}  // namespace octet::kernels::cuda
