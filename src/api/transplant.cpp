// Transplants by name and shape: which tensor goes where, what is cut, what is left behind.
//
// BERT counts positions from 0, RoBERTa from pad + 1, so the position table loses or gains its first pad + 1 rows,
// which no unpadded text reads. RoBERTa's classifier (dense, tanh, linear on token 0) is BERT's pooler and classifier.
#include <octet/transplant.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "hf/folder.h"
#include "hf/model.h"
#include "hf/weights.h"

namespace octet {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPositions = "embeddings.position_embeddings.weight";

/// Rows [from, from + count) of a table; those before 0 are zeros.
Tensor rows_of(const Tensor& table, int64_t from, int64_t count) {
  const int64_t width = table.dim(1);
  std::span<const float> values = table.as<float>();
  std::byte* bytes = nullptr;
  Tensor made = Tensor::allocate(DType::f32, {count, width}, &bytes);
  for (int64_t r = std::max<int64_t>(0, -from); r < count; ++r)
    std::memcpy(bytes + 4 * r * width, values.data() + (from + r) * width, static_cast<size_t>(4 * width));
  return made;
}

/// The name in the other family of a parameter without its family's prefix; heads come whole.
std::string moved_name(const std::string& name, const std::string& from_family, const std::string& into,
                       hf::Head head) {
  if (head != hf::Head::sequence_classification || (from_family != "bert" && into != "bert")) return name;
  struct Pair {
    const char *bert, *roberta;
  };
  for (const Pair& pair : {Pair{"pooler.dense.", "classifier.dense."}, Pair{"classifier.", "classifier.out_proj."}}) {
    const std::string from = into == "bert" ? pair.roberta : pair.bert, to = into == "bert" ? pair.bert : pair.roberta;
    if (name.starts_with(from)) return to + name.substr(from.size());
  }
  return name;
}

/// The name without its family's prefix, and with BERT's names of a layer's parts.
std::string common_name(std::string name) {
  for (const char* prefix : {"bert.", "roberta.", "mpnet."})
    if (name.starts_with(prefix)) {
      name.erase(0, std::strlen(prefix));
      break;
    }
  constexpr std::pair<const char*, const char*> kMpnet[] = {{".attention.attn.q.", ".attention.self.query."},
                                                            {".attention.attn.k.", ".attention.self.key."},
                                                            {".attention.attn.v.", ".attention.self.value."},
                                                            {".attention.attn.o.", ".attention.output.dense."},
                                                            {".attention.LayerNorm.", ".attention.output.LayerNorm."}};
  for (const auto& [from, to] : kMpnet)
    if (size_t at = name.find(from); at != std::string::npos) name.replace(at, std::strlen(from), to);
  return name;
}

}  // namespace

TransplantResult transplant(const fs::path& folder, const fs::path& output, const TransplantOptions& options) {
  std::error_code ignored;
  if (fs::equivalent(folder, output, ignored))
    fail(ErrorCode::invalid_argument, {.what = "cannot transplant a model into its own folder"});
  if (options.into != "bert" && options.into != "roberta")
    fail(ErrorCode::unsupported,
         {.what = "cannot transplant into " + options.into, .expected = "expected bert or roberta"});
  hf::LoadedModel source = hf::load_model(folder, {});
  TransplantResult result{.from = source.config.model_type, .into = options.into};
  if (result.from == result.into)
    fail(ErrorCode::invalid_argument,
         {.what = folder.string() + " is a " + result.into + " already", .expected = "expected another family"});

  const hf::Head head = source.config.head.value_or(hf::Head::encoder);
  hf::LoadedModel target = source;
  target.config.model_type = result.into;
  const int64_t pad = source.config.pad_token_id;
  const int64_t shift = result.from == "bert" ? -(pad + 1) : result.into == "bert" ? pad + 1 : 0;
  target.config.max_positions = source.config.max_positions - shift;
  result.max_length = source.max_tokens;

  std::map<std::string, Tensor> parameters;
  for (const auto& [name, tensor] : source.graph.parameters()) {
    const std::string bare = common_name(name);
    TransplantRow row{.from = name, .shape_from = tensor.shape()};
    Tensor moved = tensor;
    if (bare.find("relative_attention_bias") != std::string::npos) {
      result.losses.push_back(name + ": " + result.into + " has no relative positions");
      row.note = "left behind";
      result.rows.push_back(std::move(row));
      continue;
    }
    if (bare == kPositions && shift != 0) {
      moved = rows_of(tensor, shift, target.config.max_positions);
      row.note = shift > 0 ? "rows " + std::to_string(shift) + ".." + std::to_string(tensor.dim(0) - 1)
                           : std::to_string(-shift) + " unused rows put before";
    }
    const std::string to = hf::written_name(target, moved_name(bare, result.from, result.into, head));
    row.to = to;
    row.shape_to = moved.shape();
    parameters[to] = moved;
    result.rows.push_back(std::move(row));
  }
  for (const std::string& name : source.unused)
    result.rows.push_back({.from = name, .note = "left behind: the source does not use it either"});
  if (result.from == "mpnet") {  // types that add nothing
    const Shape shape{2, source.config.hidden_size};
    TransplantRow row{.to = hf::written_name(target, "embeddings.token_type_embeddings.weight"), .shape_to = shape};
    row.note = "zeros: the source has no types";
    parameters[row.to] = Tensor::from(std::vector<float>(static_cast<size_t>(count(shape))), shape);
    result.rows.push_back(std::move(row));
  } else if (source.config.type_vocab_size == 0)
    result.losses.push_back(result.into + " has token types, " + result.from + " has none");
  if (!result.losses.empty() && !options.lossy) {
    std::string text;
    for (const std::string& loss : result.losses) text += (text.empty() ? "" : "\n  ") + loss;
    fail(ErrorCode::invalid_argument, {.what = "cannot transplant " + folder.string() + " exactly",
                                       .expected = text,
                                       .hint = "--lossy does it nevertheless; fine-tune afterwards"});
  }
  hf::write_folder(folder, output, target, parameters);
  return result;
}

}  // namespace octet
