// Error names, message layout and the search for near names.
#include "core/error.h"

#include <algorithm>
#include <vector>

namespace octet {

std::string_view name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::corrupt: return "corrupt";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::device: return "device";
    case ErrorCode::out_of_memory: return "out_of_memory";
    case ErrorCode::io: return "io";
    case ErrorCode::internal: return "internal";
  }
  return "internal";
}

void fail(ErrorCode code, const ErrorText& text) {
  std::string message = text.what;
  if (!text.expected.empty()) message += "\n  " + text.expected;
  if (!text.where.empty()) message += "\n  " + text.where;
  if (!text.hint.empty()) message += "\n  hint: " + text.hint;
  throw Error(code, std::move(message));
}

namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_names(std::string_view wanted, std::span<const std::string> known) {
  std::vector<std::pair<size_t, const std::string*>> ranked;
  for (const std::string& candidate : known) {
    size_t distance = edit_distance(wanted, candidate);
    if (distance <= std::max<size_t>(2, wanted.size() / 3)) ranked.emplace_back(distance, &candidate);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  if (ranked.empty()) return {};
  if (ranked.size() > 3) ranked.resize(3);
  std::string text = "did you mean ";
  for (size_t i = 0; i < ranked.size(); ++i) {
    if (i > 0) text += i + 1 == ranked.size() ? " or " : ", ";
    text += *ranked[i].second;
  }
  return text;
}

void detail::check_failed(const char* condition, const char* file, int line, const std::string& message) {
  fail(ErrorCode::internal, {.what = "octet has a bug: " + message,
                             .expected = std::string("expected ") + condition,
                             .where = std::string("at ") + file + ":" + std::to_string(line),
                             .hint = "please report this with the command that led here"});
}

}  // namespace octet
