// Every verb from end to end on tiny models: what it answers, and the keys of its JSON.
#include <cmath>
#include <set>

#include "cli/command.h"

namespace octet::cli {
namespace {

class Verbs : public CommandTest {
 protected:
  Json ask(const std::string& arguments, const std::string& input = "") const {
    Ran ran = octet(arguments + " --json", input);
    EXPECT_EQ(ran.code, 0) << arguments << "\n" << ran.err;
    return ran.json();
  }
  static void expect_keys(const Json& value, const std::set<std::string>& keys) {
    for (const std::string& key : keys)
      EXPECT_TRUE(value.contains(key)) << "no key " << key << " in " << value.dump().substr(0, 300);
  }
};

TEST_F(Verbs, InspectModelPlanAndMachine) {
  make_model("model", "bert-classification");
  Json info = ask("inspect model");
  EXPECT_EQ(info.at("family"), "bert");
  EXPECT_EQ(info.at("task"), "sequence_classification");
  EXPECT_EQ(info.at("labels"), (Json{"negative", "neutral", "positive"}));
  EXPECT_EQ(info.at("layers"), 2);
  EXPECT_EQ(info.at("max_length"), 24);
  EXPECT_EQ(info.at("tokenizer").at("vocabulary"), 60);
  EXPECT_NE(octet("inspect model --graph").out.find("linear"), std::string::npos);

  ASSERT_EQ(octet("compile model --precision fp32 -o m.octet").code, 0);
  Json plan = ask("inspect m.octet");
  EXPECT_EQ(plan.at("hash"), info.at("hash"));
  EXPECT_EQ(plan.at("precision"), "fp32");
  EXPECT_TRUE(plan.at("provenance").contains("model_hash"));

  Json machine = ask("inspect");
  expect_keys(machine, {"version", "cpus", "features", "target", "kernels"});
  bool reference = false;
  for (const Json& row : machine.at("kernels")) reference |= row.at("name") == "norm_ref" && row.at("usable") == true;
  EXPECT_TRUE(reference);
  EXPECT_NE(octet("inspect").out.find("norm_ref"), std::string::npos);
}

TEST_F(Verbs, RunAnswersEveryTask) {
  make_model("labels", "bert-classification");
  Json one = ask("run labels --input 'a good film' --input-pair 'the film was dull'");
  expect_keys(one, {"label", "score", "scores"});
  double sum = 0, best = 0;
  for (const auto& [label, score] : one.at("scores").items())
    sum += score.get<double>(), best = std::max(best, score.get<double>());
  EXPECT_NEAR(sum, 1, 1e-6);
  EXPECT_EQ(one.at("score"), best);
  EXPECT_EQ(one.at("scores").at(one.at("label").get<std::string>()), best);

  make_model("number", "bert-regression");
  EXPECT_TRUE(ask("run number --input 'a good film'").at("value").is_number());

  make_model("tokens", "bert-token");
  Json tokens = ask("run tokens --input 'a good film'").at("tokens");
  ASSERT_EQ(tokens.size(), 3u);  // special tokens are left out
  EXPECT_EQ(tokens[1].at("text"), "good");
  EXPECT_EQ(tokens[1].at("begin"), 2);
  EXPECT_EQ(tokens[1].at("end"), 6);

  make_model("question", "bert-qa");
  Json answer = ask("run question --input 'was the film dull' --input-pair 'the film was not dull and not good'");
  expect_keys(answer, {"answer", "score", "begin", "end"});
  std::string context = "the film was not dull and not good";
  EXPECT_EQ(answer.at("answer"),
            context.substr(answer.at("begin"), answer.at("end").get<size_t>() - answer.at("begin").get<size_t>()));

  make_model("sentence", "bert-sentence-mean");
  Json embedding = ask("run sentence --input 'a good film'");
  double square = 0;
  for (double x : embedding.at("embedding")) square += x * x;
  EXPECT_EQ(embedding.at("embedding").size(), 32u);
  EXPECT_NEAR(std::sqrt(square), embedding.at("norm").get<double>(), 1e-6);

  make_model("encoder", "bert-encoder");
  EXPECT_EQ(ask("run encoder --input 'a good film'").at("tokens").size(), 5u);
}

TEST_F(Verbs, RunReadsLines) {
  make_model("model", "bert-classification");
  // An empty line is an empty text; CR is no part of a text; a tab starts the pair.
  Json list = ask("run model", "a good film\nthe film was dull\r\n\na film\tthe film was bad\n");
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0], ask("run model --input 'a good film'"));
  EXPECT_EQ(list[1], ask("run model --input 'the film was dull'"));
  EXPECT_EQ(list[2], ask("run model --input ''"));
  EXPECT_EQ(list[3], ask("run model --input 'a film' --input-pair 'the film was bad'"));
  EXPECT_EQ(ask("run model", ""), Json::array());
  Ran bad = octet("run model", "a film\n\xff\xfe\n");
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.err.find("line 2"), std::string::npos) << bad.err;
}

TEST_F(Verbs, RunCutsLongTextsOnlyWhenAsked) {
  make_model("model", "bert-classification");
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "film ";
  Ran refused = octet("run model", text);
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("100,002 tokens"), std::string::npos) << refused.err;
  EXPECT_NE(refused.err.find("--truncate"), std::string::npos) << refused.err;
  EXPECT_EQ(octet("run model --truncate", text).code, 0);
  EXPECT_EQ(ask("run model --max-length 5", text), ask("run model", "film film film\n"));
}

TEST_F(Verbs, CompileReportsAndSaves) {
  make_model("model", "bert-classification");
  Json fp32 = ask("compile model --precision fp32 -o fp32.octet");
  expect_keys(fp32, {"path", "bytes", "precision", "ranges", "int8_work_fraction", "ops", "seconds"});
  EXPECT_EQ(fp32.at("int8_work_fraction"), 0);
  EXPECT_EQ(fp32.at("bytes"), fs::file_size(at("fp32.octet")));
  Json int8 = ask("compile model -o int8.octet");
  EXPECT_EQ(int8.at("precision"), "int8");
  EXPECT_EQ(int8.at("ranges"), "dynamic");
  EXPECT_GT(int8.at("int8_work_fraction"), 0.95);
  // The file answers as the folder compiled in memory does.
  EXPECT_EQ(ask("run fp32.octet --input 'a film'"), ask("run model --input 'a film'"));
  EXPECT_EQ(ask("run int8.octet --input 'a film'"), ask("run model --precision int8 --input 'a film'"));
}

TEST_F(Verbs, EvalScoresEveryTask) {
  make_data(30);
  make_model("labels", "bert-classification");
  Json labels = ask("eval labels --data data.tsv");
  expect_keys(labels, {"metric", "value", "rows", "seconds", "metrics"});
  EXPECT_EQ(labels.at("metric"), "accuracy");
  EXPECT_EQ(labels.at("rows"), 30);
  EXPECT_EQ(labels.at("value"), labels.at("metrics").at("accuracy"));
  // The same by hand, from what `run` says.
  std::string lines;
  std::vector<std::string> expected;
  std::istringstream file(read_file(at("data.tsv")));
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> names{"negative", "neutral", "positive"};
  while (std::getline(file, line)) {
    size_t first = line.find('\t'), second = line.find('\t', first + 1);
    lines += line.substr(0, second) + "\n";
    expected.push_back(names[expected.size() % 3]);
  }
  Json answers = ask("run labels", lines);
  ASSERT_EQ(answers.size(), 30u);
  int right = 0;
  for (size_t r = 0; r < 30; ++r) right += answers[r].at("label") == expected[r];
  EXPECT_DOUBLE_EQ(labels.at("value"), right / 30.0);
  EXPECT_EQ(ask("eval labels --data data.tsv --limit 6").at("rows"), 6);

  make_model("number", "bert-regression");
  Json number = ask("eval number --data data.tsv --label score");
  EXPECT_EQ(number.at("metric"), "spearman");
  expect_keys(number.at("metrics"), {"spearman", "pearson"});
  make_model("sentence", "bert-sentence-mean");
  Json sentence = ask("eval sentence --data data.tsv --label score");
  EXPECT_EQ(sentence.at("metric"), "spearman");
  EXPECT_LE(std::fabs(sentence.at("value").get<double>()), 1);
  EXPECT_EQ(ask("eval sentence --data data.tsv --label 4 --text 1 --pair 2").at("value"), sentence.at("value"));

  make_model("tokens", "bert-token");
  Json info = ask("inspect tokens");
  std::string label = info.at("labels")[0];
  write_file(at("tokens.tsv"), "sentence\tlabel\na good film\t" + label + " " + label + " " + label + "\n");
  Json tokens = ask("run tokens --input 'a good film'").at("tokens");
  int equal = 0;
  for (const Json& token : tokens) equal += token.at("label") == label;
  Json scored = ask("eval tokens --data tokens.tsv");
  EXPECT_EQ(scored.at("metric"), "f1");  // of entities: the labels are tags
  EXPECT_DOUBLE_EQ(scored.at("metrics").at("accuracy"), equal / 3.0);

  make_model("qa", "bert-qa");
  write_file(at("qa.tsv"), "question\tcontext\tanswer\nwas it\ta good film\tnothing\n");
  Json asked = ask("run qa --input 'was it' --input-pair 'a good film'");
  EXPECT_EQ(ask("eval qa --data qa.tsv").at("value"), 0);
  write_file(at("qa.tsv"),
             "question\tcontext\tanswer\nwas it\ta good film\tThe " + asked.at("answer").get<std::string>() + "!\n");
  Json exact = ask("eval qa --data qa.tsv");
  EXPECT_EQ(exact.at("value"), 1);
  EXPECT_EQ(exact.at("metrics").at("exact_match"), 1);
}

TEST_F(Verbs, EvalSaysHowManyTextsWereCut) {
  make_model("model", "bert-classification");
  std::string text = "sentence\tlabel\na film\t1\n";
  for (int i = 0; i < 40; ++i) text += "film ";
  write_file(at("long.tsv"), text + "\t0\n");
  Ran ran = octet("eval model --data long.tsv --json");
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.json().at("truncated"), 1);
  EXPECT_NE(ran.err.find("1 of 2 texts were longer than 24 tokens"), std::string::npos) << ran.err;
}

TEST_F(Verbs, EvalComparesModels) {
  make_data(20);
  make_model("sentence", "bert-sentence-mean");
  ASSERT_EQ(octet("compile sentence -o int8.octet").code, 0);
  Json same = ask("eval sentence --data data.tsv --label score --against sentence").at("against");
  EXPECT_EQ(same.at("equal_labels"), 1);
  EXPECT_NEAR(same.at("mean_cosine"), 1, 1e-9);
  EXPECT_EQ(same.at("rms_error"), 0);
  EXPECT_EQ(same.at("texts"), 40);
  Json int8 = ask("eval int8.octet --data data.tsv --label score --against sentence").at("against");
  EXPECT_GT(int8.at("mean_cosine"), 0.98);
  EXPECT_GT(int8.at("rms_error"), 0);
  // Without labels outputs are compared all the same.
  write_file(at("plain.tsv"), "sentence\na film\na good film\n");
  EXPECT_EQ(ask("eval sentence --data plain.tsv --against sentence").at("against").at("texts"), 2);
}

TEST_F(Verbs, BenchHasALineForEveryModelAndShape) {
  make_data(10);
  make_model("model", "bert-classification");
  ASSERT_EQ(octet("compile model -o int8.octet").code, 0);
  Json list = ask("bench model int8.octet --shapes 1x8,3x24 --repeats 4 --threads 1");
  ASSERT_EQ(list.size(), 4u);
  for (const Json& line : list) {
    expect_keys(line, {"model", "backend", "precision", "device", "batch", "seq", "median_ms", "mean_ms", "sd_ms",
                       "min_ms", "max_ms", "p95_ms", "p99_ms", "rows_per_s"});
    EXPECT_EQ(line.at("runs"), 4);
    EXPECT_LE(line.at("min_ms"), line.at("median_ms"));
    EXPECT_LE(line.at("median_ms"), line.at("max_ms"));
    EXPECT_GT(line.at("rows_per_s"), 0);
  }
  EXPECT_EQ(list[0].at("model"), "model");
  EXPECT_EQ(list[1].at("precision"), "int8");
  EXPECT_EQ(list[3].at("batch"), 3);
  EXPECT_EQ(list[3].at("seq"), 24);
  Json rows = ask("bench model --data data.tsv --batch 4 --repeats 2");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].at("runs"), 6);  // two passes of three batches
  EXPECT_EQ(ask("bench model int8.octet --data data.tsv --batch 4 --repeats 1").size(), 2u);
  Ran table = octet("bench model int8.octet --shapes 1x8 --repeats 3");
  EXPECT_NE(table.out.find("95p="), std::string::npos);
  EXPECT_NE(table.out.find("1.00x"), std::string::npos);
}

TEST_F(Verbs, ExplainListsEveryStep) {
  make_model("model", "bert-classification");
  ASSERT_EQ(octet("compile model -o int8.octet").code, 0);
  Json e = ask("explain int8.octet --shape 2x8 --repeats 2");
  expect_keys(e, {"int8_work_fraction", "ops"});
  EXPECT_GT(e.at("int8_work_fraction"), 0.95);
  ASSERT_FALSE(e.at("ops").empty());
  for (const Json& op : e.at("ops")) expect_keys(op, {"name", "kernel", "precision", "ms", "bytes", "refused"});
  Ran table = octet("explain int8.octet --repeats 0");
  EXPECT_EQ(table.code, 0);
  EXPECT_NE(table.out.find("matrix products in INT8"), std::string::npos);
}

// Calibration, INT8 with fixed ranges, its simulation, and the comparison of the two.
TEST_F(Verbs, CalibratedFromEndToEnd) {
  make_data(24);
  make_model("model", "bert-classification");
  Json made = ask("calibrate model --data data.tsv --samples 16 -o c.safetensors");
  EXPECT_EQ(made.at("samples"), 16);
  EXPECT_EQ(made.at("model_hash"), ask("inspect model").at("hash"));
  Json ranges = ask("inspect c.safetensors").at("ranges");
  EXPECT_EQ(ranges.size(), made.at("quantizers"));
  Json compiled = ask("compile model --calib c.safetensors --precision int8 -o int8.octet");
  EXPECT_NE(compiled.at("ranges"), "dynamic");
  EXPECT_GT(compiled.at("int8_work_fraction"), 0.95);
  ASSERT_EQ(octet("compile model --calib c.safetensors --method max -o max.octet").code, 0);

  Json engine =
      ask("eval int8.octet --data data.tsv --against model --against-calib c.safetensors --against-backend simulate");
  Json simulated = ask("eval model --calib c.safetensors --backend simulate --data data.tsv --against model");
  EXPECT_LE(engine.at("against").at("rms_error"), simulated.at("against").at("rms_error"));

  Json forced =
      ask("diff model int8.octet --calib-a c.safetensors --data data.tsv --teacher-forced --rows 12 --batch 5");
  EXPECT_EQ(forced.at("teacher_forced"), true);
  EXPECT_GT(forced.at("values").size(), 10u);
  for (const auto& [name, sum] : forced.at("classes").items()) {
    EXPECT_GE(sum.at("equal_fraction"), name == "integer"    ? 1.0
                                        : name == "epilogue" ? 0.999
                                                             : 0.99)
        << name << "\n"
        << forced.dump(1);
    EXPECT_LE(sum.at("max_steps"), 1) << name;
  }
  // Against the float model: real differences, no integers.
  Json free = ask("diff model int8.octet --data data.tsv");
  EXPECT_GT(free.at("values").size(), 10u);
  EXPECT_FALSE(free.at("first_divergence").is_null());

  ASSERT_EQ(octet("calibrate model --data data.tsv --samples 8 -o d.safetensors").code, 0);
  EXPECT_EQ(ask("calibrate --merge c.safetensors d.safetensors -o e.safetensors").at("samples"), 24);
  make_model("other", "bert-regression");
  Ran wrong = octet("compile other --calib c.safetensors -o o.octet");
  EXPECT_EQ(wrong.code, 2);
  EXPECT_FALSE(fs::exists(at("o.octet")));
}

TEST_F(Verbs, DynamicTeacherForced) {
  make_data(12);
  make_model("model", "bert-classification");
  Json forced = ask("diff model model --calib-a none --calib-b none --data data.tsv --teacher-forced");
  EXPECT_FALSE(forced.at("classes").empty());
  for (const auto& [name, sum] : forced.at("classes").items()) {
    EXPECT_GE(sum.at("equal_fraction"), name == "integer"    ? 1.0
                                        : name == "epilogue" ? 0.999
                                                             : 0.99)
        << name << "\n"
        << forced.dump(1);
    EXPECT_LE(sum.at("max_steps"), 1) << name;
  }
}

}  // namespace
}  // namespace octet::cli
