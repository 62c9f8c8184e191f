// PyTorch checkpoints: zip directory, pickle machine, tensors.
#include "fuzz.h"
#include "hf/pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return octet::fuzz::expect_polite([&] {
    unsigned sum = 0;
    for (const auto& [name, tensor] : octet::hf::parse_pytorch(octet::fuzz::file(data, size), "input"))
      for (int64_t i = 0; i < tensor.bytes(); ++i) sum += static_cast<unsigned>(tensor.data()[i]);
    static volatile unsigned sink;
    sink = sum;
  });
}
