// fork, exec and pipes.
#include "cli/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "cli/console.h"

namespace octet::cli {

namespace {

namespace fs = std::filesystem;

pid_t start(const std::vector<std::string>& command, int in, int out, const fs::path& errors) {
  std::vector<char*> arguments;
  for (const std::string& text : command) arguments.push_back(const_cast<char*>(text.c_str()));
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  // In the child only calls that are safe after fork.
  if (in >= 0) dup2(in, 0);
  if (out >= 0) dup2(out, 1);
  const int log = open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (log >= 0) {
    dup2(log, 2);
    if (out < 0) dup2(log, 1);
  }
  execvp(arguments[0], arguments.data());
  const char* text = strerror(errno);
  [[maybe_unused]] ssize_t written = write(2, text, strlen(text));
  _exit(127);
}

/// The last line that says something.
std::string last_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line, last;
  while (std::getline(file, line))
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  return last.substr(0, 300);
}

}  // namespace

Process::Process(const std::vector<std::string>& command, const fs::path& errors) : errors_(errors) {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
    refuse(ErrorCode::io, {.what = "cannot make a pipe", .expected = strerror(errno)});
  signal(SIGPIPE, SIG_IGN);  // a child that stopped is seen by its answer
  pid_ = start(command, to[0], from[1], errors);
  close(to[0]), close(from[1]);
  in_ = to[1], out_ = from[0];
  if (pid_ < 0) stopped("cannot be started");
}

Process::~Process() {
  if (in_ >= 0) close(in_);
  if (out_ >= 0) close(out_);
  if (pid_ <= 0) return;
  for (int i = 0; i < 20; ++i) {
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) return;
    usleep(50000);
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Process::stopped(const std::string& how) const {
  const std::string said = last_line(errors_);
  refuse(ErrorCode::io, {.what = said.empty() ? "its process " + how : said});
}

void Process::write_line(const std::string& text) {
  const std::string line = text + "\n";
  for (size_t at = 0; at < line.size();) {
    const ssize_t n = write(in_, line.data() + at, line.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) stopped("stopped");
    at += static_cast<size_t>(n);
  }
}

std::string Process::read_line(double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    const auto left = std::chrono::duration<double, std::milli>(until - std::chrono::steady_clock::now()).count();
    pollfd wait{.fd = out_, .events = POLLIN, .revents = 0};
    const int ready = left <= 0 ? 0 : poll(&wait, 1, static_cast<int>(left) + 1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) stopped("did not answer in time");
    char part[65536];
    const ssize_t n = read(out_, part, sizeof(part));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) stopped("stopped");
    buffer_.append(part, static_cast<size_t>(n));
  }
}

bool has_program(const std::string& name) {
  if (name.empty()) return false;
  if (name.find('/') != std::string::npos) return access(name.c_str(), X_OK) == 0;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');)
    if (!folder.empty() && access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  return false;
}

int run_program(const std::vector<std::string>& command, const fs::path& output, double seconds) {
  const pid_t pid = start(command, -1, -1, output);
  if (pid < 0) return 127;
  for (double waited = 0; waited < seconds; waited += 0.02) {
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    usleep(20000);
  }
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  return 124;
}

}  // namespace octet::cli
