// Zip archives as PyTorch writes them: stored entries, with the 64-bit extensions.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "core/file.h"

namespace octet::hf {

struct ZipEntry {
  uint64_t offset = 0;               ///< of the first byte in the file
  std::span<const std::byte> bytes;  ///< a view into the file
};

/// Whether the bytes begin like a zip archive.
bool looks_like_zip(std::span<const std::byte> bytes) noexcept;
/// All files of the archive by name. Throws corrupt (with the byte offset), unsupported (compressed or encrypted
/// entries, several disks).
std::map<std::string, ZipEntry> read_zip(const MappedFile& file, const std::string& where);

}  // namespace octet::hf
