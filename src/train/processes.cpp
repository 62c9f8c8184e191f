// Joins through torch's TCPStore. Gloo's process group is in libtorch_cpu; NCCL is called by its C interface, since
// only what every machine's torch has is linked.
#include "train/processes.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <map>

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "core/error.h"

namespace octet::train {

namespace {

constexpr std::chrono::milliseconds kPatience = std::chrono::minutes(10);

[[noreturn]] void broken(const std::string& what, const std::string& reason) {
  fail(ErrorCode::io, {.what = what,
                       .expected = reason,
                       .hint = "all processes must run, with the same settings; the last checkpoint is kept"});
}

class Gloo : public Processes {
 public:
  Gloo(int count, int index, const c10::intrusive_ptr<c10d::Store>& store, bool one_host) : Processes(count, index) {
    auto options = c10::make_intrusive<c10d::ProcessGroupGloo::Options>(kPatience);
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    if (interface != nullptr && *interface != '\0')
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    else if (one_host) options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    else options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, index, count, options);
  }
  const char* transport() const noexcept override { return "gloo"; }

 protected:
  void sum_flat(at::Tensor& flat) override {
    std::vector<at::Tensor> host{flat.to(at::kCPU)};
    group_->allreduce(host)->wait();
    if (!flat.is_cpu()) flat.copy_(host[0]);
    else if (!flat.is_same(host[0])) flat = host[0];
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

struct UniqueId {
  char bytes[128];
};

/// NCCL's stable C interface, from the library that libtorch_cuda has loaded.
class Nccl : public Processes {
 public:
  Nccl(int count, int index, const c10::intrusive_ptr<c10d::Store>& store) : Processes(count, index) {
    void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) broken("cannot train on several GPUs", "libnccl.so.2 cannot be loaded");
    bind(library, unique_id_, "ncclGetUniqueId");
    bind(library, join_, "ncclCommInitRank");
    bind(library, sum_, "ncclAllReduce");
    bind(library, leave_, "ncclCommDestroy");
    bind(library, text_, "ncclGetErrorString");
    UniqueId id{};
    if (index == 0) {
      check(unique_id_(&id), "ncclGetUniqueId");
      store->set("octet/nccl", std::vector<uint8_t>(id.bytes, id.bytes + sizeof id.bytes));
    } else {
      std::vector<uint8_t> bytes = store->get("octet/nccl");
      OCTET_CHECK(bytes.size() == sizeof id.bytes, "NCCL's id");
      std::memcpy(id.bytes, bytes.data(), bytes.size());
    }
    check(join_(&group_, count, id, index), "ncclCommInitRank");
  }
  ~Nccl() override { leave_(group_); }
  const char* transport() const noexcept override { return "NCCL"; }

 protected:
  void sum_flat(at::Tensor& flat) override {
    static const std::map<at::ScalarType, int> kTypes{
        {at::kLong, 4}, {at::kHalf, 6}, {at::kFloat, 7}, {at::kDouble, 8}, {at::kBFloat16, 9}};
    // The null stream is the one that torch computes on here.
    check(sum_(flat.const_data_ptr(), flat.mutable_data_ptr(), static_cast<size_t>(flat.numel()),
               kTypes.at(flat.scalar_type()), 0, group_, nullptr),
          "ncclAllReduce");
  }

 private:
  template <typename F>
  static void bind(void* library, F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (function == nullptr) broken("cannot train on several GPUs", std::string("NCCL has no ") + name);
  }
  void check(int code, const char* call) const {
    if (code != 0) broken("cannot train on several GPUs", std::string(call) + ": " + text_(code));
  }

  int (*unique_id_)(UniqueId*) = nullptr;
  int (*join_)(void**, int, UniqueId, int) = nullptr;
  int (*sum_)(const void*, void*, size_t, int, int, void*, void*) = nullptr;
  int (*leave_)(void*) = nullptr;
  const char* (*text_)(int) = nullptr;
  void* group_ = nullptr;
};

}  // namespace

void Processes::sum(const std::vector<at::Tensor>& tensors) {
  c10::NoGradGuard no_grad;
  std::map<at::ScalarType, std::vector<at::Tensor>> by_type;
  for (const at::Tensor& tensor : tensors) by_type[tensor.scalar_type()].push_back(tensor);
  try {
    for (auto& [type, list] : by_type) {
      std::vector<at::Tensor> parts;
      for (const at::Tensor& tensor : list) parts.push_back(tensor.reshape({-1}));
      at::Tensor flat = at::cat(parts);
      sum_flat(flat);
      int64_t from = 0;
      for (const at::Tensor& tensor : list) {
        tensor.copy_(flat.slice(0, from, from + tensor.numel()).view(tensor.sizes()));
        from += tensor.numel();
      }
    }
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    if (dynamic_cast<const Error*>(&error) != nullptr) throw;
    broken("training stopped: another process is gone", error.what());
  }
}

std::unique_ptr<Processes> Processes::join(int count, int index, const std::string& meeting, const at::Device& device) {
  const size_t colon = meeting.rfind(':');
  int port = 0;
  if (colon != std::string::npos) port = std::atoi(meeting.c_str() + colon + 1);
  if (colon == std::string::npos || colon == 0 || port <= 0 || port > 65535)
    fail(ErrorCode::invalid_argument, {.what = "cannot meet the other processes at '" + meeting + "'",
                                       .expected = "expected address:port of the first host"});
  if (count < 1 || index < 0 || index >= count)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot train as process " + std::to_string(index) + " of " + std::to_string(count),
          .expected = "expected 0 to " + std::to_string(count - 1)});
  const std::string address = meeting.substr(0, colon);
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.isServer = index == 0;
    options.numWorkers = static_cast<size_t>(count);
    options.timeout = kPatience;
    auto store = c10::make_intrusive<c10d::TCPStore>(address, options);
    if (device.is_cuda()) {
      // Two processes on one GPU are refused by NCCL, by all of them alike: they meet on the host.
      try {
        return std::make_unique<Nccl>(count, index, store);
      } catch (const Error&) {
      }
    }
    return std::make_unique<Gloo>(count, index, store, address == "127.0.0.1" || address == "localhost");
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    broken("cannot meet the other processes at " + meeting, error.what());
  }
}

}  // namespace octet::train
