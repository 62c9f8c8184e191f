// octet sweep end to end: both directions, resuming, the search, and what it refuses.
#include <octet/dataset.h>
#include <octet/error.h>
#include <octet/sweep.h>

#include "cli/command.h"

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
  options.state = at("state");
  struct Stop {};
  int64_t calls = 0;
  const int64_t kCalls = 5 * static_cast<int64_t>(whole.rows.size());  // two and a half batches
  EXPECT_THROW(sensitivity(model, calibration, data, options,
                           [&](std::string_view, int64_t, int64_t) {
                             if (++calls == kCalls) throw Stop{};
                           }),
               Stop);
  Sensitivity first = sensitivity(model, calibration, data, options);
  Sensitivity again = sensitivity(model, calibration, data, options);
  EXPECT_GT(first.resumed_batches, 0);
  EXPECT_LT(first.resumed_batches, first.batches);
  EXPECT_EQ(again.resumed_batches, again.batches);
  for (const Sensitivity* other : {&first, &again}) {
    ASSERT_EQ(other->rows.size(), whole.rows.size());
    for (size_t i = 0; i < whole.rows.size(); ++i) {
      EXPECT_EQ(other->rows[i].name, whole.rows[i].name);
      EXPECT_EQ(other->rows[i].only->sqnr_db, whole.rows[i].only->sqnr_db);
      EXPECT_EQ(other->rows[i].all_but->cosine, whole.rows[i].all_but->cosine);
      EXPECT_EQ(other->rows[i].all_but->metric, whole.rows[i].all_but->metric);
    }
  }
  options.unit = "layer";
  EXPECT_THROW(sensitivity(model, calibration, data, options), Error);
}

TEST_F(SweepTest, SearchWritesACalibrationOrSaysThatThereIsNone) {
  make();
  Ran ran = octet(
      "sweep model --calib c.safetensors --data data.tsv --max-drop 100 --shape 2x8 --candidates 3 --balance 4 "
      "-o d.safetensors --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  EXPECT_TRUE(value["found"]);
  EXPECT_GT(value["balance"].size(), 0u);
  EXPECT_EQ(value["search_rows"], 12);
  EXPECT_EQ(value["held_out_rows"], 12);
  EXPECT_EQ(octet("compile model --calib d.safetensors -o m.octet").code, 0);
  Ran never =
      octet("sweep model --calib c.safetensors --data data.tsv --max-latency 0.001us --shape 2x8 --candidates 2");
  EXPECT_EQ(never.code, 2);
  EXPECT_NE(never.err.find("no measured plan keeps the bounds"), std::string::npos) << never.err;
}

TEST_F(SweepTest, RefusesWhatItCannotDo) {
  make();
  EXPECT_EQ(octet("sweep model --calib c.safetensors --data data.tsv --device cuda").code, 2);
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
