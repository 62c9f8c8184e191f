// Aligned memory from the heap, or from the system where it is large.
#include "core/aligned.h"

#include <sys/mman.h>

#include <cstdint>
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
  constexpr size_t kLarge = 128 << 10, kHuge = 2 << 20;
  const auto size = static_cast<size_t>((bytes + 127) / 64 * 64);
  if (size < kLarge) return AlignedBytes(static_cast<unsigned char*>(::operator new (size, std::align_val_t{64})));
  // Large pages are cleared at once where small ones fault one by one, and need fewer entries of the TLB. They start at
  // multiples of their size: what lies before such a one, and behind the end, is given back.
  const size_t mapped = (size + 4095) / 4096 * 4096, slack = size >= kHuge ? kHuge : 0;
  void* pages = ::mmap(nullptr, mapped + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<unsigned char*>(pages);
  if (slack > 0) {
    const size_t before = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
    if (before > 0) ::munmap(begin, before);
    if (before < slack) ::munmap(begin + before + mapped, slack - before);
    begin += before;
    ::madvise(begin, mapped, MADV_HUGEPAGE);
  }
  return AlignedBytes(begin, AlignedDelete{mapped});
}

}  // namespace octet
