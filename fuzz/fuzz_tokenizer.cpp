// tokenizer.json, and encoding with whatever loads. Input: the JSON, optionally a zero byte, then a text to encode.
#include <octet/tokenizer.h>

#include <string>

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input = octet::fuzz::text(data, size);
  size_t zero = input.find('\0');
  std::string_view sample = zero == std::string_view::npos ? "Ab c\xc3\xa9 12, [MASK]!" : input.substr(zero + 1);
  return octet::fuzz::expect_polite([&] {
    octet::Tokenizer tokenizer = octet::Tokenizer::from_json(input.substr(0, zero), "input");
    octet::Tokenizer again = octet::Tokenizer::from_json(tokenizer.to_json(), "to_json");
    octet::Encoding encoding;
    octet::fuzz::expect_polite([&] {
      encoding = tokenizer.encode(sample, "b");
      if (again.encode(sample, "b").ids != encoding.ids) std::abort();
    });
    octet::fuzz::expect_polite([&] { tokenizer.encode(sample, "b", {.max_length = 4}); });
    tokenizer.decode(encoding.ids);
  });
}
