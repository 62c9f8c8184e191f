// Encodes JSON lines for tools/bench_tokenizer.py and tools/make_tokenizer_goldens.py, which hold the result against
// the `tokenizers` package. A line is ["text"] or ["text", "pair"]. usage: tokenizer_probe encode FOLDER INPUT
// [MAX_LENGTH [STRATEGY [SPECIAL]]]   one line [ids, types, offsets, mask] a row
//        tokenizer_probe bench FOLDER INPUT ROUNDS THREADS                       best seconds of a round, tokens
#include <octet/error.h>
#include <octet/tokenizer.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

int main(int argc, char** argv) try {
  if (argc < 4) return 64;
  std::string mode = argv[1];
  auto begin = std::chrono::steady_clock::now();
  octet::Tokenizer tokenizer = octet::Tokenizer::load(argv[2]);
  double load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::vector<std::string> texts, pairs;
  bool paired = false;
  std::ifstream in(argv[3]);
  for (std::string line; std::getline(in, line);) {
    auto row = nlohmann::json::parse(line);
    texts.push_back(row.at(0));
    pairs.push_back(row.size() > 1 ? row.at(1).get<std::string>() : "");
    paired = row.size() > 1;
  }
  octet::EncodeOptions options;
  if (mode == "encode") {
    if (argc > 4) options.max_length = std::atoll(argv[4]);
    std::string strategy = argc > 5 ? argv[5] : "longest_first";
    options.truncation = strategy == "only_first"    ? octet::Truncation::only_first
                         : strategy == "only_second" ? octet::Truncation::only_second
                                                     : octet::Truncation::longest_first;
    if (argc > 6) options.add_special_tokens = std::string(argv[6]) != "0";
    for (size_t i = 0; i < texts.size(); ++i) {
      nlohmann::json row;
      try {
        octet::Encoding e =
            tokenizer.encode(texts[i], paired ? std::optional<std::string_view>(pairs[i]) : std::nullopt, options);
        nlohmann::json offsets = nlohmann::json::array();
        for (octet::TextSpan span : e.offsets) offsets.push_back({span.begin, span.end});
        row = {e.ids, e.type_ids, offsets, e.special_tokens_mask()};
      } catch (const octet::Error&) {
        row = "error";
      }
      std::cout << row.dump() << '\n';
    }
    return 0;
  }
  int rounds = argc > 4 ? std::atoi(argv[4]) : 3, threads = argc > 5 ? std::atoi(argv[5]) : 1;
  std::vector<std::string_view> text_views(texts.begin(), texts.end()), pair_views(pairs.begin(), pairs.end());
  if (!paired) pair_views.clear();
  double best = 1e30;
  size_t tokens = 0;
  for (int round = 0; round < rounds; ++round) {
    auto start = std::chrono::steady_clock::now();
    auto result = tokenizer.encode_batch(text_views, pair_views, options, threads);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    tokens = 0;
    for (const auto& e : result) tokens += e.ids.size();
  }
  std::printf("{\"seconds\": %.6f, \"tokens\": %zu, \"rows\": %zu, \"load_seconds\": %.3f}\n", best, tokens,
              texts.size(), load_seconds);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
