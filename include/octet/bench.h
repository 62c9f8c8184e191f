// Timing a plan: the protocol of the reference (warm-up, then measured calls) and its statistics.
#pragma once

#include <octet/dataset.h>
#include <octet/session.h>

#include <cstdint>
#include <string>
#include <vector>

namespace octet {

struct BenchOptions {
  int warmup = 0;   ///< calls before measuring; 0 = 3 on a CPU, 30 on a GPU
  int repeats = 0;  ///< measured calls; 0 = as many as fit into `seconds`, at least 10
  double seconds = 2.0;
};

/// One line: times of one call in milliseconds. sd with ddof 0, percentiles interpolated linearly (index (n-1) p /
/// 100).
struct BenchResult {
  std::string model, backend, precision, device;
  int64_t batch = 0, seq = 0;  ///< seq: tokens a row (the mean for real data)
  double median_ms = 0, mean_ms = 0, sd_ms = 0, min_ms = 0, max_ms = 0, p95_ms = 0, p99_ms = 0;
  double rows_per_s = 0;
  int64_t runs = 0;
  double busy = 0;  ///< bench_stream: share of the time in which a session was running a batch
};

/// Times `batch` rows of `seq` random tokens (rotating between several inputs).
BenchResult bench_shape(Session& session, int64_t batch, int64_t seq, const BenchOptions& options = {});
/// Times the sessions in turns, call by call, so that a drifting machine hits all alike.
std::vector<BenchResult> bench_interleaved(std::vector<Session*> sessions, int64_t batch, int64_t seq,
                                           const BenchOptions& options = {});
/// Times a pass over real rows in file order, `batch` rows a call.
BenchResult bench_rows(Session& session, const std::vector<Encoding>& rows, int64_t batch,
                       const BenchOptions& options = {});

/// The same for several sessions in turns, batch by batch; each has its own encoding of the rows.
std::vector<BenchResult> bench_rows_interleaved(const std::vector<Session*>& sessions,
                                                const std::vector<std::vector<Encoding>>& rows, int64_t batch,
                                                const BenchOptions& options = {});

struct StreamOptions {
  int64_t batch_tokens = 0;  ///< above 0: as many rows a call as have this many tokens together
  int sessions = 1;          ///< sessions of the plan, each on a thread of its own
  int in_flight = 1;         ///< batches under way in each session
  int tokenizers = 0;        ///< above 0: threads that turn texts into batches while the sessions run
  double seconds = 2.0;      ///< whole passes over the data, at least this long
};
/// Throughput of a stream: all rows in file order, calls of `batch` rows or `batch_tokens` tokens, on several sessions
/// at once, from tokens (`rows`, the encodings of `data`) or from text. Times are those of single calls.
BenchResult bench_stream(const Plan& plan, const Dataset& data, const std::vector<Encoding>& rows, int64_t batch,
                         const StreamOptions& options = {});

/// "[NAME] mean=..ms, sd=..ms, min=..ms, max=..ms, median=..ms, 95p=..ms, 99p=..ms": the reference's line.
std::string timing_line(const std::string& name, const BenchResult& result);

}  // namespace octet
