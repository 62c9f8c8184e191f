// Finding libtorch_cuda, and names of devices and types.
#include "train/device.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>

#include <filesystem>

#include "core/threads.h"

namespace octet::train {

namespace {

namespace fs = std::filesystem;

/// libtorch_cuda registers itself when it is loaded; the build links only what every machine has. It must be there
/// before torch is asked about CUDA for the first time, since torch remembers the answer.
std::string load_cuda() {
  static const std::string problem = []() -> std::string {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    Dl_info info{};
    if (library == nullptr && dladdr(reinterpret_cast<void*>(&at::set_num_threads), &info) != 0) {
      fs::path path = fs::path(info.dli_fname).parent_path() / "libtorch_cuda.so";
      library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    }
    if (library == nullptr) {
      const char* reason = dlerror();
      return reason == nullptr ? "libtorch_cuda.so cannot be loaded" : reason;
    }
    if (!at::hasCUDA()) return "libtorch_cuda.so was loaded but offers no CUDA";
    if (at::globalContext().getAcceleratorHooksInterface(at::kCUDA).deviceCount() == 0) return "PyTorch sees no GPU";
    at::globalContext().lazyInitDevice(at::kCUDA);
    return "";
  }();
  return problem;
}

}  // namespace

at::Device open_device(const std::string& name, int threads) {
  at::set_num_threads(threads > 0 ? threads : available_cpus());
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && name != "auto")
    fail(ErrorCode::invalid_argument, {.what = "unknown device " + name, .expected = "expected auto, cpu or cuda"});
  c10::WarningUtils::set_warnAlways(false);
  // A PyTorch whose CUDA libraries are not here cannot be loaded: that is a machine without a GPU.
  const std::string problem = load_cuda();
  if (problem.empty()) return at::Device(at::kCUDA, 0);
  if (name == "auto") return at::kCPU;
  fail(ErrorCode::device, {.what = "cannot train on a GPU",
                           .expected = problem,
                           .hint = "set OCTET_TORCH to the torch folder of a PyTorch with CUDA, or use --device cpu"});
}

at::ScalarType compute_type(const std::string& precision) {
  if (precision == "fp32") return at::kFloat;
  if (precision == "fp16") return at::kHalf;
  if (precision == "bf16") return at::kBFloat16;
  if (precision == "fp64") return at::kDouble;
  fail(ErrorCode::invalid_argument,
       {.what = "unknown precision " + precision, .expected = "expected fp32, fp16, bf16 or fp64"});
}

at::ScalarType master_type(const std::string& precision) { return precision == "fp64" ? at::kDouble : at::kFloat; }

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  const std::string_view text = torch == nullptr ? "" : torch->what_without_backtrace();
  return text.find("not enough memory") != std::string_view::npos ||
         text.find("can't allocate memory") != std::string_view::npos;
}

}  // namespace octet::train
