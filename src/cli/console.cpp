// Printing.
#include "cli/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

namespace octet::cli {

void refuse(ErrorCode code, const Message& message) {
  std::string text = message.what;
  if (!message.expected.empty()) text += "\n  " + message.expected;
  if (!message.where.empty()) text += "\n  " + message.where;
  if (!message.hint.empty()) text += "\n  hint: " + message.hint;
  throw Error(code, text);
}

namespace {

// A failed write is remembered by the stream; main looks at it in the end.
void put(std::FILE* file, const std::string& text) { std::fwrite(text.data(), 1, text.size(), file); }

}  // namespace

void Console::say(const std::string& line) const {
  if (!json) put(stdout, line + "\n");
}

void Console::note(const std::string& line) const { put(stderr, line + "\n"); }

void Console::result(const nlohmann::ordered_json& value) const {
  if (json) put(stdout, value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

Progress Console::progress() const {
  if (!isatty(STDERR_FILENO)) return {};
  // Drawn when the percentage moves, wiped when the stage is done.
  auto last = std::make_shared<int64_t>(-1);
  return [last](std::string_view stage, int64_t done, int64_t total) {
    int64_t percent = total > 0 ? done * 100 / total : 100;
    if (percent == *last && done < total) return;
    *last = percent;
    constexpr int64_t kCells = 30;
    std::string bar(static_cast<size_t>(kCells * percent / 100), '#');
    bar.resize(static_cast<size_t>(kCells), '.');
    put(stderr, fmt::format("\r{} [{}] {:3}% {}/{}\x1b[K", stage, bar, percent, done, total));
    if (done >= total) put(stderr, "\r\x1b[K");
    std::fflush(stderr);
  };
}

size_t display_width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

Table::Table(std::vector<std::string> header, std::vector<size_t> left) : left_(header.size(), false) {
  for (size_t column : left) left_.at(column) = true;
  rows_.push_back(std::move(header));
}

void Table::add(std::vector<std::string> row) {
  row.resize(left_.size());
  rows_.push_back(std::move(row));
}

std::string Table::text() const {
  std::vector<size_t> widths(left_.size());
  for (const auto& row : rows_)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  std::string result;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      std::string space(widths[c] - display_width(row[c]), ' ');
      line += (c ? "  " : "") + (left_[c] ? row[c] + space : space + row[c]);
    }
    result += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return result;
}

std::string short_sum(const std::string& names) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= names.size();) {
    size_t end = std::min(names.find('+', begin), names.size());
    parts.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  size_t common = parts[0].rfind('.') + 1;  // 0 without a dot
  for (const std::string& part : parts)
    while (common > 0 && part.compare(0, common, parts[0], 0, common) != 0)
      common = common < 2 ? 0 : parts[0].rfind('.', common - 2) + 1;
  if (parts.size() == 1 || common == 0) return names;
  std::string rest;
  for (const std::string& part : parts) rest += (rest.empty() ? "" : ",") + part.substr(common);
  return parts[0].substr(0, common) + "{" + rest + "}";
}

std::string format_bytes(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{:.0f} B", bytes);
}

std::string format_count(int64_t value) {
  std::string text = std::to_string(value);
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3)
    text.insert(static_cast<size_t>(at), ",");
  return text;
}

std::string printable(const std::string& text) {
  // The JSON library replaces what is not UTF-8.
  return nlohmann::json::parse(nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))
      .get<std::string>();
}

}  // namespace octet::cli
