// Latency of a plan on a card that is not here: a model, for those who ask for one.
#pragma once

#include <octet/plan.h>

#include <string>
#include <string_view>

namespace octet {

/// Dense rates by the makers' data sheets.
struct Card {
  const char* name;
  double int8_tops, half_tflops, float_tflops;  ///< half: with sums in f32; float: without TF32
  double gb_per_s;                              ///< of device memory
};

/// Without regard to case; throws invalid_argument with the known names.
const Card& find_card(std::string_view name);

/// Milliseconds: over the steps, the larger of products at the card's rate and bytes at its memory's, and a launch.
/// Float steps of an INT8 plan count as FP16, which a GPU plan computes them in. This is a floor that real kernels stay
/// above by a factor which is alike for plans of one model.
double modelled_ms(const Explanation& plan, const Card& card);

}  // namespace octet
