// Access to tokenizer.json's components.
#include "text/component.h"

#include <vector>

#include "core/error.h"

namespace octet::text {

std::string component_type(const nlohmann::json& json, const char* kind, const std::string& where) {
  if (!json.is_object())
    fail(ErrorCode::corrupt, {.what = std::string("cannot read the ") + kind,
                              .expected = std::string("expected an object, got ") + json.type_name(),
                              .where = "in " + where});
  return json_get<std::string>(json, "type", where);
}

std::string json_text(const nlohmann::json& json, const char* key, const std::string& where) {
  return json_get<std::string>(json, key, where);
}

const nlohmann::json& json_array(const nlohmann::json& json, const char* key, const std::string& where) {
  auto found = json.is_object() ? json.find(key) : json.end();
  if (!json.is_object() || found == json.end())
    fail(ErrorCode::corrupt, {.what = std::string("missing key \"") + key + "\"", .where = "in " + where});
  if (!found->is_array())
    fail(ErrorCode::corrupt, {.what = std::string("cannot read \"") + key + "\"",
                              .expected = std::string("expected an array, got ") + found->type_name(),
                              .where = "in " + where});
  return *found;
}

void unknown_component(const char* kind, const std::string& type, std::initializer_list<const char*> known,
                       const std::string& where) {
  std::vector<std::string> names(known.begin(), known.end());
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  fail(ErrorCode::unsupported, {.what = std::string("unknown ") + kind + " \"" + type + "\"",
                                .expected = "known ones: " + list,
                                .where = "in " + where,
                                .hint = nearest_names(type, names)});
}

}  // namespace octet::text
