// The CUDA runtime as the engine needs it, without CUDA's types: memory, copies, streams, graphs, timing.
//
// A build without CUDA has the same functions: `find_device` says why there is none, the rest cannot be reached.
// Failures throw octet::Error: out_of_memory, or device with the call and CUDA's own words.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/target.h"

namespace octet::kernels::device {

struct Info {
  bool present = false;
  std::string reason;  ///< why it is not present
  std::string name;    ///< "NVIDIA H100 80GB HBM3"
  Target target;
  int64_t memory = 0;         ///< bytes
  double clock_hz = 0;        ///< of the multiprocessors, the highest
  double memory_bytes_s = 0;  ///< of device memory, by the data sheet's clock and width
  std::string driver;
};

/// Device 0 of this process.
const Info& find_device();

/// Counts how often the GPU was set up in this process: memory, streams and graphs belong to one generation.
uint64_t generation() noexcept;
/// Sets the GPU up again if an earlier failure has lost it (all that stood on it is gone, and generation() grows).
void recover();

/// Bytes of device memory that are free.
int64_t free_memory();
void* allocate(int64_t bytes);
/// Nothing happens to memory of an earlier generation.
void release(void* memory, uint64_t generation) noexcept;
/// Host memory that the device copies from and to without a detour.
void* allocate_pinned(int64_t bytes);
void release_pinned(void* memory, uint64_t generation) noexcept;

void* create_stream();
void destroy_stream(void* stream) noexcept;
void synchronize(void* stream);

void to_device(void* to, const void* from, int64_t bytes, void* stream);
void to_host(void* to, const void* from, int64_t bytes, void* stream);
/// Either way, between pinned memory and the device: quicker when little is copied, in a graph most of all.
void transfer(void* to, const void* from, int64_t bytes, void* stream);
void on_device(void* to, const void* from, int64_t bytes, void* stream);
/// Fills with zero bytes.
void clear(void* memory, int64_t bytes, void* stream);

/// A caller's batch in device memory -> the inputs of a plan, padded with empty rows and token 0. Where an id, a type
/// id or an offset is out of range, nothing is copied, all rows become empty and *bad (memory of host or device) is
/// set.
struct BatchStage {
  const int32_t *ids = nullptr, *offsets = nullptr, *type_ids = nullptr;  ///< type_ids may be null
  int64_t rows = 0, tokens = 0, padded_rows = 0, padded_tokens = 0, max_length = 0;
  int64_t vocabulary = 0, types = 1;  ///< ids are below vocabulary when it is above 0
  int32_t *out_ids = nullptr, *out_offsets = nullptr, *out_types = nullptr;  ///< out_types may be null
  int32_t* bad = nullptr;
};
void stage_batch(const BatchStage& stage, void* stream);
/// Positions of a batch's tokens as the graph's op `positions` defines them; all pointers are device pointers.
void positions(const int32_t* ids, const int32_t* offsets, int64_t rows, int32_t start, int32_t padding_id,
               int32_t* out, void* stream);

/// What calibration records of one tensor, kept on the device: the histogram of TensorStatistics (quant/statistics.h)
/// and each channel's extremes. Collecting is asynchronous.
struct Histogram;
constexpr int64_t kHistogramBins = 4096;
Histogram* create_histogram(int64_t channels);
void destroy_histogram(Histogram* histogram) noexcept;
/// Adds `elements` f32 values of device memory, channel-minor.
void collect(Histogram* histogram, const float* values, int64_t elements, void* stream);
struct HistogramValues {
  int exponent = 0;  ///< bins are 2^exponent wide
  std::vector<uint64_t> bins;
  int64_t elements = 0, nonfinite = 0;
  std::vector<float> minimum, maximum;
};
/// Waits for `stream`.
HistogramValues read(Histogram* histogram, void* stream);

/// Records what `work` enqueues on `stream` as a graph.
void* capture(void* stream, const std::function<void()>& work);
void launch(void* graph, void* stream);
void destroy_graph(void* graph) noexcept;

/// Milliseconds between two points of a stream: runs `work` once, waits for it.
double time_ms(void* stream, const std::function<void()>& work);

/// Throws if an earlier launch failed; `where` names the step.
void check_launch(const std::string& where);
/// Remembers the first launch failure of this thread, for check_launch (kernels cannot throw).
void note_failure(int cuda_error, const char* kernel) noexcept;

}  // namespace octet::kernels::device
