// One function an operator, each writing nodes in the place of the fused one.
#include "onnx/decompose.h"

namespace octet::onnx {
void decompose(File&) {}
}  // namespace octet::onnx
