// The one exception type of the library.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace octet {

/// What kind of thing went wrong. `internal` means a bug in octet; everything else is about the user's world.
enum class ErrorCode { not_found, corrupt, unsupported, invalid_argument, device, out_of_memory, io, internal };

/// The code's name as written above, for logs and `--json`.
std::string_view name(ErrorCode code) noexcept;

/// Thrown by every octet call that cannot do its work. `what()` has up to four parts, a line each: what could not be
/// done, what was expected and what was found, where (file, node, byte offset), and a hint on what to do.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const noexcept { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

}  // namespace octet
