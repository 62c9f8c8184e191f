// The device and types that an option names, and torch's errors as octet's.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "core/error.h"

namespace octet::train {

/// "cpu", "cuda", or "auto": a GPU where there is one. Sets the threads of torch and asks it for deterministic kernels.
at::Device open_device(const std::string& name, int threads);
at::ScalarType compute_type(const std::string& precision);
at::ScalarType master_type(const std::string& precision);

/// Whether torch, or this program, had no memory: torch has an error of its own for GPUs only.
bool is_out_of_memory(const std::exception& error);

/// Torch's own errors become octet's.
template <typename F>
auto guarded(F f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, {.what = "there is no memory for the model"});
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error))
      fail(ErrorCode::out_of_memory,
           {.what = "there is no memory for the model", .expected = error.what_without_backtrace()});
    fail(ErrorCode::internal, {.what = std::string("libtorch: ") + error.what_without_backtrace()});
  }
}

}  // namespace octet::train
