// Aligned memory from the heap, or from the system where it is large.
#include "core/aligned.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace octet {

void AlignedDelete::operator()(unsigned char* p) const noexcept {
  if (mapped != 0) ::munmap(p, mapped);
  else ::operator delete (p, std::align_val_t{64});
}

AlignedBytes allocate_zeroed(int64_t bytes) {
  AlignedBytes memory = allocate_aligned(bytes);
  if (memory.get_deleter().mapped == 0) std::memset(memory.get(), 0, static_cast<size_t>((bytes + 127) / 64 * 64));
  return memory;
}

AlignedBytes allocate_aligned(int64_t bytes) {
  constexpr size_t kLarge = 128 << 10, kHuge = 4 << 20;
  const auto size = static_cast<size_t>((bytes + 127) / 64 * 64);
  if (size < kLarge) return AlignedBytes(static_cast<unsigned char*>(::operator new (size, std::align_val_t{64})));
  void* pages = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  // Large pages are cleared at once where small ones fault one by one.
  if (size >= kHuge) ::madvise(pages, size, MADV_HUGEPAGE);
  return AlignedBytes(static_cast<unsigned char*>(pages), AlignedDelete{size});
}

}  // namespace octet
