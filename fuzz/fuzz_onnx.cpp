// The ONNX reader, the writing out of fused operators, the raising interpreter and the verifier of its result.
#include "fuzz.h"
#include "onnx/decompose.h"
#include "onnx/raise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return octet::fuzz::expect_polite([&] {
    octet::onnx::File file = octet::onnx::parse_file(octet::fuzz::file(data, size), "input", "/nonexistent");
    octet::onnx::decompose(file);
    octet::onnx::RaiseResult result = octet::onnx::raise(file);
    if (result.raised) octet::verify(result.raised->graph);
  });
}
