// Gradients and losses against those that transformers computed in FP64 (tools/make_train_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "hf/model.h"
#include "train/trainer.h"

namespace octet::train {
namespace {

nlohmann::json golden_of(const std::string& name) {
  return read_json(std::string(OCTET_TEST_DATA) + "/train/" + name + ".json");
}

train::Setup setup_of(const std::string& name, const nlohmann::json& golden) {
  Setup setup;
  setup.graph = hf::load_model(std::string(OCTET_TEST_DATA) + "/hf/" + name).graph;
  for (const auto& row : golden["rows"])
    setup.train.push_back({.ids = row["ids"].get<std::vector<int32_t>>(),
                           .type_ids = row["type_ids"].get<std::vector<int32_t>>(),
                           .label = row["label"].get<int64_t>()});
  setup.options.precision = "fp64";
  setup.options.device = "cpu";
  setup.options.threads = 1;  // matrices this small are slower on two
  return setup;
}

class Family : public testing::TestWithParam<const char*> {};

TEST_P(Family, GradientsAreThoseOfPyTorch) {
  const nlohmann::json golden = golden_of(GetParam());
  const Gradients got = gradients(setup_of(GetParam(), golden));
  EXPECT_NEAR(got.loss, golden["loss"].get<double>(), 1e-12);
  double global = 0;
  for (const auto& [name, g] : golden["gradients"].items()) global += std::pow(g["norm"].get<double>(), 2);
  global = std::sqrt(global);
  for (const auto& [name, wanted] : golden["gradients"].items()) {
    ASSERT_TRUE(got.values.contains(name)) << name;
    const std::vector<double>& values = got.values.at(name);
    const double norm = wanted["norm"].get<double>();
    // A gradient that is zero by symmetry (key biases) is compared on the scale of all gradients.
    const double scale = norm > 1e-9 * global ? norm : global;
    double square = 0;
    for (double v : values) square += v * v;
    EXPECT_NEAR(std::sqrt(square), norm, 1e-9 * scale) << name;
    for (const auto& [index, value] : wanted["elements"].items())
      EXPECT_NEAR(values.at(std::stoul(index)), value.get<double>(), 1e-9 * scale) << name << " " << index;
    for (int k = 0; k < 4; ++k) {
      double dot = 0;
      for (size_t i = 0; i < values.size(); ++i) dot += values[i] * std::cos(static_cast<double>(i) * (k + 1) + k);
      EXPECT_NEAR(dot, wanted["dots"][static_cast<size_t>(k)].get<double>(), 1e-8 * scale) << name << " dot " << k;
    }
  }
}

TEST_P(Family, TwoHundredStepsHaveTheLossesOfPyTorch) {
  const nlohmann::json golden = golden_of(GetParam()), &settings = golden["settings"];
  train::Setup setup = setup_of(GetParam(), golden);
  TrainOptions& o = setup.options;
  o.batch = static_cast<int64_t>(setup.train.size());
  o.max_steps = settings["steps"];
  o.learning_rate = settings["learning_rate"];
  o.weight_decay = settings["weight_decay"];
  o.warmup = settings["warmup"];
  o.clip_norm = settings["clip"];
  o.log_every = 50;
  const Trained trained = run_training(setup, {});
  ASSERT_EQ(trained.result.losses.size(), golden["losses"].size());
  for (size_t i = 0; i < trained.result.losses.size(); ++i)
    ASSERT_NEAR(trained.result.losses[i], golden["losses"][i].get<double>(), 1e-6) << "step " << i + 1;
}

INSTANTIATE_TEST_SUITE_P(All, Family,
                         testing::Values("bert-classification", "roberta-classification", "mpnet-classification"),
                         [](const auto& info) {
                           return std::string(info.param).substr(0, std::string(info.param).find('-'));
                         });

TEST(Schedule, RatesAreThoseOfTheReference) {
  TrainOptions o{.learning_rate = 1e-5};
  // The reference's log: step 1000 of 12272, of which 3 were skipped, logs 9.18758e-6 after 997 scheduler steps.
  EXPECT_NEAR(1e-5 * rate_share(o, 997, 12272), 9.18758e-6, 1e-11);
  o.schedule = "cosine";
  o.warmup = 0.1;
  o.final_rate = 0.01;
  EXPECT_EQ(rate_share(o, 0, 100), 0);
  EXPECT_NEAR(rate_share(o, 5, 100), 0.5, 1e-12);
  EXPECT_NEAR(rate_share(o, 10, 100), 1.0, 1e-12);
  EXPECT_NEAR(rate_share(o, 55, 100), 0.505, 1e-12);
  EXPECT_NEAR(rate_share(o, 100, 100), 0.01, 1e-12);
}

TEST(Schedule, EveryRowComesOnceAnEpoch) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 1000; ++i) lengths.push_back(1 + i * 7919 % 97);
  for (bool by_length : {false, true}) {
    std::vector<int> seen(lengths.size());
    auto batches = epoch_batches(lengths, 32, 7, 0, by_length);
    EXPECT_EQ(batches.size(), 32u);
    for (const auto& batch : batches)
      for (int64_t row : batch) ++seen[static_cast<size_t>(row)];
    for (int count : seen) EXPECT_EQ(count, 1);
    EXPECT_EQ(batches, epoch_batches(lengths, 32, 7, 0, by_length));
    EXPECT_NE(batches, epoch_batches(lengths, 32, 7, 1, by_length));
    EXPECT_NE(batches, epoch_batches(lengths, 32, 8, 0, by_length));
  }
}

}  // namespace
}  // namespace octet::train
