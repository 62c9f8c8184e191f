// Safetensors files: the container of Hugging Face weights and of octet's own plan and calibration files.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"

namespace octet {

struct Safetensors {
  std::map<std::string, Tensor> tensors;        ///< views into the mapped file, which they keep alive
  std::map<std::string, std::string> metadata;  ///< the `__metadata__` entry; empty when there is none
};

/// Maps and checks a file: every tensor lies inside it, without gaps or overlaps, at its size. Tensors that are not
/// aligned to their element are copied. Throws not_found, io, corrupt (with the byte offset), unsupported (a dtype
/// octet lacks).
Safetensors read_safetensors(const std::filesystem::path& path);
/// The same for bytes at hand; `where` names them in errors.
Safetensors parse_safetensors(const MappedFile& file, const std::string& where);

/// Writes a file in one step (see FileWriter); equal input gives equal bytes. Data starts at a multiple of 64. The
/// format allows no gaps, so tensors are laid out by the power of two that divides their size, largest first and in the
/// given order within it: a tensor whose size is a multiple of 64 starts at one, and every tensor is aligned to its
/// element.
void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace octet
