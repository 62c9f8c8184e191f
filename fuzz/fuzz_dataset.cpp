// Data files. Input: a byte that picks format and columns, then the file.
#include <octet/dataset.h>

#include <string>

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static constexpr const char* kFormats[] = {"", "tsv", "csv", "jsonl"};
  octet::DatasetOptions options;
  options.format = kFormats[data[0] & 3];
  if (data[0] & 4) options.text = "1";
  if (data[0] & 8) options.label = "2";
  if (data[0] & 16) options.limit = 2;
  return octet::fuzz::expect_polite([&] {
    octet::Dataset rows = octet::Dataset::parse(octet::fuzz::text(data + 1, size - 1), "input", options);
    for (int64_t row = 0; row < rows.rows(); ++row) rows.number(row);
    octet::resolve_labels(rows, std::vector<std::string>{"no", "yes"});
  });
}
