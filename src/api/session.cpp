// Running plans behind the public Session.
#include <octet/session.h>
#include <algorithm>

#include "api/state.h"

namespace octet {

void OwnedBatch::add(const Encoding& row) {
  // A batch without type ids means all zero; the first row that has others brings the vector into being.
  bool typed = std::any_of(row.type_ids.begin(), row.type_ids.end(), [](int32_t type) { return type != 0; });
  if (typed && type_ids.empty()) type_ids.assign(ids.size(), 0);
  ids.insert(ids.end(), row.ids.begin(), row.ids.end());
  if (!type_ids.empty()) type_ids.insert(type_ids.end(), row.type_ids.begin(), row.type_ids.end());
  else if (typed) type_ids = row.type_ids;
  offsets.push_back(static_cast<int32_t>(ids.size()));
}

void OwnedBatch::clear() {
  ids.clear();
  type_ids.clear();
  offsets.assign(1, 0);
}

namespace {

std::unique_ptr<Session::State> make_state(const Plan& plan, const SessionOptions& options) {
  // On a GPU the pool only serves the host's side, which has no loops.
  int threads = plan.state()->target.device == DeviceKind::cuda ? 1 : options.threads;
  auto pool = std::make_shared<ThreadPool>(threads);
  return std::make_unique<Session::State>(Session::State{plan, pool, Executor(plan.state()->prepared(), pool)});
}

}  // namespace

Session::Session(const Plan& plan, const SessionOptions& options) : state_(make_state(plan, options)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Output Session::run(const Batch& batch) {
  Executor& executor = state_->executor;
  executor.bind({.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.type_ids});
  executor.run();
  const Program& program = executor.program();
  int32_t id = program.outputs.front().second;
  const Buffer& buffer = program.buffers[static_cast<size_t>(id)];
  int64_t elements = executor.elements(id);
  return {.rows = elements / buffer.width,
          .width = buffer.width,
          .values = {static_cast<const float*>(executor.output(0)), static_cast<size_t>(elements)}};
}

void Session::enqueue(const DeviceBatch& batch, float* output, void* stream) {
  state_->executor.enqueue({.ids = batch.ids,
                            .offsets = batch.offsets,
                            .type_ids = batch.type_ids,
                            .rows = batch.rows,
                            .tokens = batch.tokens,
                            .max_length = batch.max_length},
                           output, stream);
}
void Session::wait(void* stream) { state_->executor.wait(stream); }
int64_t Session::width() const noexcept {
  const Program& program = state_->executor.program();
  return program.buffers[static_cast<size_t>(program.outputs.front().second)].width;
}

const Plan& Session::plan() const noexcept { return state_->plan; }

}  // namespace octet
