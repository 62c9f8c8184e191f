// Checkpoints as safetensors: tensors with their own types, the rest as JSON in the metadata.
#include "train/checkpoint.h"

#include <ATen/ATen.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace octet::train {

namespace {

namespace fs = std::filesystem;
constexpr const char* kKey = "octet_checkpoint";
constexpr int64_t kFormat = 1;

Tensor exact(const at::Tensor& tensor) {
  at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  DType type = DType::f32;
  switch (host.scalar_type()) {
    case at::kFloat: break;
    case at::kDouble: type = DType::f64; break;
    case at::kByte: type = DType::u8; break;
    case at::kLong: type = DType::s64; break;
    default: OCTET_CHECK(false, "a type of checkpoints");
  }
  std::byte* bytes = nullptr;
  Tensor made = Tensor::allocate(type, Shape(host.sizes().begin(), host.sizes().end()), &bytes);
  if (made.bytes() > 0) std::memcpy(bytes, host.const_data_ptr(), static_cast<size_t>(made.bytes()));
  return made;
}

at::Tensor exact(const Tensor& tensor, const std::string& where) {
  at::ScalarType type = at::kFloat;
  switch (tensor.dtype()) {
    case DType::f32: break;
    case DType::f64: type = at::kDouble; break;
    case DType::u8: type = at::kByte; break;
    case DType::s64: type = at::kLong; break;
    default: fail(ErrorCode::corrupt, {.what = "a checkpoint holds a tensor of another type", .where = "in " + where});
  }
  at::Tensor made = at::empty(tensor.shape(), type);
  if (tensor.bytes() > 0) std::memcpy(made.mutable_data_ptr(), tensor.data(), static_cast<size_t>(tensor.bytes()));
  return made;
}

std::vector<std::pair<std::string, Tensor>> list_of(const std::map<std::string, at::Tensor>& tensors) {
  std::vector<std::pair<std::string, Tensor>> list;
  for (const auto& [name, tensor] : tensors) list.emplace_back(name, exact(tensor));
  return list;
}

fs::path best_path(const fs::path& folder, int64_t step) {
  return folder / ("best-" + std::to_string(step) + ".safetensors");
}

}  // namespace

void save_checkpoint(const fs::path& folder, const Checkpoint& checkpoint) {
  fs::create_directories(folder);
  nlohmann::json header{{"format", kFormat},
                        {"step", checkpoint.step},
                        {"applied", checkpoint.applied},
                        {"settings", checkpoint.settings},
                        {"numbers", checkpoint.numbers}};
  write_safetensors(folder / "state.safetensors", list_of(checkpoint.tensors), {{kKey, header.dump()}});
}

bool load_checkpoint(const fs::path& folder, Checkpoint* checkpoint) {
  const fs::path path = folder / "state.safetensors";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return false;
  const std::string where = path.string();
  Safetensors file = read_safetensors(path);
  auto metadata = file.metadata.find(kKey);
  if (metadata == file.metadata.end())
    fail(ErrorCode::corrupt, {.what = "this is no checkpoint", .where = "in " + where});
  const nlohmann::json header = parse_json(metadata->second, where);
  if (auto format = json_get<int64_t>(header, "format", where); format != kFormat)
    fail(ErrorCode::unsupported, {.what = "cannot read this checkpoint",
                                  .expected = "expected format 1, got " + std::to_string(format),
                                  .where = "in " + where});
  checkpoint->step = json_get<int64_t>(header, "step", where);
  checkpoint->applied = json_get<int64_t>(header, "applied", where);
  try {
    checkpoint->settings = header.at("settings").get<std::map<std::string, std::string>>();
    checkpoint->numbers = header.at("numbers").get<std::map<std::string, double>>();
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::corrupt,
         {.what = "a checkpoint's header is damaged", .expected = error.what(), .where = "in " + where});
  }
  for (const auto& [name, tensor] : file.tensors) checkpoint->tensors[name] = exact(tensor, where);
  return true;
}

void save_best(const fs::path& folder, int64_t step, const std::map<std::string, at::Tensor>& tensors) {
  fs::create_directories(folder);
  write_safetensors(best_path(folder, step), list_of(tensors));
}

std::map<std::string, at::Tensor> load_best(const fs::path& folder, int64_t step) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : read_safetensors(best_path(folder, step)).tensors)
    tensors[name] = exact(tensor, best_path(folder, step).string());
  return tensors;
}

void remove_other_bests(const fs::path& folder, int64_t step) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("best-") && entry.path() != best_path(folder, step)) fs::remove(entry.path(), ignored);
  }
}

}  // namespace octet::train
