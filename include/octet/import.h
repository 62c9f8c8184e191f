// Ranges that other tools left.
#pragma once

#include <octet/calibration.h>
#include <octet/model.h>

#include <filesystem>

namespace octet {

/// The ranges that pytorch-quantization saved in a checkpoint (tensors named QUANTIZER._amax; .bin or .safetensors), as
/// a calibration of placement qdqbert without statistics. Quantizers without a range are off. Throws not_found (no
/// such tensors), corrupt (ranges that do not fit).
Calibration import_amax(const Model& model, const std::filesystem::path& checkpoint);

}  // namespace octet
