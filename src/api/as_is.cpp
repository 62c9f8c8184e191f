// Feeding an ONNX graph texts and reading its main output, node by node on the primitive kernels.
#include "api/as_is.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "onnx/dense.h"

namespace octet {

using onnx::Array;

struct AsIs::State {
  enum class Role { ids, mask, types, positions, other };
  std::shared_ptr<const onnx::File> file;
  std::unique_ptr<onnx::Dense> dense;
  std::string why;
  std::vector<Role> roles;
  int64_t fixed_length = 0, width = 0;
  bool per_token = false, answers = false;  // answers: start and end are two outputs
  size_t output = 0, second = 0;

  Array input(const onnx::ValueInfo& info, Role role, const int32_t* ids, const int32_t* types, int64_t length,
              int64_t padded) const {
    Shape shape = info.shape.size() == 1 ? Shape{1} : Shape{1, padded};
    std::vector<int64_t> values(static_cast<size_t>(count(shape)), 0);
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      int64_t& v = values[static_cast<size_t>(i)];
      if (role == Role::positions) v = i;
      else if (i < length && role == Role::mask) v = 1;
      else if (i < length && role == Role::ids) v = ids[i];
      else if (i < length && role == Role::types && types != nullptr) v = types[i];
    }
    if (!onnx::is_float(info.type)) {
      Array a = Array::of(values).reshaped(shape);
      a.type = info.type;
      return a;
    }
    float* out = nullptr;
    Array a = Array::make(info.type, shape, &out);
    std::copy(values.begin(), values.end(), out);
    return a;
  }

  std::vector<Array> row(const int32_t* ids, const int32_t* types, int64_t length,
                         const onnx::Dense::Observer& observer = {}) const {
    if (fixed_length > 0 && length > fixed_length)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot run a text of " + std::to_string(length) + " tokens",
            .expected = "the file takes exactly " + std::to_string(fixed_length) + ", shorter texts are padded"});
    std::map<std::string, Array> inputs;
    for (size_t i = 0; i < roles.size(); ++i) {
      const onnx::ValueInfo& info = file->graph.inputs[i];
      inputs[info.name] = input(info, roles[i], ids, types, length, fixed_length > 0 ? fixed_length : length);
    }
    return dense->run(inputs, observer);
  }

  // The output's place and form, found by running a text.
  void probe() {
    int64_t length = fixed_length > 0 ? fixed_length : 5;
    std::vector<int32_t> ids(static_cast<size_t>(length), 1);
    std::vector<Array> out = row(ids.data(), nullptr, length);
    auto named = [&](const char* word, size_t o) {
      return file->graph.outputs[o].name.find(word) != std::string::npos;
    };
    std::vector<size_t> usable;
    for (size_t o = 0; o < out.size(); ++o)
      if (out[o].real() && out[o].rank() >= 2 && out[o].rank() <= 3 && out[o].shape[0] == 1) usable.push_back(o);
    if (usable.empty())
      fail(ErrorCode::unsupported, {.what = "cannot read the outputs of " + file->graph.name,
                                    .expected = "expected floats [batch, width] or [batch, sequence, width]",
                                    .hint = "`octet run FILE --data-set DIR` runs any file"});
    if (usable.size() >= 2 && named("start", usable[0]) && named("end", usable[1]) && out[usable[0]].rank() == 2 &&
        out[usable[0]].count() == length) {
      output = usable[0], second = usable[1], answers = per_token = true, width = 2;
      return;
    }
    output = usable.front();
    for (const char* word : {"sentence_embedding", "logits"})
      for (size_t o : usable)
        if (named(word, o)) output = o;
    per_token = out[output].rank() == 3;
    if (per_token && out[output].shape[1] != length)
      fail(ErrorCode::unsupported,
           {.what = "cannot read output " + file->graph.outputs[output].name,
            .expected = "expected a vector a token or a text, got " + to_string(out[output].shape)});
    width = out[output].shape.back();
  }

  // Rows of the table that the ids are looked up in; 2 where that does not show.
  int64_t vocabulary() const {
    std::set<std::string> ids;
    for (size_t i = 0; i < roles.size(); ++i)
      if (roles[i] == Role::ids) ids.insert(file->graph.inputs[i].name);
    for (const onnx::Node& node : file->graph.nodes) {
      if (ids.contains(node.input(0)) && (node.op == "Cast" || node.op == "Reshape" || node.op == "Identity"))
        ids.insert(node.outputs.at(0));
      if (node.op != "Gather" || !ids.contains(node.input(1))) continue;
      for (const onnx::TensorData& t : file->graph.initializers)
        if (t.name == node.input(0) && t.data.shape().size() == 2) return t.data.dim(0);
    }
    return 2;
  }

  void copy_row(const std::vector<Array>& out, int64_t length, float* to) const {
    if (answers) {
      for (int64_t i = 0; i < length; ++i) to[2 * i] = out[output].f[i], to[2 * i + 1] = out[second].f[i];
      return;
    }
    int64_t n = per_token ? length * width : width;
    if (out[output].count() < n || out[output].shape.back() != width)
      fail(ErrorCode::unsupported,
           {.what = "output " + file->graph.outputs[output].name + " changes its width",
            .expected = "expected " + std::to_string(width) + ", got " + to_string(out[output].shape)});
    std::copy_n(out[output].f.data(), n, to);
  }
};

AsIs::AsIs(std::unique_ptr<State> state) : state_(std::move(state)) {}
AsIs::~AsIs() = default;

std::shared_ptr<const AsIs> AsIs::open(std::shared_ptr<const void> file, std::string why) {
  auto state = std::make_unique<State>();
  state->file = std::static_pointer_cast<const onnx::File>(std::move(file));
  state->why = std::move(why);
  using Role = State::Role;
  bool any = false;
  for (const onnx::ValueInfo& input : state->file->graph.inputs) {
    auto has = [&](const char* word) { return input.name.find(word) != std::string::npos; };
    Role role = has("mask")                       ? Role::mask
                : has("type") || has("segment")   ? Role::types
                : has("position")                 ? Role::positions
                : input.shape.size() == 2 && !any ? Role::ids
                                                  : Role::other;
    bool fits = input.shape.size() == 2 || (role == Role::other && input.shape.size() == 1);
    if (!fits || (input.shape[0] > 1))
      fail(ErrorCode::unsupported,
           {.what = "cannot feed input " + input.name + " of " + state->file->graph.name,
            .expected = "expected [batch, sequence] with a free batch, got " + to_string(input.shape),
            .where = state->why.empty() ? "" : "it was not raised: " + state->why,
            .hint = "`octet run FILE --data-set DIR` runs any file"});
    any = any || role == Role::ids;
    if (role == Role::ids && input.shape[1] > 0) state->fixed_length = input.shape[1];
    state->roles.push_back(role);
  }
  if (!any)
    fail(ErrorCode::unsupported, {.what = "cannot run " + state->file->graph.name,
                                  .expected = "it has no input of token ids [batch, sequence]"});
  state->dense = std::make_unique<onnx::Dense>(state->file);
  state->probe();
  return std::shared_ptr<const AsIs>(new AsIs(std::move(state)));
}

std::shared_ptr<const AsIs> AsIs::from_bytes(const Tensor& bytes, std::string why, const std::string& where) {
  MappedFile mapped{.owner = std::make_shared<Tensor>(bytes),
                    .bytes = {bytes.data(), static_cast<size_t>(bytes.bytes())}};
  auto file = std::make_shared<onnx::File>(onnx::parse_file(mapped, where, "."));
  return open(std::move(file), std::move(why));
}

const std::string& AsIs::why() const noexcept { return state_->why; }
std::string AsIs::bytes() const { return onnx::serialize(*state_->file); }
int64_t AsIs::weight_bytes() const noexcept {
  int64_t bytes = 0;
  for (const onnx::TensorData& t : state_->file->graph.initializers) bytes += t.data.empty() ? 0 : t.data.bytes();
  return bytes;
}
int64_t AsIs::width() const noexcept { return state_->width; }
bool AsIs::per_token() const noexcept { return state_->per_token; }

void AsIs::describe(ModelInfo* info) const {
  const State& s = *state_;
  const std::string& output = s.file->graph.outputs[s.output].name;
  info->family = "onnx";
  info->max_length = s.fixed_length;
  bool logits = output.find("logits") != std::string::npos;
  if (s.answers) info->task = Task::question_answering;
  else if (s.per_token) info->task = logits ? Task::token_classification : Task::encoder;
  else if (logits ||
           (output.find("embed") == std::string::npos && output.find("pool") == std::string::npos && s.width < 64))
    info->task = s.width == 1 ? Task::regression : Task::sequence_classification;
  else info->task = Task::embedding;
  if (info->task == Task::token_classification || info->task == Task::sequence_classification)
    for (int64_t i = 0; i < s.width; ++i) info->labels.push_back("LABEL_" + std::to_string(i));
  uint64_t hash = 0;
  for (const onnx::Node& node : s.file->graph.nodes) hash = hash_text(node.label(), hash);
  for (const onnx::TensorData& t : s.file->graph.initializers) {
    if (t.data.empty()) continue;
    hash = hash_bytes({t.data.data(), static_cast<size_t>(t.data.bytes())}, hash_text(t.name, hash));
    info->parameters += t.data.elements();
  }
  info->vocabulary = s.vocabulary();
  info->hash = hex(hash);
}

void AsIs::run(const Batch& batch, ThreadPool& pool, std::vector<float>* values) const {
  const State& s = *state_;
  auto rows = static_cast<int64_t>(batch.offsets.size()) - 1;
  if (rows < 1 || batch.offsets[0] != 0 || static_cast<size_t>(batch.offsets.back()) != batch.ids.size() ||
      (!batch.type_ids.empty() && batch.type_ids.size() != batch.ids.size()))
    fail(ErrorCode::invalid_argument, {.what = "cannot run this batch", .expected = "its offsets do not fit its ids"});
  for (int64_t r = 0; r < rows; ++r)
    if (batch.offsets[static_cast<size_t>(r) + 1] <= batch.offsets[static_cast<size_t>(r)])
      fail(ErrorCode::invalid_argument,
           {.what = "cannot run this batch", .expected = "expected rows of at least one token"});
  values->assign(static_cast<size_t>((s.per_token ? batch.offsets.back() : rows) * s.width), 0.0f);
  std::exception_ptr error;
  std::mutex mutex;
  pool.parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) try {
        int64_t at = batch.offsets[static_cast<size_t>(r)], length = batch.offsets[static_cast<size_t>(r) + 1] - at;
        std::vector<Array> out =
            s.row(batch.ids.data() + at, batch.type_ids.empty() ? nullptr : batch.type_ids.data() + at, length);
        s.copy_row(out, length, values->data() + (s.per_token ? at : r) * s.width);
      } catch (...) {
        std::lock_guard lock(mutex);
        error = std::current_exception();
      }
  });
  if (error) std::rethrow_exception(error);
}

std::vector<ExplainedOp> AsIs::explain(int64_t rows, int64_t length, int repeats) const {
  const State& s = *state_;
  if (s.fixed_length > 0) length = s.fixed_length;
  std::vector<int32_t> ids(static_cast<size_t>(length), 1);
  std::vector<ExplainedOp> ops;
  std::vector<std::vector<double>> times;
  for (int k = 0; k < std::max(1, repeats); ++k) {
    size_t at = 0;
    s.row(ids.data(), nullptr, length,
          [&](const onnx::Node& node, const std::vector<Array>& in, const std::vector<Array>& out, double ms) {
            if (k == 0) {
              ExplainedOp op{.name = node.name.empty() ? node.outputs.at(0) : node.name,
                             .kind = node.op,
                             .kernel = "primitive_" + node.op,
                             .precision = node.op.find("Integer") != std::string::npos ? "int8" : "fp32"};
              bool product = node.op == "MatMul" || node.op == "MatMulInteger" || node.op == "Gemm";
              if (product && !out.empty() && in.size() >= 2 && !in[0].shape.empty()) {
                bool turned = node.op == "Gemm" && node.integer("transA", 0) != 0;
                op.macs = static_cast<double>(rows * out[0].count()) *
                          static_cast<double>(turned ? in[0].shape.front() : in[0].shape.back());
              }
              for (const auto* list : {&in, &out})
                for (const Array& a : *list) op.bytes += rows * a.count() * (a.real() ? 4 : 8);
              op.refused.push_back("octet's own operations: " +
                                   (s.why.empty() ? std::string("the file was asked for as it stands") : s.why));
              ops.push_back(std::move(op));
              times.emplace_back();
            }
            if (at < times.size()) times[at].push_back(ms * static_cast<double>(rows));
            ++at;
          });
  }
  double total = 0;
  for (size_t i = 0; i < ops.size() && repeats > 0; ++i) {
    std::nth_element(times[i].begin(), times[i].begin() + static_cast<std::ptrdiff_t>(times[i].size() / 2),
                     times[i].end());
    ops[i].ms = times[i][times[i].size() / 2];
    total += ops[i].ms;
  }
  for (ExplainedOp& op : ops) op.share = total > 0 ? op.ms / total : 0;
  return ops;
}

}  // namespace octet
