// Cutting TSV, CSV and JSON lines into fields.
#include "text/table.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"

namespace octet::text {
namespace {

using nlohmann::json;

bool enough(const Table& table, int64_t limit) {
  return limit > 0 && static_cast<int64_t>(table.records.size()) >= limit;
}

/// Calls use(line, number) for lines that are not empty, without their line breaks.
template <typename Use>
void for_lines(std::string_view content, Use use) {
  int64_t number = 0;
  for (size_t begin = 0; begin < content.size();) {
    size_t end = std::min(content.find('\n', begin), content.size());
    std::string_view line = content.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !use(line, number)) return;
  }
}

Table read_tsv(std::string_view content, int64_t limit) {
  Table table;
  for_lines(content, [&](std::string_view line, int64_t number) {
    Record record;
    record.line = number;
    for (size_t begin = 0;;) {
      size_t end = std::min(line.find('\t', begin), line.size());
      record.fields.emplace_back(line.substr(begin, end - begin));
      if (end == line.size()) break;
      begin = end + 1;
    }
    table.records.push_back(std::move(record));
    return !enough(table, limit);
  });
  return table;
}

Table read_csv(std::string_view content, const std::string& source, int64_t limit) {
  Table table;
  int64_t line = 1;
  auto broken = [&](const char* expected, int64_t at) {
    fail(ErrorCode::corrupt, {.what = "cannot read a field of the CSV data",
                              .expected = expected,
                              .where = "in " + source + ", line " + std::to_string(at),
                              .hint = "quotes inside a quoted field are written twice"});
  };
  for (size_t i = 0; i < content.size() && !enough(table, limit);) {
    Record record;
    record.line = line;
    bool quoted_any = false;
    for (bool more = true; more;) {
      std::string field;
      if (i < content.size() && content[i] == '"') {
        quoted_any = true;
        int64_t opened = line;
        for (++i;; ++i) {
          if (i >= content.size()) broken("expected a closing quote before the end of the file", opened);
          if (content[i] == '\n') ++line;
          if (content[i] != '"') {
            field += content[i];
          } else if (i + 1 < content.size() && content[i + 1] == '"') {
            field += '"';
            ++i;
          } else {
            ++i;
            break;
          }
        }
        if (i < content.size() && content[i] == '\r') ++i;
        if (i < content.size() && content[i] != ',' && content[i] != '\n')
          broken("expected a comma or the end of the line after a closing quote", line);
      } else {
        while (i < content.size() && content[i] != ',' && content[i] != '\n') field += content[i++];
        if ((i == content.size() || content[i] == '\n') && field.ends_with('\r')) field.pop_back();
      }
      record.fields.push_back(std::move(field));
      more = i < content.size() && content[i] == ',';
      if (more) ++i;
    }
    if (i < content.size()) ++i;  // the line break
    ++line;
    bool blank = record.fields.size() == 1 && record.fields[0].empty() && !quoted_any;
    if (!blank) table.records.push_back(std::move(record));
  }
  return table;
}

std::string text_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "";
  if (value.is_array()) {
    std::string joined;
    for (const json& item : value) joined += (joined.empty() ? "" : " ") + text_of(item);
    return joined;
  }
  return value.dump();
}

void add_object(Table& table, const json& object, const std::string& where, int64_t line) {
  if (!object.is_object())
    fail(ErrorCode::corrupt, {.what = "cannot read a row of the data",
                              .expected = std::string("expected a JSON object, got ") + object.type_name(),
                              .where = where});
  if (table.records.empty())
    for (const auto& item : object.items()) table.columns.push_back(item.key());
  Record record;
  record.line = line;
  for (const std::string& column : table.columns) {
    auto found = object.find(column);
    record.missing.push_back(found == object.end());
    record.fields.push_back(found == object.end() ? "" : text_of(*found));
  }
  table.records.push_back(std::move(record));
}

Table read_jsonl(std::string_view content, const std::string& source, int64_t limit) {
  Table table;
  table.named = true;
  size_t first = content.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && content[first] == '[') {
    json list = parse_json(content, source);
    for (const json& object : list) {
      auto row = static_cast<int64_t>(table.records.size()) + 1;
      add_object(table, object, "in " + source + ", item " + std::to_string(row), row);
      if (enough(table, limit)) break;
    }
    return table;
  }
  for_lines(content, [&](std::string_view line, int64_t number) {
    if (line.find_first_not_of(" \t") == std::string_view::npos) return true;
    std::string where = source + ", line " + std::to_string(number);
    add_object(table, parse_json(line, where), "in " + where, number);
    return !enough(table, limit);
  });
  return table;
}

std::string format_of(std::string_view content, const std::string& source) {
  for (auto [ending, format] : {std::pair{".tsv", "tsv"},
                                {".txt", "tsv"},
                                {".csv", "csv"},
                                {".jsonl", "jsonl"},
                                {".ndjson", "jsonl"},
                                {".json", "jsonl"}})
    if (source.ends_with(ending)) return format;
  size_t first = content.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && (content[first] == '{' || content[first] == '[')) return "jsonl";
  std::string_view line = content.substr(0, content.find('\n'));
  return line.find('\t') == std::string_view::npos && line.find(',') != std::string_view::npos ? "csv" : "tsv";
}

}  // namespace

Table read_table(std::string_view content, const std::string& source, const std::string& format, int64_t limit) {
  std::string chosen = format.empty() ? format_of(content, source) : format;
  if (chosen == "tsv") return read_tsv(content, limit);
  if (chosen == "csv") return read_csv(content, source, limit);
  if (chosen == "jsonl") return read_jsonl(content, source, limit);
  fail(ErrorCode::invalid_argument, {.what = "unknown data format \"" + format + "\"",
                                     .expected = "known formats: csv, jsonl, tsv",
                                     .where = "for " + source});
}

}  // namespace octet::text
