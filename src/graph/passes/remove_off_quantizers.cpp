// Takes quantizers out that are off or never got a range.
#include "core/error.h"
#include "graph/passes.h"

namespace octet {

bool awaits_calibration(const Node& node) {
  return node.op == Op::fake_quant && node.input(1) == kNone && node.text("dynamic", "").empty();
}

void remove_off_quantizers(Graph& graph, bool allow_awaiting) {
  std::string awaiting;
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& node = graph.node(i);
    if (node.op != Op::fake_quant) continue;
    bool off = node.text("state", "on") == "off";
    if (!off && !awaits_calibration(node)) continue;
    if (!off && !allow_awaiting) awaiting = node.name + (awaiting.empty() ? "" : ", ") + awaiting;
    else graph.bypass(i);
  }
  if (!awaiting.empty())
    fail(ErrorCode::invalid_argument, {.what = "quantizers of graph " + graph.name + " have no range",
                                       .where = awaiting,
                                       .hint = "calibrate the model, or turn them off"});
}

}  // namespace octet
