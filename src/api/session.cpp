// Running plans behind the public Session.
#include <octet/session.h>
#include <algorithm>

#include "api/as_is.h"
#include "api/state.h"
#include "core/error.h"

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
  if (plan.state()->as_is) return std::make_unique<Session::State>(Session::State{plan, pool, nullptr, {}});
  return std::make_unique<Session::State>(
      Session::State{plan, pool, std::make_unique<Executor>(plan.state()->prepared(), pool), {}});
}

}  // namespace

Session::Session(const Plan& plan, const SessionOptions& options) : state_(make_state(plan, options)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Output Session::run(const Batch& batch) {
  if (const AsIs* file = state_->plan.state()->as_is.get()) {
    file->run(batch, *state_->pool, &state_->values);
    return {.rows = static_cast<int64_t>(state_->values.size()) / file->width(),
            .width = file->width(),
            .values = state_->values};
  }
  Executor& executor = *state_->executor;
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
  if (!state_->executor)
    fail(ErrorCode::unsupported, {.what = "cannot enqueue a file that runs node by node", .hint = "use run"});
  state_->executor->enqueue({.ids = batch.ids,
                             .offsets = batch.offsets,
                             .type_ids = batch.type_ids,
                             .rows = batch.rows,
                             .tokens = batch.tokens,
                             .max_length = batch.max_length},
                            output, stream);
}
void Session::wait(void* stream) {
  if (state_->executor) state_->executor->wait(stream);
}
int64_t Session::width() const noexcept {
  if (const AsIs* file = state_->plan.state()->as_is.get()) return file->width();
  const Program& program = state_->executor->program();
  return program.buffers[static_cast<size_t>(program.outputs.front().second)].width;
}

const Plan& Session::plan() const noexcept { return state_->plan; }

}  // namespace octet
