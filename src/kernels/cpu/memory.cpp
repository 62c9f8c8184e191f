// Memory that a thread keeps between kernels.
#include "core/aligned.h"
#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
unsigned char* thread_memory(int64_t bytes, Use use) {
  struct Memory {
    AlignedBytes bytes;
    int64_t size = 0;
  };
  thread_local Memory memories[2];
  Memory& memory = memories[static_cast<int>(use)];
  if (bytes > memory.size) {
    memory.bytes.reset();
    memory.size = bytes + bytes / 4;
    memory.bytes = allocate_aligned(memory.size);
  }
  return memory.bytes.get();
}

}  // namespace octet::kernels::cpu
