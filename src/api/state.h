// What the public handles hold.
#pragma once

#include <octet/session.h>

#include <map>
#include <memory>
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
};

struct Plan::State {
  std::shared_ptr<const Program> program;
  ModelInfo info;
  Precision precision = Precision::fp32;
  bool simulate = false;
  Target target;
  std::map<std::string, std::string> provenance;
  std::optional<Tokenizer> tokenizer;
};

struct Session::State {
  Plan plan;
  std::shared_ptr<ThreadPool> pool;
  Executor executor;
};

}  // namespace octet
