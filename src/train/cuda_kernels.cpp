// Loads NVRTC and the driver by name, compiles one kernel for each pair of types, and launches it.
//
// A thread handles kVector neighbours of a row with 16-byte accesses where the width and the pointers allow it, else
// one element. Arithmetic is that of core/int8.h: one f32 operation after the other, rounding half to even.
#include "train/cuda_kernels.h"

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"

namespace octet::train::cuda {

namespace {

constexpr const char* kSource = R"(
typedef unsigned short u16;
struct F32 { typedef float T; static __device__ float get(float v) { return v; } static __device__ float put(float v) { return v; } };
struct F16 { typedef u16 T;
  static __device__ float get(u16 v) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v)); return f; }
  static __device__ u16 put(float v) { u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v)); return h; } };
struct BF16 { typedef u16 T;
  static __device__ float get(u16 v) { return __uint_as_float((unsigned)v << 16); }
  static __device__ u16 put(float v) { u16 h; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v)); return h; } };
template <typename T, int N> struct alignas(sizeof(T) * N) Pack { T at[N]; };

template <typename In, typename Out, int V, bool kBackward>
__device__ void run(const typename In::T* x, const typename Out::T* dy, typename Out::T* y, const float* scale, const float* column,
                    long long rows, long long columns, int row_step, int column_step, float lo, float hi) {
  long long first = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V, total = rows * columns;
  if (first >= total) return;
  long long row = first / columns;
  int at = (int)(first - row * columns);
  Pack<typename In::T, V> in = *(const Pack<typename In::T, V>*)(x + first);
  Pack<typename Out::T, V> out;
  if (kBackward) out = *(const Pack<typename Out::T, V>*)(dy + first);
  const float* s = scale + row * row_step;
  float one = column_step ? 0.0f : *s, inverse = one > 0.0f ? __frcp_rn(one) : 0.0f;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (column_step) { one = s[at + i]; if (!kBackward) inverse = one > 0.0f ? __frcp_rn(one) : 0.0f; }
    float v = In::get(in.at[i]), by = 1.0f;
    if (column) { by = column[at + i]; v = __fmul_rn(v, by); }
    if (kBackward) {
      if (!(v >= __fmul_rn(lo, one) && v <= __fmul_rn(hi, one))) out.at[i] = Out::put(0.0f);
    } else {
      float q = rintf(__fmul_rn(v, inverse));
      q = q > lo ? q : lo;
      q = q < hi ? q : hi;
      q = __fmul_rn(q, one);
      out.at[i] = Out::put(column ? __fdiv_rn(q, by) : q);
    }
  }
  *(Pack<typename Out::T, V>*)(y + first) = out;
}
extern "C" __global__ void kernel(const void* x, const void* dy, void* y, const float* scale, const float* column,
                                  long long rows, long long columns, int row_step, int column_step, float lo, float hi) {
  run<IN, OUT, VECTOR, BACKWARD>((const IN::T*)x, (const OUT::T*)dy, (OUT::T*)y, scale, column, rows, columns, row_step, column_step, lo, hi);
}
)";

/// The few functions used of NVRTC and of the driver; their handles are opaque pointers.
struct Compiler {
  int (*nvrtc_create)(void**, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
  int (*nvrtc_compile)(void*, int, const char* const*) = nullptr;
  int (*nvrtc_size)(void*, size_t*) = nullptr;
  int (*nvrtc_code)(void*, char*) = nullptr;
  int (*nvrtc_log_size)(void*, size_t*) = nullptr;
  int (*nvrtc_log)(void*, char*) = nullptr;
};
struct Driver {
  int (*load)(void**, const void*) = nullptr;
  int (*function)(void**, void*, const char*) = nullptr;
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                void**) = nullptr;
  int (*current)(void**) = nullptr;
  int (*set_current)(void*) = nullptr;
  int (*retain)(void**, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
};

[[noreturn]] void refuse(const std::string& expected) {
  fail(ErrorCode::device, {.what = "cannot run a training kernel on the GPU", .expected = expected});
}

void* open_any(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (void* found = dlopen(name, RTLD_NOW | RTLD_GLOBAL)) return found;
  // Beside a library of PyTorch's own packages, which its run path knows and ours does not.
  Dl_info info{};
  if (void* runtime = dlopen("libcudart.so.13", RTLD_NOW | RTLD_NOLOAD); runtime != nullptr)
    if (void* symbol = dlsym(runtime, "cudaGetDevice"); symbol != nullptr && dladdr(symbol, &info) != 0) {
      std::string folder(info.dli_fname);
      folder.resize(folder.rfind('/') + 1);
      for (const char* name : names)
        if (void* found = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_GLOBAL)) return found;
    }
  refuse(std::string("cannot load ") + *names.begin());
}

template <typename F>
void bind(void* library, F& function, const char* name) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) refuse(std::string("there is no function ") + name);
}

const Compiler& compiler() {
  static const Compiler loaded = [] {
    Compiler l;
    void* compiler = open_any({"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"});
    bind(compiler, l.nvrtc_create, "nvrtcCreateProgram");
    bind(compiler, l.nvrtc_compile, "nvrtcCompileProgram");
    bind(compiler, l.nvrtc_size, "nvrtcGetCUBINSize");
    bind(compiler, l.nvrtc_code, "nvrtcGetCUBIN");
    bind(compiler, l.nvrtc_log_size, "nvrtcGetProgramLogSize");
    bind(compiler, l.nvrtc_log, "nvrtcGetProgramLog");
    return l;
  }();
  return loaded;
}

const Driver& driver() {
  static const Driver loaded = [] {
    Driver l;
    void* driver = open_any({"libcuda.so.1"});
    bind(driver, l.load, "cuModuleLoadData");
    bind(driver, l.function, "cuModuleGetFunction");
    bind(driver, l.launch, "cuLaunchKernel");
    bind(driver, l.current, "cuCtxGetCurrent");
    bind(driver, l.set_current, "cuCtxSetCurrent");
    bind(driver, l.retain, "cuDevicePrimaryCtxRetain");
    bind(driver, l.attribute, "cuDeviceGetAttribute");
    return l;
  }();
  return loaded;
}

void check(int code, const char* what) {
  if (code != 0) refuse(std::string(what) + " failed with code " + std::to_string(code));
}

void* load(Type in, Type out, int vector, bool backward) {
  const Driver& l = driver();
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
  int major = 0, minor = 0;
  check(l.attribute(&major, kMajor, 0), "cuDeviceGetAttribute");
  check(l.attribute(&minor, kMinor, 0), "cuDeviceGetAttribute");
  std::string code = compile(in, out, vector, backward, major * 10 + minor);
  void *module = nullptr, *function = nullptr;
  check(l.load(&module, code.data()), "cuModuleLoadData");
  check(l.function(&function, module, "kernel"), "cuModuleGetFunction");
  return function;
}

void run(const FakeQuantArgs& args, bool backward) {
  const Driver& l = driver();
  static thread_local bool ready = false;  // a thread of autograd may not have touched the GPU yet
  if (!ready) {
    void* context = nullptr;
    check(l.current(&context), "cuCtxGetCurrent");
    if (context == nullptr) {
      check(l.retain(&context, 0), "cuDevicePrimaryCtxRetain");
      check(l.set_current(context), "cuCtxSetCurrent");
    }
    ready = true;
  }
  const int64_t total = args.rows * args.columns;
  if (total == 0) return;
  bool wide = args.columns % 8 == 0 && total % 8 == 0;
  for (const void* pointer : {args.x, args.dy, static_cast<const void*>(args.y)})
    wide = wide && reinterpret_cast<uintptr_t>(pointer) % 32 == 0;
  const int vector = wide ? 8 : 1;
  static std::mutex mutex;
  static std::array<std::atomic<void*>, 36> kernels{};
  std::atomic<void*>& slot = kernels[static_cast<size_t>(
      ((static_cast<int>(args.x_type) * 3 + static_cast<int>(args.y_type)) * 2 + wide) * 2 + backward)];
  void* function = slot.load(std::memory_order_acquire);
  if (function == nullptr) {
    std::lock_guard lock(mutex);
    function = slot.load(std::memory_order_acquire);
    if (function == nullptr)
      slot.store(function = load(args.x_type, args.y_type, vector, backward), std::memory_order_release);
  }
  long long rows = args.rows, columns = args.columns;
  int row_step = static_cast<int>(args.row_step), column_step = static_cast<int>(args.column_step);
  FakeQuantArgs a = args;
  void* parameters[] = {&a.x, &a.dy, &a.y, &a.scale, &a.column, &rows, &columns, &row_step, &column_step, &a.lo, &a.hi};
  constexpr int64_t kThreads = 256;
  const int64_t blocks = (total / vector + kThreads - 1) / kThreads;
  check(l.launch(function, static_cast<unsigned>(blocks), 1, 1, kThreads, 1, 1, 0, nullptr, parameters, nullptr),
        "cuLaunchKernel");
}

}  // namespace

std::string compile(Type in, Type out, int vector, bool backward, int architecture) {
  const Compiler& l = compiler();
  const char* names[] = {"F32", "F16", "BF16"};
  std::vector<std::string> options{
      "--gpu-architecture=sm_" + std::to_string(architecture),    std::string("-DIN=") + names[static_cast<int>(in)],
      std::string("-DOUT=") + names[static_cast<int>(out)],       "-DVECTOR=" + std::to_string(vector),
      std::string("-DBACKWARD=") + (backward ? "true" : "false"), "--std=c++17"};
  std::vector<const char*> pointers;
  for (const std::string& option : options) pointers.push_back(option.c_str());
  void* program = nullptr;
  check(l.nvrtc_create(&program, kSource, "fake_quant.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
  if (l.nvrtc_compile(program, static_cast<int>(pointers.size()), pointers.data()) != 0) {
    size_t size = 0;
    l.nvrtc_log_size(program, &size);
    std::string log(size, ' ');
    l.nvrtc_log(program, log.data());
    refuse(log);
  }
  size_t size = 0;
  check(l.nvrtc_size(program, &size), "nvrtcGetCUBINSize");
  std::string code(size, ' ');
  check(l.nvrtc_code(program, code.data()), "nvrtcGetCUBIN");
  return code;
}

void fake_quant_forward(const FakeQuantArgs& args) { run(args, false); }
void fake_quant_backward(const FakeQuantArgs& args) { run(args, true); }

}  // namespace octet::train::cuda
