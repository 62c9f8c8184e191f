// config.json.
#include "fuzz.h"
#include "hf/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return octet::fuzz::expect_polite([&] { octet::hf::parse_config(octet::fuzz::text(data, size), "config.json"); });
}
