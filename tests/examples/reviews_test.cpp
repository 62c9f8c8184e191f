// The parts of the examples that can be wrong without anyone seeing it: the fitted head, and the fixed split.
#include "../../examples/reviews.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "../../examples/logistic_regression.h"

namespace example {
namespace {

TEST(LogisticRegression, FindsTheOptimum) {
  // One feature, two points each way and one on the wrong side: the optimum is where the gradient vanishes.
  const std::vector<float> x{-2, -1, 1, 2, 1.5f};
  const std::vector<int> y{0, 0, 1, 1, 0};
  const double l2 = 0.1;
  auto model = LogisticRegression::fit(x, y, 1, l2);
  const float zero = 0, one = 1;
  double bias = model.score(&zero), weight = model.score(&one) - bias;
  double gradient_w = l2 * weight, gradient_b = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double slope = (1 / (1 + std::exp(-(weight * x[i] + bias))) - y[i]) / 5;
    gradient_w += slope * x[i];
    gradient_b += slope;
  }
  EXPECT_NEAR(gradient_w, 0, 1e-6);
  EXPECT_NEAR(gradient_b, 0, 1e-6);
  EXPECT_GT(weight, 0);
}

TEST(LogisticRegression, SeparableDataStaysFinite) {
  const std::vector<float> x{-1, 0, -0.5f, 0, 1, 0, 0.5f, 0};  // the second feature is always zero
  const std::vector<int> y{0, 0, 1, 1};
  auto model = LogisticRegression::fit(x, y, 2, 1e-4);
  EXPECT_DOUBLE_EQ(model.accuracy(x, y), 1.0);
  EXPECT_TRUE(std::isfinite(model.score(x.data())));
  const std::vector<int> same{1, 1, 1, 1};
  EXPECT_DOUBLE_EQ(LogisticRegression::fit(x, same, 2, 1e-4).accuracy(x, same), 1.0);
}

TEST(LogisticRegression, RefusesSizesThatDoNotMatch) {
  const std::vector<float> x{1, 2, 3};
  const std::vector<int> y{0, 1};
  EXPECT_THROW(LogisticRegression::fit(x, y, 2, 1e-4), std::invalid_argument);
  EXPECT_THROW(LogisticRegression::fit({}, {}, 2, 1e-4), std::invalid_argument);
  EXPECT_THROW(LogisticRegression::fit(x, std::vector<int>{1}, 3, 0), std::invalid_argument);
}

class Reviews : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    path = std::filesystem::temp_directory_path() / ("octet_reviews_" + std::to_string(::getpid()));
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  void TearDown() override { std::filesystem::remove(path); }
  std::filesystem::path path;
};

TEST_F(Reviews, ReadsRatingsAndLeavesOutTheMiddle) {
  auto reviews =
      read_reviews(write("1\t2.25\tgood 'one'\r\n2\t-0.5\tbad\n3\t0.49\tso so\n4\t0.5\tcaf\xc3\xa9\ttabbed"));
  ASSERT_EQ(reviews.size(), 3u);
  EXPECT_EQ(reviews[0].text, "good 'one'");
  EXPECT_EQ(reviews[0].label, 1);
  EXPECT_EQ(reviews[1].label, 0);
  EXPECT_EQ(reviews[2].text, "caf\xc3\xa9\ttabbed");
}

TEST_F(Reviews, NamesTheBadLine) {
  for (const char* text :
       {"1\t2.0\tfine\nno tabs here\n", "1\t2.0\tfine\n2\tx\tbad\n", "1\t2.0\tfine\n2\t2.0x\tbad\n"}) {
    try {
      read_reviews(write(text));
      FAIL() << text;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("line 2"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(read_reviews("/nonexistent/reviews.tsv"), std::runtime_error);
}

TEST(ReviewSplitTest, IsFixedAndComplete) {
  std::vector<Review> reviews;
  for (int i = 0; i < 100; ++i) reviews.push_back({std::to_string(i), i % 2});
  ReviewSplit split = split_reviews(reviews, 30), again = split_reviews(reviews, 30);
  EXPECT_EQ(split.train.size(), 30u);
  EXPECT_EQ(split.test.size(), 70u);
  EXPECT_EQ(split.train[0].text, again.train[0].text);
  std::set<std::string> seen;
  for (const auto* part : {&split.train, &split.test})
    for (const Review& review : *part) seen.insert(review.text);
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_THROW(split_reviews(reviews, 100), std::runtime_error);
}

}  // namespace
}  // namespace example
