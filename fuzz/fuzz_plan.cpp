// Plan files: what loads must also run (on a small batch) without leaving its buffers. The mutator changes single
// values of the plan's JSON, whose length the container states, as often as bytes.
#include <octet/session.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "fuzz.h"

using nlohmann::json;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  octet::fuzz::MemoryFile file(data, size);
  return octet::fuzz::expect_polite([&] {
    octet::Plan plan = octet::Plan::load(file.path());
    octet::Session session(plan, {.threads = 1});
    const std::vector<int32_t> ids{1, 2, 0}, offsets{0, 2, 3};
    octet::fuzz::expect_polite([&] { session.run({.ids = ids, .offsets = offsets}); });
  });
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

void leaves(json& node, std::vector<json*>* found) {
  if (node.is_structured()) {
    found->push_back(&node);
    for (json& child : node) leaves(child, found);
  } else {
    found->push_back(&node);
  }
}

void change(json& root, std::mt19937& random) {
  std::vector<json*> all;
  leaves(root, &all);
  json &at = *all[random() % all.size()], &other = *all[random() % all.size()];
  static const int64_t kNumbers[] = {-1,
                                     0,
                                     1,
                                     2,
                                     3,
                                     7,
                                     8,
                                     31,
                                     32,
                                     33,
                                     64,
                                     127,
                                     128,
                                     255,
                                     256,
                                     65535,
                                     int64_t{1} << 24,
                                     INT32_MAX,
                                     int64_t{1} << 31,
                                     INT64_MAX,
                                     INT64_MIN};
  switch (random() % 6) {
    case 0: at = json(other); break;
    case 1: at = kNumbers[random() % std::size(kNumbers)]; break;
    case 2:
      if (at.is_number_integer())
        at = static_cast<int64_t>(static_cast<uint64_t>(at.get<int64_t>()) + (random() % 2 != 0 ? 1 : -1));
      break;
    case 3:
      if (at.is_boolean()) at = !at.get<bool>();
      break;
    case 4:
      if (at.is_structured() && !at.empty())
        at.erase(std::next(at.begin(), static_cast<int64_t>(random() % at.size())));
      break;
    default: {  // a value of the same kind from elsewhere
      std::vector<json*> alike;
      for (json* value : all)
        if (value->type() == at.type()) alike.push_back(value);
      at = json(*alike[random() % alike.size()]);
    }
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::mt19937 random(seed);
  uint64_t length = 0;
  if (random() % 4 == 0 || size < 8) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(&length, data, 8);
  if (length > size - 8) return LLVMFuzzerMutate(data, size, max_size);
  json header = json::parse(data + 8, data + 8 + length, nullptr, false);
  if (!header.is_object() || !header.contains("__metadata__") || !header["__metadata__"].is_object())
    return LLVMFuzzerMutate(data, size, max_size);
  json& metadata = header["__metadata__"];
  json plan = metadata.contains("octet.plan") && metadata["octet.plan"].is_string()
                  ? json::parse(metadata["octet.plan"].get<std::string>(), nullptr, false)
                  : json();
  for (unsigned n = 1 + random() % 3; n > 0; --n) {
    unsigned where = random() % 8;
    if (where == 0 || !plan.is_object()) change(header, random);
    else if (where == 1) change(plan, random);
    else if (plan.contains("program")) change(plan["program"], random);
  }
  if (plan.is_object() && header.is_object() && header.contains("__metadata__") && header["__metadata__"].is_object())
    header["__metadata__"]["octet.plan"] = plan.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  size_t rest = size - 8 - length;
  if (8 + text.size() + rest > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memmove(data + 8 + text.size(), data + 8 + length, rest);
  length = text.size();
  std::memcpy(data, &length, 8);
  std::memcpy(data + 8, text.data(), text.size());
  return 8 + text.size() + rest;
}
