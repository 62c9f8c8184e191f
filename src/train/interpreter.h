// Runs a graph in libtorch, so that gradients follow: flat tokens everywhere, attention on groups of rows of like
// length.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "train/dropout.h"
#include "train/fake_quant.h"

namespace octet::train {

/// Texts as token ids: row r is ids[offsets[r] .. offsets[r + 1]).
struct Rows {
  std::vector<int32_t> ids, offsets{0}, type_ids;
  int64_t rows() const noexcept { return static_cast<int64_t>(offsets.size()) - 1; }
  void add(std::span<const int32_t> row, std::span<const int32_t> types);
};

/// Rows on the device, with their places in padded groups.
struct Batch {
  explicit Batch(const Rows& rows, const at::Device& device);

  struct Group {
    int64_t rows = 0, length = 0;
    std::vector<int64_t> members;  ///< row numbers
    at::Tensor keep;               ///< bool [rows, length]: false at padding; undefined when all rows are equally long
  };
  Rows host;
  at::Device device;
  int64_t tokens = 0, rows = 0;
  at::Tensor ids, type_ids;   ///< s64 [tokens]
  at::Tensor first;           ///< s64 [rows]: token 0 of each row
  std::vector<Group> groups;  ///< longest rows first
  bool straight = false;      ///< one group, no padding, rows in order: padded = flat
  at::Tensor pack;            ///< s64 [places]: the token of each place, 0 at padding
  at::Tensor pack_or_none;    ///< the same with `tokens` at padding
  at::Tensor place;           ///< s64 [tokens]: the place of each token
  at::Tensor row_place;       ///< s64 [rows]: where a row stands when groups follow each other
  std::map<std::pair<int64_t, int64_t>, at::Tensor> positions;  ///< by (start, padding id)
};

/// A value of the graph: a tensor, or for score matrices one [rows, heads, length, length] a group.
struct Slot {
  at::Tensor flat;
  std::vector<at::Tensor> groups;
};

class Interpreter {
 public:
  struct Options {
    at::Device device = at::kCPU;
    at::ScalarType master = at::kFloat;   ///< of the parameters
    at::ScalarType compute = at::kFloat;  ///< of activations and of the copies that products read
    bool flash = true;                    ///< fused attention where nothing needs the probabilities (GPU, 16 bits)
    bool learn_ranges = false;
    /// Weight ranges are taken from the weights again when `refresh_weight_ranges` is called.
    bool follow_weights = false;
  };
  Interpreter(Graph graph, const Options& options);

  struct Trainable {
    std::string name;
    at::Tensor master;   ///< what the optimizer changes
    at::Tensor leaf;     ///< what has the gradient: the master, its 16-bit copy, or a quantized weight's values
    bool decay = false;  ///< weight decay: not for biases and LayerNorms
  };
  std::vector<Trainable>& trainables() noexcept { return trainables_; }
  const Graph& graph() const noexcept { return graph_; }

  struct Pass {
    const Batch* batch = nullptr;
    const DropoutSites* dropout = nullptr;        ///< null: none
    const std::set<std::string>* keep = nullptr;  ///< values to return besides the outputs
  };
  /// Values by name: the graph's outputs (by output name), and `keep`.
  std::map<std::string, Slot> run(const Pass& pass);

  /// After the masters changed: their 16-bit copies, the weight ranges that follow them, and quantized weights, which
  /// are made here once a step however often it passes through the graph.
  void refresh();
  /// After a backward pass: gradients of quantized weights are 0 outside their ranges.
  void clip_weight_gradients();
  /// The scale of a quantizer as the graph stores it (f32).
  Tensor scale_of(const std::string& quantizer) const;
  /// A parameter as f32.
  Tensor parameter(const std::string& name) const;

 private:
  struct Quantizer {
    at::Tensor scale, column;
    int64_t axis = -1, lo = 0, hi = 0, bound = 0;
    std::string dynamic;
    bool weight = false;
  };
  FakeQuant settings(const Quantizer& quantizer) const;
  at::Tensor quantize(const Quantizer& quantizer, const at::Tensor& target, const at::Tensor& values,
                      const Batch& batch) const;
  Slot compute(const Node& node, const Pass& pass, std::vector<Slot>& values);
  at::Tensor embed(const Node& node, const Batch& batch, std::vector<Slot>& values);
  Slot scores(const Node& node, const Batch& batch, std::vector<Slot>& values);
  Slot context(const Node& node, const Pass& pass, std::vector<Slot>& values);
  at::Tensor pooled(Op op, const at::Tensor& x, const Batch& batch) const;
  bool fuses(const Node& scores) const;
  bool fused(ValueId value) const { return fused_.contains(value); }
  std::string only_quantizer(ValueId parameter) const;
  void load_parameters();
  void load_quantizers();

  Graph graph_;
  Options options_;
  std::vector<Trainable> trainables_;
  std::map<std::string, size_t> trainable_;      // by parameter name
  std::map<std::string, Quantizer> quantizers_;  // by node name
  std::vector<std::vector<ValueId>> last_use_;   // values that nothing after node i reads
  std::vector<at::Tensor> masters_, leaves_;     // 16-bit copies
  std::map<size_t, std::string> weights_;        // trainable that a quantizer alone reads -> the quantizer
  std::set<ValueId> fused_;                      // scores and probabilities that attention makes by itself
};

/// Packing between flat tokens [tokens, width] and places [places, width]: a gather in both directions.
at::Tensor pack(const at::Tensor& flat, const Batch& batch);
at::Tensor unpack(const at::Tensor& places, const Batch& batch);

at::Tensor to_torch(const Tensor& tensor);
Tensor from_torch(const at::Tensor& tensor);  ///< as f32

}  // namespace octet::train
