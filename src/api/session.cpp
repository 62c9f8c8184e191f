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
  auto pool = std::make_shared<ThreadPool>(threads, options.pin);
  if (options.in_flight < 1)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot make a session",
          .expected = "expected at least one batch in flight, got " + std::to_string(options.in_flight)});
  auto state = std::make_unique<Session::State>(Session::State{plan, std::move(pool), nullptr, {}, {}, 0});
  if (!plan.state()->as_is) state->executor = std::make_unique<Executor>(plan.state()->prepared(), state->pool);
  state->lanes.resize(static_cast<size_t>(options.in_flight));
  return state;
}

Output answer(Executor& executor) {
  const Program& program = executor.program();
  int32_t id = program.outputs.front().second;
  const Buffer& buffer = program.buffers[static_cast<size_t>(id)];
  int64_t elements = executor.elements(id);
  return {.rows = elements / buffer.width,
          .width = buffer.width,
          .values = {static_cast<const float*>(executor.output(0)), static_cast<size_t>(elements)}};
}
Output answer(const AsIs& file, std::span<const float> values) {
  return {.rows = static_cast<int64_t>(values.size()) / file.width(), .width = file.width(), .values = values};
}
BatchView view_of(const Batch& batch) {
  return {.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.type_ids};
}

}  // namespace

Session::Session(const Plan& plan, const SessionOptions& options) : state_(make_state(plan, options)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Output Session::run(const Batch& batch) {
  State& s = *state_;
  if (s.lanes.front().ticket != 0)
    fail(ErrorCode::invalid_argument, {.what = "cannot run this batch",
                                       .expected = "a submitted batch was not collected yet",
                                       .hint = "collect what was submitted, or submit this batch too"});
  if (const AsIs* file = s.plan.state()->as_is.get()) {
    file->run(batch, *s.pool, &s.values);
    return answer(*file, s.values);
  }
  s.executor->bind(view_of(batch));
  s.executor->run();
  return answer(*s.executor);
}

uint64_t Session::submit(const Batch& batch) {
  State& s = *state_;
  auto lane = std::find_if(s.lanes.begin(), s.lanes.end(), [](const State::Lane& l) { return l.ticket == 0; });
  if (lane == s.lanes.end())
    fail(ErrorCode::invalid_argument,
         {.what = "cannot submit this batch",
          .expected = "the session takes " + std::to_string(s.lanes.size()) + " batches at a time",
          .hint = "collect one first, or make the session with a larger SessionOptions::in_flight"});
  if (const AsIs* file = s.plan.state()->as_is.get()) {
    file->run(batch, *s.pool, &lane->values);
  } else {
    Executor* executor = s.executor.get();
    if (lane != s.lanes.begin()) {
      if (!lane->own) lane->own = std::make_unique<Executor>(s.plan.state()->prepared(), s.pool);
      executor = lane->own.get();
    }
    executor->bind(view_of(batch));
    executor->start();
  }
  return lane->ticket = ++s.last_ticket;
}

Output Session::collect(uint64_t ticket) {
  State& s = *state_;
  auto lane = std::find_if(s.lanes.begin(), s.lanes.end(), [&](const State::Lane& l) { return l.ticket == ticket; });
  if (ticket == 0 || lane == s.lanes.end())
    fail(ErrorCode::invalid_argument, {.what = "cannot collect ticket " + std::to_string(ticket),
                                       .expected = "expected the ticket of a submitted batch that was not collected"});
  lane->ticket = 0;
  if (const AsIs* file = s.plan.state()->as_is.get()) return answer(*file, lane->values);
  Executor& executor = lane == s.lanes.begin() ? *s.executor : *lane->own;
  executor.finish();
  return answer(executor);
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
