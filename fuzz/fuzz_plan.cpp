// Plan files: what loads must also run (on a small batch) without leaving its buffers.
#include <octet/session.h>

#include <cstdint>
#include <vector>

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::fuzz::MemoryFile file(data, size);
  return octet::fuzz::expect_polite([&] {
    octet::Plan plan = octet::Plan::load(file.path());
    octet::Session session(plan, {.threads = 1});
    const std::vector<int32_t> ids{1, 2, 0}, offsets{0, 2, 3};
    octet::fuzz::expect_polite([&] { session.run({.ids = ids, .offsets = offsets}); });
  });
}
