// The metrics of GLUE, on plain arrays.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

/// Counts of a binary decision, label 1 being the positive one.
struct Confusion {
  double true_positive = 0, false_positive = 0, true_negative = 0, false_negative = 0;
};

/// Share of equal entries; 0 for no rows.
double accuracy(std::span<const int64_t> predicted, std::span<const int64_t> expected);
/// `positive` against all other labels.
Confusion confusion(std::span<const int64_t> predicted, std::span<const int64_t> expected, int64_t positive = 1);
/// Harmonic mean of precision and recall; 0 when there is no true positive.
double f1(const Confusion& counts);
/// Matthews correlation of any number of labels (Gorodkin's form); 0 when one side has a single label.
double matthews(std::span<const int64_t> predicted, std::span<const int64_t> expected);
/// Mean of f1 over the labels that occur on either side.
double macro_f1(std::span<const int64_t> predicted, std::span<const int64_t> expected);

/// Words [begin, end) of a kind, as tags like B-PER, I-PER, O mark them.
struct Entity {
  int64_t begin = 0, end = 0;
  std::string kind;
  friend auto operator<=>(const Entity&, const Entity&) = default;
};
/// The entities of one text's tags, found as CoNLL's conlleval finds them (IOB1, IOB2 and IOBES): a tag that cannot go
/// on with the entity before it begins one.
std::vector<Entity> entities(std::span<const std::string> tags);
/// Whether label names are such tags: O, and B-, I-, E- or S- with a kind.
bool are_entity_tags(std::span<const std::string> names);

/// SQuAD's answers: equal, or the harmonic mean of precision and recall of words, both without case, ASCII punctuation,
/// articles and spaces at the ends.
bool exact_match(std::string_view answer, std::string_view expected);
double word_f1(std::string_view answer, std::string_view expected);

/// Labels of texts that may have several, row by row 0 or 1.
struct LabelSetScores {
  double micro_f1 = 0, macro_f1 = 0, exact_match = 0;  ///< exact: all labels of a text
};
LabelSetScores label_set_scores(std::span<const int64_t> predicted, std::span<const int64_t> expected, int64_t labels);

}  // namespace octet
