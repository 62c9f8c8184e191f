// The opcodes of state dictionaries, protocols 2 to 5.
#include "hf/unpickle.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace octet::hf {

namespace {

// A checkpoint needs about twenty values a tensor; this bounds what a hostile file can make us allocate.
constexpr size_t kMaxValues = 4'000'000;

struct StorageType {
  std::string_view name;
  DType dtype;
};
constexpr StorageType kStorageTypes[] = {{"torch DoubleStorage", DType::f64}, {"torch FloatStorage", DType::f32},
                                         {"torch HalfStorage", DType::f16},   {"torch BFloat16Storage", DType::bf16},
                                         {"torch LongStorage", DType::s64},   {"torch IntStorage", DType::s32},
                                         {"torch ShortStorage", DType::s16},  {"torch CharStorage", DType::s8},
                                         {"torch ByteStorage", DType::u8},    {"torch BoolStorage", DType::boolean}};

std::optional<DType> storage_dtype(std::string_view global) {
  for (const StorageType& type : kStorageTypes)
    if (type.name == global) return type.dtype;
  return std::nullopt;
}

constexpr std::string_view kOrderedDict = "collections OrderedDict";
constexpr std::string_view kNamespace = "argparse Namespace";  // plain attributes: how fairseq stores its arguments
constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor",
                           kRebuildTensor2 = "torch._utils _rebuild_tensor_v2",
                           kRebuildParameter = "torch._utils _rebuild_parameter";

bool known_global(std::string_view global) {
  for (std::string_view known : {kOrderedDict, kNamespace, kRebuildTensor, kRebuildTensor2, kRebuildParameter})
    if (known == global) return true;
  return storage_dtype(global).has_value();
}

std::string hex(uint8_t byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  return std::string("0x") + kDigits[byte >> 4] + kDigits[byte & 15];
}

const char* opcode_name(uint8_t opcode) {
  switch (opcode) {
    case '(': return "MARK";
    case '0': return "POP";
    case '1': return "POP_MARK";
    case '2': return "DUP";
    case 'F': return "FLOAT";
    case 'I': return "INT";
    case 'L': return "LONG";
    case 'P': return "PERSID";
    case 'S': return "STRING";
    case 'V': return "UNICODE";
    case 'd': return "DICT";
    case 'g': return "GET";
    case 'i': return "INST";
    case 'l': return "LIST";
    case 'o': return "OBJ";
    case 'p': return "PUT";
    case 0x82: return "EXT1";
    case 0x83: return "EXT2";
    case 0x84: return "EXT4";
    case 0x8b: return "LONG4";
    case 0x8f: return "EMPTY_SET";
    case 0x90: return "ADDITEMS";
    case 0x91: return "FROZENSET";
    case 0x92: return "NEWOBJ_EX";
    case 0x96: return "BYTEARRAY8";
    case 0x97: return "NEXT_BUFFER";
    case 0x98: return "READONLY_BUFFER";
    default: return "unknown";
  }
}

const char* kind_name(PickleKind kind) {
  constexpr const char* kNames[] = {"None",           "a bool",   "an integer", "a float",      "a string",
                                    "a long integer", "a tuple",  "a list",     "a dictionary", "a global",
                                    "a storage",      "a tensor", "a record",   "a mark"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace

void Unpickler::corrupt(const std::string& expected, uint64_t offset) const {
  fail(ErrorCode::corrupt, {.what = "cannot read the pickle",
                            .expected = expected,
                            .where = "in " + where_ + ", byte " + std::to_string(base_ + offset),
                            .hint = "the file is damaged or incomplete; fetch or write it again"});
}

void Unpickler::unsupported(const std::string& what, uint64_t offset) const {
  fail(ErrorCode::unsupported, {.what = "cannot read the pickle: " + what,
                                .expected = "expected a dictionary of tensors; nothing else is executed or built",
                                .where = "in " + where_ + ", byte " + std::to_string(base_ + offset),
                                .hint = "save model.state_dict() alone, or use safetensors"});
}

PickleValue* Unpickler::make(PickleKind kind) {
  if (values_.size() >= kMaxValues) corrupt("expected at most " + std::to_string(kMaxValues) + " values", opcode_at_);
  values_.push_back({.kind = kind, .offset = opcode_at_});
  return &values_.back();
}

PickleValue* Unpickler::make_int(int64_t value) {
  PickleValue* made = make(PickleKind::integer);
  made->integer = value;
  return made;
}

PickleValue* Unpickler::make_text(uint64_t size) {
  auto bytes = take(size);
  PickleValue* made = make(PickleKind::text);
  made->text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return made;
}

std::span<const std::byte> Unpickler::take(uint64_t size) {
  if (size > bytes_.size() - at_)
    corrupt("expected " + std::to_string(size) + " more bytes, got " + std::to_string(bytes_.size() - at_), at_);
  auto taken = bytes_.subspan(at_, size);
  at_ += size;
  return taken;
}

template <typename T>
T Unpickler::number() {
  T value;
  std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
  return value;
}

std::string Unpickler::line() {
  constexpr uint64_t kMaxLine = 1000;
  uint64_t end = at_;
  while (end < bytes_.size() && bytes_[end] != std::byte{'\n'}) {
    if (end - at_ >= kMaxLine) corrupt("expected a line end", at_);
    ++end;
  }
  auto bytes = take(end - at_);
  take(1);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

PickleValue* Unpickler::pop() {
  if (stack_.empty() || stack_.back()->kind == PickleKind::mark) corrupt("the stack is empty", opcode_at_);
  PickleValue* value = stack_.back();
  stack_.pop_back();
  return value;
}

PickleValue* Unpickler::top(PickleKind kind, const char* what) {
  if (stack_.empty() || stack_.back()->kind != kind)
    corrupt(std::string("expected ") + what + " on the stack", opcode_at_);
  return stack_.back();
}

std::vector<PickleValue*> Unpickler::pop_to_mark() {
  auto mark =
      std::find_if(stack_.rbegin(), stack_.rend(), [](const PickleValue* v) { return v->kind == PickleKind::mark; });
  if (mark == stack_.rend()) corrupt("found no mark on the stack", opcode_at_);
  std::vector<PickleValue*> items(mark.base(), stack_.end());
  stack_.erase(mark.base() - 1, stack_.end());
  return items;
}

PickleValue* Unpickler::load() {
  stack_.clear();
  memo_.clear();
  done_ = false;
  while (!done_) {
    opcode_at_ = at_;
    step(number<uint8_t>());
  }
  PickleValue* result = pop();
  if (!stack_.empty()) corrupt("expected one value at the end", opcode_at_);
  return result;
}

void Unpickler::step(uint8_t opcode) {
  auto tuple = [&](size_t size) {
    std::vector<PickleValue*> items(size);
    for (size_t i = size; i-- > 0;) items[i] = pop();
    PickleValue* made = make(PickleKind::tuple);
    made->items = std::move(items);
    stack_.push_back(made);
  };
  auto add_pairs = [&](PickleValue* dict, const std::vector<PickleValue*>& items) {
    if (items.size() % 2 != 0) corrupt("expected pairs of keys and values", opcode_at_);
    dict->items.insert(dict->items.end(), items.begin(), items.end());
  };
  auto put = [&](uint64_t index) {
    if (stack_.empty() || stack_.back()->kind == PickleKind::mark) corrupt("the stack is empty", opcode_at_);
    memo_[index] = stack_.back();
  };
  auto get = [&](uint64_t index) {
    auto found = memo_.find(index);
    if (found == memo_.end()) corrupt("no value was remembered as " + std::to_string(index), opcode_at_);
    stack_.push_back(found->second);
  };
  switch (opcode) {
    case 0x80:  // PROTO
      if (auto protocol = number<uint8_t>(); protocol < 2 || protocol > 5)
        unsupported("protocol " + std::to_string(protocol), opcode_at_);
      break;
    case 0x95: number<uint64_t>(); break;  // FRAME: a hint for streams
    case '.': done_ = true; break;
    case '(': stack_.push_back(make(PickleKind::mark)); break;
    case '0': pop(); break;
    case 'N': stack_.push_back(make(PickleKind::none)); break;
    case 0x88:
    case 0x89: {
      PickleValue* made = make(PickleKind::boolean);
      made->integer = opcode == 0x88;
      stack_.push_back(made);
      break;
    }
    case 'J': stack_.push_back(make_int(number<int32_t>())); break;
    case 'K': stack_.push_back(make_int(number<uint8_t>())); break;
    case 'M': stack_.push_back(make_int(number<uint16_t>())); break;
    case 0x8a: {  // LONG1: two's complement, little-endian
      auto bytes = take(number<uint8_t>());
      PickleValue* made = make(PickleKind::integer);
      if (bytes.size() > 8) {
        made->kind = PickleKind::big_integer;
        made->text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      } else if (!bytes.empty()) {
        uint64_t bits = (bytes.back() & std::byte{0x80}) != std::byte{0} ? ~uint64_t{0} : 0;
        std::memcpy(&bits, bytes.data(), bytes.size());
        made->integer = static_cast<int64_t>(bits);
      }
      stack_.push_back(made);
      break;
    }
    case 'G': {  // BINFLOAT: big-endian
      PickleValue* made = make(PickleKind::real);
      made->real = std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()));
      stack_.push_back(made);
      break;
    }
    case 'X':
    case 'T':
    case 'B': stack_.push_back(make_text(number<uint32_t>())); break;
    case 0x8c:
    case 'U':
    case 'C': stack_.push_back(make_text(number<uint8_t>())); break;
    case 0x8d:
    case 0x8e: stack_.push_back(make_text(number<uint64_t>())); break;
    case '}': stack_.push_back(make(PickleKind::dict)); break;
    case ']': stack_.push_back(make(PickleKind::list)); break;
    case ')': tuple(0); break;
    case 0x85: tuple(1); break;
    case 0x86: tuple(2); break;
    case 0x87: tuple(3); break;
    case 't': {
      std::vector<PickleValue*> items = pop_to_mark();
      PickleValue* made = make(PickleKind::tuple);
      made->items = std::move(items);
      stack_.push_back(made);
      break;
    }
    case 'a': {
      PickleValue* item = pop();
      top(PickleKind::list, "a list")->items.push_back(item);
      break;
    }
    case 'e': {
      std::vector<PickleValue*> items = pop_to_mark();
      PickleValue* list = top(PickleKind::list, "a list");
      list->items.insert(list->items.end(), items.begin(), items.end());
      break;
    }
    case 's': {
      PickleValue* value = pop();
      PickleValue* key = pop();
      add_pairs(top(PickleKind::dict, "a dictionary"), {key, value});
      break;
    }
    case 'u': {
      std::vector<PickleValue*> items = pop_to_mark();
      add_pairs(top(PickleKind::dict, "a dictionary"), items);
      break;
    }
    case 'q': put(number<uint8_t>()); break;
    case 'r': put(number<uint32_t>()); break;
    case 0x94: put(memo_.size()); break;
    case 'h': get(number<uint8_t>()); break;
    case 'j': get(number<uint32_t>()); break;
    case 'c': {
      std::string module = line();
      push_global(module, line());
      break;
    }
    case 0x93: {
      PickleValue* attribute = pop();
      PickleValue* module = pop();
      if (attribute->kind != PickleKind::text || module->kind != PickleKind::text)
        corrupt("expected two strings for a global", opcode_at_);
      push_global(module->text, attribute->text);
      break;
    }
    case 'R': reduce(); break;
    case 'b': build(); break;
    case 0x81: new_object(); break;
    case 'Q': persistent_id(); break;
    default: unsupported(std::string("opcode ") + hex(opcode) + " (" + opcode_name(opcode) + ")", opcode_at_);
  }
}

void Unpickler::push_global(const std::string& module, const std::string& name) {
  std::string global = module + " " + name;
  if (!known_global(global)) {
    std::string shown;
    for (char c : (module + "." + name).substr(0, 200)) shown += c >= ' ' && c <= '~' ? c : '?';
    unsupported("global " + shown, opcode_at_);
  }
  PickleValue* made = make(PickleKind::global);
  made->text = std::move(global);
  stack_.push_back(made);
}

int64_t Unpickler::integer_of(const PickleValue* value, const char* what) const {
  if (value->kind != PickleKind::integer)
    corrupt(std::string("expected an integer as ") + what + ", got " + kind_name(value->kind), value->offset);
  return value->integer;
}

PickleValue* Unpickler::rebuild_tensor(const std::vector<PickleValue*>& arguments) {
  // storage, offset, size, stride, and what only training needs
  if (arguments.size() < 4 || arguments[0]->kind != PickleKind::storage || arguments[2]->kind != PickleKind::tuple ||
      arguments[3]->kind != PickleKind::tuple)
    corrupt("expected storage, offset, size and stride of a tensor", opcode_at_);
  const auto &sizes = arguments[2]->items, &strides = arguments[3]->items;
  if (sizes.size() > 32 || sizes.size() != strides.size())
    corrupt("expected as many strides as sizes, at most 32, got " + std::to_string(strides.size()) + " and " +
                std::to_string(sizes.size()),
            opcode_at_);
  PickleValue* made = make(PickleKind::tensor);
  made->text = arguments[0]->text;
  int64_t offset = integer_of(arguments[1], "a tensor's offset");
  if (offset < 0 || __builtin_add_overflow(offset, arguments[0]->integer, &made->integer))
    corrupt("expected an offset inside the storage", opcode_at_);
  for (const PickleValue* extent : sizes) made->shape.push_back(integer_of(extent, "a tensor's size"));
  for (const PickleValue* step : strides) made->stride.push_back(integer_of(step, "a tensor's stride"));
  return made;
}

void Unpickler::reduce() {
  PickleValue* arguments = pop();
  PickleValue* callee = pop();
  if (arguments->kind != PickleKind::tuple) corrupt("expected a tuple of arguments", opcode_at_);
  if (callee->kind != PickleKind::global)
    corrupt(std::string("expected a global to call, got ") + kind_name(callee->kind), opcode_at_);
  if (callee->text == kOrderedDict) {
    PickleValue* dict = make(PickleKind::dict);
    if (!arguments->items.empty()) {
      // OrderedDict([[key, value], ...])
      PickleValue* pairs = arguments->items[0];
      if (pairs->kind != PickleKind::list) corrupt("expected a list of pairs", opcode_at_);
      // One remembered list could be copied again and again; what is copied counts like new values.
      if (copied_ += pairs->items.size(); copied_ > kMaxValues)
        corrupt("expected at most " + std::to_string(kMaxValues) + " values", opcode_at_);
      for (const PickleValue* pair : pairs->items) {
        if ((pair->kind != PickleKind::list && pair->kind != PickleKind::tuple) || pair->items.size() != 2)
          corrupt("expected a list of pairs", opcode_at_);
        dict->items.insert(dict->items.end(), {pair->items[0], pair->items[1]});
      }
    }
    stack_.push_back(dict);
  } else if (callee->text == kRebuildTensor || callee->text == kRebuildTensor2) {
    stack_.push_back(rebuild_tensor(arguments->items));
  } else if (callee->text == kRebuildParameter) {
    if (arguments->items.empty() || arguments->items[0]->kind != PickleKind::tensor)
      corrupt("expected a tensor in a parameter", opcode_at_);
    stack_.push_back(arguments->items[0]);
  } else {
    unsupported("a call of " + callee->text, opcode_at_);
  }
}

void Unpickler::build() {
  PickleValue* state = pop();
  if (stack_.empty()) corrupt("the stack is empty", opcode_at_);
  PickleValue* object = stack_.back();
  if (object->kind == PickleKind::record) object->items = {state};
  else if (object->kind != PickleKind::dict)  // a state dictionary's _metadata is of no use here
    unsupported(std::string("state for ") + kind_name(object->kind), opcode_at_);
}

void Unpickler::new_object() {
  PickleValue* arguments = pop();
  PickleValue* type = pop();
  if (type->kind != PickleKind::global || arguments->kind != PickleKind::tuple)
    corrupt("expected a class and its arguments", opcode_at_);
  if (type->text != kNamespace || !arguments->items.empty()) unsupported("an object of " + type->text, opcode_at_);
  stack_.push_back(make(PickleKind::record));
}

void Unpickler::persistent_id() {
  // ("storage", type, key, location, elements) and, in the plain format, (view key, offset, elements) or None
  PickleValue* id = pop();
  if (id->kind != PickleKind::tuple || id->items.size() < 5 || id->items[0]->kind != PickleKind::text ||
      id->items[0]->text != "storage" || id->items[1]->kind != PickleKind::global ||
      id->items[2]->kind != PickleKind::text)
    corrupt("expected (\"storage\", type, key, location, elements)", opcode_at_);
  std::optional<DType> dtype = storage_dtype(id->items[1]->text);
  if (!dtype) unsupported("a storage of " + id->items[1]->text, opcode_at_);
  const std::string& key = id->items[2]->text;
  if (key.size() > 256) corrupt("expected a storage's key of at most 256 bytes", opcode_at_);
  int64_t elements = integer_of(id->items[4], "a storage's size");
  if (elements < 0 || elements > INT64_MAX / 8)
    corrupt("expected a storage's size of 0 to 2^60, got " + std::to_string(elements), opcode_at_);
  auto [found, fresh] = storages_.emplace(key, PickleStorage{*dtype, elements});
  if (!fresh && (found->second.dtype != *dtype || found->second.elements != elements))
    corrupt("storage " + key + " is described in two ways", opcode_at_);
  PickleValue* made = make(PickleKind::storage);
  made->text = key;
  if (id->items.size() > 5 && id->items[5]->kind == PickleKind::tuple) {
    if (id->items[5]->items.size() != 3) corrupt("expected (key, offset, elements) of a storage's view", opcode_at_);
    made->integer = integer_of(id->items[5]->items[1], "a view's offset");
    if (made->integer < 0) corrupt("expected a view inside the storage", opcode_at_);
  }
  stack_.push_back(made);
}

}  // namespace octet::hf
