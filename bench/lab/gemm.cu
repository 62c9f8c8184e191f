// Laboratory of the CUDA GEMMs: checks every tile against a scalar kernel on fresh random data, then times chosen shapes.
//   gemm_lab check [seed [PART]]      all tiles (with PART in their name) x odd shapes x outputs; 8-bit and GELU-free results bit for bit
//   gemm_lab time M N K in out gelu [tile ...]   medians of graph replays, inputs rotated beyond the second-level cache
//   gemm_lab model M hidden ffn [f16] the four GEMMs of an encoder layer, best tiles first; * marks what `choose` takes
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <cuda_fp16.h>

#include "core/int8.h"
#include "kernels/cuda/gemm_sm90.h"

using namespace octet;
using namespace octet::kernels;

const char* g_now = "";
#define CHECK(call)                                                                                     \
  do {                                                                                                  \
    cudaError_t e_ = (cudaError_t)(call);                                                               \
    if (e_ != cudaSuccess) {                                                                            \
      printf("%s:%d %s: %s (%s)\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_), g_now);                    \
      exit(1);                                                                                          \
    }                                                                                                   \
  } while (0)

__device__ uint32_t mix(uint64_t x) {
  x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull, x ^= x >> 33;
  return (uint32_t)x;
}
__global__ void fill_s8(int8_t* p, int64_t n, uint64_t seed) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
    p[i] = (int8_t)((int)(mix(i + seed * 0x9e3779b97f4a7c15ull) % 255) - 127);
}
__global__ void fill_f16(__half* p, int64_t n, uint64_t seed) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
    p[i] = __float2half(((int)(mix(i + seed * 0x9e3779b97f4a7c15ull) % 2001) - 1000) * 1e-3f);
}
__global__ void fill_f32(float* p, int64_t n, uint64_t seed, float lo, float hi) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
    p[i] = lo + (hi - lo) * (mix(i + seed * 0x9e3779b97f4a7c15ull) * 0x1p-32f);
}

/// counts: [0] wrong, [1] off by one (8-bit).
__global__ void compare(GemmDesc d, GemmArgs a, const void* w, unsigned long long* counts, float* worst) {
  const int64_t at = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (at >= a.m * d.n) return;
  const int64_t i = at / d.n, j = at % d.n;
  float y;
  if (d.x == DType::s8) {
    const int* px = (const int*)((const int8_t*)a.x + i * a.ldx);
    const int* pw = (const int*)((const int8_t*)w + j * d.k);
    int acc = 0;
    for (int k = 0; k < d.k / 4; ++k) acc = __dp4a(px[k], pw[k], acc);
    const float bias = d.bias ? a.bias[j] : 0.0f;
    y = d.row_scale ? int8::rescale_row(acc, a.row_scale[i], a.scale[j], bias) : int8::rescale(acc, a.scale[j], bias);
  } else {
    double acc = 0;
    for (int k = 0; k < d.k; ++k)
      acc += (double)__half2float(((const __half*)a.x)[i * a.ldx + k]) * __half2float(((const __half*)w)[j * d.k + k]);
    y = (float)(acc + (d.bias ? a.bias[j] : 0.0f));
  }
  if (d.activation == Activation::gelu_erf) y = int8::gelu_erf(y);
  if (d.y == DType::s8) {
    const int q = int8::quantize(y, a.requant.inv_scale[j], a.requant.zero_point, a.requant.lo, a.requant.hi);
    const int got = ((const int8_t*)a.y)[i * a.ldy + j], off = abs(q - got);
    if (off > 1 || (off == 1 && d.activation == Activation::none)) atomicAdd(counts, 1ull);
    if (off == 1) atomicAdd(counts + 1, 1ull);
  } else {
    const float got = d.y == DType::f16 ? __half2float(((const __half*)a.y)[i * a.ldy + j]) : ((const float*)a.y)[i * a.ldy + j];
    const bool exact = d.x == DType::s8 && d.activation == Activation::none;
    const float want = d.y == DType::f16 ? __half2float(__float2half(y)) : y;
    const float error = fabsf(got - want), limit = exact ? 0.0f : 5e-5f + fabsf(want) * (d.y == DType::f16 ? 2e-3f : 2e-5f) + (d.x == DType::f16 ? 2e-4f : 0);
    if (!(error <= limit)) atomicAdd(counts, 1ull);
  }
}

int bytes_of(DType t) { return t == DType::f16 ? 2 : t == DType::f32 ? 4 : 1; }

struct Problem {
  GemmDesc desc;
  GemmArgs args;
  std::vector<void*> owned;
  void* w = nullptr;
  int64_t y_bytes = 0;
  void* take(int64_t bytes) {
    void* p;
    CHECK(cudaMalloc(&p, bytes));
    owned.push_back(p);
    return p;
  }
  Problem(GemmDesc d, int64_t m, uint64_t seed, int pad = 0) : desc(d) {
    const int e = bytes_of(d.x);
    args.m = m, args.ldx = d.k + pad * 16, args.ldy = d.n + pad * 16;
    const int64_t rows = cuda::packed_rows(d.n);
    void* x = take(m * args.ldx * e);
    w = take(rows * d.k * e);
    CHECK(cudaMemset(w, 0, rows * d.k * e));
    if (d.x == DType::s8) {
      fill_s8<<<1024, 256>>>((int8_t*)x, m * args.ldx, seed);
      fill_s8<<<1024, 256>>>((int8_t*)w, d.n * d.k, seed + 1);
    } else {
      fill_f16<<<1024, 256>>>((__half*)x, m * args.ldx, seed);
      fill_f16<<<1024, 256>>>((__half*)w, d.n * d.k, seed + 1);
    }
    float* vectors = (float*)take(3 * d.n * 4 + m * 4);
    const float unit = 1.0f / (73.0f * 73.0f * sqrtf((float)d.k));  // accumulator's standard deviation
    fill_f32<<<64, 256>>>(vectors, d.n, seed + 2, 0.5f * unit, 2.0f * unit);
    fill_f32<<<64, 256>>>(vectors + d.n, d.n, seed + 3, -1.0f, 1.0f);
    fill_f32<<<64, 256>>>(vectors + 2 * d.n, d.n, seed + 4, 20.0f, 60.0f);
    fill_f32<<<64, 256>>>(vectors + 3 * d.n, m, seed + 5, 0.5f, 1.5f);
    args.x = x, args.packed = (const unsigned char*)w;
    args.scale = vectors, args.bias = vectors + d.n, args.requant = {vectors + 2 * d.n, 0, -127, 127};
    args.row_scale = vectors + 3 * d.n;
    y_bytes = m * args.ldy * bytes_of(d.y);
    args.y = take(y_bytes + 4096);
    CHECK(cudaMemset(args.y, 0x7f, y_bytes + 4096));
  }
  ~Problem() {
    for (void* p : owned) cudaFree(p);
  }
  Problem(const Problem&) = delete;
};

unsigned long long* g_counts;

/// Waits for the device, but not for ever: a kernel that hangs ends the program with its name.
void finish(std::string_view what) {
  const auto start = std::chrono::steady_clock::now();
  cudaError_t state;
  while ((state = cudaStreamQuery(nullptr)) == cudaErrorNotReady)
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(3)) {
      printf("HANGS: %s\n", what.data());
      fflush(stdout);
      _exit(3);
    }
  if (state != cudaSuccess) {
    printf("FAILS: %s: %s\n", what.data(), cudaGetErrorString(state));
    fflush(stdout);
    _exit(4);
  }
}

bool check_one(const GemmDesc& desc, int64_t m, const cuda::GemmTile& tile, uint64_t seed, bool dependent) {
  Problem p(desc, m, seed, seed % 3 == 0);
  CHECK(cuda::launch(desc, p.args, tile, nullptr, dependent));
  finish(tile.name);
  CHECK(cudaMemset(g_counts, 0, 16));
  compare<<<(unsigned)((m * desc.n + 255) / 256), 256>>>(desc, p.args, p.w, g_counts, nullptr);
  unsigned long long counts[2];
  CHECK(cudaMemcpy(counts, g_counts, 16, cudaMemcpyDeviceToHost));
  std::vector<unsigned char> y(p.y_bytes + 4096);
  CHECK(cudaMemcpy(y.data(), p.args.y, y.size(), cudaMemcpyDeviceToHost));
  int64_t dirty = 0;
  for (int64_t i = p.y_bytes; i < (int64_t)y.size(); ++i) dirty += y[i] != 0x7f;
  const int64_t row = p.args.ldy * bytes_of(desc.y), used = desc.n * bytes_of(desc.y);
  for (int64_t r = 0; r < m; ++r)
    for (int64_t i = used; i < row; ++i) dirty += y[r * row + i] != 0x7f;
  const double share = (double)counts[1] / (m * desc.n);
  const bool good = counts[0] == 0 && dirty == 0 && share < 0.01;
  if (!good || (desc.activation != Activation::none && share > 0.004))
    printf("%s %s m %lld n %lld k %lld y %d gelu %d row_scale %d: wrong %llu, off by one %.3f %%, canaries %lld\n", good ? "note" : "BAD",
           tile.name.data(), (long long)m, (long long)desc.n, (long long)desc.k, (int)desc.y, desc.activation != Activation::none,
           desc.row_scale, counts[0], 100 * share, (long long)dirty);
  return good;
}

int check(uint64_t seed, const std::string& only) {
  std::mt19937_64 random(seed);
  int done = 0, bad = 0;
  for (const cuda::GemmTile& tile : cuda::gemm_tiles()) {
    if (tile.name.find(only) == std::string_view::npos) continue;
    const int before = bad;
    struct { int64_t m, n, k; } shapes[] = {{1, 768, 768}, {127, 768, 768}, {129, 2304, 768}, {1000, 768, 768}, {515, 384, 384}, {257, 1024, 1024},
                                            {300, 768, 3072}, {61, 1008, 272}, {2049, 3072, 768}, {333, 48, 112}, {9000, 768, 768}};
    for (auto s : shapes)
      for (int kind = 0; kind < 6; ++kind) {
        if (s.m > 2000 && kind > 0) continue;
        if (tile.family == cuda::GemmFamily::small && s.m > 1100) continue;
        GemmDesc d{.n = s.n, .k = s.k, .x = tile.type, .w = tile.type};
        d.y = kind < 2 ? DType::s8 : kind < 4 ? DType::f16 : DType::f32;
        if (kind % 2) d.activation = Activation::gelu_erf;
        d.row_scale = tile.type == DType::s8 && kind == 4;
        d.bias = kind != 2;
        if (cuda::refuse(d, tile)) continue;
        ++done;
        bad += !check_one(d, s.m, tile, random(), kind == 0);
      }
    printf("%-28s %s\n", tile.name.data(), bad == before ? "ok" : "BAD");
    fflush(stdout);
  }
  printf("%d checks, %d bad\n", done, bad);
  return bad != 0;
}

int sm_clock() {
  static void* lib = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!lib) return 0;
  static void* device = [] {
    void* d = nullptr;
    ((int (*)())dlsym(lib, "nvmlInit_v2"))();
    ((int (*)(unsigned, void**))dlsym(lib, "nvmlDeviceGetHandleByIndex_v2"))(0, &d);
    return d;
  }();
  unsigned mhz = 0;
  ((int (*)(void*, int, unsigned*))dlsym(lib, "nvmlDeviceGetClockInfo"))(device, 1, &mhz);
  return (int)mhz;
}

struct Timing {
  double us = 0, least = 0;
  int mhz = 0;
};

Timing time_tile(std::vector<Problem*>& problems, const cuda::GemmTile& tile, bool dependent, double seconds) {
  g_now = tile.name.data();
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const int launches = std::max<int>(24, problems.size());
  for (int i = 0; i < launches; ++i) {
    Problem& p = *problems[i % problems.size()];
    CHECK(cuda::launch(p.desc, p.args, tile, stream, dependent && i > 0));
  }
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t a, b;
  CHECK(cudaEventCreate(&a));
  CHECK(cudaEventCreate(&b));
  std::vector<float> times;
  double total = 0;
  Timing t;
  for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, stream));
  CHECK(cudaStreamSynchronize(stream));
  while (total < seconds * 1e3 || times.size() < 5) {
    CHECK(cudaEventRecord(a, stream));
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaEventRecord(b, stream));
    if (times.size() == 20) t.mhz = sm_clock();
    CHECK(cudaEventSynchronize(b));
    float ms;
    CHECK(cudaEventElapsedTime(&ms, a, b));
    times.push_back(ms);
    total += ms;
  }
  std::sort(times.begin(), times.end());
  t.us = times[times.size() / 2] * 1e3 / launches, t.least = times[0] * 1e3 / launches;
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(a);
  cudaEventDestroy(b);
  cudaStreamDestroy(stream);
  return t;
}

void time_shape(const GemmDesc& desc, int64_t m, const std::vector<std::string>& only, double seconds) {
  const int64_t bytes = m * desc.k * bytes_of(desc.x) + desc.n * desc.k * bytes_of(desc.w) + m * desc.n * bytes_of(desc.y);
  const int sets = (int)std::clamp<int64_t>(150'000'000 / bytes + 1, 3, 48);
  std::vector<Problem*> problems;
  for (int i = 0; i < sets; ++i) problems.push_back(new Problem(desc, m, 1000 + 10 * i));
  struct Result { double us; std::string line; };
  std::vector<Result> results;
  for (const cuda::GemmTile& tile : cuda::gemm_tiles()) {
    if (cuda::refuse(desc, tile)) continue;
    if (!only.empty() && std::find(only.begin(), only.end(), tile.name) == only.end()) continue;
    if (only.empty() && tile.family == cuda::GemmFamily::small && m > 2100) continue;
    CHECK(cuda::launch(desc, problems[0]->args, tile, nullptr, false));
    finish(tile.name);
    Timing plain = time_tile(problems, tile, false, seconds), chained = time_tile(problems, tile, true, seconds);
    const double us = std::min(plain.us, chained.us), tops = 2.0 * m * desc.n * desc.k / us * 1e-6;
    const double peak = desc.x == DType::s8 ? 1979 : 989.5;
    char line[256];
    snprintf(line, sizeof line, "%6lld x %4lld x %4lld %s->%s%s %c%-26s %7.2f us, dependent %7.2f us (least %7.2f)  %6.0f TOPS %5.1f %%  %d MHz",
             (long long)m, (long long)desc.n, (long long)desc.k, desc.x == DType::s8 ? "s8" : "f16", desc.y == DType::s8 ? "s8" : desc.y == DType::f16 ? "f16" : "f32",
             desc.activation != Activation::none ? "+gelu" : "", &tile == cuda::choose(desc, m, 132) ? '*' : ' ', tile.name.data(), plain.us, chained.us, std::min(plain.least, chained.least), tops, 100 * tops / peak, chained.mhz);
    results.push_back({us, line});
  }
  std::sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.us < b.us; });
  for (size_t i = 0; i < results.size(); ++i)
    if (i < 5 || results[i].line.find('*') != std::string::npos) printf("%s\n", results[i].line.c_str());
  printf("\n");
  fflush(stdout);
  for (Problem* p : problems) delete p;
}

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "check";
  CHECK(cudaMalloc(&g_counts, 16));
  if (verb == "check") return check(argc > 2 ? atoi(argv[2]) : std::random_device{}(), argc > 3 ? argv[3] : "");
  const double seconds = getenv("SECONDS_EACH") ? atof(getenv("SECONDS_EACH")) : 0.02;
  auto type = [](const char* s) { return !strcmp(s, "s8") ? DType::s8 : !strcmp(s, "f16") ? DType::f16 : DType::f32; };
  if (verb == "time" && argc >= 8) {
    GemmDesc d{.n = atoi(argv[3]), .k = atoi(argv[4]), .x = type(argv[5]), .w = type(argv[5]), .y = type(argv[6])};
    if (atoi(argv[7])) d.activation = Activation::gelu_erf;
    time_shape(d, atoi(argv[2]), std::vector<std::string>(argv + 8, argv + argc), seconds);
  } else if (verb == "model" && argc >= 5) {
    const int64_t m = atoi(argv[2]), h = atoi(argv[3]), f = atoi(argv[4]);
    const DType in = argc > 5 ? type(argv[5]) : DType::s8;
    struct { int64_t n, k; bool gelu; } shapes[] = {{3 * h, h, false}, {h, h, false}, {f, h, true}, {h, f, false}};
    for (auto s : shapes) {
      GemmDesc d{.n = s.n, .k = s.k, .x = in, .w = in, .y = in};
      if (s.gelu) d.activation = Activation::gelu_erf;
      time_shape(d, m, {}, seconds);
    }
  }
  CHECK(cudaDeviceSynchronize());
}
