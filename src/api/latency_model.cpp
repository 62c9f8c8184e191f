// Rates of cards, and the sum over a plan's steps.
#include "api/latency_model.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"

namespace octet {

namespace {

constexpr Card kCards[] = {
    {"h200", 1979, 989, 67, 4800},  {"h100", 1979, 989, 67, 3350},   {"h100-pcie", 1513, 756, 51, 2000},
    {"a100", 624, 312, 19.5, 2039}, {"a10", 250, 125, 31.2, 600},    {"l4", 242, 121, 30.3, 300},
    {"l40s", 733, 362, 91.6, 864},  {"rtx3090", 284, 71, 35.6, 936}, {"rtx4090", 661, 165, 82.6, 1008},
};

constexpr double kLaunchMs = 0.002;  // of one node of a CUDA graph

bool same(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

const Card& find_card(std::string_view name) {
  std::string known;
  for (const Card& card : kCards) {
    if (same(name, card.name)) return card;
    known += (known.empty() ? "" : ", ") + std::string(card.name);
  }
  fail(ErrorCode::invalid_argument, {.what = "no latency model for a card \"" + std::string(name) + "\"",
                                     .expected = "expected one of " + known,
                                     .hint = "on a machine with the card itself latency is measured"});
}

double modelled_ms(const Explanation& plan, const Card& card) {
  const bool integers = plan.int8_work_fraction > 0;
  double ms = 0;
  for (const ExplainedOp& op : plan.ops) {
    const double rate = op.precision == "int8" ? card.int8_tops : integers ? card.half_tflops : card.float_tflops;
    ms += std::max(2e-9 * op.macs / rate, 1e-6 * static_cast<double>(op.bytes) / card.gb_per_s) + kLaunchMs;
  }
  return ms;
}

}  // namespace octet
