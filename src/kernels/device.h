// The CUDA runtime as the engine needs it, without CUDA's types: memory, copies, streams, graphs, timing.
//
// A build without CUDA has the same functions: `find_device` says why there is none, the rest cannot be reached.
// Failures throw octet::Error: out_of_memory, or device with the call and CUDA's own words.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/target.h"

namespace octet::kernels::device {

struct Info {
  bool present = false;
  std::string reason;  ///< why it is not present
  std::string name;    ///< "NVIDIA H100 80GB HBM3"
  Target target;
  int64_t memory = 0;  ///< bytes
  std::string driver;
};

/// Device 0 of this process.
const Info& find_device();

void* allocate(int64_t bytes);
void release(void* memory) noexcept;
/// Host memory that the device copies from and to without a detour.
void* allocate_pinned(int64_t bytes);
void release_pinned(void* memory) noexcept;

void* create_stream();
void destroy_stream(void* stream) noexcept;
void synchronize(void* stream);

void to_device(void* to, const void* from, int64_t bytes, void* stream);
void to_host(void* to, const void* from, int64_t bytes, void* stream);
/// Either way, between pinned memory and the device: quicker when little is copied, in a graph most of all.
void transfer(void* to, const void* from, int64_t bytes, void* stream);

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
