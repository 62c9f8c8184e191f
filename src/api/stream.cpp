// Throughput of a stream of texts: tokenizing threads feed sessions through a short queue.
#include <octet/bench.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <queue>
#include <thread>

#include "api/state.h"
#include "bench/statistics.h"
#include "core/error.h"

namespace octet {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// The rows of each call: `batch` of them, or as many as fit into `batch_tokens`, in file order.
std::vector<std::pair<size_t, size_t>> cut(const std::vector<Encoding>& rows, int64_t batch, int64_t batch_tokens) {
  std::vector<std::pair<size_t, size_t>> calls;
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin;
    int64_t tokens = 0;
    auto fits = [&] {
      if (batch_tokens <= 0) return static_cast<int64_t>(end - begin) < batch;
      return end == begin || tokens + rows[end].size() <= batch_tokens;
    };
    while (end < rows.size() && fits()) tokens += rows[end++].size();
    calls.emplace_back(begin, end);
    begin = end;
  }
  return calls;
}

// Batches on their way from the tokenizers to the sessions; few, so that neither side runs ahead far.
class Queue {
 public:
  explicit Queue(size_t most) : most_(most) {}
  void push(OwnedBatch batch) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return batches_.size() < most_ || closed_; });
    batches_.push(std::move(batch));
    filled_.notify_one();
  }
  std::optional<OwnedBatch> pop() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [&] { return !batches_.empty() || closed_; });
    if (batches_.empty()) return std::nullopt;
    OwnedBatch batch = std::move(batches_.front());
    batches_.pop();
    room_.notify_one();
    return batch;
  }
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    filled_.notify_all();
    room_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable room_, filled_;
  std::queue<OwnedBatch> batches_;
  size_t most_;
  bool closed_ = false;
};

// Share of [0, total] in which at least one interval is open.
double covered(std::vector<std::pair<double, double>> intervals, double total) {
  std::sort(intervals.begin(), intervals.end());
  double sum = 0, end = 0;
  for (auto [from, to] : intervals) {
    sum += std::max(0.0, to - std::max(from, end));
    end = std::max(end, to);
  }
  return total > 0 ? sum / total : 0;
}

}  // namespace

BenchResult bench_stream(const Plan& plan, const Dataset& data, const std::vector<Encoding>& rows, int64_t batch,
                         const StreamOptions& options) {
  if (rows.empty() || batch < 1 || options.sessions < 1 || options.in_flight < 1)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot time the data",
          .expected = "expected at least one row, one session, one batch in flight and a batch of at least one"});
  bool paired = static_cast<int64_t>(rows.size()) == 2 * data.rows();  // an embedding model reads a pair as two texts
  if (options.tokenizers > 0 && paired)
    fail(ErrorCode::unsupported, {.what = "cannot tokenize beside the sessions",
                                  .expected = "an embedding model reads a pair as two texts",
                                  .hint = "leave --tokenizers out, or name no pair column"});
  auto calls = cut(rows, batch, options.batch_tokens);
  std::vector<OwnedBatch> ready(calls.size());
  for (size_t c = 0; c < calls.size(); ++c)
    for (size_t r = calls[c].first; r < calls[c].second; ++r) ready[c].add(rows[r]);

  std::vector<Session> sessions;
  for (int s = 0; s < options.sessions; ++s)
    sessions.emplace_back(plan, SessionOptions{.in_flight = options.in_flight});
  // Every session sees every shape once in each place: graphs of a GPU are made on first use.
  for (Session& session : sessions)
    for (const OwnedBatch& b : ready) {
      std::vector<uint64_t> tickets;
      for (int i = 0; i < options.in_flight; ++i) tickets.push_back(session.submit(b.view()));
      for (uint64_t ticket : tickets) session.collect(ticket);
    }

  int64_t longest = plan.info().max_length;
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::pair<double, double>> busy;
  std::vector<double> samples;
  Queue queue(static_cast<size_t>(4 * options.sessions));
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  auto begin = Clock::now();
  auto index = [&]() -> std::optional<size_t> {  // whole passes, until the time is over
    size_t i = next++;
    if (stop || (i % calls.size() == 0 && i > 0 && seconds_since(begin) >= options.seconds)) {
      stop = true;
      return std::nullopt;
    }
    return i % calls.size();
  };
  std::atomic<int64_t> done{0};
  auto guarded = [&](auto work) {
    return [&, work] {
      try {
        work();
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        stop = true;
        queue.close();
      }
    };
  };
  struct Call {
    uint64_t ticket;
    int64_t rows;
    double from;
  };
  // Answers are collected in the order of their batches.
  auto serve = [&](Session& session, auto next_batch) {
    std::deque<Call> calls_under_way;
    auto collect = [&] {
      Call call = calls_under_way.front();
      calls_under_way.pop_front();
      session.collect(call.ticket);
      double to = seconds_since(begin);
      done += call.rows;
      std::lock_guard lock(mutex);
      busy.emplace_back(call.from, to);
      samples.push_back(1e3 * (to - call.from));
    };
    while (const OwnedBatch* b = next_batch()) {
      double from = seconds_since(begin);
      calls_under_way.push_back({session.submit(b->view()), b->rows(), from});
      if (calls_under_way.size() >= static_cast<size_t>(options.in_flight)) collect();
    }
    while (!calls_under_way.empty()) collect();
  };
  auto tokenize = [&] {
    Encoding encoding;
    while (auto i = index()) {
      OwnedBatch made;
      for (size_t r = calls[*i].first; r < calls[*i].second; ++r) {
        auto row = static_cast<int64_t>(r);
        std::optional<std::string_view> pair;
        if (data.has_pair()) pair = data.pair(row);
        plan.tokenizer().encode_into(data.text(row), pair, {.max_length = longest}, encoding);
        made.add(encoding);
      }
      queue.push(std::move(made));
    }
  };
  std::vector<std::thread> readers, runners;
  for (int t = 0; t < options.tokenizers; ++t) readers.emplace_back(guarded(tokenize));
  for (Session& session : sessions)
    runners.emplace_back(guarded([&, s = &session] {
      std::optional<OwnedBatch> popped;
      serve(*s, [&]() -> const OwnedBatch* {
        if (options.tokenizers > 0) {
          popped = queue.pop();
          return popped ? &*popped : nullptr;
        }
        auto i = index();
        return i ? &ready[*i] : nullptr;
      });
    }));
  for (std::thread& thread : readers) thread.join();
  queue.close();
  for (std::thread& thread : runners) thread.join();
  double total = seconds_since(begin);
  if (failure) std::rethrow_exception(failure);

  BenchResult result;
  result.model = std::filesystem::path(plan.info().source).filename().string();
  result.backend = "engine";
  result.precision = std::string(name(plan.precision()));
  result.device = plan.state()->target.device == DeviceKind::cuda ? "cuda" : "cpu";
  int64_t tokens = 0;
  for (const Encoding& row : rows) tokens += row.size();
  result.batch = static_cast<int64_t>(rows.size() / calls.size());
  result.seq = (tokens + static_cast<int64_t>(rows.size()) / 2) / static_cast<int64_t>(rows.size());
  bench::Summary summary = bench::summarize(samples);
  result.median_ms = summary.median, result.mean_ms = summary.mean, result.sd_ms = summary.sd;
  result.min_ms = summary.min, result.max_ms = summary.max, result.p95_ms = summary.p95, result.p99_ms = summary.p99;
  result.runs = summary.count;
  result.rows_per_s = static_cast<double>(done) / total;
  result.busy = covered(std::move(busy), total);
  return result;
}

}  // namespace octet
