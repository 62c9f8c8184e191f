// What the verbs print with: tables, one JSON value, a progress line, and errors in their four parts.
#pragma once

#include <octet/error.h>
#include <octet/progress.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace octet::cli {

/// Exit codes of the command.
enum ExitCode : int { kDone = 0, kOurFault = 1, kUsersWorld = 2, kUsage = 64 };

/// The four parts of a message; empty ones are left out.
struct Message {
  std::string what, expected, where, hint;
};
[[noreturn]] void refuse(ErrorCode code, const Message& message);

/// Where a verb's words go. With --json standard output holds the JSON value alone and everything else goes to standard
/// error.
class Console {
 public:
  bool json = false;

  /// For the reader; a newline is added.
  void say(const std::string& line) const;
  /// About the run, never part of the result: always standard error.
  void note(const std::string& line) const;
  /// The verb's JSON value, when asked for.
  void result(const nlohmann::ordered_json& value) const;
  /// A line on standard error that is drawn over; silent when standard error is no terminal.
  Progress progress() const;
};

/// Columns of text. The first column is aligned to the left, others to the right unless `left` names them.
class Table {
 public:
  explicit Table(std::vector<std::string> header, std::vector<size_t> left = {0});
  void add(std::vector<std::string> row);
  /// Lines, each ended by a newline, without trailing spaces.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> left_;
};

/// "a.query+a.key+a.value" as "a.{query,key,value}".
std::string short_sum(const std::string& names);
/// "12.3 MB", "640 B".
std::string format_bytes(double bytes);
/// "1,234,567".
std::string format_count(int64_t value);
/// Columns that `text` takes on a terminal, counting a code point as one.
size_t display_width(const std::string& text);
/// Valid UTF-8 for JSON: broken bytes become U+FFFD.
std::string printable(const std::string& text);

}  // namespace octet::cli
