// Writing a model as a Hugging Face folder that transformers loads.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/tensor.h"
#include "hf/model.h"

namespace octet::hf {

/// The name of a graph's value or node in the written checkpoint: a model with a head gets its family's prefix, which a
/// checkpoint of a bare encoder lacks.
std::string written_name(const LoadedModel& model, const std::string& name);

/// config.json (the source's, with head and labels), model.safetensors, and the source's tokenizer files.
void write_folder(const std::filesystem::path& source, const std::filesystem::path& output, const LoadedModel& model,
                  const std::map<std::string, Tensor>& parameters);

}  // namespace octet::hf
