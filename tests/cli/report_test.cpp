// octet report: one page that asks nothing of a network, and the same as Markdown and JSON.
#include <octet/bench.h>
#include <octet/dataset.h>
#include <octet/error.h>
#include <octet/report.h>

#include "cli/command.h"

namespace octet::cli {
namespace {

class ReportTest : public CommandTest {};

TEST_F(ReportTest, PageMarkdownAndJson) {
  make_model("model", "bert-classification");
  make_data(24);
  ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  Ran ran = octet(
      "report model --calib c.safetensors --data data.tsv -o r.html --shapes 1x8,2x8,2x16 --seconds 0.05 --python none "
      "--json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  Json value = ran.json();
  int measured = 0;
  for (const Json& form : value["forms"]) {
    if (form.contains("absent")) {
      EXPECT_NE(form["absent"], "");
      continue;
    }
    if (form["name"] == "octet") ++measured;
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

/// A row has accuracy and time from the same engine, or a reason; what fails anywhere loses its numbers.
TEST_F(ReportTest, NoRowWithoutItsAccuracy) {
  make_model("model", "bert-classification");
  make_data(24);
  ASSERT_EQ(octet("calibrate model --data data.tsv -o c.safetensors").code, 0);
  Model model = Model::load(at("model"));
  Session same(compile(model, {.precision = Precision::fp32}), {.threads = 1});
  auto run = [&](std::span<const Encoding> rows) {
    OwnedBatch batch;
    for (const Encoding& row : rows) batch.add(row);
    const Output out = same.run(batch.view());
    return PeerAnswer{{out.values.begin(), out.values.end()}, 0.25};
  };
  int calls = 0;
  ReportOptions options{.sensitivity_rows = 0, .shapes = {{1, 8}, {2, 8}}, .seconds = 0.01, .threads = 1};
  options.peers = {
      {.name = "twin", .precision = "fp32", .run = run},
      {.name = "missing", .precision = "fp32", .absent = "it is not here"},
      {.name = "empty", .precision = "fp32"},
      {.name = "throws",
       .run = [](std::span<const Encoding>) -> PeerAnswer { throw std::runtime_error("broken\nlibrary"); }},
      {.name = "short",
       .run =
           [](std::span<const Encoding>) {
             return PeerAnswer{{1.0f}, 1.0};
           }},
      {.name = "nan",
       .run =
           [&](std::span<const Encoding> rows) {
             PeerAnswer answer = run(rows);
             answer.values[0] = NAN;
             return answer;
           }},
      {.name = "late", .run = [&](std::span<const Encoding> rows) {
         if (++calls > 6) throw std::runtime_error("died while it was timed");
         return run(rows);
       }}};
  const Dataset data = Dataset::load(at("data.tsv"));
  const Report made = report(model, Calibration::load(at("c.safetensors")), data, options);
  const Json value = Json::parse(made.json);
  std::map<std::string, Json> by_name;
  for (const Json& form : value["forms"]) {
    by_name[form["name"]] = form;
    if (form.contains("absent")) {
      EXPECT_NE(form["absent"], "");
      EXPECT_FALSE(form.contains("shapes")) << form;
      EXPECT_FALSE(form.contains("metric")) << form;
      continue;
    }
    EXPECT_TRUE(form["metric"].is_number()) << form;
    EXPECT_TRUE(form["cosine"].is_number()) << form;
    EXPECT_EQ(form["shapes"].size(), 2u);
    EXPECT_GT(form["real"]["rows_per_s"], 0.0);
  }
  EXPECT_NEAR(by_name["twin"]["cosine"], 1, 1e-6);
  EXPECT_EQ(by_name["twin"]["shapes"][0]["median_ms"], 0.25);
  EXPECT_EQ(by_name["missing"]["absent"], "it is not here");
  EXPECT_NE(by_name["throws"]["absent"].get<std::string>().find("broken library"), std::string::npos);
  for (const char* failed : {"empty", "short", "nan", "late"})
    EXPECT_TRUE(by_name[failed].contains("absent")) << failed;
  for (const std::string* text : {&made.markdown, &made.html}) {
    EXPECT_NE(text->find("it is not here"), std::string::npos);
    EXPECT_NE(text->find("[twin fp32] mean="), std::string::npos);
  }
  // The same session timed by octet bench: the spreads meet.
  Session session(compile(model, {.precision = Precision::fp32}), {.threads = 1});
  const BenchResult bench = bench_shape(session, 2, 8, {.seconds = 0.05});
  const Json own = value["forms"][0]["shapes"][1];
  EXPECT_LE(own["min_ms"].get<double>(), bench.max_ms);
  EXPECT_LE(bench.min_ms, own["max_ms"].get<double>());
}

TEST_F(ReportTest, PeersThatAreMissingFailOrAreFaked) {
  make_model("model", "bert-classification");
  make_data(40);
  ASSERT_EQ(octet("calibrate model --data data.tsv --placement qdqbert -o c.safetensors").code, 0);
  // What trtexec is asked for, and the files that it writes.
  write_file(at("trtexec"), R"sh(#!/bin/sh
for a in "$@"; do case $a in
  --saveEngine=*) : > "${a#*=}" ;;
  --shapes=*) s=${a#*:}; s=${s%%,*}; b=${s%x*} ;;
  --exportOutput=*) o=${a#*=} ;;
  --exportTimes=*) t=${a#*=} ;;
esac; done
[ -n "$o" ] || exit 0
n=$((b * 3)); v=0.1; i=1
while [ $i -lt $n ]; do v="$v,0.$((i % 3 + 1))"; i=$((i + 1)); done
echo "[{\"name\":\"logits\",\"dimensions\":\"${b}x3\",\"values\":[$v]}]" > "$o"
echo '[{"computeMs":1.5},{"computeMs":1.25}]' > "$t"
)sh");
  fs::permissions(at("trtexec"), fs::perms::owner_all);
  const std::string rest =
      " --calib c.safetensors --data data.tsv -o r.html --shapes 1x8 --seconds 0.01 --limit 30 --no-torch --json";
  Ran ran = octet("report model --python false --trtexec ./trtexec" + rest);
  ASSERT_EQ(ran.code, 0) << ran.err;
  int faked = 0, stopped = 0;
  const Json all = ran.json();
  for (const Json& form : all["forms"]) {
    if (form["name"] == "TensorRT") {
      ++faked;
      ASSERT_FALSE(form.contains("absent")) << form;
      EXPECT_TRUE(form["metric"].is_number());
      EXPECT_LE(form["shapes"][0]["median_ms"], 1.5);
    }
    if (form["name"] == "OpenVINO" || form["name"] == "ONNX Runtime") {
      ++stopped;
      EXPECT_NE(form["absent"].get<std::string>().find("stopped"), std::string::npos) << form;
    }
    if (form["name"] == "PyTorch") {
      EXPECT_NE(form["absent"].get<std::string>().find("--no-torch"), std::string::npos);
    }
  }
  EXPECT_EQ(faked, 2);
  EXPECT_EQ(stopped, 5);
  Ran none = octet("report model --python /nowhere/python --trtexec false" + rest);
  ASSERT_EQ(none.code, 0) << none.err;
  EXPECT_NE(none.out.find("there is no program /nowhere/python"), std::string::npos);
  EXPECT_NE(none.out.find("trtexec ended with 1"), std::string::npos);
  Ran few = octet(
      "report model --no-peers --limit 4000 --sensitivity-rows 0 --label - --calib c.safetensors --data data.tsv -o "
      "r.html "
      "--shapes 1x8 --seconds 0.01 --json");
  ASSERT_EQ(few.code, 0) << few.err;
  EXPECT_NE(few.err.find("fewer than the 4,000"), std::string::npos) << few.err;
  EXPECT_TRUE(few.json()["metric"].is_null());
  EXPECT_NE(few.json()["metric_reason"], "");
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
