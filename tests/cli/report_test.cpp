// octet report: one page that asks nothing of a network, and the same as Markdown and JSON.
#include "cli/command.h"

namespace octet::cli {
namespace {

class ReportTest : public CommandTest {};

TEST_F(ReportTest, PageMarkdownAndJson) {
  make_model("model", "bert-classification");
  make_data(24);
  ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  Ran ran =
      octet("report model --calib c.safetensors --data data.tsv -o r.html --shapes 1x8,2x8,2x16 --seconds 0.05 --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  int measured = 0;
  for (const Json& form : value["forms"]) {
    if (form.contains("absent")) {
      EXPECT_NE(form["absent"], "");
      continue;
    }
    ++measured;
    EXPECT_TRUE(form["metric"].is_number());
    ASSERT_EQ(form["shapes"].size(), 3u);
    EXPECT_GT(form["shapes"][0]["median_ms"], 0.0);
    EXPECT_GT(form["real"]["rows_per_s"], 0.0);
  }
  EXPECT_EQ(measured, 3);
  EXPECT_GT(value["histograms"].size(), 0u);
  EXPECT_GT(value["layers"].size(), 1u);
  const std::string page = read_file(at("r.html"));
  for (const char* forbidden : {"http:", "https:", "<script", "src=", "@import", "url("})
    EXPECT_EQ(page.find(forbidden), std::string::npos) << forbidden;
  for (const char* wanted : {"<svg", "prefers-color-scheme:dark", "@media print", "name=\"viewport\"", "not measured"})
    EXPECT_NE(page.find(wanted), std::string::npos) << wanted;
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_NE(read_file(at("r.md")).find("| octet | cpu | int8 static |"), std::string::npos);
  EXPECT_EQ(Json::parse(read_file(at("r.json")))["rows"], 24);
}

TEST_F(ReportTest, Refuses) {
  make_model("model", "bert-classification");
  make_data(6);
  EXPECT_NE(octet("report model --data data.tsv -o r.html").err.find("without a calibration"), std::string::npos);
  ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  EXPECT_EQ(octet("report model --calib c.safetensors --data data.tsv").code, 64);
  EXPECT_NE(octet("report model --calib c.safetensors --data data.tsv -o none/r.html").err.find("there is no folder"),
            std::string::npos);
}

}  // namespace
}  // namespace octet::cli
