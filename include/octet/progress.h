// How long work reports where it is; the library itself never prints.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace octet {

/// Called from the working thread with the name of the stage and how much of it is done; an empty function means
/// silence.
using Progress = std::function<void(std::string_view stage, int64_t done, int64_t total)>;

}  // namespace octet
