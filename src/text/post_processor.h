// Post-processors: where special tokens go, which type ids tokens get, and whether offsets leave out spaces.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"

namespace octet::text {

struct PostProcessor {
  /// A place of the result: the tokens of a text (0), of its pair (1), or special tokens (-1).
  struct Item {
    int sequence;
    int32_t type_id;
    std::vector<int32_t> ids;
  };
  /// Leading and trailing spaces of tokens leave their offsets.
  struct Trim {
    bool add_prefix_space;
  };
  std::vector<Item> single = {{0, 0, {}}};
  std::vector<Item> pair = {{0, 0, {}}, {1, 1, {}}};
  std::vector<Trim> trims;

  const std::vector<Item>& items(bool is_pair) const noexcept { return is_pair ? pair : single; }
  int64_t added(bool is_pair) const noexcept {
    int64_t count = 0;
    for (const Item& item : items(is_pair)) count += static_cast<int64_t>(item.ids.size());
    return count;
  }
};

PostProcessor make_post_processor(const nlohmann::json& json, const std::string& where);

}  // namespace octet::text
