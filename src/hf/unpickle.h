// A pickle machine that knows data, tensors and nothing else: no import, no call, no attribute.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace octet::hf {

/// A storage that tensors point into, as a persistent id names it.
struct PickleStorage {
  DType dtype = DType::f32;
  int64_t elements = 0;
};

enum class PickleKind : uint8_t {
  none,
  boolean,
  integer,
  real,
  text,
  big_integer,
  tuple,
  list,
  dict,
  global,
  storage,
  tensor,
  record,
  mark
};

/// One object. Which fields hold something depends on the kind.
struct PickleValue {
  PickleKind kind = PickleKind::none;
  int64_t integer = 0;  ///< boolean, integer; storage and tensor: first element in the storage
  double real = 0;
  std::string
      text;  ///< text; big_integer: its little-endian bytes; global: "module name"; storage, tensor: the storage's key
  std::vector<PickleValue*> items;     ///< tuple, list; dict: key, value, key, value ...; tensor: none
  std::vector<int64_t> shape, stride;  ///< tensor
  uint64_t offset = 0;                 ///< byte in the file that made it
};

/// Runs pickles over one byte range, one after the other; values live as long as the machine.
class Unpickler {
 public:
  /// `bytes` starts at byte `base` of the file `where`.
  Unpickler(std::span<const std::byte> bytes, uint64_t base, const std::string& where)
      : bytes_(bytes), base_(base), where_(where) {}

  /// The next pickle's value. Throws corrupt, unsupported.
  PickleValue* load();
  /// Bytes read so far.
  uint64_t position() const noexcept { return at_; }
  /// All storages that persistent ids have named, by key.
  const std::map<std::string, PickleStorage>& storages() const noexcept { return storages_; }

  [[noreturn]] void corrupt(const std::string& expected, uint64_t offset) const;
  [[noreturn]] void unsupported(const std::string& what, uint64_t offset) const;

 private:
  PickleValue* make(PickleKind kind);
  PickleValue* make_int(int64_t value);
  PickleValue* make_text(uint64_t size);
  PickleValue* pop();
  PickleValue* top(PickleKind kind, const char* what);
  std::vector<PickleValue*> pop_to_mark();
  std::span<const std::byte> take(uint64_t size);
  template <typename T>
  T number();
  std::string line();

  void step(uint8_t opcode);
  void push_global(const std::string& module, const std::string& name);
  void reduce();
  void build();
  void new_object();
  void persistent_id();
  PickleValue* rebuild_tensor(const std::vector<PickleValue*>& arguments);
  int64_t integer_of(const PickleValue* value, const char* what) const;

  std::span<const std::byte> bytes_;
  uint64_t base_;
  const std::string& where_;
  uint64_t at_ = 0;
  uint64_t opcode_at_ = 0;
  bool done_ = false;
  size_t copied_ = 0;
  std::deque<PickleValue> values_;
  std::vector<PickleValue*> stack_;
  std::map<uint64_t, PickleValue*> memo_;
  std::map<std::string, PickleStorage> storages_;
};

}  // namespace octet::hf
