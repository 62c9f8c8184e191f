// Ranges of pytorch-quantization become a calibration.
#include <gtest/gtest.h>
#include <octet/import.h>
#include <octet/octet.h>
#include <unistd.h>

#include <filesystem>

#include "core/error.h"
#include "core/safetensors.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

TEST(ImportAmax, GivesEachQuantizerItsRange) {
  const Model model = Model::load(fs::path(OCTET_TEST_DATA) / "hf" / "bert-classification");
  std::vector<std::pair<std::string, Tensor>> tensors;
  const std::vector<float> rows(32, 0.5f);
  for (int layer : {0, 1}) {
    const std::string at = "bert.encoder.layer." + std::to_string(layer) + ".";
    for (const char* linear :
         {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"}) {
      tensors.emplace_back(at + linear + "._input_quantizer._amax", Tensor::scalar(2.54f));
      tensors.emplace_back(at + linear + "._weight_quantizer._amax",
                           Tensor::from(std::span<const float>(rows), {32, 1}));
    }
    for (const char* input : {"q", "k", "v", "a"})
      tensors.emplace_back(at + "attention.self.matmul_" + input + "_input_quantizer._amax", Tensor::scalar(1.27f));
  }
  const fs::path path = fs::temp_directory_path() / ("octet_amax_" + std::to_string(getpid()) + ".safetensors");
  write_safetensors(path, tensors);
  Calibration calibration = import_amax(model, path);
  calibration.save(path);
  calibration = Calibration::load(path);
  fs::remove(path);
  int set = 0, off = 0;
  for (const Calibration::Range& range : calibration.ranges()) {
    if (range.method == "off") ++off;
    const bool query = range.quantizer.ends_with("query._input_quantizer");
    if (!query && !range.quantizer.ends_with("matmul_a_input_quantizer")) continue;
    EXPECT_NEAR(range.hi, query ? 2.54 : 1.27, 1e-6) << range.quantizer;
    ++set;
  }
  EXPECT_EQ(set, 4);
  EXPECT_EQ(off, 12);  // the feed-forward inputs and residual adds have no ranges here: 2 + 4 a layer
  for (bool simulate : {false, true}) {
    Session session(compile(model, {.calibration = calibration, .simulate = simulate}), {.threads = 1});
    Encoding row{.ids = {5, 9, 12, 3}, .type_ids = {0, 0, 0, 0}};
    EXPECT_EQ(run_all(session, {row}).size(), 3u);
  }
}

TEST(ImportAmax, SaysWhatIsWrong) {
  const fs::path folder = fs::path(OCTET_TEST_DATA) / "hf" / "bert-classification";
  EXPECT_THROW(import_amax(Model::load(folder), folder / "model.safetensors"), Error);
}

}  // namespace
}  // namespace octet
