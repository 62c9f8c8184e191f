// octet sweep end to end: both directions, resuming, the search, and what it refuses.
#include <octet/dataset.h>
#include <octet/error.h>
#include <octet/sweep.h>

#include "cli/command.h"
#include "kernels/device.h"

namespace octet::cli {
namespace {

class SweepTest : public CommandTest {
 protected:
  void make() {
    make_model("model", "bert-classification");
    make_data(24);
    ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  }
};

TEST_F(SweepTest, TableJsonAndACalibrationThatCompiles) {
  make();
  Ran ran = octet("sweep model --calib c.safetensors --data data.tsv --leave 2 -o d.safetensors --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  EXPECT_EQ(value["metric"], "accuracy");
  ASSERT_GT(value["units"].size(), 20u);
  for (const Json& unit : value["units"]) {
    EXPECT_TRUE(unit["only"]["cosine"].is_number());
    EXPECT_TRUE(unit["only"]["kl"].is_number());
    EXPECT_TRUE(unit["all_but"]["metric"].is_number());
  }
  EXPECT_GE(value["left_in_float"].size(), 2u);
  EXPECT_FALSE(fs::exists(at("d.safetensors.state")));
  ASSERT_EQ(octet("compile model --calib d.safetensors -o m.octet").code, 0);
  for (const char* unit : {"op", "layer", "site"})
    EXPECT_EQ(octet(std::string("sweep model --calib c.safetensors --data data.tsv --unit ") + unit).code, 0);
  Ran free = octet("sweep model --calib c.safetensors --data data.tsv --label - --json");
  ASSERT_EQ(free.code, 0) << free.err;
  EXPECT_TRUE(free.json()["metric"].is_null());
  EXPECT_NE(free.err.find("no labels"), std::string::npos);
}

TEST_F(SweepTest, InterruptedAndResumedGivesTheSameNumbers) {
  make();
  Model model = Model::load(at("model"));
  Calibration calibration = Calibration::load(at("c.safetensors"));
  Dataset data = Dataset::load(at("data.tsv"));
  SensitivityOptions options{.batch_tokens = 24, .threads = 1};
  Sensitivity whole = sensitivity(model, calibration, data, options);
  ASSERT_GT(whole.batches, 3);
  auto equal = [&](const Sensitivity& other) {
    ASSERT_EQ(other.rows.size(), whole.rows.size());
    for (size_t i = 0; i < whole.rows.size(); ++i) {
      EXPECT_EQ(other.rows[i].name, whole.rows[i].name);
      EXPECT_EQ(other.rows[i].only->sqnr_db, whole.rows[i].only->sqnr_db);
      EXPECT_EQ(other.rows[i].all_but->cosine, whole.rows[i].all_but->cosine);
      EXPECT_EQ(other.rows[i].all_but->metric, whole.rows[i].all_but->metric);
    }
  };
  // Stopped in the first batch, among the units alone; later; then again, in the other direction; and right after.
  options.state = at("state");
  struct Stop {};
  const int64_t each = 2 + 2 * static_cast<int64_t>(whole.rows.size());
  int64_t before = 0;
  for (int64_t stop : {each / 4, each * 2, each * 3 / 2 + 3, int64_t{2}}) {
    int64_t calls = 0;
    EXPECT_THROW(sensitivity(model, calibration, data, options,
                             [&](std::string_view, int64_t, int64_t) {
                               if (++calls == stop) throw Stop{};
                             }),
                 Stop);
    before += stop - 8;  // less the calls that begin a batch
  }
  Sensitivity first = sensitivity(model, calibration, data, options);
  Sensitivity again = sensitivity(model, calibration, data, options);
  EXPECT_GT(first.resumed_runs, before - 20);
  EXPECT_LT(first.resumed_runs, each * first.batches);
  EXPECT_EQ(again.resumed_runs, each * again.batches);
  EXPECT_EQ(again.resumed_batches, again.batches);
  equal(first), equal(again);
  options.unit = "layer";
  EXPECT_THROW(sensitivity(model, calibration, data, options), Error);
}

/// Killed without a chance to write anything, again and again, at whatever moment that is.
TEST_F(SweepTest, KilledAndResumedGivesTheSameNumbers) {
  make();
  make_data(400, "many.tsv");
  const std::string command = "sweep model --calib c.safetensors --data many.tsv --threads 1 --json";
  const Json whole = octet(command).json();
  const auto runs = whole["batches"].get<int64_t>() * (2 + 2 * static_cast<int64_t>(whole["units"].size()));
  Ran ran;
  int killed = 0;
  for (int i = 0; i < 60; ++i) {
    const std::string limit = std::to_string(0.02 + 0.004 * i);
    ran = octet(command + " --state st --save-every 0.001", "", i < 59 ? "timeout -s KILL " + limit : "");
    if (ran.code == 0) break;
    EXPECT_TRUE(ran.code == 137 || ran.code == 128 + 9) << ran.code << ran.err;
    ++killed;
  }
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_GT(killed, 0);
  Json resumed = ran.json();
  EXPECT_GT(resumed["resumed_runs"], 0);
  EXPECT_LE(resumed["resumed_runs"], runs);
  EXPECT_EQ(resumed["units"], whole["units"]);
  EXPECT_EQ(resumed["all"], whole["all"]);
  EXPECT_FALSE(fs::exists(at("st")));
}

TEST_F(SweepTest, BiasCorrectionIsWrittenAndCompiled) {
  make();
  Ran ran = octet("calibrate model --data data.tsv --bias-correction 16 -o b.safetensors --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_GT(ran.json()["corrected_biases"], 10);
  ASSERT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --bias-correction 16 -o d.safetensors").code, 0);
  const Json plain = octet("eval model --calib c.safetensors --data data.tsv --against model --json").json();
  const Json corrected = octet("eval model --calib b.safetensors --data data.tsv --against model --json").json();
  EXPECT_NE(plain["against"]["rms_error"], corrected["against"]["rms_error"]);
  // The same float model with and without: a sweep compares with it, not with the corrected one.
  const Json one = octet("sweep model --calib c.safetensors --data data.tsv --unit layer --json").json();
  const Json other = octet("sweep model --calib b.safetensors --data data.tsv --unit layer --json").json();
  EXPECT_EQ(one["units"], other["units"]);
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --bias-correction 4").code, 64);
}

TEST_F(SweepTest, RangesFromOnePass) {
  make();
  make_data(60, "many.tsv");
  Ran ran = octet(
      "sweep model --calib c.safetensors --data many.tsv --ranges --samples 8,16,32 --judge-rows 10 "
      "--methods auto,max,percentile:99,percentile:60 --balance 4 --bias-correction 4 -o d.safetensors --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json found = ran.json()["ranges"];
  ASSERT_EQ(found["trials"].size(), 13u);
  EXPECT_EQ(found["trials"].back()["method"], "per tensor");
  EXPECT_EQ(found["calibration_rows"], 32);
  double best = 1e9, bad = 0;
  int chosen = 0;
  for (const Json& trial : found["trials"]) {
    best = std::min(best, trial["relative_error"].get<double>());
    if (trial["method"] == "percentile:60") bad = trial["relative_error"];
    if (!trial["chosen"]) continue;
    ++chosen;
    EXPECT_EQ(trial["relative_error"], best) << trial;
  }
  EXPECT_EQ(chosen, 1);
  EXPECT_GT(bad, 2 * best);
  EXPECT_GT(ran.json()["corrected_biases"], 0);
  EXPECT_EQ(octet("compile model --calib d.safetensors -o m.octet").code, 0);
  Ran few = octet("sweep model --calib c.safetensors --data data.tsv --ranges --samples 5000 -o d.safetensors");
  EXPECT_EQ(few.code, 0) << few.err;
  EXPECT_NE(few.err.find("fewer than the 5,000"), std::string::npos) << few.err;
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --ranges").code, 64);
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --ranges --methods best -o d.safetensors").code,
            2);
}

TEST_F(SweepTest, SearchWritesACalibrationOrSaysThatThereIsNone) {
  make();
  Ran ran = octet(
      "sweep model --calib c.safetensors --data data.tsv --max-drop 100 --shape 2x8 --seconds 0.05 --candidates 3 "
      "--balance 4 "
      "-o d.safetensors --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  EXPECT_TRUE(value["found"]);
  EXPECT_GT(value["balance"].size(), 0u);
  EXPECT_EQ(value["search_rows"], 12);
  EXPECT_EQ(value["held_out_rows"], 12);
  EXPECT_EQ(octet("compile model --calib d.safetensors -o m.octet").code, 0);
  Ran never = octet(
      "sweep model --calib c.safetensors --data data.tsv --max-latency 0.001us --shape 2x8 --seconds 0.05 --candidates "
      "2");
  EXPECT_EQ(never.code, 2);
  EXPECT_NE(never.err.find("no measured plan keeps the bounds"), std::string::npos) << never.err;
}

TEST_F(SweepTest, SearchKeepsAShareOfTheWorkInInt8) {
  make();
  Ran ran = octet(
      "sweep model --calib c.safetensors --data data.tsv --max-drop 100 --min-int8 95 --shape 2x8 --seconds 0.05 "
      "--candidates 6 "
      "--json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  EXPECT_FALSE(value["modelled"]);
  for (const Json& point : value["points"]) EXPECT_GE(point["int8_work_fraction"].get<double>(), 0.95);
}

TEST_F(SweepTest, LatencyOfAnAbsentCardIsModelledOnlyWhenAsked) {
  make();
  const std::string base =
      "sweep model --calib c.safetensors --data data.tsv --shape 2x8 --seconds 0.05 --candidates 3 ";
  Ran ran = octet(base + "--search --model-latency L4");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_NE(ran.out.find("ms, modelled"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("l4 (modelled, not measured; evaluated on cpu)"), std::string::npos) << ran.out;
  Json value = octet(base + "--max-drop 100 --model-latency h100 --json").json();
  EXPECT_TRUE(value["modelled"]);
  EXPECT_EQ(value["device"], "h100");
  // No launch of a step takes less than the model's two microseconds.
  for (const Json& point : value["points"]) EXPECT_GT(point["median_ms"].get<double>(), 0.002);
  Ran unknown = octet(base + "--search --model-latency abacus");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_NE(unknown.err.find("rtx4090"), std::string::npos) << unknown.err;
}

TEST_F(SweepTest, AMetricThatIsConstantSaysSo) {
  make();
  const Json all = octet("sweep model --calib c.safetensors --data data.tsv --unit layer --limit 2 --json").json();
  // Two labels of a model that barely moves: accuracy does not tell the units apart.
  for (const Json& unit : all["units"])
    for (const char* way : {"only", "all_but"}) ASSERT_EQ(unit[way]["metric"], all["float_metric"]);
  EXPECT_NE(all["metric_reason"].get<std::string>().find("the same for every unit"), std::string::npos);
  const Json none = octet("sweep model --calib c.safetensors --data data.tsv --unit layer --label - --json").json();
  EXPECT_NE(none["metric_reason"], "");
  for (const Json& unit : none["units"]) EXPECT_TRUE(unit["only"]["metric"].is_null());
}

TEST_F(SweepTest, RefusesWhatItCannotDo) {
  make();
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --device cuda").code, 64);
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --min-int8 95").code, 64);
  if (!kernels::device::find_device().present) {
    Ran gpu = octet("sweep model --calib c.safetensors --data data.tsv --search --device cuda");
    EXPECT_EQ(gpu.code, 2);
    EXPECT_NE(gpu.err.find("--model-latency"), std::string::npos) << gpu.err;
  }
  EXPECT_NE(octet("sweep model --data data.tsv").err.find("without a calibration"), std::string::npos);
  EXPECT_EQ(octet("sweep model --calib c.safetensors").code, 64);
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --balance 4").code, 64);
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --unit nonsense").code, 64);
  Ran few = octet("sweep model --calib c.safetensors --data data.tsv --unit layer --limit 1000");
  EXPECT_EQ(few.code, 0);
  EXPECT_NE(few.err.find("fewer than the 1,000"), std::string::npos) << few.err;
}

}  // namespace
}  // namespace octet::cli
