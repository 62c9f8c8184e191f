// Comparing two plans.
#include <octet/diff.h>

#include <algorithm>
#include <cmath>

#include "api/state.h"
#include "core/error.h"
#include "core/target.h"
#include "core/threads.h"
#include "plan/compare.h"

namespace octet {

std::vector<DiffRow> diff(const Plan& a, const Plan& b, const Batch& batch, const DiffOptions& options) {
  if (a.state()->as_is || b.state()->as_is)
    fail(ErrorCode::unsupported, {.what = "cannot compare a file that runs node by node, value by value",
                                  .hint = "`octet eval` compares answers"});
  auto pool = std::make_shared<ThreadPool>(options.threads);
  auto executor = [&](const Plan& plan) {
    const Target& target = plan.state()->target;
    return Executor(plan.state()->program, pool, target.device == DeviceKind::cpu ? host_target() : target, true);
  };
  Executor left = executor(a), right = executor(b);
  std::vector<DiffRow> rows =
      compare_steps(left, right, {.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.type_ids},
                    options.teacher_forced, *pool);
  if (rows.empty())
    fail(ErrorCode::invalid_argument, {.what = "cannot compare the two models",
                                       .expected = "they have no value of one name and width in common",
                                       .hint = "compare forms of one model"});
  return rows;
}

void merge_rows(std::vector<DiffRow>* into, const std::vector<DiffRow>& more) {
  if (into->empty()) {
    *into = more;
    return;
  }
  OCTET_CHECK(into->size() == more.size(), "rows of different comparisons");
  for (size_t i = 0; i < more.size(); ++i) {
    DiffRow& a = (*into)[i];
    const DiffRow& b = more[i];
    double na = static_cast<double>(a.elements), nb = static_cast<double>(b.elements), n = std::max(1.0, na + nb);
    auto mean = [&](double x, double y) { return (x * na + y * nb) / n; };
    a.max_abs = std::max(a.max_abs, b.max_abs);
    a.rms = std::sqrt(mean(a.rms * a.rms, b.rms * b.rms));
    a.reference_rms = std::sqrt(mean(a.reference_rms * a.reference_rms, b.reference_rms * b.reference_rms));
    a.equal_fraction = mean(a.equal_fraction, b.equal_fraction);
    a.max_steps = std::max(a.max_steps, b.max_steps);
    a.cosine = mean(a.cosine, b.cosine);
    a.elements += b.elements;
  }
}

}  // namespace octet
