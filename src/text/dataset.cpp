// Reading data files: fields of lines first, then which of them are text, pair and label.
#include <octet/dataset.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

#include "core/error.h"
#include "core/file.h"
#include "text/table.h"
#include "text/unicode.h"

namespace octet {

struct Dataset::State {
  struct Row {
    std::string text, pair, label;
    int64_t line;
  };
  std::vector<Row> rows;
  std::vector<std::string> columns;
  std::string source, text_column, pair_column, label_column;
};

namespace {

using text::Record;
using text::Table;

struct Pairing {
  const char* text;
  const char* pair;
};
constexpr Pairing kTexts[] = {{"sentence", ""}, {"sentence1", "sentence2"}, {"premise", "hypothesis"},
                              {"text", ""},     {"question", "context"},    {"#1 String", "#2 String"}};
constexpr const char* kLabels[] = {"label", "gold_label", "score", "labels", "Quality", "answer"};

std::string lower_ascii(std::string_view name) {
  std::string result(name);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
  return result;
}

std::optional<size_t> find_name(const std::vector<std::string>& names, std::string_view wanted) {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == wanted) return i;
  std::string low = lower_ascii(wanted);
  for (size_t i = 0; i < names.size(); ++i)
    if (lower_ascii(names[i]) == low) return i;
  return std::nullopt;
}

std::optional<size_t> as_column_number(std::string_view name) {
  size_t number = 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number == 0 || number > 100000) return std::nullopt;
  return number - 1;
}

bool is_header(const std::vector<std::string>& fields, const DatasetOptions& options) {
  auto has = [&](std::string_view name) { return !name.empty() && find_name(fields, name).has_value(); };
  for (const std::string* name : {&options.text, &options.pair, &options.label})
    if (!as_column_number(*name) && has(*name)) return true;
  for (const Pairing& p : kTexts)
    if (has(p.text) || has(p.pair)) return true;
  return std::any_of(std::begin(kLabels), std::end(kLabels), has);
}

/// CoLA: source, 0 or 1, nothing or *, sentence; without a header.
bool is_cola(const std::vector<std::string>& fields) {
  return fields.size() == 4 && (fields[1] == "0" || fields[1] == "1") && (fields[2].empty() || fields[2] == "*");
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (size_t i = 0; i < names.size() && i < 20; ++i) list += (i > 0 ? ", " : "") + names[i];
  if (names.size() > 20) list += ", ... (" + std::to_string(names.size()) + ")";
  return list;
}

/// Finds the three columns.
class Columns {
 public:
  Columns(const Table& table, const DatasetOptions& options, bool header, const std::string& source)
      : names_(table.columns), source_(source) {
    bool first_is_cola =
        !header && !table.records.empty() && table.named == false && is_cola(table.records.front().fields);
    if (options.text.empty()) {
      for (const Pairing& p : kTexts) {
        text = header ? find_name(names_, p.text) : std::nullopt;
        if (!text) continue;
        if (*p.pair && options.pair.empty()) pair = find_name(names_, p.pair);
        break;
      }
      if (!text && first_is_cola) text = 3;
      if (!text)
        fail(ErrorCode::invalid_argument,
             {.what = "cannot find the column of the text",
              .expected = (header ? "expected sentence, sentence1, premise, text, question or #1 String, got "
                                  : "expected a header, got a first line with ") +
                          std::string(header ? listed(names_) : std::to_string(names_.size()) + " fields"),
              .where = "in " + source_,
              .hint = "name the column or give its number, counted from 1"});
    } else {
      text = required(options.text, "text");
    }
    if (!options.pair.empty() && options.pair != "-") pair = required(options.pair, "pair");
    if (options.label.empty()) {
      for (const char* name : kLabels) {
        label = header ? find_name(names_, name) : std::nullopt;
        if (label) break;
      }
      if (!label && first_is_cola && options.text.empty()) label = 1;
    } else if (options.label != "-") {
      label = required(options.label, "label");
    }
  }

  std::optional<size_t> text, pair, label;

 private:
  size_t required(const std::string& wanted, const char* role) const {
    if (auto found = find_name(names_, wanted)) return *found;
    auto number = as_column_number(wanted);
    if (number && *number < names_.size()) return *number;
    std::string near = nearest_names(wanted, names_);
    fail(ErrorCode::invalid_argument,
         {.what = std::string("cannot find the column \"") + wanted + "\" of the " + role,
          .expected = number ? "expected a number from 1 to " + std::to_string(names_.size())
                             : "expected one of " + listed(names_),
          .where = "in " + source_,
          .hint = near.empty() ? "columns may be given by number, counted from 1" : near});
  }
  const std::vector<std::string>& names_;
  const std::string& source_;
};

}  // namespace

Dataset Dataset::load(const std::filesystem::path& path, const DatasetOptions& options) {
  return parse(read_text(path), path.string(), options);
}

Dataset Dataset::parse(std::string_view content, const std::string& source, const DatasetOptions& options) {
  if (content.starts_with("\xef\xbb\xbf")) content.remove_prefix(3);
  if (size_t bad = text::invalid_utf8(content); bad != std::string_view::npos) {
    auto line = 1 + std::count(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(bad), '\n');
    fail(ErrorCode::corrupt,
         {.what = "cannot read the data",
          .expected = "expected UTF-8",
          .where = "in " + source + ", line " + std::to_string(line) + ", byte " + std::to_string(bad),
          .hint = "convert the file to UTF-8"});
  }
  // One record more than asked for: the first may turn out to be the header.
  Table table = text::read_table(content, source, options.format, options.limit > 0 ? options.limit + 1 : 0);
  if (table.records.empty())
    fail(ErrorCode::invalid_argument, {.what = "cannot use the data: it has no rows",
                                       .expected = "the file is empty",
                                       .where = "in " + source,
                                       .hint = "expected a header and at least one row"});
  bool header = table.named;
  if (!table.named) {
    header = is_header(table.records.front().fields, options);
    if (header) {
      table.columns = table.records.front().fields;
      table.records.erase(table.records.begin());
    } else {
      for (size_t i = 0; i < table.records.front().fields.size(); ++i) table.columns.push_back(std::to_string(i + 1));
    }
  }
  Columns columns(table, options, header, source);
  auto state = std::make_shared<State>();
  state->source = source;
  state->columns = table.columns;
  state->text_column = table.columns[*columns.text];
  if (columns.pair) state->pair_column = table.columns[*columns.pair];
  if (columns.label) state->label_column = table.columns[*columns.label];
  if (options.limit > 0 && static_cast<int64_t>(table.records.size()) > options.limit)
    table.records.resize(static_cast<size_t>(options.limit));
  state->rows.reserve(table.records.size());
  for (Record& record : table.records) {
    auto field = [&](std::optional<size_t> column) -> std::string {
      if (!column) return {};
      if (*column < record.fields.size()) return record.fields[*column];
      fail(ErrorCode::corrupt,
           {.what = "cannot read a row of the data",
            .expected = "expected column \"" + table.columns[*column] + "\" (number " + std::to_string(*column + 1) +
                        "), got " + std::to_string(record.fields.size()) + " fields",
            .where = "in " + source + ", line " + std::to_string(record.line)});
    };
    for (std::optional<size_t> column : {columns.text, columns.pair, columns.label})
      if (column && *column < record.missing.size() && record.missing[*column])
        fail(ErrorCode::corrupt, {.what = "cannot read a row of the data",
                                  .expected = "expected a value for \"" + table.columns[*column] + "\"",
                                  .where = "in " + source + ", line " + std::to_string(record.line)});
    State::Row row{field(columns.text), field(columns.pair), field(columns.label), record.line};
    state->rows.push_back(std::move(row));
    record = Record{};
  }
  return Dataset(std::move(state));
}

Dataset Dataset::pick(std::span<const int64_t> rows) const {
  auto state = std::make_shared<State>();
  for (int64_t row : rows) {
    OCTET_CHECK(row >= 0 && row < this->rows(), "a row that is not there");
    state->rows.push_back(state_->rows[static_cast<size_t>(row)]);
  }
  state->columns = state_->columns;
  state->source = state_->source;
  state->text_column = state_->text_column;
  state->pair_column = state_->pair_column;
  state->label_column = state_->label_column;
  return Dataset(std::move(state));
}

int64_t Dataset::rows() const noexcept { return static_cast<int64_t>(state_->rows.size()); }
bool Dataset::has_pair() const noexcept { return !state_->pair_column.empty(); }
bool Dataset::has_label() const noexcept { return !state_->label_column.empty(); }
std::string_view Dataset::text(int64_t row) const { return state_->rows.at(static_cast<size_t>(row)).text; }
std::string_view Dataset::pair(int64_t row) const { return state_->rows.at(static_cast<size_t>(row)).pair; }
std::string_view Dataset::label(int64_t row) const { return state_->rows.at(static_cast<size_t>(row)).label; }
int64_t Dataset::line(int64_t row) const { return state_->rows.at(static_cast<size_t>(row)).line; }
const std::string& Dataset::source() const noexcept { return state_->source; }
const std::vector<std::string>& Dataset::columns() const noexcept { return state_->columns; }
const std::string& Dataset::text_column() const noexcept { return state_->text_column; }
const std::string& Dataset::pair_column() const noexcept { return state_->pair_column; }
const std::string& Dataset::label_column() const noexcept { return state_->label_column; }

std::optional<double> Dataset::number(int64_t row) const {
  std::string_view value = label(row);
  while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\r')) value.remove_suffix(1);
  if (value.starts_with('+')) value.remove_prefix(1);
  double result = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (value.empty() || error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  return result;
}

namespace {

void require_labels(const Dataset& data, const char* what) {
  if (data.has_label()) return;
  fail(ErrorCode::invalid_argument,
       {.what = std::string("cannot find the ") + what + " of the data",
        .expected =
            "expected a column label, gold_label, score, labels, Quality or answer, got " + listed(data.columns()),
        .where = "in " + data.source(),
        .hint = "name the column of the label or give its number, counted from 1"});
}

}  // namespace

std::vector<int32_t> resolve_labels(const Dataset& data, std::span<const std::string> names) {
  require_labels(data, "classes");
  std::map<std::string, int32_t> known;
  for (size_t i = 0; i < names.size(); ++i) known.try_emplace(lower_ascii(names[i]), static_cast<int32_t>(i));
  std::vector<int32_t> classes;
  std::vector<std::pair<std::string, int64_t>> unknown;  // with the first line
  for (int64_t row = 0; row < data.rows(); ++row) {
    std::string label(data.label(row));
    if (auto found = known.find(lower_ascii(label)); found != known.end()) {
      classes.push_back(found->second);
      continue;
    }
    std::optional<double> number = data.number(row);
    if (number && *number >= 0 && *number < static_cast<double>(names.size()) &&
        *number == static_cast<double>(static_cast<int32_t>(*number))) {
      classes.push_back(static_cast<int32_t>(*number));
      continue;
    }
    if (std::none_of(unknown.begin(), unknown.end(), [&](const auto& u) { return u.first == label; }))
      unknown.emplace_back(label, data.line(row));
    classes.push_back(-1);
  }
  if (unknown.empty()) return classes;
  std::string bad;
  for (size_t i = 0; i < unknown.size() && i < 8; ++i)
    bad += (i > 0 ? ", \"" : "\"") + unknown[i].first + "\" (line " + std::to_string(unknown[i].second) + ")";
  if (unknown.size() > 8) bad += " and " + std::to_string(unknown.size() - 8) + " more";
  std::vector<std::string> all(names.begin(), names.end());
  std::string near = nearest_names(unknown[0].first, all);
  fail(ErrorCode::invalid_argument,
       {.what = "the data has labels that the model does not know: " + bad,
        .expected = "expected " + listed(all) + ", or their numbers from 0",
        .where = "in " + data.source() + ", column \"" + data.label_column() + "\"",
        .hint = near.empty() ? "choose another label column, or a model with these labels" : near});
}

std::vector<int64_t> resolve_label_sets(const Dataset& data, std::span<const std::string> names) {
  require_labels(data, "labels");
  const int64_t rows = data.rows();
  std::map<std::string, size_t> ids;
  for (size_t i = 0; i < names.size(); ++i) ids.emplace(std::to_string(i), i);
  for (size_t i = 0; i < names.size(); ++i) ids.insert_or_assign(lower_ascii(names[i]), i);
  std::vector<int64_t> result(static_cast<size_t>(rows) * names.size());
  for (int64_t r = 0; r < rows; ++r) {
    auto mark = [&](std::string_view label) {
      while (label.starts_with(' ')) label.remove_prefix(1);
      while (label.ends_with(' ')) label.remove_suffix(1);
      if (label.empty()) return;
      auto found = ids.find(lower_ascii(std::string(label)));
      if (found == ids.end())
        fail(ErrorCode::invalid_argument,
             {.what = "a text has a label that the model does not know",
              .expected = "got '" + std::string(label) + "' in line " + std::to_string(data.line(r)),
              .where = "in " + data.source(),
              .hint =
                  "labels of a text are separated by commas or spaces; the model has " + std::to_string(names.size())});
      result[static_cast<size_t>(r) * names.size() + found->second] = 1;
    };
    std::string_view cell = data.label(r);
    if (ids.contains(lower_ascii(std::string(cell)))) {
      mark(cell);
      continue;
    }
    const char separator = cell.find(',') != std::string_view::npos ? ',' : ' ';
    for (size_t end = 0; !cell.empty(); cell.remove_prefix(std::min(cell.size(), end + 1))) {
      end = std::min(cell.find(separator), cell.size());
      mark(cell.substr(0, end));
    }
  }
  return result;
}

std::vector<double> label_numbers(const Dataset& data) {
  require_labels(data, "numbers");
  std::vector<double> numbers;
  for (int64_t row = 0; row < data.rows(); ++row) {
    auto number = data.number(row);
    if (!number)
      fail(ErrorCode::invalid_argument, {.what = "cannot use a label as a number",
                                         .expected = "expected a number, got \"" + std::string(data.label(row)) + "\"",
                                         .where = "in " + data.source() + ", line " + std::to_string(data.line(row)) +
                                                  ", column \"" + data.label_column() + "\""});
    numbers.push_back(*number);
  }
  return numbers;
}

std::vector<std::vector<int64_t>> plan_batches(std::span<const int64_t> lengths, const BatchOptions& options) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  if (options.sort_by_length)
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
    });
  std::vector<std::vector<int64_t>> batches;
  int64_t tokens = 0;
  for (int64_t row : order) {
    int64_t length = lengths[static_cast<size_t>(row)];
    bool full = batches.empty() ||
                (options.max_rows > 0 && static_cast<int64_t>(batches.back().size()) >= options.max_rows) ||
                (options.max_tokens > 0 && tokens + length > options.max_tokens);
    if (full) {
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(row);
    tokens += length;
  }
  return batches;
}

}  // namespace octet
