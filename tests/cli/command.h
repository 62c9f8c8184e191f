// Runs the command and gives back its exit code and what it wrote; makes tiny models with a tokenizer in a folder of
// its own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace octet::cli {

namespace fs = std::filesystem;
using Json = nlohmann::json;

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

struct Ran {
  int code = -1;
  std::string out, err;
  /// All of standard output as one JSON value.
  Json json() const {
    Json value = Json::parse(out, nullptr, false);
    EXPECT_FALSE(value.is_discarded()) << "not JSON: " << out << err;
    return value;
  }
};

class CommandTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("octet_cli_" + std::to_string(getpid()) + "_" +
                                              testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path at(const std::string& name) const { return folder_ / name; }

  /// Runs `octet ARGUMENTS` through the shell in the test's folder; `before` is put in front of the command.
  Ran octet(const std::string& arguments, const std::string& input = "", const std::string& before = "") const {
    write_file(at("stdin"), input);
    std::string command =
        "cd '" + folder_.string() + "' && " + before + " '" OCTET_COMMAND "' " + arguments + " <stdin >stdout 2>stderr";
    int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(at("stdout")),
            read_file(at("stderr"))};
  }

  /// A model of tests/data/hf with a WordPiece vocabulary of its 60 ids, as folder `name`.
  void make_model(const std::string& name, const std::string& source) const {
    fs::copy(fs::path(OCTET_TEST_DATA) / "hf" / source, at(name), fs::copy_options::recursive);
    std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    for (const char* word : {"the", "a", "film", "was", "good", "bad", "dull", "fine", "not", "and"})
      vocabulary += std::string(word) + "\n";
    for (char c = 'a'; c <= 'z'; ++c) vocabulary += std::string("##") + c + "\n";
    for (char c = 'b'; c <= 't'; ++c) vocabulary += std::string(1, c) + "\n";
    write_file(at(name) / "vocab.txt", vocabulary);
  }

  /// `rows` sentences with label 0, 1 or 2, a pair and a score.
  std::string make_data(int rows, const std::string& name = "data.tsv") const {
    const char* words[] = {"the", "film", "was", "good", "bad", "dull", "fine", "not", "and", "a"};
    const char* labels[] = {"negative", "Neutral", "2"};
    std::string text = "sentence1\tsentence2\tlabel\tscore\n";
    for (int r = 0; r < rows; ++r) {
      for (int column = 0; column < 2; ++column) {
        for (int w = 0; w < 2 + (r + column) % 5; ++w)
          text += std::string(w ? " " : "") + words[(r * 7 + w * 3 + column) % 10];
        text += "\t";
      }
      text += std::string(labels[r % 3]) + "\t" + std::to_string(r % 5) + ".5\n";
    }
    write_file(at(name), text);
    return name;
  }

  fs::path folder_;
};

}  // namespace octet::cli
