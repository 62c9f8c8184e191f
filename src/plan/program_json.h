// A program as JSON (without its weights), for plan files; reading checks everything, since files come from anywhere.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "plan/program.h"

namespace octet {

nlohmann::json to_json(const Program& program);
/// `weights` are the tensors of the file. Throws corrupt: unknown kinds, missing keys, slots or weights that do not
/// fit.
Program program_from_json(const nlohmann::json& json, std::map<std::string, Tensor> weights, const std::string& where);

}  // namespace octet
