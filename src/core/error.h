// Building error messages in their four parts, and the check for our own bugs.
#pragma once

#include <octet/error.h>

#include <span>
#include <string>
#include <string_view>

namespace octet {

/// The four parts of a message; empty parts are left out.
struct ErrorText {
  std::string what;      ///< "cannot read tensor x"
  std::string expected;  ///< "expected 768 values, got 3072"
  std::string where;     ///< "in model.safetensors, byte 128"
  std::string hint;      ///< "download the file again"
};

/// Throws octet::Error with the parts on a line each.
[[noreturn]] void fail(ErrorCode code, const ErrorText& text);

/// "did you mean a, b or c" for the names closest to `wanted` (edit distance), or an empty string.
std::string nearest_names(std::string_view wanted, std::span<const std::string> known);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}

}  // namespace octet

/// A condition that only a bug of ours can break; input must never be able to. On in every build.
#define OCTET_CHECK(condition, message)                                                       \
  do {                                                                                        \
    if (!(condition)) ::octet::detail::check_failed(#condition, __FILE__, __LINE__, message); \
  } while (false)
