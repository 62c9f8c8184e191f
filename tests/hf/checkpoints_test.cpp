// Real checkpoints of other people's training, read from the download cache (scripts/setup.sh fetches them); skipped
// when absent.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "core/safetensors.h"
#include "hf/evaluate.h"
#include "hf/model.h"
#include "hf/pickle.h"

namespace octet::hf {
namespace {

namespace fs = std::filesystem;

fs::path cache() {
  if (const char* set = std::getenv("OCTET_CACHE")) return set;
  if (const char* set = std::getenv("XDG_CACHE_HOME")) return fs::path(set) / "octet";
  const char* home = std::getenv("HOME");
  return fs::path(home ? home : ".") / ".cache/octet";
}

#define SKIP_WITHOUT(path) \
  if (!fs::exists(path)) GTEST_SKIP() << "no " << (path) << " (scripts/setup.sh checkpoints fetches it)"

/// fairseq's names of a RoBERTa as Hugging Face writes them.
std::string renamed(std::string name) {
  static const std::pair<const char*, const char*> kRules[] = {
      {"decoder.sentence_encoder.emb_layer_norm.", "roberta.embeddings.LayerNorm."},
      {"decoder.sentence_encoder.embed_positions.", "roberta.embeddings.position_embeddings."},
      {"decoder.sentence_encoder.embed_tokens.", "roberta.embeddings.word_embeddings."},
      {"decoder.sentence_encoder.layers.", "roberta.encoder.layer."},
      {".self_attn.q_proj.", ".attention.self.query."},
      {".self_attn.k_proj.", ".attention.self.key."},
      {".self_attn.v_proj.", ".attention.self.value."},
      {".self_attn.out_proj.", ".attention.output.dense."},
      {".self_attn_layer_norm.", ".attention.output.LayerNorm."},
      {".fc1.", ".intermediate.dense."},
      {".fc2.", ".output.dense."},
      {".final_layer_norm.", ".output.LayerNorm."},
      {"decoder.lm_head.", "lm_head."}};
  for (const auto& [from, to] : kRules)
    if (size_t at = name.find(from); at != std::string::npos) name.replace(at, std::string_view(from).size(), to);
  return name;
}

TEST(Checkpoints, AntibodyRobertaFillsMaskedResidues) {
  fs::path source = cache() / "sapiens/models/v1/checkpoint_vh.pt";
  SKIP_WITHOUT(source);
  std::map<std::string, Tensor> read = read_pytorch(source), tensors;
  for (const auto& [name, tensor] : read) tensors[renamed(name)] = tensor;
  fs::path folder = fs::temp_directory_path() / ("octet-sapiens-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  write_safetensors(folder / "model.safetensors", {tensors.begin(), tensors.end()});
  std::ofstream(folder / "config.json")
      << R"({"model_type":"roberta","architectures":["RobertaForMaskedLM"],"hidden_size":128,"num_hidden_layers":4,
    "num_attention_heads":8,"intermediate_size":256,"vocab_size":25,"max_position_embeddings":146,"type_vocab_size":0,"pad_token_id":1,"layer_norm_eps":1e-5})";
  LoadedModel model = load_model(folder);
  fs::remove_all(folder);
  EXPECT_EQ(model.max_tokens, 144);

  // The masked-language head, which graphs leave out: dense, GELU, LayerNorm, then the rows of the word table.
  auto values = [&](const char* name) { return tensors.at(name).to_f32(); };
  const auto dense = values("lm_head.dense.weight"), dense_bias = values("lm_head.dense.bias"),
             gamma = values("lm_head.layer_norm.weight"), beta = values("lm_head.layer_norm.bias"),
             words = values("lm_head.weight"), bias = values("lm_head.bias");
  auto best = [&](const double* x) {
    std::vector<double> h(128);
    double mean = 0, variance = 0;
    for (size_t j = 0; j < 128; ++j) {
      double sum = dense_bias[j];
      for (size_t i = 0; i < 128; ++i) sum += dense[j * 128 + i] * x[i];
      h[j] = sum / 2 * (1 + std::erf(sum / std::sqrt(2.0)));
      mean += h[j] / 128;
    }
    for (double v : h) variance += (v - mean) * (v - mean) / 128;
    size_t winner = 0;
    double top = -1e30;
    for (size_t word = 4; word < 24; ++word) {
      double score = bias[word];
      for (size_t i = 0; i < 128; ++i)
        score += words[word * 128 + i] * ((h[i] - mean) / std::sqrt(variance + 1e-5) * gamma[i] + beta[i]);
      if (score > top) {
        top = score;
        winner = word;
      }
    }
    return winner;
  };

  const std::string residues = "ACDEFGHIKLMNPQRSTVWY";  // ids from 4; 0 <s>, 1 <pad>, 2 </s>, 24 <mask>
  const std::string heavy =
      "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYCAKWGQGTLVTVSS";
  std::vector<int64_t> ids{0};
  for (char c : heavy) ids.push_back(static_cast<int64_t>(residues.find(c)) + 4);
  ids.push_back(2);
  int64_t right = 0, asked = 0;
  for (size_t at = 1; at + 1 < ids.size(); at += 3, ++asked) {
    std::vector<int64_t> masked = ids;
    masked[at] = 24;
    std::vector<double> hidden = evaluate(model.graph, masked, {}).at("last_hidden_state");
    right += static_cast<int64_t>(best(hidden.data() + at * 128)) == ids[at];
  }
  EXPECT_GE(static_cast<double>(right) / static_cast<double>(asked), 0.9) << right << " of " << asked;
}

TEST(Checkpoints, ReactionBertHasFiftyClasses) {
  fs::path folder = cache() / "rxnfp/models/transformers/bert_ft_10k_25s";
  SKIP_WITHOUT(folder);
  LoadedModel model = load_model(folder);
  verify(model.graph);
  EXPECT_EQ(model.config.num_labels, 50);
  EXPECT_EQ(model.graph.value(model.graph.outputs().front().second).type.shape, (Shape{kRows, 50}));
  std::vector<int64_t> ids;
  for (int64_t id = 12; id < 80; id += 3) ids.push_back(id);
  std::vector<double> logits = evaluate(model.graph, ids, std::vector<int64_t>(ids.size(), 0)).at("logits");
  EXPECT_EQ(std::max_element(logits.begin(), logits.end()) - logits.begin(), 8);
  EXPECT_NEAR(*std::max_element(logits.begin(), logits.end()), 6.7883134, 1e-4);  // as transformers has it
}

TEST(Checkpoints, ReactionBertWithoutModelTypeIsToldByItsFolder) {
  for (const char* name : {"bert_ft", "bert_pretrained"}) {
    fs::path folder = cache() / "rxnfp/models/transformers" / name;
    SKIP_WITHOUT(folder);
    LoadedModel model = load_model(folder);
    EXPECT_EQ(model.config.model_type, "bert");
    EXPECT_EQ(model.config.head, Head::encoder);
  }
}

TEST(Checkpoints, AlbertIsRefusedByName) {
  fs::path folder = cache() / "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k";
  SKIP_WITHOUT(folder);
  try {
    load_model(folder);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("albert"), std::string::npos);
  }
}

}  // namespace
}  // namespace octet::hf
