// The safetensors reader: header, offsets, overlaps, dtypes.
#include "core/safetensors.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return octet::fuzz::expect_polite([&] {
    octet::Safetensors file = octet::parse_safetensors(octet::fuzz::file(data, size), "input");
    // Every byte that a tensor claims must be readable.
    unsigned sum = 0;
    for (const auto& [name, tensor] : file.tensors)
      for (int64_t i = 0; i < tensor.bytes(); ++i) sum += static_cast<unsigned>(tensor.data()[i]);
    static volatile unsigned sink;
    sink = sum;
  });
}
