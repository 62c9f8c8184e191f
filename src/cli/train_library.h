// Loading octet_train when a verb needs it, so that the others neither wait for libtorch nor depend on it.
#pragma once

#include <octet/train.h>

namespace octet::cli {

/// Throws unsupported, with how to get it, when this build has none or libtorch cannot be loaded.
const TrainFunctions& train_library();

}  // namespace octet::cli
