// The one comparison of two forms of a model: values of the same name, step by step of the second.
#pragma once

#include <octet/diff.h>

#include "core/threads.h"
#include "plan/executor.h"

namespace octet {

/// Runs `a` on the batch, then `b` step by step, and compares what they have in common (octet/diff.h). Both executors
/// keep all values (keep_all).
std::vector<DiffRow> compare_steps(Executor& a, Executor& b, const BatchView& batch, bool teacher_forced,
                                   ThreadPool& pool);

}  // namespace octet
