// Calibration behind the public function.
#include <octet/plan.h>

#include "api/state.h"
#include "core/error.h"
#include "quant/quantize.h"

namespace octet {

Calibration calibrate(const Model& model, std::span<const Encoding> rows, const CalibrateOptions& options,
                      const Progress& progress) {
  if (rows.empty())
    fail(ErrorCode::invalid_argument, {.what = "cannot calibrate without rows", .hint = "give texts with --data"});
  const Model::State& state = model.state();
  std::vector<CalibrationRow> views;
  for (const Encoding& row : rows) views.push_back({row.ids, row.type_ids});
  require_raised(state, "calibrate");
  return calibrate_graph(state.graph, views, options, state.info.hash, state.pad_id, progress);
}

}  // namespace octet
