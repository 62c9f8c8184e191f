// The demo's comparison: a logistic regression on frozen sentence embeddings, fitted once on the FP32 model's and used
// with both models.
//
//   example_reviews split REVIEWS.tsv FOLDER                          writes train.tsv (3,000 rows) and test.tsv
//   example_reviews compare FP32 INT8 FOLDER [--json RESULT.json]     quality, size and speed of two models
//   example_reviews simulate FP32 INT8 FOLDER                         labels of INT8 against those of the simulated
//   graph
#include "reviews.h"

#include <octet/octet.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "embed.h"
#include "logistic_regression.h"

namespace {

using example::Review;
using Clock = std::chrono::steady_clock;

constexpr size_t kTrainRows = 3000;
constexpr double kL2 = 1e-4;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void write_tsv(const std::filesystem::path& path, const std::vector<Review>& reviews) {
  std::ofstream file(path, std::ios::binary);
  file << "sentence\tlabel\n";
  for (const Review& review : reviews) file << review.text << '\t' << review.label << '\n';
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

std::vector<Review> read_tsv(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  if (!std::getline(file, line))
    throw std::runtime_error("cannot read " + path.string() + "\n  hint: run the split first");
  std::vector<Review> reviews;
  while (std::getline(file, line)) {
    size_t tab = line.rfind('\t');
    if (tab == std::string::npos) throw std::runtime_error("no label in a line of " + path.string());
    reviews.push_back({line.substr(0, tab), line.substr(tab + 1) == "1" ? 1 : 0});
  }
  return reviews;
}

struct Measured {
  double accuracy = 0, mb = 0, rows_per_s = 0, ms_one = 0;
};

/// One model with what it produced so far.
struct Candidate {
  explicit Candidate(const char* path)
      : model(path), megabytes(static_cast<double>(std::filesystem::file_size(path)) / 1e6) {}

  /// Embeds texts[begin, end) and adds the time it took.
  void embed(std::span<const std::string> texts) {
    auto start = Clock::now();
    std::vector<float> rows = model.embed(texts);
    seconds += seconds_since(start);
    embeddings.insert(embeddings.end(), rows.begin(), rows.end());
  }

  example::Embedder model;
  double megabytes;
  double seconds = 0;
  std::vector<float> embeddings;
  std::vector<double> ms_one;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

double mean_cosine(const std::vector<float>& a, const std::vector<float>& b, size_t width) {
  double sum = 0;
  size_t rows = a.size() / width;
  for (size_t r = 0; r < rows; ++r) {
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = r * width; i < (r + 1) * width; ++i) {
      dot += double{a[i]} * b[i];
      aa += double{a[i]} * a[i];
      bb += double{b[i]} * b[i];
    }
    sum += dot / std::sqrt(aa * bb);
  }
  return sum / static_cast<double>(rows);
}

void write_json(const char* path, const Measured& fp32, const Measured& int8, double cosine) {
  char text[512];
  auto object = [](const Measured& m) {
    char part[160];
    std::snprintf(part, sizeof part, "{\"accuracy\": %.6f, \"mb\": %.3f, \"rows_per_s\": %.2f, \"ms_one\": %.4f}",
                  m.accuracy, m.mb, m.rows_per_s, m.ms_one);
    return std::string(part);
  };
  std::snprintf(text, sizeof text, "{\"fp32\": %s, \"int8\": %s, \"cosine\": %.6f}\n", object(fp32).c_str(),
                object(int8).c_str(), cosine);
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw std::runtime_error(std::string("cannot write ") + path);
}

int compare(const char* fp32_path, const char* int8_path, const std::filesystem::path& folder, const char* json) {
  std::vector<Review> train = read_tsv(folder / "train.tsv"), test = read_tsv(folder / "test.tsv");
  std::vector<std::string> texts;
  std::vector<int> train_labels, test_labels;
  for (const Review& review : train) texts.push_back(review.text), train_labels.push_back(review.label);
  for (const Review& review : test) texts.push_back(review.text), test_labels.push_back(review.label);

  Candidate fp32(fp32_path), int8(int8_path);
  // Short turns, so that both models meet the machine in the same state.
  constexpr size_t kTurn = 256;
  for (size_t begin = 0; begin < texts.size(); begin += kTurn) {
    std::span<const std::string> part = std::span(texts).subspan(begin, std::min(kTurn, texts.size() - begin));
    fp32.embed(part);
    int8.embed(part);
  }
  for (size_t i = 0; i < 200; ++i) {
    for (Candidate* candidate : {&fp32, &int8}) {
      auto start = Clock::now();
      candidate->model.embed(std::span(texts).subspan(i, 1));
      candidate->ms_one.push_back(seconds_since(start) * 1e3);
    }
  }

  size_t width = fp32.embeddings.size() / texts.size(), middle = train.size() * width;
  auto head = example::LogisticRegression::fit(std::span(fp32.embeddings).first(middle), train_labels, width, kL2);
  auto measured = [&](const Candidate& candidate) {
    return Measured{head.accuracy(std::span(candidate.embeddings).subspan(middle), test_labels), candidate.megabytes,
                    static_cast<double>(texts.size()) / candidate.seconds, median(candidate.ms_one)};
  };
  Measured a = measured(fp32), b = measured(int8);
  double cosine = mean_cosine(fp32.embeddings, int8.embeddings, width);

  std::printf("\n%zu review sentences; a head fitted on %zu FP32 embeddings, tested on the other %zu\n\n", texts.size(),
              train.size(), test.size());
  std::printf("%-34s %10s %10s %12s\n", "", "FP32", "INT8", "INT8 / FP32");
  std::printf("%-34s %10.4f %10.4f %+12.4f\n", "test accuracy", a.accuracy, b.accuracy, b.accuracy - a.accuracy);
  std::printf("%-34s %10s %10.4f\n", "mean cosine to FP32", "1", cosine);
  std::printf("%-34s %10.1f %10.1f %11.2fx\n", "model file, MB", a.mb, b.mb, b.mb / a.mb);
  std::printf("%-34s %10.1f %10.1f %11.2fx\n", "rows per second, batches of 32", a.rows_per_s, b.rows_per_s,
              b.rows_per_s / a.rows_per_s);
  std::printf("%-34s %10.2f %10.2f %11.2fx\n", "milliseconds for one sentence", a.ms_one, b.ms_one,
              b.ms_one / a.ms_one);
  if (json != nullptr) write_json(json, a, b, cosine);
  return 0;
}

/// The engine's INT8 against the fake-quant graph in float: the labels that the head gives to the test sentences.
int simulate(const char* fp32_path, const char* int8_path, const std::filesystem::path& folder) {
  std::vector<Review> train = read_tsv(folder / "train.tsv"), test = read_tsv(folder / "test.tsv");
  std::vector<std::string> train_texts, test_texts;
  std::vector<int> train_labels;
  for (const Review& review : train) train_texts.push_back(review.text), train_labels.push_back(review.label);
  for (const Review& review : test) test_texts.push_back(review.text);

  example::Embedder fp32{std::filesystem::path(fp32_path)}, int8{std::filesystem::path(int8_path)};
  octet::CompileOptions options;
  options.calibration = octet::Calibration::load(folder / "minilm.calib.safetensors");
  options.simulate = true;
  example::Embedder simulated(octet::compile(octet::Model::load(folder / "minilm"), options));

  size_t width = fp32.width();
  std::vector<float> fitted_on = fp32.embed(train_texts);
  auto head = example::LogisticRegression::fit(fitted_on, train_labels, width, kL2);
  std::vector<float> engine = int8.embed(test_texts), expected = simulated.embed(test_texts);
  size_t equal = 0;
  for (size_t i = 0; i < test.size(); ++i)
    equal += (head.score(&engine[i * width]) > 0) == (head.score(&expected[i * width]) > 0);
  std::printf("%zu of %zu test sentences (%.2f %%) get the same label from the engine as from the simulated graph\n",
              equal, test.size(), 100.0 * static_cast<double>(equal) / static_cast<double>(test.size()));
  std::printf("mean cosine of their embeddings: %.6f\n", mean_cosine(engine, expected, width));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 4 && std::strcmp(argv[1], "split") == 0) {
      example::ReviewSplit split = example::split_reviews(example::read_reviews(argv[2]), kTrainRows);
      write_tsv(std::filesystem::path(argv[3]) / "train.tsv", split.train);
      write_tsv(std::filesystem::path(argv[3]) / "test.tsv", split.test);
      std::printf("%zu sentences to train, %zu to test\n", split.train.size(), split.test.size());
      return 0;
    }
    bool json = argc == 7 && std::strcmp(argv[5], "--json") == 0;
    if ((argc == 5 || json) && std::strcmp(argv[1], "compare") == 0)
      return compare(argv[2], argv[3], argv[4], json ? argv[6] : nullptr);
    if (argc == 5 && std::strcmp(argv[1], "simulate") == 0) return simulate(argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "example_reviews: %s\n", error.what());
    return 2;
  }
  std::fprintf(stderr,
               "usage: example_reviews split REVIEWS.tsv FOLDER | compare FP32 INT8 FOLDER [--json RESULT.json] | "
               "simulate FP32 INT8 FOLDER\n");
  return 64;
}
