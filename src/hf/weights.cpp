// Finding weight files and shards, and checking what a model took from them.
#include "hf/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "hf/pickle.h"

namespace octet::hf {

namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);  // a directory of that name is reported when it is opened
}

std::map<std::string, Tensor> read_one(const fs::path& path) {
  return path.extension() == ".safetensors" ? read_safetensors(path).tensors : read_pytorch(path);
}

std::map<std::string, Tensor> read_shards(const fs::path& index, std::vector<fs::path>& files) {
  std::string where = index.string();
  auto corrupt = [&](const std::string& expected) {
    fail(ErrorCode::corrupt,
         {.what = "cannot read the shards of the checkpoint", .expected = expected, .where = "in " + where});
  };
  nlohmann::json object = read_json(index);
  auto map = json_get<nlohmann::json>(object, "weight_map", where);
  if (!map.is_object()) corrupt("expected weight_map to be an object of tensor: file");
  std::map<std::string, std::vector<std::string>> names_of;
  for (const auto& [name, file] : map.items()) {
    if (!file.is_string()) corrupt("expected a file name for " + name);
    auto text = file.get<std::string>();
    if (text.empty() || fs::path(text) != fs::path(text).filename() || text == "..")
      corrupt("expected a file beside the index for " + name + ", got \"" + text.substr(0, 200) + "\"");
    names_of[text].push_back(name);
  }
  std::map<std::string, Tensor> tensors;
  for (const auto& [file, names] : names_of) {
    files.push_back(index.parent_path() / file);
    std::map<std::string, Tensor> part = read_one(files.back());
    for (const std::string& name : names)
      if (!part.contains(name)) corrupt("expected tensor " + name + " in " + file + ", where it is not");
    for (auto& [name, tensor] : part)
      if (!tensors.emplace(name, tensor).second) corrupt("tensor " + name + " is in two shards, one of them " + file);
  }
  return tensors;
}

/// "a, b, c", cut after many, each on its own line.
std::string lines(const char* title, const std::vector<std::string>& names) {
  constexpr size_t kShown = 40;
  if (names.empty()) return {};
  std::string text = std::string("\n  ") + title + " (" + std::to_string(names.size()) + "):";
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += "\n    " + names[i];
  if (names.size() > kShown) text += "\n    and " + std::to_string(names.size() - kShown) + " more";
  return text;
}

/// A small generator with the same numbers on every machine.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// Twelve uniforms minus six: mean 0, variance 1, and no function of the mathematics library.
  float normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(next() >> 11) * 0x1p-53;
    return static_cast<float>(sum);
  }
};

Tensor draw(const std::string& name, const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(count(shape)));
  if (!name.ends_with("bias")) {
    uint64_t seed = 0xcbf29ce484222325u;  // FNV-1a of the name
    for (char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    Random random{seed};
    for (float& value : values) value = 0.02f * random.normal();
  }
  return Tensor::from(values, shape);
}

bool any_prefix(const std::vector<std::string>& prefixes, const std::string& name) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return name.starts_with(prefix); });
}

bool all_finite(const Tensor& tensor) {
  // An exponent of all ones is an infinity or a NaN; or-ing the tests keeps the loop free of branches.
  bool bad = false;
  const std::byte* data = tensor.data();
  for (int64_t i = 0, n = tensor.elements(); i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, data + 4 * i, 4);
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return !bad;
}

}  // namespace

std::map<std::string, Tensor> read_weights(const fs::path& folder, std::vector<fs::path>& files) {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    fs::path path = folder / name;
    if (!is_file(path)) continue;
    if (path.extension() == ".json") return read_shards(path, files);
    files.push_back(path);
    return read_one(path);
  }
  std::string others;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    for (const char* extension : {".h5", ".msgpack", ".onnx", ".ckpt", ".pt", ".pth", ".gguf"})
      if (entry.path().extension() == extension)
        others += (others.empty() ? "" : ", ") + entry.path().filename().string();
  fail(ErrorCode::not_found,
       {.what = "cannot find weights in " + folder.string(),
        .expected = "expected model.safetensors or pytorch_model.bin, or one of them in shards with its index.json" +
                    (others.empty() ? std::string() : "; got " + others),
        .hint = others.empty() ? "download the whole folder of the model" : "convert the weights to safetensors"});
}

Weights::Weights(std::map<std::string, Tensor> tensors, std::string where) : where_(std::move(where)) {
  // Checkpoints converted from the first TensorFlow models name the parameters of LayerNorm gamma and beta.
  for (auto& [name, tensor] : tensors) {
    std::string modern = name;
    if (name.ends_with("LayerNorm.gamma")) modern.replace(name.size() - 5, 5, "weight");
    if (name.ends_with("LayerNorm.beta")) modern.replace(name.size() - 4, 4, "bias");
    if (!tensors_.emplace(modern, tensor).second) wrong_.push_back(name + ": is there twice, as " + modern + " too");
  }
}

Tensor Weights::take(const std::string& name, const Shape& shape) {
  static const std::byte kNothing[64] = {};
  Tensor placeholder(DType::f32, shape, nullptr, kNothing);
  if (auto again = taken_.find(name); again != taken_.end()) return again->second;
  Tensor result = placeholder;
  auto found = tensors_.find(name);
  if (any_prefix(fresh_, name)) {
    // Heads come last: when the encoder's sizes are already known to be wrong, theirs may be absurd.
    if (missing_.empty() && wrong_.empty()) result = draw(name, shape);
  } else if (found == tensors_.end()) {
    missing_.push_back(name + " " + to_string(shape));
  } else if (found->second.shape() != shape) {
    wrong_.push_back(name + ": expected " + to_string(shape) + ", got " + to_string(found->second.shape()));
  } else if (DType dtype = found->second.dtype();
             dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16 && dtype != DType::f64) {
    wrong_.push_back(name + ": expected f32, f16, bf16 or f64, got " + std::string(octet::name(dtype)));
  } else {
    result = found->second.as_f32();
  }
  taken_.emplace(name, result);
  return result;
}

std::vector<std::string> Weights::finish(bool allow_unexpected, bool check_finite) {
  std::vector<std::string> unused, unexpected;
  for (const auto& [name, tensor] : tensors_) {
    if (taken_.contains(name) && !any_prefix(fresh_, name)) continue;
    unused.push_back(name);
    const bool range = name.ends_with("._amax");  // of pytorch-quantization; octet calibrate --amax reads them
    if (!allow_unexpected && !range && !any_prefix(allowed_, name) && !any_prefix(fresh_, name))
      unexpected.push_back(name + " " + to_string(tensor.shape()));
  }
  std::string found =
      lines("missing", missing_) + lines("of another shape or type", wrong_) + lines("unexpected", unexpected);
  if (!found.empty())
    fail(ErrorCode::corrupt,
         {.what = "the weights do not fit config.json",
          .expected = found.substr(3),
          .where = "in " + where_,
          .hint = "check model_type, architectures and the sizes in config.json against the checkpoint"});
  std::vector<std::string> bad;
  if (check_finite)
    for (const auto& [name, tensor] : taken_)
      if (!all_finite(tensor)) bad.push_back(name);
  if (!bad.empty())
    fail(ErrorCode::corrupt, {.what = "the weights hold values that are not finite",
                              .expected = lines("NaN or infinity in", bad).substr(3),
                              .where = "in " + where_,
                              .hint = "the training diverged or the file is damaged"});
  return unused;
}

}  // namespace octet::hf
