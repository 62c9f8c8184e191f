// Help, exit codes, and what is said about input that cannot be used.
#include "cli/command.h"

namespace octet::cli {
namespace {

using Usage = CommandTest;

TEST_F(Usage, HelpOfEveryVerbHasAnExample) {
  for (const std::string verb : {"inspect", "calibrate", "compile", "run", "eval", "bench", "diff", "explain", "export",
                                 "finetune", "qat", "transplant", "sweep", "report"}) {
    Ran ran = octet(verb + " --help");
    EXPECT_EQ(ran.code, 0) << verb;
    EXPECT_NE(ran.out.find("Example:\n  octet " + verb), std::string::npos) << verb;
    EXPECT_NE(ran.out.find("--json"), std::string::npos) << verb;
  }
  EXPECT_EQ(octet("--help").code, 0);
}

TEST_F(Usage, WrongUsageIs64) {
  for (const std::string arguments :
       {"", "nonsense", "run", "inspect --nonsense", "compile x", "eval x", "bench x", "bench x --shapes 8",
        "bench x --shapes 0x8", "calibrate -o c.safetensors", "calibrate --merge a -o c.safetensors",
        "run x --threads many", "explain x --shape 8x"}) {
    Ran ran = octet(arguments);
    EXPECT_EQ(ran.code, 64) << arguments;
    EXPECT_EQ(ran.out, "") << arguments;
    EXPECT_NE(ran.err, "") << arguments;
  }
}

TEST_F(Usage, AMistypedVerbIsNamedWithTheNearest) {
  EXPECT_NE(octet("evla x").err.find("no verb 'evla'; did you mean 'eval'?"), std::string::npos);
  EXPECT_NE(octet("nonsense").err.find("no verb 'nonsense'\n"), std::string::npos);
  EXPECT_NE(octet("").err.find("calibrate"), std::string::npos) << "without a verb the verbs are listed";
}

TEST_F(Usage, VerbsOfOtherBuildsAreNamedAsSuch) {
  for (const std::string verb : {"serve"}) {
    Ran ran = octet(verb + " x");
    EXPECT_EQ(ran.code, 2) << verb;
    EXPECT_NE(ran.err.find("this build of octet has no verb " + verb), std::string::npos) << ran.err;
  }
}

// One table: what is asked, and what the answer must say.
TEST_F(Usage, InputThatCannotBeUsedIs2) {
  make_model("model", "bert-classification");
  make_model("sentence", "bert-sentence-mean");
  make_data(6);
  write_file(at("empty.tsv"), "");
  write_file(at("header.tsv"), "sentence\tlabel\n");
  write_file(at("labels.tsv"), "sentence\tlabel\na film\tsplendid\na film\tpositive\n");
  write_file(at("plain.txt"), "no plan at all\n");
  write_file(at("x.onnx"), "");
  ASSERT_EQ(octet("compile model --precision fp32 -o m.octet").code, 0);
  struct Row {
    std::string arguments, says;
  };
  const std::vector<Row> rows{
      {"inspect missing", "found nothing"},
      {"inspect .", "expected config.json in it"},
      {"inspect x.onnx", "ONNX"},
      {"run x.onnx --input a", "ONNX"},
      {"run plain.txt --input a", "plain.txt"},
      {"run m.octet --input a --input b --input-pair c", "2 --input and 1 --input-pair"},
      {"run m.octet --input a --max-length 25", "at most 24"},
      {"run m.octet --input a --precision int8", "compiled already"},
      {"run m.octet --input a --calib c", "compiled already"},
      {"run m.octet --input a --backend simulate", "folder"},
      {"run model --input a --backend torch", "cannot use backend torch"},
      {"run model --input a --backend nonsense", "unknown backend"},
      {"run model --input a --precision int4", "int4"},
      {"run model --input a --precision fp32 --calib c", "calibration"},
      {"run model --input a --precision int8 --method max", "--calib"},
      {"compile model --precision fp32 -o nowhere/m.octet", "no folder nowhere"},
      {"compile model --precision fp32 -o model", "got a folder"},
      {"compile model --precision fp32 -o /dev/full", "cannot write"},
      {"compile m.octet -o n.octet", "compiled plan cannot be"},
      {"compile model --device nonsense -o n.octet", "nonsense"},
      {"compile model --calib missing.safetensors -o n.octet", "missing.safetensors"},
      {"calibrate m.octet --data data.tsv -o c.safetensors", "compiled plan cannot be"},
      {"calibrate model --data missing.tsv -o c.safetensors", "missing.tsv"},
      {"calibrate model --data data.tsv -o nowhere/c.safetensors", "no folder nowhere"},
      {"calibrate model --data data.tsv --set nonsense -o c.safetensors", "PATTERN=on"},
      {"eval m.octet --data missing.tsv", "missing.tsv"},
      {"eval m.octet --data model", "model"},
      {"eval m.octet --data empty.tsv", "empty"},
      {"eval m.octet --data header.tsv", "header.tsv"},
      {"eval m.octet --data data.tsv --label nonsense", "nonsense"},
      {"eval m.octet --data data.tsv --text nonsense", "nonsense"},
      {"eval m.octet --data labels.tsv", "splendid"},
      {"eval m.octet --data data.tsv --max-length 25", "at most 24"},
      {"eval sentence --data labels.tsv", "pairs"},
      {"bench m.octet --shapes 1x25", "at most 24"},
      {"bench m.octet --data missing.tsv", "missing.tsv"},
      {"explain missing.octet", "missing.octet"},
      {"diff model missing --data data.tsv", "missing"},
  };
  for (const Row& row : rows) {
    Ran ran = octet(row.arguments);
    EXPECT_EQ(ran.code, 2) << row.arguments << "\n" << ran.out << ran.err;
    EXPECT_NE(ran.err.find(row.says), std::string::npos) << row.arguments << "\n" << ran.err;
    EXPECT_TRUE(ran.err.starts_with("octet: ")) << row.arguments << "\n" << ran.err;
  }
}

TEST_F(Usage, FullOutputIsAnError) {
  std::string command = "cd '" + folder_.string() + "' && '" OCTET_COMMAND "' inspect --json >/dev/full 2>stderr";
  int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_NE(read_file(at("stderr")).find("standard output"), std::string::npos);
}

TEST_F(Usage, OldFileStaysWhenTheNewOneDoesNotFit) {
  make_model("model", "bert-classification");
  write_file(at("m.octet"), "old");
  Ran ran = octet("compile model --precision fp32 -o m.octet", "", "ulimit -f 4 &&");
  EXPECT_EQ(ran.code, 2) << ran.err;
  EXPECT_EQ(read_file(at("m.octet")), "old");
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename().string().find("tmp"), std::string::npos) << entry.path() << " was left behind";
}

}  // namespace
}  // namespace octet::cli
