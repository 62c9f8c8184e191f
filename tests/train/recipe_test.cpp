// The recipe from end to end on a tiny model that learns: fine-tune, calibrate, train quantized, compile, evaluate;
// crashes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <octet/octet.h>
#include <octet/train.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"

namespace octet::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGood[] = {"good", "fine", "warm", "bright", "kind", "sweet", "happy", "calm", "clean", "fresh"};
constexpr const char* kBad[] = {"bad", "poor", "cold", "dull", "mean", "sour", "sad", "loud", "dirty", "stale"};
constexpr const char* kOther[] = {"the", "a", "day", "film", "meal", "was", "and", "very", "one", "two", "it", "that"};

/// A temporary folder with the tiny checkpoint of tests/data/hf, a tokenizer of 60 words, and rows whose label says
/// whether good or bad words prevail.
class Recipe : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("octet_recipe_" + std::to_string(getpid()) + "_" +
                                         testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
    model_ = root_ / "model";
    fs::copy(fs::path(OCTET_TEST_DATA) / "hf" / "bert-classification", model_, fs::copy_options::recursive);
    std::ofstream vocab(model_ / "vocab.txt");
    int count = 5;
    vocab << "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    for (const char* word : kGood) vocab << word << "\n", ++count;
    for (const char* word : kBad) vocab << word << "\n", ++count;
    for (const char* word : kOther) vocab << word << "\n", ++count;
    for (; count < 60; ++count) vocab << "w" << count << "\n";
    train_ = write("train.tsv", 640, 1);
    dev_ = write("dev.tsv", 200, 2);
  }
  void TearDown() override { fs::remove_all(root_); }

  fs::path write(const std::string& name, int rows, uint64_t seed) const {
    std::ofstream file(root_ / name);
    file << "sentence\tlabel\n";
    auto next = [&seed] { return (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33; };
    for (int r = 0; r < rows; ++r) {
      std::string text;
      int balance = 0;
      const auto words = 5 + next() % 12;
      for (uint64_t w = 0; w < words || balance == 0; ++w) {
        const char* word = kOther[next() % 12];
        if (auto kind = next() % 4; kind == 0) word = kGood[next() % 10], ++balance;
        else if (kind == 1) word = kBad[next() % 10], --balance;
        if (w < 20) text += (text.empty() ? "" : " ") + std::string(word);
        else if (balance != 0) break;
      }
      file << text << "\t" << (balance > 0 ? 1 : 0) << "\n";
    }
    return root_ / name;
  }

  static TrainOptions quick() {
    return {.epochs = 12,
            .batch = 16,
            .learning_rate = 3e-3,
            .warmup = 0.1,
            .device = "cpu",
            .threads = 1,
            .new_labels = 2};
  }

  std::string error_of(const std::function<void()>& f) const {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  double engine(const fs::path& folder, Precision precision, bool simulate = false) const {
    CompileOptions options{.precision = precision, .simulate = simulate};
    if (precision == Precision::int8) options.calibration = Calibration::load(folder / "octet_calibration.safetensors");
    Session session(compile(Model::load(folder), options), {.threads = 1});
    return evaluate(session, Dataset::load(dev_)).value;
  }

  fs::path root_, model_, train_, dev_;
};

TEST_F(Recipe, LearnsAndTheEngineKeepsThePromise) {
  const Dataset train = Dataset::load(train_), dev = Dataset::load(dev_);
  std::vector<TrainStep> steps;
  TrainResult tuned =
      finetune(model_, train, &dev, root_ / "tuned", quick(), [&](const TrainStep& s) { steps.push_back(s); });
  EXPECT_GT(tuned.value, 0.9);  // the majority is near a half
  EXPECT_LT(tuned.last_loss, tuned.first_loss);
  EXPECT_EQ(tuned.metric, "accuracy");
  EXPECT_EQ(tuned.steps, 480);
  EXPECT_FALSE(steps.empty());
  EXPECT_FALSE(fs::exists(root_ / "tuned" / "checkpoint"));
  EXPECT_DOUBLE_EQ(engine(root_ / "tuned", Precision::fp32), tuned.value);

  // The same seed gives the same bits, another one does not.
  TrainResult again = finetune(model_, train, &dev, root_ / "again", quick());
  EXPECT_EQ(again.losses, tuned.losses);
  EXPECT_EQ(read_text(root_ / "again" / "model.safetensors"), read_text(root_ / "tuned" / "model.safetensors"));
  TrainOptions other = quick();
  other.seed = 7;
  other.max_steps = 20;
  EXPECT_NE(finetune(model_, train, nullptr, root_ / "other", other).losses,
            std::vector<double>(tuned.losses.begin(), tuned.losses.begin() + 20));

  Model model = Model::load(root_ / "tuned");
  std::vector<Encoding> rows = encode_rows(model, train).rows;
  for (const char* placement : {"residual-channel", "qdqbert"}) {
    const fs::path file = root_ / (std::string(placement) + ".calib"), out = root_ / placement;
    calibrate(model, rows, {.placement = placement, .samples = 64, .threads = 1}).save(file);
    for (bool follow : {false, true}) {
      TrainOptions o = quick();
      o.new_labels = 0;
      o.learning_rate = 1e-4;
      o.epochs = 1;
      fs::remove_all(out);
      TrainResult q = qat(root_ / "tuned", train, &dev, out, o, {.calibration = file, .follow_weights = follow});
      EXPECT_GT(q.value, 0.9) << placement;
      EXPECT_NEAR(engine(out, Precision::int8), q.value, 0.011) << placement;
      EXPECT_NEAR(engine(out, Precision::int8, true), q.value, 0.006) << placement;
      // torch and the simulated plan compute the same graph.
      const fs::path own = out / "octet_calibration.safetensors";
      Session session(compile(Model::load(out), {.calibration = Calibration::load(own), .simulate = true}),
                      {.threads = 1});
      std::vector<float> engine_out = run_all(session, rows),
                         torch_out = run_torch(out, rows, {.calibration = own, .device = "cpu", .threads = 1});
      ASSERT_EQ(engine_out.size(), torch_out.size());
      EXPECT_GT(agreement(engine_out, torch_out, 2).equal_labels, 0.99) << placement;
    }
  }

  TrainOptions o = quick();
  o.new_labels = 0;
  o.learning_rate = 1e-4;
  o.max_steps = 10;
  const fs::path file = root_ / "qdqbert.calib";
  TrainResult learned = qat(root_ / "tuned", train, &dev, root_ / "learned", o,
                            {.calibration = file,
                             .states = {{"*add_local*", "off"}},
                             .learn_ranges = true,
                             .teacher = root_ / "tuned",
                             .distill_logits = 1,
                             .distill_hidden = 1});
  EXPECT_GT(learned.value, 0.85);
  EXPECT_NEAR(engine(root_ / "learned", Precision::int8), learned.value, 0.016);
}

TEST_F(Recipe, TrainsNumbersTokensAndAnswers) {
  auto folder = [&](const std::string& name) {
    const fs::path to = root_ / name;
    fs::copy(fs::path(OCTET_TEST_DATA) / "hf" / name, to, fs::copy_options::recursive);
    fs::copy_file(model_ / "vocab.txt", to / "vocab.txt", fs::copy_options::overwrite_existing);
    return to;
  };
  TrainOptions o = quick();
  o.new_labels = 0;
  o.epochs = 30;
  // Numbers: how many good words; tokens: good, bad or other; answers: the good word of a text with one.
  const fs::path tokens = folder("bert-token"), numbers = folder("bert-regression"), answers = folder("bert-qa");
  const std::vector<std::string> labels = Model::load(tokens).info().labels;
  ASSERT_GE(labels.size(), 2u);
  std::string number_rows = "sentence\tlabel\n", token_rows = number_rows, answer_rows = "question\tcontext\tanswer\n";
  uint64_t seed = 9;
  auto next = [&seed] { return (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33; };
  for (int r = 0; r < 128; ++r) {
    std::string text, tags, context;
    int good = 0;
    const auto words = 4 + next() % 6, place = next() % words;
    std::string answer = kGood[next() % 10];
    for (uint64_t w = 0; w < words; ++w) {
      const bool is_good = next() % 3 == 0;
      good += is_good;
      text += (w ? " " : "") + std::string(is_good ? kGood[next() % 10] : kOther[next() % 12]);
      tags += (w ? " " : "") + labels[is_good ? 1 : 0];
      context += (w ? " " : "") + (w == place ? answer : std::string(kOther[next() % 12]));
    }
    number_rows += text + "\t" + std::to_string(good) + ".5\n";
    token_rows += text + "\t" + tags + "\n";
    answer_rows += "was it\t" + context + "\t" + answer + "\n";
  }
  const Dataset number_data = Dataset::parse(number_rows, "n.tsv"), token_data = Dataset::parse(token_rows, "t.tsv");
  const Dataset answer_data =
      Dataset::parse(answer_rows, "a.tsv", {.text = "question", .pair = "context", .label = "answer"});
  TrainResult n = finetune(numbers, number_data, &number_data, root_ / "n", o);
  EXPECT_EQ(n.metric, "spearman");
  EXPECT_GT(n.value, 0.8);
  TrainResult t = finetune(tokens, token_data, &token_data, root_ / "t", o);
  EXPECT_EQ(t.metric, "f1");  // the labels are tags
  EXPECT_GT(t.value, 0.9);
  EXPECT_GT(t.metrics.at("accuracy"), 0.95);
  Session session(compile(Model::load(root_ / "t"), {.precision = Precision::fp32}), {.threads = 1});
  EXPECT_DOUBLE_EQ(evaluate(session, token_data).value, t.value);
  TrainResult a = finetune(answers, answer_data, &answer_data, root_ / "a", o);
  EXPECT_EQ(a.metric, "f1");
  EXPECT_GT(a.value, 0.8);
  EXPECT_LT(a.last_loss, a.first_loss / 2);
  Session reader(compile(Model::load(root_ / "a"), {.precision = Precision::fp32}), {.threads = 1});
  Evaluation e = evaluate(reader, answer_data);
  EXPECT_DOUBLE_EQ(e.value, a.value);
  EXPECT_DOUBLE_EQ(e.metrics.at("exact_match"), a.metrics.at("exact_match"));
}

TEST_F(Recipe, TrainsTextsWithSeveralLabels) {
  const fs::path folder = root_ / "several";
  fs::copy(model_, folder, fs::copy_options::recursive);
  nlohmann::json config = read_json(folder / "config.json");
  config["problem_type"] = "multi_label_classification";
  config["id2label"] = {{"0", "good"}, {"1", "bad"}, {"2", "long"}};
  std::ofstream(folder / "config.json") << config;
  std::string rows = "sentence\tlabel\n";
  uint64_t seed = 4;
  auto next = [&seed] { return (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33; };
  for (int r = 0; r < 192; ++r) {
    std::string text, labels;
    const bool good = next() % 2, bad = next() % 2;
    const auto words = 2 + next() % 6;
    for (uint64_t w = 0; w < words; ++w) text += std::string(w ? " " : "") + kOther[next() % 12];
    if (good) text += std::string(" ") + kGood[next() % 10], labels += "good";
    if (bad) text += std::string(" ") + kBad[next() % 10], labels += labels.empty() ? "bad" : ",bad";
    if (words > 4) labels += labels.empty() ? "2" : " ,long";
    rows += text + "\t" + labels + "\n";
  }
  const Dataset data = Dataset::parse(rows, "s.tsv");
  TrainOptions o = quick();
  o.new_labels = 0;
  o.epochs = 30;
  TrainResult r = finetune(folder, data, &data, root_ / "out", o);
  EXPECT_EQ(r.metric, "micro_f1");
  EXPECT_GT(r.value, 0.9);
  Session session(compile(Model::load(root_ / "out"), {.precision = Precision::fp32}), {.threads = 1});
  EXPECT_DOUBLE_EQ(evaluate(session, data).value, r.value);
  EXPECT_NE(error_of([&] {
              finetune(folder, Dataset::parse("sentence\tlabel\nit was\tgood, sour\n", "x.tsv"), nullptr, root_ / "no",
                       o);
            }).find("'sour' in line 2"),
            std::string::npos);
}

/// What went wrong, what was expected, where, and what to do.
void expect_four_parts(const std::string& error, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(error.find(part), std::string::npos) << part << " in: " << error;
  EXPECT_NE(error.find("hint: "), std::string::npos) << error;
}

TEST_F(Recipe, BadDataIsRefusedWithItsPlace) {
  auto with = [&](const std::string& content, TrainOptions o = quick()) {
    return error_of([&] {
      const fs::path file = root_ / "given.tsv";
      std::ofstream(file) << content;
      finetune(model_, Dataset::load(file), nullptr, root_ / "out", o);
    });
  };
  expect_four_parts(with("sentence\tlabel\ngood\t0\nbad\t5\n"), {"5", "given.tsv"});
  expect_four_parts(with("sentence\tlabel\ngood\t1\nbad\t1\n"), {"one class", "all 2 rows", "given.tsv"});
  expect_four_parts(with(""), {"empty", "given.tsv"});
  expect_four_parts(with("sentence\tlabel\n"), {"no rows", "after its header", "given.tsv"});
}

TEST_F(Recipe, ALossThatIsNoNumberLeavesTheLastCheckpoint) {
  TrainOptions o = quick();
  o.learning_rate = 1e30;
  o.clip_norm = 0;
  o.weight_decay = 0;
  o.warmup = 6;  // some steps at 0 and tiny rates would be good; the rate is 0 in the first
  o.max_steps = 40;
  o.checkpoint_every = 1;
  const Dataset train = Dataset::load(train_);
  auto run = [&] { return error_of([&] { finetune(model_, train, nullptr, root_ / "wild", o); }); };
  expect_four_parts(run(), {"not a number", "step ", "rows ", "learning rate", "--lr", "--resume"});
  const fs::path state = root_ / "wild" / "checkpoint" / "state.safetensors";
  ASSERT_TRUE(fs::exists(state));
  o.resume = true;
  // It goes on from there, to the same end.
  const std::string kept = read_text(state);
  expect_four_parts(run(), {"not a number"});
  EXPECT_EQ(read_text(state), kept);
  o.learning_rate = 1e-3;
  o.batch = 8;
  expect_four_parts(run(), {"other settings", "learning_rate", "batch (16 before, 8 now)", "checkpoint"});
}

TEST_F(Recipe, TooLargeABatchSaysWhatFits) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "skipped: a sanitizer needs more address space than this test leaves";
#endif
  std::string rows = "sentence\tlabel\n";
  for (int r = 0; r < 60000; ++r) rows += std::string("the film was very ") + (r % 2 ? "good\t1\n" : "bad\t0\n");
  std::ofstream(root_ / "many.tsv") << rows;
  const fs::path log = root_ / "log";
  const std::string command = "ulimit -v 1900000; exec " + std::string(OCTET_COMMAND) + " finetune " + model_.string() +
                              " --train " + (root_ / "many.tsv").string() + " -o " + (root_ / "o").string() +
                              " --labels 2 --batch 60000 --threads 1 --device cpu 2> " + log.string();
  EXPECT_NE(std::system(("sh -c '" + command + "'").c_str()), 0);
  expect_four_parts(read_text(log), {"no memory for a training step", "60000 rows", "tokens", "step 1",
                                     "--batch 30000 --accumulate 2"});
}

TEST_F(Recipe, AccumulatingPassesIsOneLargerBatch) {
  const Dataset train = Dataset::load(train_);
  TrainOptions o = quick();
  o.max_steps = 5;
  o.batch = 64;
  o.group_by_length = false;
  TrainResult whole = finetune(model_, train, nullptr, root_ / "whole", o);
  o.batch = 16;
  o.accumulate = 4;
  TrainResult parts = finetune(model_, train, nullptr, root_ / "parts", o);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(whole.losses[i], parts.losses[i], 2e-5);
  for (const char* precision : {"bf16", "fp16"}) {
    o.precision = precision;
    TrainResult low = finetune(model_, train, nullptr, root_ / precision, o);
    EXPECT_NEAR(low.losses[0], whole.losses[0], 0.02) << precision;
    EXPECT_LT(low.skipped, 5) << precision;
  }
}

TEST_F(Recipe, RefusesWhatCannotBeTrained) {
  const Dataset train = Dataset::load(train_);
  auto with = [&](const std::string& rows, TrainOptions o = quick()) {
    return error_of([&] {
      fs::remove_all(root_ / "out");
      finetune(model_, Dataset::parse("sentence\tlabel\n" + rows, "x.tsv"), nullptr, root_ / "out", o);
    });
  };
  EXPECT_NE(with("good\t0\nbad\t5\n").find("5"), std::string::npos);
  EXPECT_NE(with("good\t1\nbad\t1\n").find("one class"), std::string::npos);
  TrainOptions wild = quick();
  wild.learning_rate = 1e30;
  wild.clip_norm = 0;
  wild.max_steps = 40;
  const std::string stopped = with("good\t0\nbad\t1\n", wild);
  EXPECT_NE(stopped.find("not a number"), std::string::npos) << stopped;
  EXPECT_NE(stopped.find("step "), std::string::npos);
  EXPECT_NE(stopped.find("rows "), std::string::npos);
  EXPECT_NE(error_of([&] { qat(model_, train, nullptr, root_ / "q", quick()); }).find("octet calibrate"),
            std::string::npos);
  EXPECT_NE(error_of([&] { finetune(model_, train, nullptr, model_, quick()); }).find("own folder"), std::string::npos);
  TrainOptions three = quick();
  three.labels = {"x", "y", "z"};
  three.new_labels = 2;
  EXPECT_NE(error_of([&] { finetune(model_, train, nullptr, root_ / "three", three); }).find("labels"),
            std::string::npos);
}

/// Runs the command; kills it after `milliseconds` unless that is negative. Returns whether it ended by itself with 0.
bool command(const std::vector<std::string>& arguments, int milliseconds) {
  pid_t child = fork();
  if (child == 0) {
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  if (milliseconds >= 0) {
    for (int waited = 0; waited < milliseconds; ++waited) {
      if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    kill(child, SIGKILL);
  }
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// A port that nothing listens on now.
int free_port() {
  int one = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(one, reinterpret_cast<sockaddr*>(&address), size) != 0) return 0;
  getsockname(one, reinterpret_cast<sockaddr*>(&address), &size);
  close(one);
  return ntohs(address.sin_port);
}

TEST_F(Recipe, TwoProcessesAreOneWithTwiceTheBatch) {
  auto arguments = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> all{OCTET_COMMAND,
                                 "finetune",
                                 model_.string(),
                                 "--train",
                                 train_.string(),
                                 "--dev",
                                 dev_.string(),
                                 "-o",
                                 (root_ / out).string(),
                                 "--labels",
                                 "2",
                                 "--batch",
                                 "48",
                                 "--epochs",
                                 "2",
                                 "--lr",
                                 "0.003",
                                 "--precision",
                                 "fp64",
                                 "--dropout",
                                 "0",
                                 "--no-group-by-length",
                                 "--log-every",
                                 "1",
                                 "--threads",
                                 "1",
                                 "--device",
                                 "cpu"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  // 640 rows in batches of 48: the last step of an epoch has work for one process only.
  ASSERT_TRUE(command(arguments("alone", {"--accumulate", "2"}), -1));
  const std::string meeting = "127.0.0.1:" + std::to_string(free_port());
  bool second = false;
  std::thread other([&] {
    second = command(arguments("together", {"--processes", "2", "--process", "1", "--meeting", meeting}), 120000);
  });
  const bool first =
      command(arguments("together", {"--processes", "2", "--process", "0", "--meeting", meeting}), 120000);
  other.join();
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  auto lines = [&](const char* folder) {
    std::vector<nlohmann::json> list;
    std::ifstream file(root_ / folder / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) list.push_back(nlohmann::json::parse(line));
    return list;
  };
  const std::vector<nlohmann::json> alone = lines("alone"), together = lines("together");
  ASSERT_EQ(alone.size(), together.size());
  ASSERT_EQ(alone.size(), 14u);
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_NEAR(alone[i]["loss"].get<double>(), together[i]["loss"].get<double>(), 1e-10) << "step " << i + 1;
    EXPECT_NEAR(alone[i]["gradient_norm"].get<double>(), together[i]["gradient_norm"].get<double>(), 1e-9);
  }
  EXPECT_EQ(alone.back()["value"], together.back()["value"]);
  EXPECT_NEAR(alone.back()["dev_loss"].get<double>(), together.back()["dev_loss"].get<double>(), 1e-9);

  TrainOptions o = quick();
  o.processes = 2;
  EXPECT_NE(error_of([&] { finetune(model_, Dataset::load(train_), nullptr, root_ / "lost", o); }).find("address:port"),
            std::string::npos);
}

TEST_F(Recipe, AKilledRunResumesToTheSameBits) {
  auto arguments = [&](const std::string& out) {
    return std::vector<std::string>{OCTET_COMMAND,
                                    "finetune",
                                    model_.string(),
                                    "--train",
                                    train_.string(),
                                    "--dev",
                                    dev_.string(),
                                    "-o",
                                    (root_ / out).string(),
                                    "--labels",
                                    "2",
                                    "--batch",
                                    "16",
                                    "--epochs",
                                    "1",
                                    "--lr",
                                    "0.003",
                                    "--checkpoint-every",
                                    "1",
                                    "--eval-every",
                                    "5",
                                    "--threads",
                                    "1",
                                    "--device",
                                    "cpu",
                                    "--resume"};
  };
  auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(command(arguments("whole"), -1));
  const auto whole = static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count());
  // Random times: from the start of the process on, until it has been killed twenty times or is done.
  uint64_t seed = 3;
  int kills = 0;
  bool done = false;
  for (; kills < 20 && !done; ++kills) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    done = command(arguments("broken"), whole / 4 + static_cast<int>((seed >> 33) % static_cast<uint64_t>(whole / 2)));
  }
  if (!done) done = command(arguments("broken"), -1);
  ASSERT_TRUE(done);
  RecordProperty("kills", kills);
  EXPECT_EQ(read_text(root_ / "broken" / "model.safetensors"), read_text(root_ / "whole" / "model.safetensors"));
  // The log has each step once, with the same losses.
  auto losses = [&](const char* folder) {
    std::vector<std::string> list;
    std::ifstream lines(root_ / folder / "metrics.jsonl");
    for (std::string line; std::getline(lines, line);) {
      auto entry = nlohmann::json::parse(line);
      list.push_back(entry["step"].dump() + " " + entry["loss"].dump());
    }
    return list;
  };
  EXPECT_EQ(losses("broken"), losses("whole"));

  // Other settings are refused while a checkpoint is there.
  std::vector<std::string> started = arguments("settings");
  for (int tries = 0; tries < 20 && !fs::exists(root_ / "settings" / "checkpoint" / "state.safetensors"); ++tries)
    command(started, whole / 2 + 50 * tries);
  if (fs::exists(root_ / "settings" / "checkpoint" / "state.safetensors")) {
    TrainOptions o = quick();
    o.resume = true;
    std::string error = error_of([&] { finetune(model_, Dataset::load(train_), nullptr, root_ / "settings", o); });
    EXPECT_NE(error.find("other settings"), std::string::npos) << error;
    o.resume = false;
    error = error_of([&] { finetune(model_, Dataset::load(train_), nullptr, root_ / "settings", o); });
    EXPECT_NE(error.find("--resume"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace octet::train
