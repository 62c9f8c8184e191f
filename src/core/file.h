// Files: mapped reading, and writing beside the target with a rename so that an old file is never half replaced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace octet {

/// A whole file mapped read-only; the mapping lives as long as the last copy of `owner`.
struct MappedFile {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

/// Maps `path`. Throws not_found (no such file), invalid_argument (a directory), io.
MappedFile map_file(const std::filesystem::path& path);
/// Tells the system that these bytes will not be read soon, so that they stop counting as this process's memory; they
/// stay readable. Does nothing for bytes outside a mapped file.
void release_pages(const void* bytes, size_t size);
/// The whole file as text; the same errors as map_file.
std::string read_text(const std::filesystem::path& path);

/// Writes to `path`.tmp-PID beside the target; `commit` syncs and renames it into place. Without `commit` the
/// temporary file is removed and the old file stays as it was. A link is written through; a device or pipe is written
/// to directly. Throws io with the system's reason.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  void remove_temporary() noexcept;

  std::filesystem::path path_;
  std::filesystem::path temporary_;  ///< empty for devices and pipes
  int descriptor_ = -1;
};

}  // namespace octet
