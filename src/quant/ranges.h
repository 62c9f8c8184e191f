// From statistics to scales: methods, channel balancing, weights.
//
// One scale a tensor: the method finds the range on the tensor's histogram. One scale a channel: a channel's range is
// its own maximum, but at most the tensor's range by the method and at least the median channel's. `auto` takes the
// range of least mean |error|^kAutoPower for the former and plain maxima for the latter (an outlier channel costs
// nothing there, and clipping it costs much).
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "graph/graph.h"
#include "quant/statistics.h"

namespace octet {

/// Between 2 (mean squared error, which clips outliers that transformers need) and infinity (the maximum).
constexpr double kAutoPower = 4.0;

/// A method's name, taken apart.
struct Method {
  enum class Kind : uint8_t { max, percentile, entropy, mse, automatic } kind = Kind::automatic;
  double percent = 0.0;  ///< percentile only
  std::string name() const;
};
/// Reads max, percentile:P, entropy, mse, auto; throws invalid_argument with the known ones.
Method parse_method(std::string_view text);

struct MethodOptions {
  Method method;
  /// max, percentile:P or mse.
  Method weights{Method::Kind::max};
  /// Channel balancing of an edge into linears: the vector is amax^s / wmax^(1 - s). At 1 every channel of the
  /// activation uses its whole range, at 0 every column of the weight does. Chosen on MiniLM with rows of the STS-B
  /// train file that calibration did not use (mean cosine to FP32: 0.5: 0.939, 0.7: 0.9929, 0.8: 0.9958, 0.9: 0.9973,
  /// 1: 0.9970).
  double strength = 0.9;
  /// Of single edges: by the name of an input quantizer of a linear; by the name of an attention's scores for q against
  /// k, where 0.5 gives both the same share.
  std::map<std::string, double> strengths;
  /// Of single tensors, in place of `method`: by the name of a quantizer, or of an attention's scores for q and k.
  std::map<std::string, Method> methods;
  double gelu_clip = 0.0;  ///< > 0: inputs of linears behind a GELU get a range of at most this
  bool shared_qkv =
      false;  ///< q, k and v of an attention get the largest of their three ranges (one scale a tensor only)
};

/// Chooses the scales of all static quantizers, weights included. Throws invalid_argument for tensors without
/// statistics or with NaN in them, all at once. Returns how each activation quantizer's range was found, by name.
std::map<std::string, std::string> choose_ranges(Graph& graph, const Statistics& statistics,
                                                 const MethodOptions& options);

/// Chooses the scales of weights alone.
void set_weight_ranges(Graph& graph, const MethodOptions& options);

/// Range by the method on the tensor's histogram; `how` gets what was done. With a reference histogram (compatible
/// mode) its own calibrators answer, and auto means its default, percentile:99.99.
float tensor_range(const TensorStatistics& statistics, const ReferenceHistogram* reference, const QuantSpec& spec,
                   const Method& method, std::string* how = nullptr);

/// Gives the quantizer `node` (index) input `input` (1 scale, 2 zero point, 3 column scale), as parameter `quantizer
/// name` + suffix.
void set_quantizer_input(Graph& graph, size_t node, size_t input, Tensor tensor);

}  // namespace octet
