// POSIX implementation of mapped reading and of atomic writing.
#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "core/error.h"

namespace octet {

namespace {

[[noreturn]] void fail_io(const std::string& what, const std::filesystem::path& path, int error) {
  ErrorCode code = error == ENOENT || error == ENOTDIR ? ErrorCode::not_found : ErrorCode::io;
  fail(code, {.what = what + " " + path.string(),
              .expected = std::string("the system says: ") + std::strerror(error),
              .hint = error == ENOSPC   ? "free some space on that disk"
                      : error == EACCES ? "check the permissions of the file and its folder"
                      : error == ENOENT ? "check the path"
                                        : ""});
}

// Live mappings by address: release_pages must never touch other memory, where it would lose data. Never destroyed,
// since the last owner of a file may outlive every static.
struct Mappings {
  std::mutex mutex;
  std::map<uintptr_t, size_t> sizes;
};
Mappings& mappings() {
  static auto* all = new Mappings;
  return *all;
}

}  // namespace

MappedFile map_file(const std::filesystem::path& path) {
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_io("cannot open", path, errno);
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{descriptor};
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) fail_io("cannot read", path, errno);
  if (S_ISDIR(status.st_mode))
    fail(ErrorCode::invalid_argument,
         {.what = "cannot read " + path.string(), .expected = "expected a file, got a directory"});
  size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) return {nullptr, {}};
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (address == MAP_FAILED) fail_io("cannot map", path, errno);
  std::shared_ptr<const void> owner(address, [size](const void* p) {
    {
      std::scoped_lock lock(mappings().mutex);
      mappings().sizes.erase(reinterpret_cast<uintptr_t>(p));
    }
    ::munmap(const_cast<void*>(p), size);
  });
  std::scoped_lock lock(mappings().mutex);
  mappings().sizes.emplace(reinterpret_cast<uintptr_t>(address), size);
  return {owner, {static_cast<const std::byte*>(address), size}};
}

void release_pages(const void* bytes, size_t size) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<uintptr_t>(bytes), end = begin + size;
  std::scoped_lock lock(mappings().mutex);
  auto next = mappings().sizes.upper_bound(begin);
  if (next == mappings().sizes.begin()) return;
  auto [mapped, length] = *std::prev(next);
  if (end > mapped + length) return;
  begin = (begin + page - 1) / page * page;
  end = end / page * page;
  // A private read-only mapping of a file holds no changes: its pages come back from the file.
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_text(const std::filesystem::path& path) {
  MappedFile file = map_file(path);
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored))
    fail(ErrorCode::invalid_argument,
         {.what = "cannot write " + path_.string(), .expected = "expected a file name, got a directory"});
  if (std::filesystem::is_symlink(path_, ignored)) {
    // The link stays and its target is replaced.
    std::filesystem::path target = std::filesystem::weakly_canonical(path_, ignored);
    if (!ignored) path_ = target;
  }
  bool replaceable = !std::filesystem::exists(path_, ignored) || std::filesystem::is_regular_file(path_, ignored);
  if (replaceable) {
    temporary_ = path_.string() + ".tmp-" + std::to_string(::getpid());
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  } else {
    // A device or pipe (/dev/stdout, /dev/null) is written to, never replaced by a file.
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  }
  if (descriptor_ < 0) fail_io("cannot write", path_, errno);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    remove_temporary();
  }
}

void FileWriter::remove_temporary() noexcept {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_io("cannot write", path_, errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void FileWriter::write(std::string_view text) {
  write(std::span(reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

void FileWriter::commit() {
  // Devices and pipes cannot be synced (EINVAL) nor renamed.
  if (::fsync(descriptor_) != 0 && !(temporary_.empty() && (errno == EINVAL || errno == EROFS || errno == ENOTSUP)))
    fail_io("cannot write", path_, errno);
  int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0) {
    int error = errno;
    remove_temporary();
    fail_io("cannot write", path_, error);
  }
  if (!temporary_.empty() && ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    int error = errno;
    remove_temporary();
    fail_io("cannot rename into place", path_, error);
  }
}

}  // namespace octet
