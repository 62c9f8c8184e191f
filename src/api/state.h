// What the public handles hold.
#pragma once

#include <octet/session.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/target.h"
#include "core/threads.h"
#include "graph/graph.h"
#include "plan/executor.h"
#include "plan/program.h"

namespace octet {

class AsIs;

struct Model::State {
  Graph graph;
  std::shared_ptr<const AsIs> as_is;  ///< an ONNX file that runs node by node; graph is empty then
  ModelInfo info;
  int64_t pad_id = 0;
  std::optional<Tokenizer> tokenizer;
  std::vector<std::string> notes;
};

/// Fills hash, parameters and quantizers of a graph's facts.
void fingerprint(const Graph& graph, ModelInfo& info);
/// Throws unsupported when the model runs node by node, which `what` cannot be done with.
void require_raised(const Model::State& state, const std::string& what);
/// Reads an .onnx file.
std::shared_ptr<Model::State> load_onnx(const std::filesystem::path& path, const LoadOptions& options);

struct Plan::State {
  std::shared_ptr<const Program> program;
  std::shared_ptr<const AsIs> as_is;  ///< instead of a program's steps
  /// Kernels bound and weights packed for `target`, once for all sessions (made by the first).
  std::shared_ptr<const Prepared> prepared() const;
  ModelInfo info;
  Precision precision = Precision::fp32;
  bool simulate = false;
  Target target;
  std::map<std::string, std::string> provenance;
  std::optional<Tokenizer> tokenizer;

 private:
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Prepared> prepared_;
};

struct Session::State {
  Plan plan;
  std::shared_ptr<ThreadPool> pool;
  std::unique_ptr<Executor> executor;  ///< none for a file that runs node by node
  std::vector<float> values;           ///< of such a file
  /// Batches under way. Lane 0 runs on `executor`; the others have one of their own, made on first use.
  struct Lane {
    std::unique_ptr<Executor> own;
    uint64_t ticket = 0;        ///< 0: free
    std::vector<float> values;  ///< of a file that runs node by node
  };
  std::vector<Lane> lanes;
  uint64_t last_ticket = 0;
};

}  // namespace octet
