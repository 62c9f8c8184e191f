// Encoding a data set, running it in batches of like lengths, and scoring the outputs task by task.
#include <octet/evaluate.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "api/metrics.h"
#include "api/scoring.h"
#include "core/error.h"

namespace octet {

namespace {

bool is_pair_of_embeddings(const ModelInfo& info, const Dataset& data) {
  return info.task == Task::embedding && data.has_pair();
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return text;
}

int64_t rows_used(const Dataset& data, int64_t limit) {
  int64_t rows = data.rows();
  return limit > 0 ? std::min(limit, rows) : rows;
}

int64_t largest(std::span<const float> row) { return std::max_element(row.begin(), row.end()) - row.begin(); }

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) ab += double(a[i]) * b[i], aa += double(a[i]) * a[i], bb += double(b[i]) * b[i];
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : aa == bb ? 1 : 0;
}

void score_labels(Evaluation* e, std::span<const int64_t> expected, int64_t labels) {
  e->metric = "accuracy";
  e->value = e->metrics["accuracy"] = accuracy(e->predictions, expected);
  e->metrics["macro_f1"] = macro_f1(e->predictions, expected);
  e->metrics["matthews"] = matthews(e->predictions, expected);
  if (labels == 2) e->metrics["f1"] = f1(confusion(e->predictions, expected));
}

void score_numbers(Evaluation* e, std::span<const double> expected) {
  std::vector<double> got(e->scores.begin(), e->scores.end());
  e->metric = "spearman";
  e->value = e->metrics["spearman"] = spearman(got, expected);
  e->metrics["pearson"] = pearson(got, expected);
}

}  // namespace

std::vector<int64_t> token_labels(std::span<const std::string> labels, const Dataset& data, int64_t row,
                                  const Encoding& encoding) {
  if (!data.has_label())
    fail(ErrorCode::invalid_argument, {.what = "cannot label the tokens of a token classifier",
                                       .expected = "expected a column with one label a word, separated by spaces",
                                       .where = "in " + data.source(),
                                       .hint = "name the column with --label"});
  std::map<std::string, int64_t> ids;
  for (size_t i = 0; i < labels.size(); ++i) ids.emplace(lower(labels[i]), static_cast<int64_t>(i));
  // First code point of each word -> its label.
  std::map<int32_t, int64_t> words;
  std::string_view text = data.text(row), rest = data.label(row);
  int32_t at = 0;
  bool inside = false;
  auto take_label = [&] {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    size_t end = std::min(rest.find(' '), rest.size());
    auto found = ids.find(lower(std::string(rest.substr(0, end))));
    if (found == ids.end())
      fail(ErrorCode::invalid_argument,
           {.what = "a word has no label that the model knows",
            .expected = "got '" + std::string(rest.substr(0, end)) + "' in line " + std::to_string(data.line(row)),
            .where = "in " + data.source(),
            .hint = "expected one label a word, separated by spaces"});
    rest.remove_prefix(end);
    return found->second;
  };
  for (char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) == 0x80) continue;
    if (c != ' ' && !inside) words[at] = take_label();
    inside = c != ' ';
    ++at;
  }
  std::vector<int64_t> result(static_cast<size_t>(encoding.size()), kNoLabel);
  for (size_t t = 0; t < result.size(); ++t) {
    if (encoding.sequence_ids[t] != 0) continue;
    TextSpan span = encoding.offsets[t];
    auto word = words.lower_bound(span.begin);
    if (word == words.end() || word->first >= std::max(span.end, span.begin + 1)) continue;
    result[t] = word->second;
    words.erase(word);
  }
  return result;
}

namespace {

void score_tokens(Evaluation* e, const ModelInfo& info, const Dataset& data, std::span<const Encoding> rows,
                  std::span<const float> answers) {
  std::vector<int64_t> expected;
  int64_t token = 0;
  const bool tags = are_entity_tags(info.labels);
  double found = 0, wanted = 0, right = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::vector<std::string> mine, theirs;
    for (int64_t label : token_labels(info.labels, data, static_cast<int64_t>(r), rows[r])) {
      const auto answer = static_cast<int64_t>(answers[static_cast<size_t>(token++)]);
      if (label == kNoLabel) continue;
      expected.push_back(label);
      e->predictions.push_back(answer);
      if (!tags) continue;
      mine.push_back(info.labels[static_cast<size_t>(answer)]);
      theirs.push_back(info.labels[static_cast<size_t>(label)]);
    }
    const std::vector<Entity> a = entities(mine), b = entities(theirs);
    found += static_cast<double>(a.size());
    wanted += static_cast<double>(b.size());
    for (const Entity& entity : a) right += static_cast<double>(std::count(b.begin(), b.end(), entity));
  }
  e->metric = "accuracy";
  e->value = e->metrics["accuracy"] = accuracy(e->predictions, expected);
  e->metrics["macro_f1"] = macro_f1(e->predictions, expected);
  if (!tags) return;
  e->metric = "f1";
  e->metrics["precision"] = found > 0 ? right / found : 0;
  e->metrics["recall"] = wanted > 0 ? right / wanted : 0;
  e->value = e->metrics["f1"] = right > 0 ? 2 * right / (found + wanted) : 0;
}

/// The likeliest answer in the context, of at most thirty tokens, from a start and an end score a token.
std::string_view answer_text(std::string_view context, const Encoding& row, std::span<const float> scores) {
  constexpr int64_t kLongest = 30;
  int64_t first = -1, last = -1;
  float best = 0;
  for (int64_t s = 0; s < row.size(); ++s) {
    if (row.sequence_ids[static_cast<size_t>(s)] != 1) continue;
    for (int64_t t = s; t < std::min(row.size(), s + kLongest) && row.sequence_ids[static_cast<size_t>(t)] == 1; ++t) {
      const float sum = scores[static_cast<size_t>(2 * s)] + scores[static_cast<size_t>(2 * t + 1)];
      if (first < 0 || sum > best) best = sum, first = s, last = t;
    }
  }
  if (first < 0) return {};
  const TextSpan span =
      byte_span(context, {row.offsets[static_cast<size_t>(first)].begin, row.offsets[static_cast<size_t>(last)].end});
  return context.substr(static_cast<size_t>(span.begin), static_cast<size_t>(span.end - span.begin));
}

void score_answers(Evaluation* e, const Dataset& data, std::span<const Encoding> rows, std::span<const float> scores) {
  double exact = 0, overlap = 0;
  size_t at = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto row = static_cast<int64_t>(r);
    const size_t count = 2 * rows[r].ids.size();
    const std::string_view answer = answer_text(data.pair(row), rows[r], scores.subspan(at, count));
    at += count;
    exact += exact_match(answer, data.label(row));
    overlap += word_f1(answer, data.label(row));
  }
  const double all = std::max<double>(1, static_cast<double>(rows.size()));
  e->metric = "f1";
  e->value = e->metrics["f1"] = overlap / all;
  e->metrics["exact_match"] = exact / all;
}

}  // namespace

namespace {

EncodedRows encode(const ModelInfo& info, const Tokenizer& tokenizer, const Dataset& data, int64_t max_length,
                   int64_t limit, int threads) {
  if (info.max_length > 0 && max_length > info.max_length)
    fail(ErrorCode::invalid_argument, {.what = "cannot read texts of " + std::to_string(max_length) + " tokens",
                                       .expected = "the model takes at most " + std::to_string(info.max_length),
                                       .where = "in " + info.source});
  int64_t rows = rows_used(data, limit);
  if (rows == 0)
    fail(ErrorCode::invalid_argument, {.what = "cannot use the data: it has no rows",
                                       .expected = "the file is empty after its header",
                                       .where = "in " + data.source(),
                                       .hint = "expected at least one row"});
  bool two = is_pair_of_embeddings(info, data);
  std::vector<std::string_view> texts, pairs;
  for (int64_t r = 0; r < rows; ++r) {
    texts.push_back(data.text(r));
    if (data.has_pair()) (two ? texts : pairs).push_back(data.pair(r));
  }
  int64_t length = max_length > 0 ? max_length : info.max_length;
  EncodedRows result;
  result.rows = tokenizer.encode_batch(texts, pairs, {.max_length = 0}, threads);
  for (size_t r = 0; r < result.rows.size(); ++r) {
    if (length <= 0 || result.rows[r].size() <= length) continue;
    ++result.truncated;
    std::optional<std::string_view> pair;
    if (!pairs.empty()) pair = pairs[r];
    result.rows[r] = tokenizer.encode(texts[r], pair, {.max_length = length});
  }
  return result;
}

}  // namespace

EncodedRows encode_rows(const Plan& plan, const Dataset& data, int64_t max_length, int64_t limit, int threads) {
  return encode(plan.info(), plan.tokenizer(), data, max_length, limit, threads);
}

EncodedRows encode_rows(const Model& model, const Dataset& data, int64_t max_length, int64_t limit, int threads) {
  return encode(model.info(), model.tokenizer(), data, max_length, limit, threads);
}

std::vector<float> run_all(Session& session, const std::vector<Encoding>& rows, int64_t batch_tokens,
                           const Progress& progress) {
  const bool per_token = answers_per_token(session.plan().info().task);
  std::vector<int64_t> lengths, first;  // first: output row of each text
  int64_t outputs = 0;
  for (const Encoding& row : rows) {
    lengths.push_back(row.size());
    first.push_back(outputs);
    outputs += per_token ? row.size() : 1;
  }
  std::vector<float> result;
  OwnedBatch batch;
  int64_t done = 0;
  for (const std::vector<int64_t>& group : plan_batches(lengths, {.max_tokens = batch_tokens})) {
    batch.clear();
    for (int64_t row : group) batch.add(rows[static_cast<size_t>(row)]);
    Output out = session.run(batch.view());
    if (result.empty()) result.resize(static_cast<size_t>(outputs * out.width));
    int64_t from = 0;
    for (int64_t row : group) {
      int64_t count = per_token ? lengths[static_cast<size_t>(row)] : 1;
      std::copy_n(out.values.begin() + from * out.width, count * out.width,
                  result.begin() + first[static_cast<size_t>(row)] * out.width);
      from += count;
    }
    done += static_cast<int64_t>(group.size());
    if (progress) progress("running", done, static_cast<int64_t>(rows.size()));
  }
  return result;
}

bool answers_per_token(Task task) noexcept {
  return task == Task::encoder || task == Task::token_classification || task == Task::question_answering;
}

Expected expected_answers(const ModelInfo& info, const Dataset& data, int64_t rows) {
  if (info.task == Task::encoder)
    fail(ErrorCode::unsupported, {.what = "cannot evaluate a model for " + std::string(name(info.task)),
                                  .expected = "expected a model with a head, or one of embeddings",
                                  .where = "in " + info.source});
  Expected expected;
  if (info.task == Task::question_answering && (!data.has_pair() || !data.has_label()))
    fail(ErrorCode::invalid_argument, {.what = "cannot evaluate answers to questions",
                                       .expected = "expected columns of questions, contexts and answers",
                                       .where = "in " + data.source(),
                                       .hint = "name the columns with --text, --pair and --label"});
  if (has_several_labels(info)) {
    expected.labels = resolve_label_sets(data, info.labels);
    expected.labels.resize(static_cast<size_t>(rows) * info.labels.size());
  } else if (info.task == Task::sequence_classification) {
    std::vector<int32_t> ids = resolve_labels(data, info.labels);
    expected.labels.assign(ids.begin(), ids.begin() + rows);
  }
  if (info.task == Task::embedding && !data.has_pair())
    fail(ErrorCode::invalid_argument, {.what = "cannot evaluate an embedding model",
                                       .expected = "expected pairs of texts with a number each",
                                       .where = "in " + data.source(),
                                       .hint = "name the columns with --text, --pair and --label"});
  if (info.task == Task::regression || info.task == Task::embedding) expected.numbers = label_numbers(data);
  expected.numbers.resize(std::min(expected.numbers.size(), static_cast<size_t>(rows)));
  return expected;
}

std::vector<float> answers(const ModelInfo& info, std::span<const float> values, int64_t width) {
  std::vector<float> result;
  if (info.task == Task::question_answering) return {values.begin(), values.end()};
  if (has_several_labels(info)) {
    for (float value : values) result.push_back(value > 0 ? 1.0f : 0.0f);
    return result;
  }
  const int64_t vectors = static_cast<int64_t>(values.size()) / std::max<int64_t>(width, 1);
  auto vector = [&](int64_t v) { return values.subspan(static_cast<size_t>(v * width), static_cast<size_t>(width)); };
  for (int64_t v = 0; v < vectors; ++v) {
    if (info.task == Task::regression) result.push_back(vector(v)[0]);
    else if (info.task != Task::embedding) result.push_back(static_cast<float>(largest(vector(v))));
    else if (v % 2 == 1) result.push_back(static_cast<float>(cosine(vector(v - 1), vector(v))));
  }
  return result;
}

void score(const ModelInfo& info, const Dataset& data, std::span<const Encoding> rows, const Expected& expected,
           std::span<const float> answers, Evaluation* e) {
  if (info.task == Task::token_classification) return score_tokens(e, info, data, rows, answers);
  if (info.task == Task::question_answering) return score_answers(e, data, rows, answers);
  if (has_several_labels(info)) {
    e->predictions.assign(answers.begin(), answers.end());
    const LabelSetScores s =
        label_set_scores(e->predictions, expected.labels, static_cast<int64_t>(info.labels.size()));
    e->metric = "micro_f1";
    e->value = e->metrics["micro_f1"] = s.micro_f1;
    e->metrics["macro_f1"] = s.macro_f1;
    e->metrics["exact_match"] = s.exact_match;
    return;
  }
  if (info.task == Task::sequence_classification) {
    e->predictions.assign(answers.begin(), answers.end());
    return score_labels(e, expected.labels, static_cast<int64_t>(info.labels.size()));
  }
  e->scores.assign(answers.begin(), answers.end());
  score_numbers(e, expected.numbers);
}

Evaluation score_outputs(const ModelInfo& info, const Dataset& data, const EncodedRows& encoded,
                         std::vector<float> values) {
  Evaluation e;
  e.rows = static_cast<int64_t>(encoded.rows.size()) / (is_pair_of_embeddings(info, data) ? 2 : 1);
  e.truncated = encoded.truncated;
  const Expected expected = expected_answers(info, data, e.rows);
  int64_t output_rows = static_cast<int64_t>(encoded.rows.size());
  if (answers_per_token(info.task)) {
    output_rows = 0;
    for (const Encoding& row : encoded.rows) output_rows += row.size();
  }
  e.width = static_cast<int64_t>(values.size()) / std::max<int64_t>(output_rows, 1);
  score(info, data, encoded.rows, expected, answers(info, values, e.width), &e);
  e.outputs = std::move(values);
  return e;
}

Evaluation evaluate(Session& session, const Dataset& data, const EvaluateOptions& options, const Progress& progress) {
  const ModelInfo& info = session.plan().info();
  expected_answers(info, data, rows_used(data, options.limit));
  EncodedRows encoded = encode_rows(session.plan(), data, options.max_length, options.limit, options.threads);
  auto begin = std::chrono::steady_clock::now();
  std::vector<float> values = run_all(session, encoded.rows, options.batch_tokens, progress);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Evaluation e = score_outputs(info, data, encoded, std::move(values));
  e.seconds = seconds;
  if (!options.keep_outputs) e.outputs.clear();
  return e;
}

Agreement agreement(std::span<const float> outputs, std::span<const float> other, int64_t width) {
  if (outputs.size() != other.size() || width <= 0 || outputs.size() % static_cast<size_t>(width) != 0)
    fail(ErrorCode::invalid_argument,
         {.what = "cannot compare outputs of different sizes",
          .expected = "got " + std::to_string(outputs.size()) + " and " + std::to_string(other.size()) + " values"});
  Agreement a;
  a.min_cosine = 1;
  double square = 0, scale = 0, rows = static_cast<double>(outputs.size()) / static_cast<double>(width);
  if (outputs.empty()) return a;
  for (size_t at = 0; at < outputs.size(); at += static_cast<size_t>(width)) {
    auto x = outputs.subspan(at, static_cast<size_t>(width)), y = other.subspan(at, static_cast<size_t>(width));
    a.equal_labels += largest(x) == largest(y);
    double c = cosine(x, y);
    a.mean_cosine += c;
    a.min_cosine = std::min(a.min_cosine, c);
    for (size_t i = 0; i < x.size(); ++i) {
      double d = double(x[i]) - y[i];
      square += d * d, scale += double(y[i]) * y[i];
      a.max_error = std::max(a.max_error, std::fabs(d));
      a.max_value = std::max(a.max_value, std::fabs(double(y[i])));
    }
  }
  a.equal_labels /= rows;
  a.mean_cosine /= rows;
  a.rms_error = std::sqrt(square / static_cast<double>(outputs.size()));
  a.relative_error = scale > 0 ? std::sqrt(square / scale) : square > 0 ? INFINITY : 0;
  return a;
}

}  // namespace octet
