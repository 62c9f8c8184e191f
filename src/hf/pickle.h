// PyTorch checkpoints (pytorch_model.bin): the zip format and the older plain one, read without executing anything.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/file.h"
#include "core/tensor.h"

namespace octet::hf {

/// The tensors of a checkpoint: its top level, or the dictionary "model" or "state_dict" in it. Contiguous tensors are
/// views of the mapped file where it aligns them, others copies. Only the opcodes and globals that state dictionaries
/// need are known; others throw unsupported with their name and byte offset. Also throws not_found, io, corrupt.
std::map<std::string, Tensor> read_pytorch(const std::filesystem::path& path);
/// The same for bytes at hand; `where` names them in errors.
std::map<std::string, Tensor> parse_pytorch(const MappedFile& file, const std::string& where);

}  // namespace octet::hf
