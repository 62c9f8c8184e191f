// device.h on the CUDA runtime.
#include "kernels/device.h"

#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "kernels/cuda/general.h"
#include "kernels/cuda/observe.h"
#include "kernels/cuda/transfer.h"

namespace octet::kernels::device {

namespace {

thread_local cudaError_t first_failure = cudaSuccess;
thread_local const char* failed_kernel = "";

std::atomic<uint64_t> generations{1};
std::atomic<bool> lost{false};

// Some failures stay: every later call returns them until the device is reset.
void note_lost() noexcept {
  cudaGetLastError();
  if (cudaFree(nullptr) != cudaSuccess) lost = true;
  cudaGetLastError();
}

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  bool memory = error == cudaErrorMemoryAllocation;
  if (!memory) note_lost();
  cudaGetLastError();
  fail(memory ? ErrorCode::out_of_memory : ErrorCode::device,
       {.what = std::string("the GPU could not do ") + call,
        .expected = std::string("CUDA says: ") + cudaGetErrorName(error) + ", " + cudaGetErrorString(error),
        .hint = memory ? "use smaller batches, or bound them with --max-tokens"
                       : "if the GPU was lost, make a new session, and where that fails start the program again; see "
                         "nvidia-smi"});
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
  int clock_khz = 0, memory_khz = 0, bus_bits = 0;
  cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0);
  cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, 0);
  cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, 0);
  info.clock_hz = 1e3 * clock_khz;
  info.memory_bytes_s = 2e3 * memory_khz * bus_bits / 8;  // two transfers a clock
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

uint64_t generation() noexcept { return generations; }
void recover() {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (!lost) return;
  ++generations;
  // The driver takes its time to let go of the old context.
  cudaError_t error = cudaErrorUnknown;
  for (int attempt = 0; attempt < 50 && error != cudaSuccess; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cudaDeviceReset();
    cudaGetLastError();
    error = cudaFree(nullptr);
  }
  cudaGetLastError();
  lost = error != cudaSuccess;
  check(error, "its setting up after a failure");
}

int64_t free_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "a look at its memory");
  return static_cast<int64_t>(free);
}

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "an allocation of device memory");
  return memory;
}
void release(void* memory, uint64_t of_generation) noexcept {
  if (of_generation == generations) cudaFree(memory);
}
void* allocate_pinned(int64_t bytes) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "an allocation of pinned host memory");
  return memory;
}
void release_pinned(void* memory, uint64_t of_generation) noexcept {
  if (of_generation == generations) cudaFreeHost(memory);
}

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

void on_device(void* to, const void* from, int64_t bytes, void* stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, as_stream(stream)),
        "a copy on the device");
}
void clear(void* memory, int64_t bytes, void* stream) {
  check(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), as_stream(stream)), "a clearing of memory");
}

void stage_batch(const BatchStage& stage, void* stream) {
  check(cuda::stage_batch(stage, as_stream(stream)), "the staging of a batch");
}
void positions(const int32_t* ids, const int32_t* offsets, int64_t rows, int32_t start, int32_t padding_id,
               int32_t* out, void* stream) {
  check(cuda::positions(ids, offsets, rows, start, padding_id, out, as_stream(stream)), "the positions of a batch");
}

// One allocation: a head, extremes a channel as ordered integers, bins.
struct Histogram {
  int64_t channels = 0;
  cuda::HistogramMemory memory;
  uint64_t generation = 0;
};
Histogram* create_histogram(int64_t channels) {
  auto histogram = std::make_unique<Histogram>();
  histogram->channels = channels;
  histogram->generation = generations;
  int64_t bytes = static_cast<int64_t>(sizeof(cuda::HistogramHead)) + kHistogramBins * 8 + channels * 8;
  auto* memory = static_cast<unsigned char*>(allocate(bytes));
  histogram->memory = {
      .head = reinterpret_cast<cuda::HistogramHead*>(memory),
      .bins = reinterpret_cast<unsigned long long*>(memory + sizeof(cuda::HistogramHead)),
      .extremes = reinterpret_cast<uint32_t*>(memory + sizeof(cuda::HistogramHead) + kHistogramBins * 8),
      .channels = channels};
  clear(memory, bytes, nullptr);
  synchronize(nullptr);
  return histogram.release();
}
void destroy_histogram(Histogram* histogram) noexcept {
  if (histogram == nullptr) return;
  release(histogram->memory.head, histogram->generation);
  delete histogram;
}
void collect(Histogram* histogram, const float* values, int64_t elements, void* stream) {
  check(cuda::collect(histogram->memory, values, elements, as_stream(stream)), "the statistics of a tensor");
}
HistogramValues read(Histogram* histogram, void* stream) {
  HistogramValues values;
  cuda::HistogramHead head;
  std::vector<uint32_t> extremes(static_cast<size_t>(2 * histogram->channels));
  values.bins.resize(kHistogramBins);
  to_host(&head, histogram->memory.head, sizeof head, stream);
  to_host(values.bins.data(), histogram->memory.bins, kHistogramBins * 8, stream);
  to_host(extremes.data(), histogram->memory.extremes, histogram->channels * 8, stream);
  synchronize(stream);
  values.exponent = head.exponent;
  values.elements = static_cast<int64_t>(head.elements);
  values.nonfinite = static_cast<int64_t>(head.nonfinite) - values.elements;  // the device counts all
  while (!values.bins.empty() && values.bins.back() == 0) values.bins.pop_back();
  for (int64_t c = 0; c < histogram->channels; ++c) {
    values.minimum.push_back(cuda::extreme_value(extremes[static_cast<size_t>(2 * c)], true));
    values.maximum.push_back(cuda::extreme_value(extremes[static_cast<size_t>(2 * c + 1)], false));
  }
  return values;
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
  note_lost();
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
