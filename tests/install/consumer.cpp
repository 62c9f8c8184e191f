// A program outside the project: it sees include/octet only and links the installed library.
//   consumer HF_FOLDER
#include <octet/octet.h>

#include <cstdint>
#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  // Errors cross the library's border as one type.
  try {
    octet::Model::load("/nonexistent/folder");
    return 1;
  } catch (const octet::Error& error) {
    if (error.code() != octet::ErrorCode::not_found) return 1;
  }
  octet::Model model = octet::Model::load(argv[1]);
  octet::Plan plan = octet::compile(model, {.precision = octet::Precision::int8});
  octet::Session session(plan, {.threads = 1});
  const std::vector<int32_t> ids{1, 2, 3, 4, 5}, offsets{0, 2, 5};
  octet::Output output = session.run({.ids = ids, .offsets = offsets});
  std::printf("%s: %lld rows of %lld\n", model.info().family.c_str(), static_cast<long long>(output.rows),
              static_cast<long long>(output.width));
  for (float value : output.values)
    if (!(value > -1e6f && value < 1e6f)) return 1;
  return output.rows == 2 && output.width > 0 ? 0 : 1;
}
