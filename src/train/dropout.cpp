// Finding the places of dropout in a graph.
#include "train/dropout.h"

#include "quant/structure.h"

namespace octet::train {

DropoutSites dropout_sites(const Graph& graph, double hidden, double attention, double classifier) {
  DropoutSites sites;
  auto drop = [&](ValueId value, double p) {
    if (value != kNone && p > 0) sites.probability[graph.value(behind_quantizers(graph, value)).name] = p;
  };
  const Structure structure = find_structure(graph);
  auto node_of = [&](const std::string& name) -> const Node& {
    return graph.node(static_cast<size_t>(graph.find_node(name)));
  };
  for (const Node& node : graph.nodes())
    if (node.op == Op::layer_norm) {  // the first is the embeddings'
      drop(node.output, hidden);
      break;
    }
  for (const ResidualSite& site : structure.residuals) drop(node_of(site.add).input(site.local), hidden);
  for (const AttentionSite& site : structure.attentions) drop(node_of(site.context).input(0), attention);
  for (const LinearSite& site : structure.linears)
    if (site.where == Where::head && site.node != "qa_outputs") drop(node_of(site.node).input(0), classifier);
  return sites;
}

}  // namespace octet::train
