// What a node of a graph costs when its kernel does nothing: by dependent launch, shared memory, copies in and out.
//   launch_lab      microseconds of a replay, as the stream's events see it
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#define CUDA(x)                                                                               \
  do {                                                                                        \
    cudaError_t e_ = (x);                                                                     \
    if (e_ != cudaSuccess) std::printf("%s: %s\n", #x, cudaGetErrorString(e_)), std::exit(1); \
  } while (0)

__global__ void touch(const int* in, int* out, int early) {
  if (early) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (threadIdx.x < 32) out[blockIdx.x * 32 + threadIdx.x] = in[blockIdx.x * 32 + threadIdx.x] + 1;
}
__global__ void copy_words(const uint4* from, uint4* to, int n) {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) to[i] = from[i];
}

void kernel(cudaStream_t s, int blocks, int threads, int shared, bool dependent, const int* in, int* out) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks, config.blockDim = threads, config.dynamicSmemBytes = shared, config.stream = s;
  config.attrs = &attribute, config.numAttrs = dependent;
  CUDA(cudaLaunchKernelEx(&config, touch, in, out, 1));
}
void copy(cudaStream_t s, const void* from, void* to, int bytes) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = (bytes / 16 + 127) / 128, config.blockDim = 128, config.stream = s;
  config.attrs = &attribute, config.numAttrs = 1;
  CUDA(cudaLaunchKernelEx(&config, copy_words, (const uint4*)from, (uint4*)to, bytes / 16));
}

void measure(const char* what, const std::function<void(cudaStream_t)>& work) {
  cudaStream_t s;
  CUDA(cudaStreamCreate(&s));
  CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
  work(s);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA(cudaStreamEndCapture(s, &graph));
  CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t a, b;
  CUDA(cudaEventCreate(&a));
  CUDA(cudaEventCreate(&b));
  std::vector<float> us;
  for (int i = 0; i < 300; ++i) {
    CUDA(cudaEventRecord(a, s));
    CUDA(cudaGraphLaunch(exec, s));
    CUDA(cudaEventRecord(b, s));
    CUDA(cudaEventSynchronize(b));
    float ms;
    CUDA(cudaEventElapsedTime(&ms, a, b));
    us.push_back(ms * 1000);
  }
  std::sort(us.begin(), us.end());
  std::printf("%-60s %7.2f us\n", what, us[us.size() / 2]);
}

int main() {
  int *x, *y;
  unsigned char *host, *device;
  CUDA(cudaMalloc(&x, 1 << 20));
  CUDA(cudaMalloc(&y, 1 << 20));
  CUDA(cudaMalloc(&device, 1 << 20));
  CUDA(cudaMallocHost(&host, 1 << 20));
  CUDA(cudaMemset(x, 0, 1 << 20));
  CUDA(cudaFuncSetAttribute(touch, cudaFuncAttributeMaxDynamicSharedMemorySize, 200000));
  const auto chain = [&](cudaStream_t s, int n, int blocks, int threads, int shared, bool dependent) {
    for (int i = 0; i < n; ++i) kernel(s, blocks, threads, shared, dependent, i % 2 ? y : x, i % 2 ? x : y);
  };
  measure("1 kernel", [&](cudaStream_t s) { chain(s, 1, 1, 32, 0, false); });
  measure("8 kernels, dependent", [&](cudaStream_t s) { chain(s, 8, 1, 32, 0, true); });
  for (int bytes : {4096, 98304}) {
    std::printf("%d bytes in\n", bytes);
    measure("memcpy in, 8 kernels, memcpy out", [&](cudaStream_t s) {
      CUDA(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s));
      chain(s, 8, 1, 32, 0, true);
      CUDA(cudaMemcpyAsync(host, x, 256, cudaMemcpyDeviceToHost, s));
    });
    measure("kernel copies in, 8 kernels, memcpy out", [&](cudaStream_t s) {
      copy(s, host, device, bytes);
      chain(s, 8, 1, 32, 0, true);
      CUDA(cudaMemcpyAsync(host, x, 256, cudaMemcpyDeviceToHost, s));
    });
    measure("kernel copies in, 8 kernels, kernel copies out", [&](cudaStream_t s) {
      copy(s, host, device, bytes);
      chain(s, 8, 1, 32, 0, true);
      copy(s, x, host, 256);
    });
  }
  for (int blocks : {1, 12, 48, 132})
    for (int threads : {128, 544})
      for (int shared : {0, 100000, 200000}) {
        char what[100];
        std::snprintf(what, sizeof what, "48 x %3d blocks of %3d threads, %6d B shared, dependent", blocks, threads,
                      shared);
        measure(what, [&](cudaStream_t s) { chain(s, 48, blocks, threads, shared, true); });
      }
  measure("48 x 132 blocks of 544 threads, 200000 B shared, plain",
          [&](cudaStream_t s) { chain(s, 48, 132, 544, 200000, false); });
  measure("48 x 12 blocks of 544 threads, 200000 B shared, plain",
          [&](cudaStream_t s) { chain(s, 48, 12, 544, 200000, false); });
}
