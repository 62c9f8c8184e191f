// Tiny checkpoints of every family and head give the outputs that transformers gave (tools/make_hf_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "hf/model.h"
#include "plan/executor.h"
#include "plan/lower.h"

namespace octet {
namespace {

std::vector<std::string> folders() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(OCTET_TEST_DATA "/hf"))
    if (std::filesystem::exists(entry.path() / "golden.json")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, EqualsTransformers) {
  std::filesystem::path folder = std::filesystem::path(OCTET_TEST_DATA) / "hf" / GetParam();
  nlohmann::json golden = read_json(folder / "golden.json");
  hf::LoadedModel model = hf::load_model(folder);
  std::vector<int32_t> ids, types, offsets{0};
  for (const nlohmann::json& row : golden["rows"]) {
    for (int32_t id : row["ids"]) ids.push_back(id);
    for (int32_t type : row["type_ids"]) types.push_back(type);
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  Target target = host_target();
  for (bool fuse : {true, false}) {
    auto program = std::make_shared<Program>(lower(model.graph, {.target = target, .fuse = fuse}));
    Executor executor(program, std::make_shared<ThreadPool>(1), target);
    executor.bind({ids, offsets, types});
    executor.run();
    ASSERT_EQ(program->outputs.size(), golden["outputs"].size());
    for (const auto& [name, buffer] : program->outputs) {
      ASSERT_TRUE(golden["outputs"].contains(name)) << name;
      std::vector<float> expected;
      float scale = 0;
      for (const nlohmann::json& row : golden["outputs"][name])
        for (float value : row) expected.push_back(value), scale = std::max(scale, std::fabs(value));
      auto* values = static_cast<const float*>(executor.data(buffer));
      ASSERT_EQ(executor.elements(buffer), static_cast<int64_t>(expected.size()));
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(values[i], expected[i], 1e-4 * scale) << name << " " << i << (fuse ? " fused" : " unfused");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden, testing::ValuesIn(folders()), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
});

}  // namespace
}  // namespace octet
