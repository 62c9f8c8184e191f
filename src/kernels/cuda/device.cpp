// device.h on the CUDA runtime.
#include "kernels/device.h"

#include <cuda_runtime.h>

#include "core/error.h"
#include "kernels/cuda/transfer.h"

namespace octet::kernels::device {

namespace {

thread_local cudaError_t first_failure = cudaSuccess;
thread_local const char* failed_kernel = "";

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  bool memory = error == cudaErrorMemoryAllocation;
  cudaGetLastError();
  fail(memory ? ErrorCode::out_of_memory : ErrorCode::device,
       {.what = std::string("the GPU could not do ") + call,
        .expected = std::string("CUDA says: ") + cudaGetErrorName(error) + ", " + cudaGetErrorString(error),
        .hint = memory ? "use smaller batches, or bound them with --max-tokens"
                       : "if the GPU was lost, make a new session; see nvidia-smi"});
}

Info query() {
  Info info;
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    info.reason = error != cudaSuccess ? cudaGetErrorString(error) : "no CUDA device was found";
    return info;
  }
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    info.reason = "the properties of the CUDA device could not be read";
    return info;
  }
  info.name = properties.name;
  info.memory = static_cast<int64_t>(properties.totalGlobalMem);
  info.target = {.device = DeviceKind::cuda,
                 .sm = properties.major * 10 + properties.minor,
                 .sm_count = properties.multiProcessorCount,
                 .shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin)};
  int version = 0;
  cudaDriverGetVersion(&version);
  info.driver = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  if (info.target.sm < 80) {
    info.reason = info.name + " has compute capability " + std::to_string(properties.major) + "." +
                  std::to_string(properties.minor) + "; octet needs 8.0 or newer";
    return info;
  }
  info.present = true;
  return info;
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

const Info& find_device() {
  static const Info info = query();
  return info;
}

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "an allocation of device memory");
  return memory;
}
void release(void* memory) noexcept { cudaFree(memory); }
void* allocate_pinned(int64_t bytes) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "an allocation of pinned host memory");
  return memory;
}
void release_pinned(void* memory) noexcept { cudaFreeHost(memory); }

void* create_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "the creation of a stream");
  return stream;
}
void destroy_stream(void* stream) noexcept { cudaStreamDestroy(as_stream(stream)); }
void synchronize(void* stream) { check(cudaStreamSynchronize(as_stream(stream)), "the work of a stream"); }

void to_device(void* to, const void* from, int64_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, as_stream(stream)),
        "a copy to the device");
}
void to_host(void* to, const void* from, int64_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, as_stream(stream)),
        "a copy from the device");
}
void transfer(void* to, const void* from, int64_t bytes, void* stream) {
  check(cuda::transfer(to, from, bytes, as_stream(stream)), "a copy to or from the device");
}

void* capture(void* stream, const std::function<void()>& work) {
  check(cudaStreamBeginCapture(as_stream(stream), cudaStreamCaptureModeThreadLocal), "the start of a graph");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(as_stream(stream), &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(as_stream(stream), &graph), "the end of a graph");
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "the instantiation of a graph");
  return executable;
}
void launch(void* graph, void* stream) {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), as_stream(stream)), "the launch of a graph");
}
void destroy_graph(void* graph) noexcept { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

double time_ms(void* stream, const std::function<void()>& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "the creation of an event");
  check(cudaEventCreate(&end), "the creation of an event");
  check(cudaEventRecord(begin, as_stream(stream)), "an event");
  work();
  check(cudaEventRecord(end, as_stream(stream)), "an event");
  check(cudaEventSynchronize(end), "the timed work");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin, end), "a time");
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return ms;
}

void check_launch(const std::string& where) {
  cudaError_t error = first_failure != cudaSuccess ? first_failure : cudaGetLastError();
  if (error == cudaSuccess) return;
  std::string kernel = failed_kernel;
  first_failure = cudaSuccess;
  failed_kernel = "";
  fail(ErrorCode::device,
       {.what = "the GPU refused kernel " + kernel,
        .expected = std::string("CUDA says: ") + cudaGetErrorName(error) + ", " + cudaGetErrorString(error),
        .where = "in step " + where});
}

void note_failure(int cuda_error, const char* kernel) noexcept {
  if (cuda_error == cudaSuccess || first_failure != cudaSuccess) return;
  first_failure = static_cast<cudaError_t>(cuda_error);
  failed_kernel = kernel;
}

}  // namespace octet::kernels::device
