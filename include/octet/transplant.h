// Moving the weights of one model family into another's shell.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

struct TransplantOptions {
  std::string into;    ///< "bert" or "roberta"
  bool lossy = false;  ///< do it although parts have no place in the other family
};

/// One tensor's way.
struct TransplantRow {
  std::string from, to;  ///< `to` is empty for what is left behind
  std::vector<int64_t> shape_from, shape_to;
  std::string note;  ///< "rows 2..513", "unused by the source too"; empty: unchanged
};
struct TransplantResult {
  std::string from, into;  ///< families
  std::vector<TransplantRow> rows;
  std::vector<std::string> losses;  ///< why outputs will differ; empty: they are equal
  int64_t max_length = 0;           ///< tokens of a text that both serve
};

/// Writes `folder`'s weights as a model of another family to `output`: the same function, bit for bit, on every text
/// that has no padding tokens inside. Throws invalid_argument with all reasons when that cannot be and `lossy` is not
/// set.
TransplantResult transplant(const std::filesystem::path& folder, const std::filesystem::path& output,
                            const TransplantOptions& options);

}  // namespace octet
