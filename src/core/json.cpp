// JSON parsing with a depth limit, and typed access.
#include "core/json.h"

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/file.h"

namespace octet {

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  constexpr int kMaxDepth = 128;
  // The callback sees every opening bracket before the recursive descent below it.
  auto limit = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth)
      fail(ErrorCode::corrupt,
           {.what = "cannot parse JSON", .expected = "expected at most 128 nested levels", .where = "in " + where});
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), limit);
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::corrupt, {.what = "cannot parse JSON", .expected = error.what(), .where = "in " + where});
  }
}

nlohmann::json read_json(const std::filesystem::path& path) { return parse_json(read_text(path), path.string()); }

template <typename T>
T json_get(const nlohmann::json& object, const char* key, const std::string& where) {
  auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end())
    fail(ErrorCode::corrupt, {.what = std::string("missing key \"") + key + "\"", .where = "in " + where});
  try {
    // Numbers must not wrap or truncate silently.
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (!found->is_number_integer()) throw std::invalid_argument("not an integer");
      bool fits = found->is_number_unsigned() ? std::in_range<T>(found->template get<uint64_t>())
                                              : std::in_range<T>(found->template get<int64_t>());
      if (!fits) throw std::invalid_argument("out of range");
    }
    return found->template get<T>();
  } catch (const std::exception&) {
    fail(ErrorCode::corrupt,
         {.what = std::string("unexpected type of key \"") + key + "\"",
          .expected = std::string("got ") + found->type_name() + ": " +
                      found->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80),
          .where = "in " + where});
  }
}

template <typename T>
T json_get_or(const nlohmann::json& object, const char* key, T fallback, const std::string& where) {
  if (!object.is_object()) return json_get<T>(object, key, where);
  auto found = object.find(key);
  return found == object.end() || found->is_null() ? fallback : json_get<T>(object, key, where);
}

#define OCTET_JSON_TYPE(T)                                                        \
  template T json_get<T>(const nlohmann::json&, const char*, const std::string&); \
  template T json_get_or<T>(const nlohmann::json&, const char*, T, const std::string&);
OCTET_JSON_TYPE(bool)
OCTET_JSON_TYPE(int)
OCTET_JSON_TYPE(int64_t)
OCTET_JSON_TYPE(double)
OCTET_JSON_TYPE(float)
OCTET_JSON_TYPE(std::string)
OCTET_JSON_TYPE(std::vector<std::string>)
OCTET_JSON_TYPE(std::vector<int64_t>)
OCTET_JSON_TYPE(nlohmann::json)
#undef OCTET_JSON_TYPE

}  // namespace octet
