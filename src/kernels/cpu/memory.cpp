// Memory that a thread keeps between kernels.
#include <memory>
#include <new>

#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

struct Free {
  void operator()(unsigned char* p) const noexcept { ::operator delete (p, std::align_val_t{64}); }
};

}  // namespace

unsigned char* thread_memory(int64_t bytes) {
  thread_local std::unique_ptr<unsigned char, Free> memory;
  thread_local int64_t size = 0;
  if (bytes > size) {
    memory.reset();
    size = bytes + bytes / 4;
    memory.reset(static_cast<unsigned char*>(::operator new (static_cast<size_t>(size), std::align_val_t{64})));
  }
  return memory.get();
}

}  // namespace octet::kernels::cpu
