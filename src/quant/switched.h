// A quantized graph whose quantizers can be switched on and off between runs of one batch, recomputing only what
// depends on the change.
//
// Everything is float: a quantizer of an activation is a step that either fake-quantizes or copies; a node with a
// quantized weight exists twice, with the float and with the quantized weight, and either fills its value. All values
// of the batch are kept, so a run with some quantizers flipped starts behind them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "plan/executor.h"

namespace octet {

struct SwitchedQuantizer {
  std::string name;
  std::vector<std::string> names;  ///< with those that share its range and its value
  std::string tensor;              ///< the value that it quantizes
  std::string site;                ///< what it belongs to: quantizers of a site are on or off together in an INT8 plan
  std::string kind;                ///< operator of the site: "linear", "attention", "add", "embedding"
  size_t first = 0;                ///< position of the first step that it changes
  bool weight = false;
};

class SwitchedGraph {
 public:
  /// `quantized` has ranges for all its quantizers; those in state off stay off for good. With `share` the quantizers
  /// that are alike are one switch. Dynamic quantizers throw unsupported.
  SwitchedGraph(const Graph& quantized, int threads, bool share);
  ~SwitchedGraph();

  const std::vector<SwitchedQuantizer>& quantizers() const noexcept;
  void bind(const BatchView& batch);
  /// Runs the whole batch with every quantizer on, or off: the state from which others are flipped.
  void run_base(bool on);
  /// The base with the named quantizers (indices) the other way round.
  void run_flipped(std::span<const size_t> quantizers);
  /// First output of the last run.
  std::span<const float> output();

  /// How far one step's result moves when only its own operands are quantized: noise over signal, in power.
  struct LocalError {
    std::string node;  ///< a linear or the scores of an attention
    std::vector<std::string> quantizers;
    double noise = 0, signal = 0;
  };
  /// For the bound batch with base off (run_base(false) came before). Leaves the base as it was.
  std::vector<LocalError> local_errors();

  /// Steps computed since the start, and those that a run from the first step on would have computed.
  int64_t computed() const noexcept;
  int64_t possible() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "encoder.layer.3.x" -> 3; -1 for names without a layer.
int64_t layer_of(std::string_view name) noexcept;
/// The name with its layer's number as *: equal for the same part of every layer.
std::string without_layer(std::string_view name);

}  // namespace octet
