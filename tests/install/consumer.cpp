// A program outside the project: it sees include/octet only and links the installed library.
#include <octet/error.h>

#include <cstdio>

int main() {
  // name() lives in the library, so this fails to link when the package is incomplete.
  std::printf("octet says: %s\n", std::string(octet::name(octet::ErrorCode::corrupt)).c_str());
  return octet::name(octet::ErrorCode::corrupt) == "corrupt" ? 0 : 1;
}
