// What a model's output says about one text: labels, a number, entities, an answer, an embedding.
#pragma once

#include <octet/session.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/console.h"

namespace octet::cli {

struct AnswerOptions {
  int64_t top = 5;       ///< labels shown
  int64_t longest = 15;  ///< tokens of an answer to a question
};

/// One text with its output.
struct Answered {
  std::string text;
  std::optional<std::string> pair;
  Encoding encoding;
  int64_t width = 0;
  std::span<const float> values;  ///< [1, width], or [tokens, width] for tasks that answer per token
};

/// The JSON form; `shown` gets the lines for the reader.
nlohmann::ordered_json answer(const Plan& plan, const Answered& answered, const AnswerOptions& options,
                              std::string* shown);

}  // namespace octet::cli
