// Datasets: every format and default, every error, and the real files where they are.
#include <octet/dataset.h>
#include <octet/error.h>

#include <gtest/gtest.h>

#include <filesystem>

namespace octet {
namespace {

template <typename Call>
std::string error_of(ErrorCode code, Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST(Dataset, TsvHasNoQuotingAndDropsTheMark) {
  Dataset data = Dataset::parse(
      "\xef\xbb\xbfQuality\t#1 ID\t#1 String\t#2 String\r\n1\t7\t\" He said\tShe \"said\"\r\n\r\n0\t8\ta, b\t\r\n",
      "mrpc.tsv");
  ASSERT_EQ(data.rows(), 2);
  EXPECT_EQ(data.text(0), "\" He said");
  EXPECT_EQ(data.pair(0), "She \"said\"");
  EXPECT_EQ(data.label(0), "1");
  EXPECT_EQ(data.pair(1), "");
  EXPECT_EQ(data.line(1), 4);
  EXPECT_EQ(data.label_column(), "Quality");
}

TEST(Dataset, DefaultColumns) {
  Dataset data = Dataset::parse("premise\thypothesis\tgold_label\na\tb\tneutral\n", "x.tsv");
  EXPECT_EQ(data.text_column() + data.pair_column() + data.label_column(), "premisehypothesisgold_label");
  data = Dataset::parse("id,Sentence,score\n1,\"a, \"\"b\"\"\nc\",2.5\n", "x.csv");
  EXPECT_EQ(data.text(0), "a, \"b\"\nc");
  EXPECT_EQ(data.number(0), 2.5);
  EXPECT_FALSE(data.has_pair());
  data = Dataset::parse("sentence1\tsentence2\tlabel\na\tb\t1\n", "x.tsv", {.text = "sentence2", .label = "-"});
  EXPECT_EQ(data.text(0), "b");
  EXPECT_FALSE(data.has_pair());
  EXPECT_FALSE(data.has_label());
}

TEST(Dataset, NoHeader) {
  Dataset data = Dataset::parse("gj04\t1\t\tThe sailors rode.\nxx\t0\t*\tRode sailors the.\n", "cola.tsv");
  ASSERT_EQ(data.rows(), 2);
  EXPECT_EQ(data.text(1), "Rode sailors the.");
  EXPECT_EQ(data.label(1), "0");
  data = Dataset::parse("1\t2.5\tGood.\n2\t-1\tBad.\n", "reviews.txt", {.text = "3", .label = "2"});
  EXPECT_EQ(data.text(0), "Good.");
  EXPECT_EQ(data.number(1), -1.0);
  EXPECT_EQ(data.columns(), (std::vector<std::string>{"1", "2", "3"}));
}

TEST(Dataset, JsonLines) {
  Dataset data =
      Dataset::parse("{\"text\": \"a \\u00e9\", \"label\": 1}\n\n{\"label\": 0, \"text\": \"b\"}\n", "x.jsonl");
  EXPECT_EQ(data.text(0), "a \u00e9");
  EXPECT_EQ(data.label(1), "0");
  EXPECT_EQ(data.line(1), 3);
  data = Dataset::parse("[{\"text\": [\"a\", \"b\"], \"labels\": [\"O\", \"B\"]}]", "x.json");
  EXPECT_EQ(data.text(0), "a b");
  EXPECT_EQ(data.label(0), "O B");
}

TEST(Dataset, Limit) {
  EXPECT_EQ(Dataset::parse("text\na\nb\nc\n", "x.tsv", {.limit = 2}).rows(), 2);
  EXPECT_EQ(Dataset::parse("a\nb\nc\n", "x.tsv", {.text = "1", .limit = 2}).rows(), 2);
}

TEST(Dataset, Errors) {
  EXPECT_TRUE(contains(error_of(ErrorCode::invalid_argument,
                                [] { Dataset::parse("sentence\tlabel\na\t1\n", "x.tsv", {.text = "sentense"}); }),
                       "did you mean sentence"));
  EXPECT_TRUE(contains(
      error_of(ErrorCode::invalid_argument, [] { Dataset::parse("sentence\tlabel\na\t1\n", "x.tsv", {.text = "3"}); }),
      "from 1 to 2"));
  EXPECT_TRUE(contains(error_of(ErrorCode::invalid_argument, [] { Dataset::parse("foo\tbar\na\t1\n", "x.tsv"); }),
                       "cannot find the column of the text"));
  EXPECT_TRUE(
      contains(error_of(ErrorCode::corrupt, [] { Dataset::parse("sentence\tlabel\na\t1\nb\n", "x.tsv"); }), "line 3"));
  EXPECT_TRUE(
      contains(error_of(ErrorCode::corrupt, [] { Dataset::parse("sentence,label\n\"a,1\n", "x.csv"); }), "line 2"));
  EXPECT_TRUE(contains(
      error_of(ErrorCode::corrupt, [] { Dataset::parse("{\"text\": \"a\"}\n{\"text\": \n", "x.jsonl"); }), "line 2"));
  EXPECT_TRUE(
      contains(error_of(ErrorCode::corrupt, [] { Dataset::parse("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "x.jsonl"); }),
               "expected a value for \"text\""));
  EXPECT_TRUE(
      contains(error_of(ErrorCode::corrupt, [] { Dataset::parse("text\na\n\xff\n", "x.tsv"); }), "line 3, byte 7"));
  EXPECT_TRUE(contains(error_of(ErrorCode::invalid_argument, [] { Dataset::parse("", "x.tsv"); }), "no rows"));
  EXPECT_TRUE(
      contains(error_of(ErrorCode::invalid_argument, [] { Dataset::parse("text\na\n", "x.tsv", {.format = "xml"}); }),
               "known formats"));
  error_of(ErrorCode::not_found, [] { Dataset::load("/no/such/file.tsv"); });
}

TEST(Dataset, LabelsByNameOrNumber) {
  std::vector<std::string> names = {"ENTAILMENT", "neutral"};
  Dataset data = Dataset::parse("text\tlabel\na\tentailment\nb\tNeutral\nc\t0\n", "x.tsv");
  EXPECT_EQ(resolve_labels(data, names), (std::vector<int32_t>{0, 1, 0}));
  data = Dataset::parse("text\tlabel\na\tentailment\nb\tnetral\nc\t2\n", "x.tsv");
  std::string message = error_of(ErrorCode::invalid_argument, [&] { resolve_labels(data, names); });
  EXPECT_TRUE(contains(message, "\"netral\" (line 3), \"2\" (line 4)")) << message;
  EXPECT_TRUE(contains(message, "did you mean neutral")) << message;
  EXPECT_TRUE(contains(error_of(ErrorCode::invalid_argument, [&] { label_numbers(data); }), "line 2"));
  data = Dataset::parse("text\tother\na\t1\n", "x.tsv");
  EXPECT_TRUE(contains(error_of(ErrorCode::invalid_argument, [&] { resolve_labels(data, names); }), "gold_label"));
}

TEST(Dataset, Batches) {
  std::vector<int64_t> lengths = {3, 9, 4, 4, 20, 1};
  auto sorted = plan_batches(lengths, {.max_tokens = 10});
  EXPECT_EQ(sorted, (std::vector<std::vector<int64_t>>{{4}, {1}, {2, 3}, {0, 5}}));
  auto plain = plan_batches(lengths, {.max_rows = 4, .sort_by_length = false});
  EXPECT_EQ(plain, (std::vector<std::vector<int64_t>>{{0, 1, 2, 3}, {4, 5}}));
  EXPECT_TRUE(plan_batches({}, {}).empty());
}

TEST(Dataset, RealFiles) {
  std::filesystem::path root = std::filesystem::path(OCTET_SHARED) / "data";
  if (!std::filesystem::exists(root)) GTEST_SKIP() << "no real data at " << root;
  struct Expected {
    const char* file;
    int64_t rows;
    const char* text;
    bool pair;
    std::vector<std::string> labels;
  };
  std::vector<Expected> files = {
      {"mnli/dev_matched.tsv", 9815, "sentence1", true, {"entailment", "neutral", "contradiction"}},
      {"mnli/train_union.tsv", 32331, "sentence1", true, {"entailment", "neutral", "contradiction"}},
      {"rte/train.tsv", 2490, "sentence1", true, {"entailment", "not_entailment"}},
      {"rte/dev.tsv", 277, "sentence1", true, {"entailment", "not_entailment"}},
      {"mrpc/train.tsv", 3667, "#1 String", true, {"0", "1"}},
      {"mrpc/dev.tsv", 408, "#1 String", true, {"0", "1"}},
      {"sst2/train.tsv", 67349, "sentence", false, {"0", "1"}},
      {"sst2/dev.tsv", 872, "sentence", false, {"0", "1"}},
      {"cola/train.tsv", 8551, "4", false, {"0", "1"}},
      {"cola/dev.tsv", 1043, "4", false, {"0", "1"}},
      {"stsb/train.tsv", 5749, "sentence1", true, {}},
      {"stsb/dev.tsv", 1500, "sentence1", true, {}}};
  for (const Expected& expected : files) {
    SCOPED_TRACE(expected.file);
    Dataset data = Dataset::load(root / expected.file);
    EXPECT_EQ(data.rows(), expected.rows);
    EXPECT_EQ(data.text_column(), expected.text);
    EXPECT_EQ(data.has_pair(), expected.pair);
    EXPECT_EQ(expected.labels.empty() ? label_numbers(data).size() : resolve_labels(data, expected.labels).size(),
              static_cast<size_t>(expected.rows));
  }
}

}  // namespace
}  // namespace octet
