// The two-way program and its incremental runs.
#include "quant/switched.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "core/error.h"
#include "core/target.h"
#include "core/threads.h"
#include "graph/passes.h"
#include "plan/lower.h"
#include "quant/structure.h"

namespace octet {

namespace {

constexpr const char* kTwin = " with quantized ";

bool same_scale(const Graph& graph, const Node& a, const Node& b) {
  for (size_t input = 1; input < 4; ++input) {
    ValueId x = a.input(input), y = b.input(input);
    if (x == y) continue;
    if (x == kNone || y == kNone) return false;
    const Tensor &left = graph.parameter(x), &right = graph.parameter(y);
    if (left.dtype() != right.dtype() || left.shape() != right.shape() ||
        std::memcmp(left.data(), right.data(), static_cast<size_t>(left.bytes())) != 0)
      return false;
  }
  return a.attributes == b.attributes;
}

/// What a quantizer belongs to: the node behind it, where several linears that read one value are one product.
std::pair<std::string, std::string> site_of(const Graph& graph, const Node& quantizer) {
  std::vector<size_t> users = graph.users(quantizer.output);
  if (users.empty()) return {quantizer.name, "other"};
  const Node& user = graph.node(users.front());
  auto module = [](const std::string& name) { return name.substr(0, name.rfind('.') + 1); };
  switch (user.op) {
    case Op::linear: {
      // The first linear that reads the same value names the product, with those that a kernel joins to it.
      ValueId source = behind_quantizers(graph, user.input(0));
      std::string names;
      for (const Node& node : graph.nodes())
        if (node.op == Op::linear && node.input(0) != kNone && behind_quantizers(graph, node.input(0)) == source)
          names += (names.empty() ? "" : "+") + node.name;
      return {names, "linear"};
    }
    case Op::attention_scores:
    case Op::attention_context: return {module(user.name) + "attention", "attention"};
    case Op::add: return {user.name, "add"};
    case Op::embedding: return {"embeddings", "embedding"};
    default: return {user.name, std::string(name(user.op))};
  }
}

}  // namespace

struct SwitchedGraph::State {
  std::vector<SwitchedQuantizer> quantizers;
  std::unique_ptr<Executor> executor;
  struct Way {
    int64_t quantizer = -1;  // that decides
    int64_t twin = -1;       // step with the quantized weight; -1: an activation's quantizer
  };
  std::vector<Way> ways;      // by step
  std::vector<size_t> order;  // steps but for the twins
  std::vector<char> changed;  // by buffer: differs from the base in this run
  std::vector<char> stale;    // by step: its output is not the base's
  std::vector<char> flipped;  // by quantizer
  bool base = false;
  int64_t computed = 0, possible = 0;

  const Program& program() const { return executor->program(); }

  void copy(int32_t from, int32_t to) {
    std::memcpy(executor->data(to), executor->data(from), static_cast<size_t>(executor->elements(from)) * 4);
  }

  void execute(size_t step, bool on) {
    const Way& way = ways[step];
    ++computed;
    if (way.quantizer < 0) return executor->run_step(step);
    const Step& s = program().steps[step];
    if (way.twin < 0) {
      if (on) executor->run_step(step);
      else copy(s.inputs[0].buffer, s.outputs[0].buffer);
    } else if (on) {
      executor->run_step(static_cast<size_t>(way.twin));
      copy(program().steps[static_cast<size_t>(way.twin)].outputs[0].buffer, s.outputs[0].buffer);
    } else {
      executor->run_step(step);
    }
  }

  void run(bool all) {
    std::fill(changed.begin(), changed.end(), char{0});
    for (size_t step : order) {
      ++possible;
      const Step& s = program().steps[step];
      const int64_t quantizer = ways[step].quantizer;
      const bool flip = quantizer >= 0 && flipped[static_cast<size_t>(quantizer)] != 0;
      bool moved = flip;
      for (const Slot& slot : s.inputs)
        moved = moved || (slot.buffer >= 0 && changed[static_cast<size_t>(slot.buffer)] != 0);
      if (!all && !moved && stale[step] == 0) continue;
      execute(step, quantizer >= 0 && base != flip);
      stale[step] = moved;
      for (const Slot& slot : s.outputs) changed[static_cast<size_t>(slot.buffer)] = moved;
    }
  }
};

SwitchedGraph::SwitchedGraph(const Graph& quantized, int threads, bool share) : state_(std::make_unique<State>()) {
  State& s = *state_;
  Graph graph = quantized;
  remove_off_quantizers(graph, false);
  for (const Node& node : graph.nodes())
    if (node.op == Op::fake_quant && !node.text("dynamic", "").empty())
      fail(ErrorCode::unsupported, {.what = "cannot switch quantizer " + node.name,
                                    .expected = "its range is found at run time",
                                    .hint = "calibrate the model"});
  const Graph whole = graph;
  if (share) share_quantizers(graph);
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::fake_quant) continue;
    SwitchedQuantizer q{.name = node.name, .tensor = graph.value(node.input(0)).name};
    const Node& own = whole.node(static_cast<size_t>(whole.find_node(node.name)));
    for (const Node& other : whole.nodes())
      if (other.op == Op::fake_quant &&
          (other.name == node.name || (share && other.input(0) == own.input(0) && graph.find_node(other.name) < 0 &&
                                       same_scale(whole, own, other))))
        q.names.push_back(other.name);
    q.weight = graph.is_parameter(node.input(0));
    std::tie(q.site, q.kind) = site_of(graph, node);
    s.quantizers.push_back(std::move(q));
  }

  // Twins of the nodes that read quantized weights.
  struct Twin {
    std::string node, twin;
    size_t quantizer;
  };
  std::vector<Twin> twins;
  for (size_t q = 0; q < s.quantizers.size(); ++q) {
    if (!s.quantizers[q].weight) continue;
    const auto index = static_cast<size_t>(graph.find_node(s.quantizers[q].name));
    const ValueId weight = graph.node(index).input(0), made = graph.node(index).output;
    const ValueId folded =
        graph.add_parameter(s.quantizers[q].name + kTwin + "values", folded_weight(graph, graph.node(index)));
    for (size_t user : graph.users(made)) {
      const Node copy = graph.node(user);
      std::vector<ValueId> inputs = copy.inputs;
      for (size_t i = 0; i < inputs.size(); ++i)
        if (inputs[i] == made) {
          inputs[i] = folded;
          graph.set_input(user, i, weight);
        }
      const std::string name = copy.name + kTwin + "weight";
      graph.set_output(name, graph.add(copy.op, name, inputs, copy.attributes));
      twins.push_back({copy.name, name, q});
    }
  }
  // The model's output stays the first one.
  const Target target = host_target();
  s.executor = std::make_unique<Executor>(
      std::make_shared<const Program>(lower(graph, {.target = target, .fuse = false, .share = false})),
      std::make_shared<ThreadPool>(threads), target, true);
  const Program& program = s.program();
  std::map<std::string, size_t> steps;
  for (size_t i = 0; i < program.steps.size(); ++i) steps[program.steps[i].name] = i;
  s.ways.resize(program.steps.size());
  s.changed.resize(program.buffers.size());
  s.stale.resize(program.steps.size());
  s.flipped.resize(s.quantizers.size());
  std::vector<char> is_twin(program.steps.size());
  for (const Twin& twin : twins) {
    const size_t step = steps.at(twin.node), other = steps.at(twin.twin);
    s.ways[step] = {static_cast<int64_t>(twin.quantizer), static_cast<int64_t>(other)};
    is_twin[other] = 1;
  }
  for (size_t q = 0; q < s.quantizers.size(); ++q)
    if (!s.quantizers[q].weight) s.ways[steps.at(s.quantizers[q].name)] = {static_cast<int64_t>(q), -1};
  for (size_t i = 0; i < program.steps.size(); ++i)
    if (is_twin[i] == 0) s.order.push_back(i);
  for (SwitchedQuantizer& q : s.quantizers) q.first = program.steps.size();
  for (size_t i = s.order.size(); i-- > 0;)
    if (int64_t q = s.ways[s.order[i]].quantizer; q >= 0) s.quantizers[static_cast<size_t>(q)].first = i;
}

SwitchedGraph::~SwitchedGraph() = default;

const std::vector<SwitchedQuantizer>& SwitchedGraph::quantizers() const noexcept { return state_->quantizers; }
int64_t SwitchedGraph::computed() const noexcept { return state_->computed; }
int64_t SwitchedGraph::possible() const noexcept { return state_->possible; }

void SwitchedGraph::bind(const BatchView& batch) { state_->executor->bind(batch); }

void SwitchedGraph::run_base(bool on) {
  State& s = *state_;
  s.base = on;
  std::fill(s.flipped.begin(), s.flipped.end(), char{0});
  s.run(true);
}

void SwitchedGraph::run_flipped(std::span<const size_t> quantizers) {
  State& s = *state_;
  std::fill(s.flipped.begin(), s.flipped.end(), char{0});
  for (size_t q : quantizers) s.flipped.at(q) = 1;
  s.run(false);
}

std::span<const float> SwitchedGraph::output() {
  State& s = *state_;
  const int32_t buffer = s.program().outputs.front().second;
  return {static_cast<const float*>(s.executor->data(buffer)), static_cast<size_t>(s.executor->elements(buffer))};
}

std::vector<SwitchedGraph::LocalError> SwitchedGraph::local_errors() {
  State& s = *state_;
  OCTET_CHECK(!s.base, "local errors start from float");
  const Program& program = s.program();
  std::map<int32_t, size_t> quantized;  // by buffer: the step of the quantizer that makes it
  for (size_t step : s.order)
    if (s.ways[step].quantizer >= 0 && s.ways[step].twin < 0) quantized[program.steps[step].outputs[0].buffer] = step;
  std::vector<LocalError> errors;
  for (size_t step : s.order) {
    const Step& now = program.steps[step];
    LocalError error{.node = now.name};
    std::vector<size_t> operands;
    for (const Slot& slot : now.inputs)
      if (auto found = quantized.find(slot.buffer); found != quantized.end()) operands.push_back(found->second);
    const int64_t twin = s.ways[step].quantizer >= 0 ? s.ways[step].twin : -1;
    const auto* scores = std::get_if<kernels::ScoresDesc>(&now.desc);
    const bool product = scores != nullptr && scores->kind == kernels::ScoresKind::scores && operands.size() == 2;
    if (!product && (twin < 0 || operands.empty())) continue;
    for (size_t operand : operands) {
      s.execute(operand, true);
      error.quantizers.push_back(s.quantizers[static_cast<size_t>(s.ways[operand].quantizer)].name);
    }
    const int32_t out = now.outputs[0].buffer;
    const auto count = static_cast<size_t>(s.executor->elements(out));
    const auto* values = static_cast<const float*>(s.executor->data(out));
    const std::vector<float> before(values, values + count);
    const float* after = values;
    if (twin >= 0) {
      s.executor->run_step(static_cast<size_t>(twin));
      after = static_cast<const float*>(s.executor->data(program.steps[static_cast<size_t>(twin)].outputs[0].buffer));
    } else {
      s.executor->run_step(step);
    }
    for (size_t i = 0; i < count; ++i) {
      const double d = static_cast<double>(after[i]) - before[i];
      error.noise += d * d, error.signal += static_cast<double>(before[i]) * before[i];
    }
    for (size_t operand : operands) s.execute(operand, false);
    if (product) std::memcpy(s.executor->data(out), before.data(), count * sizeof(float));
    errors.push_back(std::move(error));
  }
  return errors;
}

int64_t layer_of(std::string_view name) noexcept {
  for (size_t at = name.find("layer."); at != std::string_view::npos; at = name.find("layer.", at + 1)) {
    if (at > 0 && name[at - 1] != '.') continue;
    int64_t layer = 0;
    size_t i = at + 6;
    for (; i < name.size() && name[i] >= '0' && name[i] <= '9' && i < at + 15; ++i)
      layer = layer * 10 + (name[i] - '0');
    if (i > at + 6) return layer;
  }
  return -1;
}

std::string without_layer(std::string_view name) {
  std::string result;
  for (size_t i = 0; i < name.size();) {
    const bool here = name.substr(i).starts_with("layer.") && (i == 0 || name[i - 1] == '.');
    if (!here) {
      result += name[i++];
      continue;
    }
    result += "layer.";
    i += 6;
    const size_t digits = i;
    while (i < name.size() && name[i] >= '0' && name[i] <= '9') ++i;
    if (i > digits) result += '*';
  }
  return result;
}

}  // namespace octet
