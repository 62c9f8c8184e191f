// Softmax, spans and entities.
#include "cli/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace octet::cli {

namespace {

using Json = nlohmann::ordered_json;

std::vector<double> softmax(std::span<const float> scores) {
  double top = *std::max_element(scores.begin(), scores.end()), sum = 0;
  std::vector<double> result;
  for (float score : scores) result.push_back(std::exp(static_cast<double>(score) - top)), sum += result.back();
  for (double& value : result) value /= sum;
  return result;
}

std::string label_of(const ModelInfo& info, size_t id) {
  return id < info.labels.size() ? info.labels[id] : fmt::format("LABEL_{}", id);
}

Json classify(const ModelInfo& info, const Answered& a, const AnswerOptions& options, std::string* shown) {
  bool several = info.problem_type == "multi_label_classification";
  std::vector<double> scores;
  if (several)
    for (float x : a.values) scores.push_back(1 / (1 + std::exp(-static_cast<double>(x))));
  else scores = softmax(a.values);
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return scores[x] > scores[y]; });
  Json all = Json::object(), chosen = Json::array();
  for (size_t id = 0; id < scores.size(); ++id) all[label_of(info, id)] = scores[id];
  for (size_t rank = 0; rank < order.size(); ++rank) {
    size_t id = order[rank];
    bool yes = several ? scores[id] >= 0.5 : rank == 0;
    if (yes) chosen.push_back(label_of(info, id));
    if (static_cast<int64_t>(rank) < options.top)
      *shown +=
          fmt::format("{}{} {:.4f}", rank ? "  " : "", label_of(info, id), scores[id]) + (yes && several ? "*" : "");
  }
  if (several) return {{"labels", chosen}, {"scores", all}};
  return {{"label", label_of(info, order[0])}, {"score", scores[order[0]]}, {"scores", all}};
}

std::string source_of(const Answered& a, size_t token) {
  const std::string& text = a.encoding.sequence_ids[token] == 1 && a.pair ? *a.pair : a.text;
  return text;
}

std::string piece(const std::string& text, TextSpan span) {
  TextSpan bytes = byte_span(text, span);
  return text.substr(static_cast<size_t>(bytes.begin), static_cast<size_t>(bytes.end - bytes.begin));
}

Json label_tokens(const ModelInfo& info, const Answered& a, std::string* shown) {
  Json tokens = Json::array();
  Table table({"token", "label", "score", "from", "to"}, {0, 1});
  for (size_t t = 0; t < a.encoding.ids.size(); ++t) {
    if (a.encoding.sequence_ids[t] < 0) continue;
    std::vector<double> scores =
        softmax(a.values.subspan(t * static_cast<size_t>(a.width), static_cast<size_t>(a.width)));
    auto best = static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    TextSpan span = a.encoding.offsets[t];
    std::string text = piece(source_of(a, t), span);
    tokens.push_back({{"text", text},
                      {"label", label_of(info, best)},
                      {"score", scores[best]},
                      {"begin", span.begin},
                      {"end", span.end},
                      {"pair", a.encoding.sequence_ids[t] == 1}});
    table.add({text, label_of(info, best), fmt::format("{:.4f}", scores[best]), std::to_string(span.begin),
               std::to_string(span.end)});
  }
  *shown = table.text();
  if (!shown->empty()) shown->pop_back();
  return {{"tokens", tokens}};
}

// The best span inside the context: the largest product of the two probabilities with begin <= end.
Json find_span(const Answered& a, const AnswerOptions& options, std::string* shown) {
  std::vector<size_t> context;
  bool pair = a.pair.has_value();
  for (size_t t = 0; t < a.encoding.ids.size(); ++t)
    if (a.encoding.sequence_ids[t] == (pair ? 1 : 0)) context.push_back(t);
  if (context.empty()) {
    *shown = "(no answer)";
    return {{"answer", ""}, {"score", 0.0}, {"begin", 0}, {"end", 0}};
  }
  std::vector<float> begin_scores, end_scores;
  for (size_t t : context) {
    begin_scores.push_back(a.values[t * static_cast<size_t>(a.width)]);
    end_scores.push_back(a.values[t * static_cast<size_t>(a.width) + 1]);
  }
  std::vector<double> begins = softmax(begin_scores), ends = softmax(end_scores);
  size_t first = 0, last = 0;
  double best = -1;
  for (size_t b = 0; b < context.size(); ++b)
    for (size_t e = b; e < context.size() && e - b < static_cast<size_t>(options.longest); ++e)
      if (begins[b] * ends[e] > best) best = begins[b] * ends[e], first = b, last = e;
  TextSpan span{a.encoding.offsets[context[first]].begin, a.encoding.offsets[context[last]].end};
  std::string text = piece(pair ? *a.pair : a.text, span);
  *shown = fmt::format("{}  ({:.4f}, characters {} to {})", text, best, span.begin, span.end);
  return {{"answer", text}, {"score", best}, {"begin", span.begin}, {"end", span.end}};
}

Json embed(const Answered& a, bool per_token, std::string* shown) {
  double square = 0;
  for (float x : a.values) square += static_cast<double>(x) * x;
  double norm = std::sqrt(square);
  std::string first;
  for (size_t i = 0; i < std::min<size_t>(6, a.values.size()); ++i) first += fmt::format("{:.4f} ", a.values[i]);
  if (per_token) {
    Json tokens = Json::array();
    for (size_t t = 0; t < a.encoding.ids.size(); ++t) {
      auto row = a.values.subspan(t * static_cast<size_t>(a.width), static_cast<size_t>(a.width));
      tokens.push_back(std::vector<float>(row.begin(), row.end()));
    }
    *shown = fmt::format("{} tokens of {} values: {}...", a.encoding.ids.size(), a.width, first);
    return {{"ids", a.encoding.ids}, {"tokens", tokens}};
  }
  *shown = fmt::format("{} values, length {:.4f}: {}...", a.values.size(), norm, first);
  return {{"norm", norm}, {"embedding", std::vector<float>(a.values.begin(), a.values.end())}};
}

}  // namespace

Json answer(const Plan& plan, const Answered& a, const AnswerOptions& options, std::string* shown) {
  shown->clear();
  const ModelInfo& info = plan.info();
  switch (info.task) {
    case Task::sequence_classification: return classify(info, a, options, shown);
    case Task::regression: *shown = fmt::format("{:.4f}", a.values[0]); return {{"value", a.values[0]}};
    case Task::token_classification: return label_tokens(info, a, shown);
    case Task::question_answering: return find_span(a, options, shown);
    case Task::embedding: return embed(a, false, shown);
    case Task::encoder: return embed(a, true, shown);
  }
  return nullptr;
}

}  // namespace octet::cli
