// JSON with octet's errors: the parser, and typed access that names the key and the file when something is off.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace octet {

/// Parses `text`; `where` names the file in the error. Nesting deeper than 128 is refused (corrupt).
nlohmann::json parse_json(std::string_view text, const std::string& where);
nlohmann::json read_json(const std::filesystem::path& path);

/// object[key] as T; a missing key or another type throws corrupt and names both.
template <typename T>
T json_get(const nlohmann::json& object, const char* key, const std::string& where);
/// The same with a value for a missing or null key.
template <typename T>
T json_get_or(const nlohmann::json& object, const char* key, T fallback, const std::string& where);

}  // namespace octet
