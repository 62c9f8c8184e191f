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

struct Model::State {
  Graph graph;
  ModelInfo info;
  int64_t pad_id = 0;
  std::optional<Tokenizer> tokenizer;
  std::vector<std::string> notes;
};

/// Fills hash, parameters and quantizers of a graph's facts.
void fingerprint(const Graph& graph, ModelInfo& info);
/// Reads an .onnx file.
std::shared_ptr<Model::State> load_onnx(const std::filesystem::path& path, const LoadOptions& options);

struct Plan::State {
  std::shared_ptr<const Program> program;
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
  Executor executor;
};

}  // namespace octet
