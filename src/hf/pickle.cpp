// From unpickled descriptions to tensors: storages in the two file formats, strides, and the state dictionary's place.
#include "hf/pickle.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "hf/unpickle.h"
#include "hf/zip.h"

namespace octet::hf {

namespace {

/// 0x1950a86a20f9469cfc6c, little-endian: the first value of the plain format.
constexpr std::string_view kMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
constexpr int64_t kPlainProtocol = 1001;

[[noreturn]] void corrupt(const std::string& what, const std::string& expected, const std::string& where,
                          uint64_t byte) {
  fail(ErrorCode::corrupt, {.what = what,
                            .expected = expected,
                            .where = "in " + where + ", byte " + std::to_string(byte),
                            .hint = "the file is damaged or incomplete; fetch or write it again"});
}

/// The bytes of a storage, aligned to its element.
struct Storage {
  DType dtype;
  int64_t elements;
  const std::byte* data;
  std::shared_ptr<const void> owner;
};

class Checkpoint {
 public:
  Checkpoint(const MappedFile& file, const std::string& where)
      : file_(file), where_(where), copies_left_(4 * file.bytes.size() + (1 << 20)) {}

  void add_storage(const std::string& key, PickleStorage description, std::span<const std::byte> bytes,
                   uint64_t offset) {
    int64_t expected = description.elements * size_of(description.dtype);
    if (static_cast<uint64_t>(expected) != bytes.size())
      corrupt("cannot read storage " + key,
              "expected " + std::to_string(expected) + " bytes, got " + std::to_string(bytes.size()), where_, offset);
    Storage storage{description.dtype, description.elements, bytes.data(), file_.owner};
    if (reinterpret_cast<uintptr_t>(bytes.data()) % static_cast<uintptr_t>(size_of(storage.dtype)) != 0) {
      spend(bytes.size(), offset);
      std::byte* copy = nullptr;
      Tensor aligned = Tensor::allocate(storage.dtype, {storage.elements}, &copy);
      std::memcpy(copy, bytes.data(), bytes.size());
      storage.owner = std::make_shared<Tensor>(aligned);
      storage.data = copy;
    }
    storages_.emplace(key, storage);
  }

  Tensor tensor(const std::string& name, const PickleValue& value) {
    auto wrong = [&](const std::string& expected) {
      corrupt("cannot read tensor " + name, expected, where_, value.offset);
    };
    auto found = storages_.find(value.text);
    if (found == storages_.end()) wrong("its storage " + value.text + " is missing");
    const Storage& storage = found->second;
    int64_t bytes = size_of(storage.dtype);
    // The last element's index, in 128 bits so that no hostile stride can wrap it.
    __int128 last = value.integer;
    bool none = false;
    for (size_t axis = 0; axis < value.shape.size(); ++axis) {
      int64_t extent = value.shape[axis], step = value.stride[axis];
      if (extent < 0 || step < 0)
        wrong("expected sizes and strides that are not negative, got " + to_string(value.shape) + " and " +
              to_string(value.stride));
      if (__builtin_mul_overflow(bytes, extent, &bytes))
        wrong("the size of shape " + to_string(value.shape) + " overflows 64 bits");
      none = none || extent == 0;
      last += static_cast<__int128>(extent - 1) * step;
      if (last > INT64_MAX && !none) wrong("its strides reach beyond 64 bits");
    }
    if (none) {
      std::byte* unused = nullptr;
      return Tensor::allocate(storage.dtype, value.shape, &unused);
    }
    if (last >= storage.elements)
      wrong("expected its last element within a storage of " + std::to_string(storage.elements) + ", got index " +
            std::to_string(static_cast<int64_t>(last)));
    const std::byte* first = storage.data + value.integer * size_of(storage.dtype);
    if (contiguous(value)) return Tensor(storage.dtype, value.shape, storage.owner, first);
    return gather(value, storage, first, static_cast<uint64_t>(bytes));
  }

 private:
  static bool contiguous(const PickleValue& value) {
    int64_t expected = 1;
    for (size_t axis = value.shape.size(); axis-- > 0;) {
      if (value.shape[axis] != 1 && value.stride[axis] != expected) return false;
      expected *= value.shape[axis];
    }
    return true;
  }

  Tensor gather(const PickleValue& value, const Storage& storage, const std::byte* first, uint64_t bytes) {
    spend(bytes, value.offset);
    std::byte* out = nullptr;
    Tensor tensor = Tensor::allocate(storage.dtype, value.shape, &out);
    auto element = static_cast<size_t>(size_of(storage.dtype));
    std::vector<int64_t> index(value.shape.size(), 0);
    int64_t at = 0;
    for (uint64_t done = 0; done < bytes; done += element) {
      std::memcpy(out + done, first + at * static_cast<int64_t>(element), element);
      for (size_t axis = index.size(); axis-- > 0;) {
        at += value.stride[axis];
        if (++index[axis] < value.shape[axis]) break;
        at -= value.stride[axis] * value.shape[axis];
        index[axis] = 0;
      }
    }
    return tensor;
  }

  /// Copies are bounded by a multiple of the file, so that a small file cannot ask for all memory.
  void spend(uint64_t bytes, uint64_t offset) {
    if (bytes > copies_left_)
      fail(ErrorCode::unsupported,
           {.what = "cannot read the checkpoint",
            .expected = "its expanded or overlapping tensors need many times the size of the file",
            .where = "in " + where_ + ", byte " + std::to_string(offset),
            .hint = "save the tensors after .contiguous()"});
    copies_left_ -= bytes;
  }

  const MappedFile& file_;
  const std::string& where_;
  uint64_t copies_left_;
  std::map<std::string, Storage> storages_;
};

bool holds_tensors(const PickleValue* value) {
  if (value->kind != PickleKind::dict) return false;
  for (size_t i = 1; i < value->items.size(); i += 2)
    if (value->items[i]->kind == PickleKind::tensor) return true;
  return false;
}

/// The state dictionary: the value itself, or what trainers put it under.
const PickleValue* state_dictionary(const PickleValue* value, const std::string& where) {
  if (holds_tensors(value)) return value;
  if (value->kind == PickleKind::dict)
    for (size_t i = 0; i + 1 < value->items.size(); i += 2) {
      const PickleValue* key = value->items[i];
      if (key->kind == PickleKind::text && (key->text == "model" || key->text == "state_dict") &&
          holds_tensors(value->items[i + 1]))
        return value->items[i + 1];
    }
  fail(ErrorCode::unsupported, {.what = "cannot find the weights in " + where,
                                .expected = "expected a dictionary of tensors, also under \"model\" or \"state_dict\"",
                                .hint = "save model.state_dict()"});
}

std::map<std::string, Tensor> tensors_of(const PickleValue* root, Checkpoint& checkpoint, const std::string& where) {
  std::map<std::string, Tensor> tensors;
  const PickleValue* dictionary = state_dictionary(root, where);
  for (size_t i = 0; i + 1 < dictionary->items.size(); i += 2) {
    const PickleValue *key = dictionary->items[i], *value = dictionary->items[i + 1];
    if (key->kind == PickleKind::text && value->kind == PickleKind::tensor)
      tensors.insert_or_assign(key->text, checkpoint.tensor(key->text, *value));
  }
  return tensors;
}

std::map<std::string, Tensor> parse_zip_format(const MappedFile& file, const std::string& where) {
  std::map<std::string, ZipEntry> entries = read_zip(file, where);
  auto data = std::find_if(entries.begin(), entries.end(),
                           [](const auto& entry) { return entry.first.ends_with("/data.pkl"); });
  if (data == entries.end())
    fail(ErrorCode::unsupported, {.what = "cannot find the weights in " + where,
                                  .expected = "expected a zip archive of torch.save with an entry data.pkl"});
  std::string prefix = data->first.substr(0, data->first.size() - std::string_view("data.pkl").size());
  auto order = entries.find(prefix + "byteorder");
  if (order != entries.end() && order->second.bytes.size() == 3)  // "big"
    fail(ErrorCode::unsupported, {.what = "cannot read " + where, .expected = "expected byte order little, got big"});
  Unpickler unpickler(data->second.bytes, data->second.offset, where);
  const PickleValue* root = unpickler.load();
  Checkpoint checkpoint(file, where);
  for (const auto& [key, description] : unpickler.storages()) {
    auto entry = entries.find(prefix + "data/" + key);
    if (entry == entries.end())
      corrupt("cannot read storage " + key, "expected an archive entry " + prefix + "data/" + key, where,
              data->second.offset);
    checkpoint.add_storage(key, description, entry->second.bytes, entry->second.offset);
  }
  return tensors_of(root, checkpoint, where);
}

/// Five pickles (magic, protocol, system, object, storage keys), then for each key its number of elements and its
/// bytes.
std::map<std::string, Tensor> parse_plain_format(const MappedFile& file, const std::string& where) {
  Unpickler unpickler(file.bytes, 0, where);
  const PickleValue* magic = unpickler.load();
  if (magic->kind != PickleKind::big_integer || magic->text != kMagic)
    fail(ErrorCode::unsupported, {.what = "cannot read " + where,
                                  .expected = "expected a PyTorch checkpoint, got another pickle",
                                  .hint = "save it with torch.save(model.state_dict(), ...)"});
  const PickleValue* protocol = unpickler.load();
  if (protocol->kind != PickleKind::integer || protocol->integer != kPlainProtocol)
    unpickler.corrupt("expected protocol 1001", protocol->offset);
  const PickleValue* system = unpickler.load();
  if (system->kind != PickleKind::dict)
    unpickler.corrupt("expected a dictionary of the writing system", system->offset);
  for (size_t i = 0; i + 1 < system->items.size(); i += 2)
    if (system->items[i]->text == "little_endian" && system->items[i + 1]->kind == PickleKind::boolean &&
        system->items[i + 1]->integer == 0)
      unpickler.unsupported("big-endian storages", system->offset);
  const PickleValue* root = unpickler.load();
  const PickleValue* keys = unpickler.load();
  if (keys->kind != PickleKind::list) unpickler.corrupt("expected the list of storages", keys->offset);

  Checkpoint checkpoint(file, where);
  uint64_t at = unpickler.position(), size = file.bytes.size();
  for (const PickleValue* key : keys->items) {
    auto found = unpickler.storages().find(key->text);
    if (key->kind != PickleKind::text || found == unpickler.storages().end())
      unpickler.corrupt("a storage without tensors is listed", key->offset);
    if (size - at < 8)
      corrupt("cannot read storage " + key->text, "expected its size, got the end of the file", where, at);
    int64_t elements = 0;
    std::memcpy(&elements, file.bytes.data() + at, 8);
    at += 8;
    if (elements != found->second.elements)
      corrupt("cannot read storage " + key->text,
              "expected " + std::to_string(found->second.elements) + " elements, got " + std::to_string(elements),
              where, at - 8);
    auto bytes = static_cast<uint64_t>(elements * size_of(found->second.dtype));
    if (bytes > size - at)
      corrupt("cannot read storage " + key->text,
              "expected " + std::to_string(bytes) + " bytes, got " + std::to_string(size - at), where, at);
    checkpoint.add_storage(key->text, found->second, file.bytes.subspan(at, bytes), at);
    at += bytes;
  }
  return tensors_of(root, checkpoint, where);
}

}  // namespace

std::map<std::string, Tensor> read_pytorch(const std::filesystem::path& path) {
  return parse_pytorch(map_file(path), path.string());
}

std::map<std::string, Tensor> parse_pytorch(const MappedFile& file, const std::string& where) {
  if (looks_like_zip(file.bytes)) return parse_zip_format(file, where);
  if (!file.bytes.empty() && file.bytes[0] == std::byte{0x80}) return parse_plain_format(file, where);
  corrupt("cannot read " + where,
          "expected a PyTorch checkpoint (a zip archive or a pickle), got " +
              (file.bytes.empty() ? std::string("an empty file") : "other bytes"),
          where, 0);
}

}  // namespace octet::hf
