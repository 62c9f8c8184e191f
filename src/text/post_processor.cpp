// Every post-processor of tokenizer.json as one template.
#include "text/post_processor.h"

#include "core/error.h"
#include "text/component.h"

namespace octet::text {
namespace {

/// ["[SEP]", 102] -> 102
int32_t special_id(const nlohmann::json& json, const char* key, const std::string& where) {
  const auto& entry = json_array(json, key, where);
  if (entry.size() != 2 || !entry[1].is_number_integer())
    fail(ErrorCode::corrupt,
         {.what = std::string("cannot read \"") + key + "\" of the post-processor",
          .expected = "expected [token, id], got " +
                      entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80),
          .where = "in " + where});
  return entry[1].get<int32_t>();
}

std::vector<PostProcessor::Item> read_template(const nlohmann::json& json, const char* key,
                                               const nlohmann::json& special_tokens, const std::string& where) {
  std::vector<PostProcessor::Item> items;
  for (const auto& piece : json_array(json, key, where)) {
    if (piece.is_object() && piece.contains("Sequence")) {
      std::string id = json_text(piece["Sequence"], "id", where);
      if (id != "A" && id != "B")
        fail(ErrorCode::corrupt, {.what = "cannot read the post-processor's template",
                                  .expected = "expected sequence A or B, got \"" + id + "\"",
                                  .where = "in " + where});
      items.push_back({id == "A" ? 0 : 1, json_get<int>(piece["Sequence"], "type_id", where), {}});
      continue;
    }
    auto special = json_get<nlohmann::json>(piece, "SpecialToken", where);
    std::string id = json_text(special, "id", where);
    auto token = special_tokens.find(id);
    if (token == special_tokens.end())
      fail(ErrorCode::corrupt, {.what = "the post-processor's template uses a token it does not define",
                                .expected = "expected \"" + id + "\" in special_tokens",
                                .where = "in " + where});
    PostProcessor::Item item{-1, json_get<int>(special, "type_id", where), {}};
    for (int64_t value : json_get<std::vector<int64_t>>(*token, "ids", where))
      item.ids.push_back(static_cast<int32_t>(value));
    items.push_back(std::move(item));
  }
  return items;
}

/// `which` occurs once where it must.
void check_sequences(const std::vector<PostProcessor::Item>& items, bool pair, const std::string& where) {
  int count[2] = {0, 0};
  for (const auto& item : items)
    if (item.sequence >= 0) ++count[item.sequence];
  if (count[0] != 1 || count[1] != (pair ? 1 : 0))
    fail(ErrorCode::unsupported,
         {.what = std::string("cannot use the post-processor's template for ") + (pair ? "pairs" : "single texts"),
          .expected = std::string("expected ") + (pair ? "A and B once each" : "A once and no B"),
          .where = "in " + where});
}

void add(PostProcessor& result, const nlohmann::json& json, const std::string& where) {
  std::string type = component_type(json, "post-processor", where);
  auto trim = [&] {
    if (json_get_or<bool>(json, "trim_offsets", true, where))
      result.trims.push_back({json_get_or<bool>(json, "add_prefix_space", true, where)});
  };
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    int32_t cls = special_id(json, "cls", where), sep = special_id(json, "sep", where);
    bool bert = type == "BertProcessing";
    result.single = {{-1, 0, {cls}}, {0, 0, {}}, {-1, 0, {sep}}};
    if (bert) {
      result.pair = {{-1, 0, {cls}}, {0, 0, {}}, {-1, 0, {sep}}, {1, 1, {}}, {-1, 1, {sep}}};
    } else {
      result.pair = {{-1, 0, {cls}}, {0, 0, {}}, {-1, 0, {sep, sep}}, {1, 0, {}}, {-1, 0, {sep}}};
      trim();
    }
  } else if (type == "TemplateProcessing") {
    auto special_tokens = json_get_or<nlohmann::json>(json, "special_tokens", nlohmann::json::object(), where);
    result.single = read_template(json, "single", special_tokens, where);
    result.pair = read_template(json, "pair", special_tokens, where);
    check_sequences(result.single, false, where);
    check_sequences(result.pair, true, where);
  } else if (type == "ByteLevel") {
    trim();
  } else if (type == "Sequence") {
    for (const auto& part : json_array(json, "processors", where)) add(result, part, where);
  } else {
    unknown_component("post-processor", type,
                      {"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"}, where);
  }
}

}  // namespace

PostProcessor make_post_processor(const nlohmann::json& json, const std::string& where) {
  PostProcessor result;
  if (!json.is_null()) add(result, json, where);
  return result;
}

}  // namespace octet::text
