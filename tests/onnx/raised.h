// Running a raised graph on padded batches, for comparison with what other runtimes answered.
#pragma once

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/threads.h"
#include "onnx/array.h"
#include "onnx/decompose.h"
#include "onnx/raise.h"
#include "plan/executor.h"
#include "plan/lower.h"

namespace octet::onnx {

struct PaddedBatch {
  std::vector<int32_t> ids, offsets{0}, types;
  std::vector<int64_t> lengths;
  int64_t padded = 0;
};

inline PaddedBatch batch_of(const File& file, const std::map<std::string, Array>& inputs) {
  PaddedBatch out;
  const Array *ids = nullptr, *mask = nullptr, *types = nullptr;
  for (const ValueInfo& input : file.graph.inputs) {
    const Array& a = inputs.at(input.name);
    if (input.name.find("mask") != std::string::npos) mask = &a;
    else if (input.name.find("type") != std::string::npos || input.name.find("segment") != std::string::npos)
      types = &a;
    else if (input.name.find("position") == std::string::npos && a.shape.size() == 2 && ids == nullptr) ids = &a;
  }
  int64_t rows = ids->shape[0];
  out.padded = ids->shape[1];
  for (int64_t r = 0; r < rows; ++r) {
    int64_t length = 0;
    for (int64_t i = 0; i < out.padded; ++i) length += mask == nullptr || mask->at(r * out.padded + i) != 0;
    for (int64_t i = 0; i < length; ++i) {
      out.ids.push_back(static_cast<int32_t>(ids->at(r * out.padded + i)));
      out.types.push_back(types == nullptr ? 0 : static_cast<int32_t>(types->at(r * out.padded + i)));
    }
    out.lengths.push_back(length);
    out.offsets.push_back(static_cast<int32_t>(out.ids.size()));
  }
  return out;
}

/// Largest difference over the places that are no padding, relative beyond 1.
inline double raised_difference(const octet::Graph& graph, const PaddedBatch& batch, const std::vector<Array>& expected,
                                bool question_answering, bool fuse, const std::vector<ValueInfo>* names = nullptr) {
  const Target target = host_target();
  auto program = std::make_shared<const Program>(lower(graph, {.target = target, .fuse = fuse, .exact = !fuse}));
  Executor executor(program, std::make_shared<ThreadPool>(1), target);
  executor.bind({.ids = batch.ids, .offsets = batch.offsets, .type_ids = batch.types});
  executor.run();
  double worst = 0;
  auto note = [&](double x, double y) {
    double d = std::fabs(x - y) / std::max(1.0, std::fabs(y));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  };
  for (size_t o = 0; o < program->outputs.size(); ++o) {
    size_t at = names == nullptr ? o : expected.size();
    for (size_t n = 0; names != nullptr && n < names->size(); ++n)
      if ((*names)[n].name == program->outputs[o].first) at = n;
    if (question_answering) at = 0;
    if (at >= expected.size()) return INFINITY;
    const auto* got = static_cast<const float*>(executor.output(o));
    const Buffer& buffer = program->buffers[static_cast<size_t>(program->outputs[o].second)];
    if (buffer.extent == Extent::rows) {
      int64_t n = buffer.width * static_cast<int64_t>(batch.lengths.size());
      if (expected[at].count() != n) return INFINITY;
      for (int64_t i = 0; i < n; ++i) note(got[i], expected[at].at(i));
      continue;
    }
    int64_t parts = question_answering ? 2 : 1, width = buffer.width / parts;
    for (int64_t p = 0; p < parts; ++p) {
      const Array& e = expected[at + static_cast<size_t>(p)];
      if (e.count() != static_cast<int64_t>(batch.lengths.size()) * batch.padded * width) return INFINITY;
      for (size_t r = 0; r < batch.lengths.size(); ++r)
        for (int64_t i = 0; i < batch.lengths[r]; ++i)
          for (int64_t c = 0; c < width; ++c)
            note(got[(batch.offsets[r] + i) * buffer.width + p + c],
                 e.at((static_cast<int64_t>(r) * batch.padded + i) * width + c));
    }
  }
  return worst;
}

}  // namespace octet::onnx
