// The ONNX reader, the writing out of fused operators, the raising interpreter and the verifier of its result.
//
// A finding is also any single allocation above four times the file or 16 MiB, whichever is more (16 MiB: the bias of
// 16 heads at 512 tokens, which a file of any size may have): allocations from the heap and anonymous pages are both
// seen. Run it with -timeout=10, so that a hang is one, too.
#include <sanitizer/allocator_interface.h>

#include <algorithm>
#include <atomic>

#include "fuzz.h"
#include "onnx/decompose.h"
#include "onnx/raise.h"

namespace {

std::atomic<size_t> allowed{SIZE_MAX};

void see(size_t size) {
  size_t limit = allowed.load(std::memory_order_relaxed);
  if (size <= limit) return;
  allowed = SIZE_MAX;
  std::fprintf(stderr, "an allocation of %zu bytes, allowed are %zu\n", size, limit);
  std::abort();
}

}  // namespace

extern "C" void* __real_mmap(void* address, size_t size, int protection, int flags, int file, off_t offset);
extern "C" void* __wrap_mmap(void* address, size_t size, int protection, int flags, int file, off_t offset) {
  if (flags & MAP_ANONYMOUS) see(size);
  return __real_mmap(address, size, protection, flags, file, offset);
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  __sanitizer_install_malloc_and_free_hooks([](const volatile void*, size_t size) { see(size); },
                                            [](const volatile void*) {});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::MappedFile input = octet::fuzz::file(data, size);
  allowed = std::max<size_t>(4 * size, size_t{16} << 20);
  int result = octet::fuzz::expect_polite([&] {
    octet::onnx::File file = octet::onnx::parse_file(input, "input", "/nonexistent");
    octet::onnx::decompose(file);
    octet::onnx::RaiseResult raised = octet::onnx::raise(file);
    if (raised.raised) octet::verify(raised.raised->graph);
  });
  allowed = SIZE_MAX;
  return result;
}
