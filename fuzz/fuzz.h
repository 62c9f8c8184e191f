// What the fuzz targets share: bad input may only end in an octet::Error that blames the input.
#pragma once

#include <octet/error.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/file.h"

namespace octet::fuzz {

/// Runs `body`; `internal` (a tripped OCTET_CHECK) and any other exception are findings.
template <typename Body>
int expect_polite(Body&& body) {
  try {
    std::forward<Body>(body)();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) {
      std::fprintf(stderr, "%s\n", error.what());
      std::abort();
    }
  }
  return 0;
}

inline std::string_view text(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

/// The input as a mapped file would give it, at exactly its size, so that reading past the end is seen.
inline MappedFile file(const uint8_t* data, size_t size) {
  auto bytes = std::shared_ptr<std::byte[]>(new std::byte[size]);
  if (size > 0) std::memcpy(bytes.get(), data, size);
  return {bytes, {bytes.get(), size}};
}

/// The input as a file with a path, in memory.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : descriptor_(::memfd_create("input", 0)) {
    if (descriptor_ < 0 || ::write(descriptor_, data, size) != static_cast<ssize_t>(size)) std::abort();
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace octet::fuzz
