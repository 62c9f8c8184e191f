// Metrics against values that scipy and scikit-learn give.
#include "api/metrics.h"

#include <gtest/gtest.h>
#include <octet/error.h>
#include <octet/evaluate.h>

#include <cmath>
#include <vector>

namespace octet {
namespace {

TEST(Metrics, Correlations) {
  struct Row {
    std::vector<double> a, b;
    double pearson, spearman;
  };
  const std::vector<Row> rows{
      {{1, 2, 3, 4, 5}, {5, 6, 7, 8, 7}, 0.8320502943378437, 0.8207826816681233},
      {{1, 2, 2, 3, 9}, {1, 3, 2, 2, 4}, 0.8335075745149, 0.7631578947368421},
      {{0, 0, 0, 1}, {2, 1, 1, 1}, -0.3333333333333333, -0.3333333333333333},
      {{1, 1, 1}, {1, 2, 3}, 0, 0},
      {{}, {}, 0, 0},
  };
  for (const Row& row : rows) {
    EXPECT_NEAR(pearson(row.a, row.b), row.pearson, 1e-12);
    EXPECT_NEAR(spearman(row.a, row.b), row.spearman, 1e-12);
  }
  EXPECT_THROW((void)pearson(std::vector<double>{1}, std::vector<double>{1, 2}), Error);
}

TEST(Metrics, Labels) {
  std::vector<int64_t> predicted{1, 0, 1, 1, 0, 1, 0, 0}, expected{1, 0, 0, 1, 1, 1, 0, 1};
  EXPECT_DOUBLE_EQ(accuracy(predicted, expected), 0.625);
  EXPECT_DOUBLE_EQ(f1(confusion(predicted, expected)), 2.0 / 3);
  EXPECT_NEAR(matthews(predicted, expected), 0.2581988897471611, 1e-12);
  EXPECT_NEAR(macro_f1(predicted, expected), 0.6190476190476191, 1e-12);
}

TEST(Metrics, ThreeLabels) {
  std::vector<int64_t> predicted{0, 1, 2, 2, 1, 0, 1}, expected{0, 2, 2, 2, 1, 1, 1};
  EXPECT_NEAR(matthews(predicted, expected), 0.5809475019311126, 1e-12);
  EXPECT_NEAR(macro_f1(predicted, expected), 0.7111111111111111, 1e-12);
}

TEST(Metrics, OneSidedLabelsHaveNoCorrelation) {
  EXPECT_EQ(matthews(std::vector<int64_t>{1, 1}, std::vector<int64_t>{1, 0}), 0);
  EXPECT_EQ(f1(confusion(std::vector<int64_t>{0, 0}, std::vector<int64_t>{1, 0})), 0);
  EXPECT_EQ(accuracy({}, {}), 0);
}

// Values of seqeval, which counts as conlleval does.
TEST(Metrics, EntitiesOfTags) {
  using Tags = std::vector<std::string>;
  auto found = [](const Tags& tags) { return entities(tags); };
  EXPECT_EQ(found({"O", "B-PER", "I-PER", "O", "B-LOC"}), (std::vector<Entity>{{1, 3, "PER"}, {4, 5, "LOC"}}));
  EXPECT_EQ(found({"B-PER", "B-PER", "I-LOC", "I-PER"}),
            (std::vector<Entity>{{0, 1, "PER"}, {1, 2, "PER"}, {2, 3, "LOC"}, {3, 4, "PER"}}));
  EXPECT_EQ(found({"I-PER", "I-PER", "O", "I-PER"}), (std::vector<Entity>{{0, 2, "PER"}, {3, 4, "PER"}}));
  EXPECT_EQ(found({"B-A", "I-A", "E-A", "S-A", "S-B", "O"}),
            (std::vector<Entity>{{0, 3, "A"}, {3, 4, "A"}, {4, 5, "B"}}));
  EXPECT_TRUE(found({"O", "O"}).empty());
  EXPECT_TRUE(are_entity_tags(Tags{"O", "B-PER", "I-PER"}));
  EXPECT_FALSE(are_entity_tags(Tags{"O", "NOUN"}));
  EXPECT_FALSE(are_entity_tags(Tags{"O"}));
}

// Values of SQuAD's evaluate-v1.1.py.
TEST(Metrics, AnswersOfQuestions) {
  EXPECT_TRUE(exact_match("The Eiffel Tower!", "eiffel  tower"));
  EXPECT_FALSE(exact_match("Eiffel", "Eiffel Tower"));
  EXPECT_TRUE(exact_match("U.S.", "us"));
  EXPECT_DOUBLE_EQ(word_f1("in the Eiffel Tower", "Eiffel Tower"), 0.8);
  EXPECT_DOUBLE_EQ(word_f1("red red blue", "red blue blue"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(word_f1("cat", "dog"), 0);
  EXPECT_TRUE(exact_match("\u00c4pfel", "\u00e4pfel"));
}

// Values of scikit-learn's f1_score(average="micro"), ("macro") and accuracy_score.
TEST(Metrics, SeveralLabels) {
  std::vector<int64_t> predicted{1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0}, expected{1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1};
  const LabelSetScores s = label_set_scores(predicted, expected, 3);
  EXPECT_NEAR(s.micro_f1, 2.0 * 3 / (6 + 2 + 1), 1e-12);
  EXPECT_NEAR(s.macro_f1, (1.0 + 2.0 / 3 + 0) / 3, 1e-12);
  EXPECT_DOUBLE_EQ(s.exact_match, 0.25);
}

TEST(Metrics, AgreementOfOutputs) {
  std::vector<float> a{1, 0, 0, 1}, b{1, 0, 2, 0};
  Agreement same = agreement(a, a, 2);
  EXPECT_EQ(same.equal_labels, 1);
  EXPECT_EQ(same.mean_cosine, 1);
  EXPECT_EQ(same.rms_error, 0);
  Agreement other = agreement(a, b, 2);
  EXPECT_EQ(other.equal_labels, 0.5);
  EXPECT_EQ(other.mean_cosine, 0.5);
  EXPECT_EQ(other.min_cosine, 0);
  EXPECT_NEAR(other.rms_error, std::sqrt(5.0 / 4), 1e-12);
  EXPECT_NEAR(other.relative_error, 1, 1e-12);
  EXPECT_EQ(other.max_error, 2);
  EXPECT_THROW((void)agreement(a, b, 3), Error);
}

}  // namespace
}  // namespace octet
