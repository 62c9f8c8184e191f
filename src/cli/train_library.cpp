// liboctet_train.so stands beside the command or in ../lib; OCTET_TORCH names another libtorch than the build's.
#include "cli/train_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "cli/console.h"

namespace octet::cli {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void absent(const std::string& reason) {
  refuse(ErrorCode::unsupported,
         {.what = "training needs liboctet_train.so and libtorch",
          .expected = reason,
          .hint = "`scripts/setup.sh train` fetches libtorch, then build again; OCTET_TORCH=FOLDER names an installed "
                  "PyTorch's torch folder"});
}

std::string last_error() {
  const char* text = dlerror();
  return text == nullptr ? "unknown error" : text;
}

}  // namespace

const TrainFunctions& train_library() {
  static const TrainFunctions* functions = [] {
    // Loaded by path, these stand in for the build's own: the loader looks for names that it has already.
    if (const char* torch = std::getenv("OCTET_TORCH"); torch != nullptr && *torch != '\0')
      for (const char* name : {"libc10.so", "libtorch_cpu.so"}) {
        fs::path path = fs::path(torch) / "lib" / name;
        if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) absent(last_error());
      }
    std::error_code error;
    fs::path self = fs::read_symlink("/proc/self/exe", error).parent_path();
    void* library = nullptr;
    std::string reason = "it is not beside the command: this build has no training";
    for (const fs::path& path : {self / "liboctet_train.so", self / ".." / "lib" / "liboctet_train.so"}) {
      if (library != nullptr || !fs::exists(path, error)) continue;
      library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library == nullptr) reason = last_error();
    }
    if (library == nullptr) absent(reason);
    auto get = reinterpret_cast<const TrainFunctions* (*)()>(dlsym(library, "octet_train_functions_2"));
    if (get == nullptr) absent(last_error());
    return get();
  }();
  return *functions;
}

}  // namespace octet::cli
