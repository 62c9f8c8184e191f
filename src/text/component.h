// Reading the components of tokenizer.json, with the errors they share.
#pragma once

#include <initializer_list>
#include <string>

#include "core/json.h"

namespace octet::text {

/// json["type"]; throws corrupt if `json` is no object with it.
std::string component_type(const nlohmann::json& json, const char* kind, const std::string& where);
/// json[key] as valid UTF-8 text.
std::string json_text(const nlohmann::json& json, const char* key, const std::string& where);
/// json[key], which must be an array.
const nlohmann::json& json_array(const nlohmann::json& json, const char* key, const std::string& where);
/// Throws unsupported and names the known components.
[[noreturn]] void unknown_component(const char* kind, const std::string& type, std::initializer_list<const char*> known,
                                    const std::string& where);

}  // namespace octet::text
