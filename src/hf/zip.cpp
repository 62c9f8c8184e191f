// Zip reading: end record -> central directory -> local headers, every offset checked against the file.
#include "hf/zip.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace octet::hf {

namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kLocatorSize = 20, kEnd64Size = 56;
constexpr uint64_t kMaxComment = 65535;

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  uint64_t size() const { return bytes_.size(); }

  [[noreturn]] void corrupt(const std::string& expected, uint64_t offset) const {
    fail(ErrorCode::corrupt, {.what = "cannot read the zip archive",
                              .expected = expected,
                              .where = "in " + where_ + ", byte " + std::to_string(offset),
                              .hint = "the file is damaged or incomplete; fetch or write it again"});
  }
  [[noreturn]] void unsupported(const std::string& what, const std::string& hint, uint64_t offset) const {
    fail(ErrorCode::unsupported, {.what = "cannot read the zip archive",
                                  .expected = what,
                                  .where = "in " + where_ + ", byte " + std::to_string(offset),
                                  .hint = hint});
  }

  std::span<const std::byte> range(uint64_t offset, uint64_t length, const char* what) const {
    if (offset > size() || length > size() - offset)
      corrupt(std::string("expected ") + what + " of " + std::to_string(length) + " bytes within a file of " +
                  std::to_string(size()),
              std::min(offset, size()));
    return bytes_.subspan(offset, length);
  }

  template <typename T>
  T at(uint64_t offset) const {
    T value;
    std::memcpy(&value, range(offset, sizeof(T), "a number").data(), sizeof(T));
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& where_;
};

struct Directory {
  uint64_t offset, size, entries;
};

/// The end record stands before a comment of unknown length, so it is searched from the back.
Directory find_directory(const Reader& reader) {
  if (reader.size() < kEndSize)
    reader.corrupt("expected an end record, got a file of " + std::to_string(reader.size()) + " bytes", reader.size());
  uint64_t last = reader.size() - kEndSize, first = last > kMaxComment ? last - kMaxComment : 0;
  uint64_t end = last + 1;
  for (uint64_t at = last + 1; at-- > first;)
    if (reader.at<uint32_t>(at) == kEnd && reader.at<uint16_t>(at + 20) == reader.size() - at - kEndSize) {
      end = at;
      break;
    }
  if (end > last) reader.corrupt("found no end record", reader.size());

  Directory directory{reader.at<uint32_t>(end + 16), reader.at<uint32_t>(end + 12), reader.at<uint16_t>(end + 10)};
  bool wide = directory.offset == UINT32_MAX || directory.size == UINT32_MAX || directory.entries == UINT16_MAX;
  // Writers may add the 64-bit record without needing it; where it stands, it holds.
  if (end >= kLocatorSize && reader.at<uint32_t>(end - kLocatorSize) == kLocator64) {
    uint64_t record = reader.at<uint64_t>(end - kLocatorSize + 8);
    reader.range(record, kEnd64Size, "a 64-bit end record");
    if (reader.at<uint32_t>(record) != kEnd64) reader.corrupt("expected a 64-bit end record", record);
    directory = {reader.at<uint64_t>(record + 48), reader.at<uint64_t>(record + 40), reader.at<uint64_t>(record + 32)};
  } else if (wide) {
    reader.corrupt("expected a 64-bit end record before the end record", end);
  }
  reader.range(directory.offset, directory.size, "a central directory");
  if (directory.entries > directory.size / kCentralSize)
    reader.corrupt(std::to_string(directory.entries) + " entries do not fit a directory of " +
                       std::to_string(directory.size) + " bytes",
                   directory.offset);
  return directory;
}

}  // namespace

bool looks_like_zip(std::span<const std::byte> bytes) noexcept {
  uint32_t signature = 0;
  if (bytes.size() < 4) return false;
  std::memcpy(&signature, bytes.data(), 4);
  return signature == kLocal || signature == kEnd;
}

std::map<std::string, ZipEntry> read_zip(const MappedFile& file, const std::string& where) {
  Reader reader(file.bytes, where);
  Directory directory = find_directory(reader);
  std::map<std::string, ZipEntry> entries;
  uint64_t at = directory.offset, directory_end = directory.offset + directory.size;
  for (uint64_t index = 0; index < directory.entries; ++index) {
    if (directory_end - at < kCentralSize || reader.at<uint32_t>(at) != kCentral)
      reader.corrupt("expected directory entry " + std::to_string(index), at);
    uint16_t flags = reader.at<uint16_t>(at + 8), method = reader.at<uint16_t>(at + 10);
    uint64_t packed = reader.at<uint32_t>(at + 20), size = reader.at<uint32_t>(at + 24),
             local = reader.at<uint32_t>(at + 42);
    uint64_t name_size = reader.at<uint16_t>(at + 28), extra_size = reader.at<uint16_t>(at + 30),
             comment_size = reader.at<uint16_t>(at + 32);
    if (name_size + extra_size + comment_size > directory_end - at - kCentralSize)
      reader.corrupt("directory entry " + std::to_string(index) + " is cut off", at);
    auto name_bytes = reader.range(at + kCentralSize, name_size, "a name");
    std::string name(reinterpret_cast<const char*>(name_bytes.data()), name_bytes.size());

    // The 64-bit extra field holds, in this order, only the values that do not fit 32 bits.
    uint64_t extra = at + kCentralSize + name_size, extra_end = extra + extra_size;
    while (extra_end - extra >= 4) {
      uint16_t id = reader.at<uint16_t>(extra);
      uint64_t length = reader.at<uint16_t>(extra + 2), field = extra + 4;
      if (length > extra_end - field) break;
      if (id == 1) {
        uint64_t field_end = field + length;
        for (uint64_t* value : {&size, &packed, &local}) {
          if (*value != UINT32_MAX) continue;
          if (field_end - field < 8) reader.corrupt("the 64-bit sizes of " + name + " are cut off", field);
          *value = reader.at<uint64_t>(field);
          field += 8;
        }
        break;
      }
      extra = field + length;
    }

    if ((flags & 1) != 0)
      reader.unsupported("entry " + name + " is encrypted", "save the checkpoint without encryption", at);
    if (method != 0)
      reader.unsupported("entry " + name + " is compressed (method " + std::to_string(method) +
                             "), expected stored entries as torch.save writes them",
                         "unpack the archive and pack it again without compression, or save it with safetensors", at);
    if (packed != size)
      reader.corrupt("entry " + name + " has " + std::to_string(size) + " bytes stored in " + std::to_string(packed),
                     at);
    reader.range(local, kLocalSize, "a local header");
    if (reader.at<uint32_t>(local) != kLocal) reader.corrupt("expected the local header of " + name, local);
    uint64_t data = local + kLocalSize + reader.at<uint16_t>(local + 26) + reader.at<uint16_t>(local + 28);
    ZipEntry entry{data, reader.range(data, size, "an entry")};
    if (!entries.emplace(name, entry).second) reader.corrupt("the name " + name + " occurs twice", at);
    at += kCentralSize + name_size + extra_size + comment_size;
  }
  return entries;
}

}  // namespace octet::hf
