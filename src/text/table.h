// Records of a text file: TSV, CSV or JSON lines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace octet::text {

struct Record {
  std::vector<std::string> fields;
  std::vector<bool> missing;  ///< JSON: the object has no such key
  int64_t line = 0;
};

struct Table {
  bool named = false;  ///< columns are known (JSON); else the first record may be a header
  std::vector<std::string> columns;
  std::vector<Record> records;
};

/// `content` is UTF-8 without a byte-order mark; `limit` records, 0 for all.
Table read_table(std::string_view content, const std::string& source, const std::string& format, int64_t limit);

}  // namespace octet::text
