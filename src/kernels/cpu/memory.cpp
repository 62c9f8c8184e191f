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

unsigned char* thread_memory(int64_t bytes, Use use) {
  struct Memory {
    std::unique_ptr<unsigned char, Free> bytes;
    int64_t size = 0;
  };
  thread_local Memory memories[2];
  Memory& memory = memories[static_cast<int>(use)];
  if (bytes > memory.size) {
    memory.bytes.reset();
    memory.size = bytes + bytes / 4;
    memory.bytes.reset(
        static_cast<unsigned char*>(::operator new (static_cast<size_t>(memory.size), std::align_val_t{64})));
  }
  return memory.bytes.get();
}

}  // namespace octet::kernels::cpu
