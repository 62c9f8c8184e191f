// Texts to vectors with a compiled plan, in batches: all that an application needs of octet.
#pragma once

#include <octet/octet.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace example {

class Embedder {
 public:
  explicit Embedder(const std::filesystem::path& plan_file) : Embedder(octet::Plan::load(plan_file)) {}
  explicit Embedder(octet::Plan plan) : plan_(std::move(plan)), session_(plan_) {
    if (plan_.info().task != octet::Task::embedding)
      throw std::runtime_error(plan_.info().source + " is not an embedding model but one for " +
                               std::string(octet::name(plan_.info().task)));
  }

  /// One vector a text, [texts, width()]. Rows of a batch may differ in length: there is no padding.
  std::vector<float> embed(std::span<const std::string> texts) {
    constexpr size_t kBatch = 32;
    const octet::EncodeOptions options{.max_length = plan_.info().max_length, .offsets = false};
    std::vector<float> vectors;
    vectors.reserve(texts.size() * width());
    for (size_t begin = 0; begin < texts.size(); begin += kBatch) {
      octet::OwnedBatch batch;
      for (const std::string& text : texts.subspan(begin, std::min(kBatch, texts.size() - begin)))
        batch.add(plan_.tokenizer().encode(text, std::nullopt, options));
      octet::Output output = session_.run(batch.view());
      vectors.insert(vectors.end(), output.values.begin(), output.values.end());
    }
    return vectors;
  }

  size_t width() const { return static_cast<size_t>(plan_.info().hidden); }

 private:
  octet::Plan plan_;
  octet::Session session_;
};

}  // namespace example
