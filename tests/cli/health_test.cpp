// Values of a plan on data, and the monitor that a session keeps.
#include <octet/dataset.h>
#include <octet/evaluate.h>
#include <octet/health.h>

#include "cli/command.h"

namespace octet::cli {
namespace {

class HealthTest : public CommandTest {};

TEST_F(HealthTest, ExplainOnData) {
  make_model("model", "bert-classification");
  make_data(24);
  ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  Ran ran = octet("explain model --calib c.safetensors --data data.tsv --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  int compared = 0, integers = 0;
  for (const Json& v : value["values"]) {
    if (!v["sqnr_db"].is_null()) ++compared;
    if (v["saturation"].is_null()) continue;
    ++integers;
    EXPECT_LT(v["saturation"].get<double>(), 0.2) << v;
    EXPECT_LE(v["zeros"].get<double>(), 1);
  }
  EXPECT_GT(compared, 5);
  EXPECT_GT(integers, 5);
  ASSERT_EQ(octet("compile model --calib c.safetensors -o m.octet").code, 0);
  EXPECT_NE(octet("explain m.octet --data data.tsv").err.find("no float weights"), std::string::npos);
}

TEST_F(HealthTest, MonitorAnswersLikeTheSessionAndCounts) {
  make_model("model", "bert-classification");
  make_data(24);
  ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  Model model = Model::load(at("model"));
  Plan plan = compile(model, {.calibration = Calibration::load(at("c.safetensors"))});
  EncodedRows rows = encode_rows(model, Dataset::load(at("data.tsv")));
  Session session(plan, {.threads = 1}), other(plan, {.threads = 1});
  ClipMonitor monitor(session, {.every = 2, .limit = 0.5, .least = 1});
  for (const Encoding& row : rows.rows) {
    OwnedBatch batch;
    batch.add(row);
    Output got = monitor.run(batch.view());
    std::vector<float> values(got.values.begin(), got.values.end());
    Output want = other.run(batch.view());
    EXPECT_TRUE(std::equal(values.begin(), values.end(), want.values.begin(), want.values.end()));
  }
  EXPECT_EQ(monitor.batches(), 24);
  EXPECT_EQ(monitor.looked_at(), 12);
  EXPECT_FALSE(monitor.rates().empty());
  EXPECT_TRUE(monitor.clipped().empty());
  ClipMonitor strict(session, {.every = 1, .limit = -1, .least = 1});
  OwnedBatch batch;
  batch.add(rows.rows[0]);
  strict.run(batch.view());
  EXPECT_EQ(strict.clipped().size(), strict.rates().size());
  Session floats(compile(model, {.precision = Precision::fp32}));
  EXPECT_ANY_THROW(ClipMonitor{floats});
}

}  // namespace
}  // namespace octet::cli
