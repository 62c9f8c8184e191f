// Transplants compute the same, bit for bit, up to 512 tokens.
#include <gtest/gtest.h>
#include <octet/octet.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

class Transplant : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("octet_transplant_" + std::to_string(getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  /// The tiny checkpoint with a position table of 512 tokens.
  fs::path longer(const std::string& name, int64_t positions) const {
    fs::path from = fs::path(OCTET_TEST_DATA) / "hf" / name, to = root_ / name;
    fs::create_directories(to);
    nlohmann::json config = read_json(from / "config.json");
    config["max_position_embeddings"] = positions;
    std::ofstream(to / "config.json") << config.dump();
    Safetensors file = read_safetensors(from / "model.safetensors");
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (auto& [key, tensor] : file.tensors) {
      if (key.ends_with("position_embeddings.weight")) {
        std::vector<float> values(static_cast<size_t>(positions * tensor.dim(1)));
        uint32_t state = 1;
        for (float& v : values)
          v = static_cast<float>((state = state * 1664525u + 1013904223u) >> 16) / 65536.0f - 0.5f;
        tensor = Tensor::from(values, {positions, tensor.dim(1)});
      }
      tensors.emplace_back(key, tensor);
    }
    write_safetensors(to / "model.safetensors", tensors);
    return to;
  }

  static std::vector<float> outputs(const fs::path& folder) {
    std::vector<Encoding> rows;
    uint32_t state = 7;
    for (int64_t length : {1, 2, 17, 128, 511, 512}) {
      Encoding row;
      for (int64_t i = 0; i < length; ++i)
        row.ids.push_back(static_cast<int32_t>(3 + ((state = state * 1664525u + 1013904223u) >> 16) % 57));
      row.type_ids.assign(row.ids.size(), 0);
      rows.push_back(row);
    }
    Session session(compile(Model::load(folder), {.precision = Precision::fp32}), {.threads = 1});
    return run_all(session, rows);
  }

  fs::path root_;
};

TEST_F(Transplant, IsExactInBothDirections) {
  for (const auto& [name, positions, into] : {std::tuple("roberta-classification", int64_t{514}, "bert"),
                                              std::tuple("bert-classification", int64_t{512}, "roberta")}) {
    const fs::path from = longer(name, positions), to = root_ / (std::string(name) + "-moved"),
                   back = root_ / (std::string(name) + "-back");
    TransplantResult result = transplant(from, to, {.into = into});
    EXPECT_TRUE(result.losses.empty());
    EXPECT_EQ(Model::load(to).info().family, into);
    EXPECT_GE(Model::load(to).info().max_length, 512);
    std::vector<float> wanted = outputs(from), got = outputs(to);
    ASSERT_EQ(wanted.size(), got.size());
    EXPECT_EQ(std::memcmp(wanted.data(), got.data(), 4 * got.size()), 0) << name;
    transplant(to, back, {.into = result.from});
    EXPECT_EQ(outputs(back), wanted) << name;
    bool moved = false;
    for (const TransplantRow& row : result.rows) moved = moved || row.shape_from != row.shape_to;
    EXPECT_TRUE(moved);
  }
}

// MPNet's relative positions have no place elsewhere; everything else moves.
TEST_F(Transplant, MpnetLosesItsRelativePositions) {
  const fs::path from = fs::path(OCTET_TEST_DATA) / "hf" / "mpnet-classification";
  for (const char* into : {"bert", "roberta"}) {
    const fs::path to = root_ / (std::string("mpnet-to-") + into);
    try {
      transplant(from, to, {.into = into});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("has no relative positions"), std::string::npos) << error.what();
    }
    EXPECT_EQ(transplant(from, to, {.into = into, .lossy = true}).losses.size(), 1u);
    EXPECT_EQ(Model::load(to).info().family, into);
    EXPECT_EQ(Model::load(to).info().max_length, 24);
  }
}

TEST_F(Transplant, RefusesWithReasons) {
  const fs::path from = longer("bert-classification", 512);
  auto message = [&](const std::string& into) {
    try {
      transplant(from, root_ / "x", {.into = into});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message("bert").find("already"), std::string::npos);
  EXPECT_NE(message("xlnet").find("bert or roberta"), std::string::npos);
}

}  // namespace
}  // namespace octet
