// 64-byte aligned memory for buffers that kernels work in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace octet {

/// Frees what allocate_aligned gave.
struct AlignedDelete {
  size_t mapped = 0;  ///< bytes that came from the system rather than from the heap
  void operator()(unsigned char* p) const noexcept;
};
using AlignedBytes = std::unique_ptr<unsigned char, AlignedDelete>;

/// At least 64 bytes more than `bytes`. Large blocks come from the system and go back to it: the heap would keep what
/// buffers that grow and sessions that come and go leave between them, and a server's memory would rise for hours.
/// Throws std::bad_alloc.
AlignedBytes allocate_aligned(int64_t bytes);
/// The same, all zero.
AlignedBytes allocate_zeroed(int64_t bytes);

}  // namespace octet
