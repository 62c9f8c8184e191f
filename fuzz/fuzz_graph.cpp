// The text form of graphs, as plan files carry it: what parses must verify and print to itself.
#include <map>
#include <string>
#include <vector>

#include "fuzz.h"
#include "graph/graph.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return octet::fuzz::expect_polite([&] {
    static const std::map<std::string, octet::Tensor> parameters{
        {"w", octet::Tensor::from(std::vector<float>(6, 0.5f), {3, 2})},
        {"s", octet::Tensor::from(std::vector<float>(3, 0.5f), {3})},
        {"t", octet::Tensor::scalar(0.5f)},
        {"z", octet::Tensor::from(std::vector<int32_t>{3}, {})},
        {"c", octet::Tensor::from(std::vector<float>(2, 2.0f), {2})}};
    octet::Graph graph = octet::parse_graph(octet::fuzz::text(data, size), parameters);
    std::string printed = octet::print(graph);
    if (octet::print(octet::parse_graph(printed, graph.parameters())) != printed) std::abort();
  });
}
