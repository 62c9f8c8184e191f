// Labelled text from TSV, CSV and JSON lines files, and the order in which rows are put into batches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

/// Which columns of a file mean what: a name, a 1-based number, or empty for the default. Defaults, the first that the
/// file has:
///   text   sentence, sentence1, premise, text, question, #1 String
///   pair   sentence2 for sentence1, hypothesis for premise, context for question, #2 String for #1 String; only where
///          the text is a default, too;   label  label, gold_label, score, labels, Quality, answer
/// "-" means: no such column, even if the file has one of the default names.
/// Names are compared as they are, then without regard to case.
struct DatasetOptions {
  std::string text;
  std::string pair;
  std::string label;
  /// "tsv", "csv" or "jsonl"; empty: by the name's ending (.tsv .txt .csv .jsonl .ndjson .json), else by the first
  /// line.
  std::string format;
  /// Rows read, from the first on; 0 means all.
  int64_t limit = 0;
};

/// Rows of text, perhaps a pair, perhaps a label: immutable, cheap to copy (copies share the rows).
class Dataset {
 public:
  /// Reads a file. TSV has no quoting and CSV that of RFC 4180 (quoted fields may hold commas, quotes and line breaks);
  /// a byte-order mark and empty lines are dropped. The first line is a header if it has a default or a requested name
  /// in it; a file without one needs column numbers, except one with CoLA's four columns. In JSON lines (or an array)
  /// the first object's keys are the columns; lists become their items with spaces between. Throws not_found, corrupt
  /// (too few fields, not UTF-8, broken JSON or quoting, each with its line), invalid_argument (no such column, with
  /// the nearest names; an empty file; an unknown format).
  static Dataset load(const std::filesystem::path& path, const DatasetOptions& options = {});
  /// The same from text in memory; `source` stands for the file's name in errors and endings.
  static Dataset parse(std::string_view content, const std::string& source, const DatasetOptions& options = {});

  /// These rows (numbers from 0) in this order.
  Dataset pick(std::span<const int64_t> rows) const;

  int64_t rows() const noexcept;
  bool has_pair() const noexcept;
  bool has_label() const noexcept;
  /// Views live as long as the dataset or a copy of it. Rows are counted from 0.
  std::string_view text(int64_t row) const;
  std::string_view pair(int64_t row) const;   ///< empty without pairs
  std::string_view label(int64_t row) const;  ///< as the file writes it; empty without labels
  /// The label as a number, if it is one.
  std::optional<double> number(int64_t row) const;
  /// The line of the file on which the row begins, from 1.
  int64_t line(int64_t row) const;
  /// The file's name.
  const std::string& source() const noexcept;
  /// All columns of the file by name, or by number where there is no header.
  const std::vector<std::string>& columns() const noexcept;
  const std::string& text_column() const noexcept;
  const std::string& pair_column() const noexcept;   ///< empty without pairs
  const std::string& label_column() const noexcept;  ///< empty without labels

  struct State;  ///< opaque

 private:
  explicit Dataset(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

/// The class of each row: its label is one of `names` (without regard to case) or a class number from 0.
/// Throws invalid_argument: no labels, or unknown ones, all of which are named with the first line of each.
std::vector<int32_t> resolve_labels(const Dataset& data, std::span<const std::string> names);
/// Rows with several labels: 0 or 1 for each of `names`, row by row. A cell holds names or numbers separated by commas or
/// spaces, or nothing. Throws invalid_argument: no labels, or an unknown one, with its line.
std::vector<int64_t> resolve_label_sets(const Dataset& data, std::span<const std::string> names);
/// The label of each row as a number. Throws invalid_argument: no labels, or a row without a number, with its line.
std::vector<double> label_numbers(const Dataset& data);

/// How rows are grouped; a batch ends when one more row would exceed either limit.
struct BatchOptions {
  int64_t max_rows = 0;    ///< 0 means no limit
  int64_t max_tokens = 0;  ///< real tokens, nothing is padded; 0 means no limit; a longer row gets a batch of its own
  bool sort_by_length = true;  ///< longest first, equal ones in file order; else file order
};
/// Groups rows of the given lengths (in tokens): row numbers by batch, each row once. Feed them to OwnedBatch::add.
std::vector<std::vector<int64_t>> plan_batches(std::span<const int64_t> lengths, const BatchOptions& options);

}  // namespace octet
