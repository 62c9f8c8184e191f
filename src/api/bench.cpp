// Timing sessions: warm-up, then measured calls on inputs that rotate.
#include <octet/bench.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <numeric>
#include <random>

#include "api/state.h"
#include "bench/statistics.h"
#include "core/error.h"

namespace octet {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

constexpr int kInputs = 8;  // different inputs, so that no call finds its data in the caches of the last
constexpr int kFewestRepeats = 10;

bool on_gpu(const Plan& plan) { return plan.state()->target.device == DeviceKind::cuda; }

int warmup_calls(const Plan& plan, const BenchOptions& options) {
  return options.warmup > 0 ? options.warmup : on_gpu(plan) ? 30 : 3;
}

BenchResult describe(const Plan& plan, int64_t batch, double seq) {
  BenchResult result;
  result.model = std::filesystem::path(plan.info().source).filename().string();
  if (result.model.empty()) result.model = plan.info().source;
  result.backend = plan.state()->simulate ? "simulate" : "engine";
  result.precision = std::string(name(plan.precision()));
  result.device = on_gpu(plan) ? "cuda" : "cpu";
  result.batch = batch;
  result.seq = static_cast<int64_t>(seq + 0.5);
  return result;
}

void fill(BenchResult* result, const std::vector<double>& samples, double rows_per_call) {
  bench::Summary s = bench::summarize(samples);
  result->median_ms = s.median, result->mean_ms = s.mean, result->sd_ms = s.sd, result->min_ms = s.min,
  result->max_ms = s.max;
  result->p95_ms = s.p95, result->p99_ms = s.p99, result->runs = s.count;
  result->rows_per_s = s.median > 0 ? rows_per_call / s.median * 1e3 : 0;
}

// `batch` rows of `seq` random ids. Low ids are special tokens (padding moves RoBERTa's positions), so they are left
// out.
OwnedBatch random_batch(const ModelInfo& info, int64_t batch, int64_t seq, uint32_t seed) {
  std::mt19937 random(seed);
  auto vocabulary = static_cast<int32_t>(std::max<int64_t>(info.vocabulary, 1));
  int32_t first = vocabulary > 2000 ? 1000 : vocabulary > 10 ? 5 : 0;
  std::uniform_int_distribution<int32_t> id(first, vocabulary - 1);
  OwnedBatch made;
  for (int64_t r = 0; r < batch; ++r) {
    for (int64_t t = 0; t < seq; ++t) made.ids.push_back(id(random));
    made.offsets.push_back(static_cast<int32_t>(made.ids.size()));
  }
  made.type_ids.assign(made.ids.size(), 0);
  return made;
}

void check_shape(const Plan& plan, int64_t batch, int64_t seq) {
  if (batch < 1 || seq < 1)
    fail(ErrorCode::invalid_argument, {.what = "cannot time " + std::to_string(batch) + "x" + std::to_string(seq),
                                       .expected = "expected at least one row of at least one token"});
  int64_t longest = plan.info().max_length;
  if (longest > 0 && seq > longest)
    fail(ErrorCode::invalid_argument, {.what = "cannot time rows of " + std::to_string(seq) + " tokens",
                                       .expected = "the model takes at most " + std::to_string(longest),
                                       .where = "in " + plan.info().source,
                                       .hint = "choose a shorter shape"});
}

// Calls every session in turn until each has enough samples. call(s, i) runs input i on session s.
template <typename Call>
std::vector<std::vector<double>> measure(size_t sessions, int warmup, const BenchOptions& options, const Call& call) {
  for (int i = 0; i < warmup; ++i)
    for (size_t s = 0; s < sessions; ++s) call(s, i);
  std::vector<std::vector<double>> samples(sessions);
  auto begin = Clock::now();
  for (int i = 0;; ++i) {
    bool enough = options.repeats > 0 ? i >= options.repeats
                                      : i >= kFewestRepeats && milliseconds(begin) >= options.seconds * 1e3 *
                                                                                          static_cast<double>(sessions);
    if (enough) return samples;
    for (size_t s = 0; s < sessions; ++s) {
      auto start = Clock::now();
      call(s, i);
      samples[s].push_back(milliseconds(start));
    }
  }
}

}  // namespace

std::vector<BenchResult> bench_interleaved(std::vector<Session*> sessions, int64_t batch, int64_t seq,
                                           const BenchOptions& options) {
  std::vector<std::vector<OwnedBatch>> inputs;
  std::vector<BenchResult> results;
  int warmup = 0;
  for (Session* session : sessions) {
    check_shape(session->plan(), batch, seq);
    warmup = std::max(warmup, warmup_calls(session->plan(), options));
    std::vector<OwnedBatch> own;
    for (uint32_t i = 0; i < kInputs; ++i) own.push_back(random_batch(session->plan().info(), batch, seq, i + 1));
    inputs.push_back(std::move(own));
    results.push_back(describe(session->plan(), batch, static_cast<double>(seq)));
  }
  auto samples = measure(sessions.size(), warmup, options, [&](size_t s, int i) {
    sessions[s]->run(inputs[s][static_cast<size_t>(i % kInputs)].view());
  });
  for (size_t s = 0; s < sessions.size(); ++s) fill(&results[s], samples[s], static_cast<double>(batch));
  return results;
}

BenchResult bench_shape(Session& session, int64_t batch, int64_t seq, const BenchOptions& options) {
  return bench_interleaved({&session}, batch, seq, options).front();
}

std::vector<BenchResult> bench_rows_interleaved(const std::vector<Session*>& sessions,
                                                const std::vector<std::vector<Encoding>>& rows, int64_t batch,
                                                const BenchOptions& options) {
  OCTET_CHECK(sessions.size() == rows.size(), "one list of rows a session");
  std::vector<std::vector<OwnedBatch>> inputs;
  std::vector<BenchResult> results;
  int warmup = 0;
  size_t calls = 0;
  for (size_t s = 0; s < sessions.size(); ++s) {
    if (rows[s].empty() || batch < 1)
      fail(ErrorCode::invalid_argument,
           {.what = "cannot time the data", .expected = "expected at least one row and a batch of at least one"});
    std::vector<OwnedBatch> batches;
    int64_t tokens = 0;
    for (size_t r = 0; r < rows[s].size(); ++r) {
      if (r % static_cast<size_t>(batch) == 0) batches.emplace_back();
      batches.back().add(rows[s][r]);
      tokens += rows[s][r].size();
    }
    calls = std::max(calls, batches.size());
    inputs.push_back(std::move(batches));
    results.push_back(
        describe(sessions[s]->plan(), batch, static_cast<double>(tokens) / static_cast<double>(rows[s].size())));
    warmup = std::max(warmup, warmup_calls(sessions[s]->plan(), options));
  }
  for (size_t i = 0; i < static_cast<size_t>(warmup); ++i)
    for (size_t s = 0; s < sessions.size(); ++s) sessions[s]->run(inputs[s][i % inputs[s].size()].view());
  // Every pass goes over all rows, and each batch is a sample.
  std::vector<std::vector<double>> samples(sessions.size());
  auto begin = Clock::now();
  int64_t passes = 0;
  do {
    for (size_t i = 0; i < calls; ++i)
      for (size_t s = 0; s < sessions.size(); ++s) {
        if (i >= inputs[s].size()) continue;
        auto start = Clock::now();
        sessions[s]->run(inputs[s][i].view());
        samples[s].push_back(milliseconds(start));
      }
    ++passes;
  } while (options.repeats > 0 ? passes < options.repeats
                               : milliseconds(begin) < options.seconds * 1e3 * static_cast<double>(sessions.size()));
  for (size_t s = 0; s < sessions.size(); ++s) {
    fill(&results[s], samples[s], static_cast<double>(batch));
    double total = std::accumulate(samples[s].begin(), samples[s].end(), 0.0);
    results[s].rows_per_s =
        total > 0 ? static_cast<double>(rows[s].size()) * static_cast<double>(passes) / total * 1e3 : 0;
  }
  return results;
}

BenchResult bench_rows(Session& session, const std::vector<Encoding>& rows, int64_t batch,
                       const BenchOptions& options) {
  return bench_rows_interleaved({&session}, {rows}, batch, options).front();
}

std::string timing_line(const std::string& name, const BenchResult& r) {
  return bench::timing_line(name, {.median = r.median_ms,
                                   .mean = r.mean_ms,
                                   .sd = r.sd_ms,
                                   .min = r.min_ms,
                                   .max = r.max_ms,
                                   .p95 = r.p95_ms,
                                   .p99 = r.p99_ms});
}

}  // namespace octet
