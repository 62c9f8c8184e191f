// Accuracy, F1, Matthews correlation, and correlations of ranks and values.
#include "api/metrics.h"

#include <octet/evaluate.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "core/error.h"
#include "text/unicode.h"

namespace octet {

namespace {

// Ranks from 1; equal values share the mean of their ranks.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> result(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) result[order[i]] = (static_cast<double>(begin + end) + 1) / 2;
    begin = end;
  }
  return result;
}

void check_sizes(size_t a, size_t b) {
  if (a != b)
    fail(ErrorCode::invalid_argument, {.what = "cannot compare two lists of different lengths",
                                       .expected = "got " + std::to_string(a) + " and " + std::to_string(b)});
}

}  // namespace

double pearson(std::span<const double> a, std::span<const double> b) {
  check_sizes(a.size(), b.size());
  if (a.empty()) return 0;
  double n = static_cast<double>(a.size());
  double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n, mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    double x = a[i] - mean_a, y = b[i] - mean_b;
    ab += x * y, aa += x * x, bb += y * y;
  }
  // A constant side has no correlation.
  return aa > 0 && bb > 0 ? ab / (std::sqrt(aa) * std::sqrt(bb)) : 0;
}

double spearman(std::span<const double> a, std::span<const double> b) {
  check_sizes(a.size(), b.size());
  return pearson(ranks(a), ranks(b));
}

double accuracy(std::span<const int64_t> predicted, std::span<const int64_t> expected) {
  check_sizes(predicted.size(), expected.size());
  size_t equal = 0;
  for (size_t i = 0; i < predicted.size(); ++i) equal += predicted[i] == expected[i];
  return predicted.empty() ? 0 : static_cast<double>(equal) / static_cast<double>(predicted.size());
}

Confusion confusion(std::span<const int64_t> predicted, std::span<const int64_t> expected, int64_t positive) {
  check_sizes(predicted.size(), expected.size());
  Confusion c;
  for (size_t i = 0; i < predicted.size(); ++i) {
    bool p = predicted[i] == positive, e = expected[i] == positive;
    (p ? (e ? c.true_positive : c.false_positive) : (e ? c.false_negative : c.true_negative)) += 1;
  }
  return c;
}

double f1(const Confusion& c) {
  double errors = c.false_positive + c.false_negative;
  return c.true_positive > 0 ? 2 * c.true_positive / (2 * c.true_positive + errors) : 0;
}

double matthews(std::span<const int64_t> predicted, std::span<const int64_t> expected) {
  check_sizes(predicted.size(), expected.size());
  std::map<int64_t, double> p, e;
  double correct = 0, n = static_cast<double>(predicted.size());
  for (size_t i = 0; i < predicted.size(); ++i) {
    p[predicted[i]] += 1, e[expected[i]] += 1;
    correct += predicted[i] == expected[i];
  }
  double pe = 0, pp = 0, ee = 0;
  for (const auto& [label, count] : p) {
    pp += count * count;
    if (auto found = e.find(label); found != e.end()) pe += count * found->second;
  }
  for (const auto& [label, count] : e) ee += count * count;
  double spread = (n * n - pp) * (n * n - ee);
  return spread > 0 ? (correct * n - pe) / std::sqrt(spread) : 0;
}

double macro_f1(std::span<const int64_t> predicted, std::span<const int64_t> expected) {
  std::set<int64_t> labels(predicted.begin(), predicted.end());
  labels.insert(expected.begin(), expected.end());
  double sum = 0;
  for (int64_t label : labels) sum += f1(confusion(predicted, expected, label));
  return labels.empty() ? 0 : sum / static_cast<double>(labels.size());
}

std::vector<Entity> entities(std::span<const std::string> tags) {
  std::vector<Entity> found;
  char before = 'O';
  std::string kind_before;
  bool open = false;
  for (int64_t i = 0; i <= static_cast<int64_t>(tags.size()); ++i) {
    const std::string& tag = i < static_cast<int64_t>(tags.size()) ? tags[static_cast<size_t>(i)] : "O";
    const char mark = tag.empty() ? 'O' : tag[0];
    const std::string kind = tag.size() > 2 && tag[1] == '-' ? tag.substr(2) : "";
    const bool other = kind != kind_before;
    const bool ends =
        before != 'O' && (before == 'E' || before == 'S' || mark == 'B' || mark == 'S' || mark == 'O' || other);
    const bool begins =
        mark != 'O' && (mark == 'B' || mark == 'S' || before == 'O' || before == 'E' || before == 'S' || other);
    if (open && ends) found.back().end = i, open = false;
    if (begins) found.push_back({.begin = i, .end = i + 1, .kind = kind}), open = true;
    before = mark;
    kind_before = kind;
  }
  return found;
}

bool are_entity_tags(std::span<const std::string> names) {
  bool some = false;
  for (const std::string& name : names) {
    if (name == "O") continue;
    if (name.size() < 3 || name[1] != '-' || std::string_view("BIES").find(name[0]) == std::string_view::npos)
      return false;
    some = true;
  }
  return some;
}

namespace {

std::vector<std::string> words_of(std::string_view answer) {
  std::vector<std::string> words;
  std::string word;
  auto close = [&] {
    if (!word.empty() && word != "a" && word != "an" && word != "the") words.push_back(word);
    word.clear();
  };
  for (size_t at = 0; at < answer.size();) {
    const char32_t c = text::next_char(answer, at);
    if (text::class_table()[c] & text::kIsSpace) close();
    else if (c >= 128 || !(text::class_table()[c] & text::kIsPunctuation)) text::append_char(text::lower(c), word);
  }
  close();
  return words;
}

}  // namespace

bool exact_match(std::string_view answer, std::string_view expected) { return words_of(answer) == words_of(expected); }

double word_f1(std::string_view answer, std::string_view expected) {
  std::vector<std::string> a = words_of(answer), b = words_of(expected), common;
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  if (a.empty() || b.empty()) return a == b ? 1 : 0;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  return 2 * static_cast<double>(common.size()) / static_cast<double>(a.size() + b.size());
}

LabelSetScores label_set_scores(std::span<const int64_t> predicted, std::span<const int64_t> expected, int64_t labels) {
  check_sizes(predicted.size(), expected.size());
  LabelSetScores s;
  if (labels <= 0 || predicted.empty()) return s;
  std::vector<Confusion> each(static_cast<size_t>(labels));
  Confusion all;
  const size_t rows = predicted.size() / static_cast<size_t>(labels);
  for (size_t r = 0; r < rows; ++r) {
    bool equal = true;
    for (size_t l = 0; l < each.size(); ++l) {
      const bool p = predicted[r * each.size() + l] != 0, e = expected[r * each.size() + l] != 0;
      equal &= p == e;
      for (Confusion* c : {&each[l], &all})
        (p ? (e ? c->true_positive : c->false_positive) : (e ? c->false_negative : c->true_negative)) += 1;
    }
    s.exact_match += equal;
  }
  s.exact_match /= static_cast<double>(rows);
  s.micro_f1 = f1(all);
  for (const Confusion& c : each) s.macro_f1 += f1(c) / static_cast<double>(labels);
  return s;
}

}  // namespace octet
