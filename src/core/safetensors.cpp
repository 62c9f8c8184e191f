// The safetensors container: 8 bytes header length, a JSON header, then the data without gaps.
#include "core/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/error.h"

namespace octet {

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the format's own reader
constexpr uint64_t kAlignment = 64;

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr DTypeName kDTypes[] = {
    {DType::f64, "F64"}, {DType::f32, "F32"}, {DType::f16, "F16"}, {DType::bf16, "BF16"}, {DType::s64, "I64"},
    {DType::s32, "I32"}, {DType::s16, "I16"}, {DType::s8, "I8"},   {DType::u8, "U8"},     {DType::boolean, "BOOL"}};
/// Types of the format that octet has no use for.
constexpr std::string_view kOtherDTypes[] = {"U16",     "U32", "U64",     "F8_E4M3", "F8_E5M2",
                                             "F8_E8M0", "F4",  "F6_E2M3", "F6_E3M2", "C64"};

std::string_view format_name(DType dtype) {
  for (const DTypeName& entry : kDTypes)
    if (entry.dtype == dtype) return entry.name;
  return "?";
}

/// The file being read, for messages.
struct Source {
  const std::string& where;
  [[noreturn]] void corrupt(const std::string& what, const std::string& expected, uint64_t byte) const {
    fail(ErrorCode::corrupt, {.what = what,
                              .expected = expected,
                              .where = "in " + where + ", byte " + std::to_string(byte),
                              .hint = "the file is damaged or incomplete; fetch or write it again"});
  }
};

/// The header as JSON. Duplicate names would silently replace each other, so the keys are watched while parsing.
nlohmann::json parse_header(std::string_view text, const Source& source) {
  std::vector<std::set<std::string>> keys;
  auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth > 8)
      source.corrupt("cannot read the safetensors header", "expected at most 8 nested levels", kLengthBytes);
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) {
      keys.resize(static_cast<size_t>(depth) + 1);
      keys.back().clear();
    } else if (event == Event::key) {
      auto level = static_cast<size_t>(depth) - 1;
      if (level < keys.size() && !keys[level].insert(parsed.get_ref<const std::string&>()).second)
        source.corrupt("cannot read the safetensors header",
                       "the name \"" + parsed.get<std::string>() + "\" occurs twice", kLengthBytes);
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::parse_error& error) {
    source.corrupt("cannot read the safetensors header", std::string("expected JSON: ") + error.what(),
                   kLengthBytes + (error.byte > 0 ? error.byte - 1 : 0));  // theirs counts from 1
  } catch (const nlohmann::json::exception& error) {
    source.corrupt("cannot read the safetensors header", std::string("expected JSON: ") + error.what(), kLengthBytes);
  }
}

/// One tensor as the header states it; offsets are relative to the data.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin;
  uint64_t end;
};

std::optional<uint64_t> unsigned_value(const nlohmann::json& value) {
  // An integer beyond 64 bits is parsed as a float, so it lands here too.
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer() && value.get<int64_t>() >= 0) return static_cast<uint64_t>(value.get<int64_t>());
  return std::nullopt;
}

Entry parse_entry(const std::string& name, const nlohmann::json& value, const Source& source) {
  std::string what = "cannot read tensor " + name;
  auto require = [&](bool good, const std::string& expected) {
    if (!good) source.corrupt(what, expected, kLengthBytes);
  };
  require(value.is_object() && value.contains("dtype") && value.contains("shape") && value.contains("data_offsets"),
          "expected an object with dtype, shape and data_offsets");
  Entry entry{.name = name};

  const nlohmann::json& dtype = value["dtype"];
  require(dtype.is_string(), "expected dtype to be a string");
  const auto& dtype_name = dtype.get_ref<const std::string&>();
  auto known =
      std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const DTypeName& d) { return d.name == dtype_name; });
  if (known == std::end(kDTypes)) {
    std::string expected =
        "expected dtype F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL, got " + dtype_name.substr(0, 40);
    if (std::find(std::begin(kOtherDTypes), std::end(kOtherDTypes), dtype_name) != std::end(kOtherDTypes))
      fail(ErrorCode::unsupported, {.what = what, .expected = expected, .where = "in " + source.where});
    source.corrupt(what, expected, kLengthBytes);
  }
  entry.dtype = known->dtype;

  const nlohmann::json& shape = value["shape"];
  require(shape.is_array() && shape.size() <= 32, "expected shape to be a list of at most 32 sizes");
  int64_t bytes = size_of(entry.dtype);
  for (const nlohmann::json& extent : shape) {
    std::optional<uint64_t> size = unsigned_value(extent);
    require(size && *size <= INT64_MAX, "expected sizes that are not negative, got shape " + shape.dump());
    require(!__builtin_mul_overflow(bytes, static_cast<int64_t>(*size), &bytes),
            "the size of shape " + shape.dump() + " overflows 64 bits");
    entry.shape.push_back(static_cast<int64_t>(*size));
  }

  const nlohmann::json& offsets = value["data_offsets"];
  require(offsets.is_array() && offsets.size() == 2, "expected data_offsets to be [begin, end]");
  std::optional<uint64_t> begin = unsigned_value(offsets[0]), end = unsigned_value(offsets[1]);
  require(begin && end && *begin <= *end, "expected 0 <= begin <= end, got data_offsets " + offsets.dump());
  require(*end - *begin == static_cast<uint64_t>(bytes), "expected " + std::to_string(bytes) + " bytes for " +
                                                             dtype_name + to_string(entry.shape) + ", got " +
                                                             std::to_string(*end - *begin));
  entry.begin = *begin;
  entry.end = *end;
  return entry;
}

Tensor view_or_copy(const Entry& entry, const MappedFile& file, const std::byte* bytes) {
  if (reinterpret_cast<uintptr_t>(bytes) % static_cast<uintptr_t>(size_of(entry.dtype)) == 0)
    return Tensor(entry.dtype, entry.shape, file.owner, bytes);
  std::byte* copy = nullptr;
  Tensor tensor = Tensor::allocate(entry.dtype, entry.shape, &copy);
  std::memcpy(copy, bytes, entry.end - entry.begin);
  return tensor;
}

}  // namespace

Safetensors read_safetensors(const std::filesystem::path& path) {
  return parse_safetensors(map_file(path), path.string());
}

Safetensors parse_safetensors(const MappedFile& file, const std::string& where) {
  Source source{where};
  uint64_t size = file.bytes.size();
  if (size < kLengthBytes)
    source.corrupt("cannot read the safetensors header",
                   "expected 8 bytes of header length, got a file of " + std::to_string(size), size);
  uint64_t length = 0;
  std::memcpy(&length, file.bytes.data(), kLengthBytes);  // little-endian, like every machine octet runs on
  if (length > kMaxHeader || length > size - kLengthBytes)
    source.corrupt("cannot read the safetensors header",
                   "expected a header of at most " + std::to_string(std::min(kMaxHeader, size - kLengthBytes)) +
                       " bytes, got " + std::to_string(length),
                   0);
  std::string_view text(reinterpret_cast<const char*>(file.bytes.data()) + kLengthBytes, length);
  nlohmann::json header = parse_header(text, source);
  if (!header.is_object()) source.corrupt("cannot read the safetensors header", "expected a JSON object", kLengthBytes);

  Safetensors result;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object())
        source.corrupt("cannot read the safetensors metadata", "expected an object of strings", kLengthBytes);
      for (const auto& [key, text_value] : value.items()) {
        if (!text_value.is_string())
          source.corrupt("cannot read the safetensors metadata", "expected a string for \"" + key + "\"", kLengthBytes);
        result.metadata.emplace(key, text_value.get<std::string>());
      }
    } else {
      entries.push_back(parse_entry(name, value, source));
    }
  }

  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t data_start = kLengthBytes + length, data_size = size - data_start, position = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != position)
      source.corrupt(
          "cannot read tensor " + entry.name,
          std::string(entry.begin < position ? "it overlaps the tensor before it" : "there is a hole before it") +
              ": expected begin " + std::to_string(position) + ", got " + std::to_string(entry.begin),
          data_start + position);
    if (entry.end > data_size)
      source.corrupt(
          "cannot read tensor " + entry.name,
          "expected it to end within " + std::to_string(data_size) + " bytes of data, got " + std::to_string(entry.end),
          size);
    position = entry.end;
  }
  if (position != data_size)
    source.corrupt("cannot read " + where,
                   "expected " + std::to_string(position) + " bytes of data, got " + std::to_string(data_size),
                   data_start + position);
  for (Entry& entry : entries)
    result.tensors.emplace(entry.name, view_or_copy(entry, file, file.bytes.data() + data_start + entry.begin));
  return result;
}

void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  auto alignment = [](const Tensor& tensor) {
    auto bytes = static_cast<uint64_t>(tensor.bytes());
    return std::min(kAlignment, bytes == 0 ? kAlignment : bytes & (~bytes + 1));
  };
  std::vector<const std::pair<std::string, Tensor>*> order;
  std::set<std::string> names;
  for (const auto& entry : tensors) {
    if (entry.first == "__metadata__" || !names.insert(entry.first).second)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot write " + path.string(),
            .expected = "expected tensor names to differ, got \"" + entry.first + "\" again"});
    order.push_back(&entry);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](auto* a, auto* b) { return alignment(a->second) > alignment(b->second); });

  std::string header;
  try {
    header = "{";
    if (!metadata.empty()) header += "\"__metadata__\":" + nlohmann::json(metadata).dump();
    int64_t position = 0;
    for (const auto* entry : order) {
      const Tensor& tensor = entry->second;
      header += std::string(header.size() > 1 ? "," : "") + nlohmann::json(entry->first).dump() + ":{\"dtype\":\"" +
                std::string(format_name(tensor.dtype())) + "\",\"shape\":" + nlohmann::json(tensor.shape()).dump() +
                ",\"data_offsets\":[" + std::to_string(position) + "," + std::to_string(position + tensor.bytes()) +
                "]}";
      position += tensor.bytes();
    }
    header += "}";
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::invalid_argument,
         {.what = "cannot write " + path.string(),
          .expected = std::string("expected names and metadata in UTF-8: ") + error.what()});
  }
  header.resize((kLengthBytes + header.size() + kAlignment - 1) / kAlignment * kAlignment - kLengthBytes, ' ');

  uint64_t length = header.size();
  FileWriter writer(path);
  writer.write(std::as_bytes(std::span(&length, 1)));
  writer.write(header);
  for (const auto* entry : order)
    writer.write(std::span(entry->second.data(), static_cast<size_t>(entry->second.bytes())));
  writer.commit();
}

}  // namespace octet
