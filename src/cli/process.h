// A child process that answers lines with lines.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace octet::cli {

class Process {
 public:
  /// Starts the command, found on the PATH; its standard error goes to `errors`. A command that cannot be started shows
  /// at the first line read.
  Process(const std::vector<std::string>& command, const std::filesystem::path& errors);
  ~Process();  ///< closes its input, then kills it if it does not go
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void write_line(const std::string& text);
  /// Throws io with the end of its standard error when it stopped or says nothing for so long.
  std::string read_line(double seconds);

 private:
  [[noreturn]] void stopped(const std::string& how) const;
  std::filesystem::path errors_;
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
  std::string buffer_;
};

/// Whether a command of that name is on the PATH, or a program at that path.
bool has_program(const std::string& name);

/// Runs the command to its end, output to a file; returns its exit code (128 + signal; 124 when it ran out of time).
int run_program(const std::vector<std::string>& command, const std::filesystem::path& output, double seconds);

}  // namespace octet::cli
