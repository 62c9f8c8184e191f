// Measures the tiles of a plan on a GPU; reads and writes the file that keeps them.
#include "api/tiles.h"

#include <octet/plan.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "kernels/device.h"

namespace octet {

namespace fs = std::filesystem;
namespace device = kernels::device;

fs::path tile_cache() {
  const device::Info& here = device::find_device();
  const char *cache = std::getenv("OCTET_CACHE"), *home = std::getenv("HOME");
  if (!here.present || (cache == nullptr && home == nullptr)) return {};
  fs::path folder = cache != nullptr ? fs::path(cache) : fs::path(home) / ".cache" / "octet";
  std::string name = here.name;
  for (char& c : name)
    if (c == ' ' || c == '/') c = '-';
  return folder / ("tiles-" + name + ".json");
}

namespace {

struct Product {
  const kernels::GemmDesc* desc;
  bool with_norm, of_tokens;
};
// Products that are not of tokens, poolers and classifiers, have kernels without tiles.
std::optional<Product> product(const Program& program, size_t i) {
  const Step& step = program.steps[i];
  const auto* desc = std::get_if<kernels::GemmDesc>(&step.desc);
  if (desc == nullptr) return std::nullopt;
  const bool before_norm = i + 1 < program.steps.size() && desc->y == DType::s8 &&
                           std::holds_alternative<kernels::NormDesc>(program.steps[i + 1].desc);
  const Buffer& x = program.buffers[static_cast<size_t>(step.inputs[0].buffer)];
  return Product{desc, before_norm, x.extent == Extent::tokens};
}

// A cache is no input that somebody relies on: what cannot be read is measured again.
device::Tiles read_cache(const fs::path& path) {
  device::Tiles tiles;
  try {
    if (path.empty() || !fs::exists(path)) return tiles;
    nlohmann::json file = parse_json(read_text(path), path.string());
    for (const auto& [shape, tile] : file.items())
      if (tile.is_string()) tiles[shape] = tile.get<std::string>();
  } catch (const std::exception&) {
    tiles.clear();
  }
  return tiles;
}
void write_cache(const fs::path& path, const device::Tiles& tiles) {
  if (path.empty()) return;
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  FileWriter file(path);
  file.write(nlohmann::json(tiles).dump(1) + "\n");
  file.commit();
}

}  // namespace

void choose_tiles(Program& program, const Target& target, bool measure) {
  const device::Info& here = device::find_device();
  const bool same = here.present && target.device == DeviceKind::cuda && here.target.sm == target.sm;
  if (measure && !same)
    fail(ErrorCode::device, {.what = "cannot measure tiles for " + octet::name(target),
                             .expected = here.present ? "this machine has " + here.name : here.reason,
                             .hint = "compile without measuring: tiles are then measured where the plan runs"});
  if (!same) return;
  const fs::path cache = tile_cache();
  device::Tiles known = read_cache(cache);
  device::remember_tiles(known);
  const size_t before = known.size();
  const int64_t most = program.max_tokens > 0 ? program.max_tokens : 16384;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const std::optional<Product> p = product(program, i);
    if (!p || !p->of_tokens) continue;
    for (int64_t m : device::tile_rows(most))
      for (bool with_norm : {false, true}) {
        if (with_norm && !p->with_norm) continue;
        if (measure) device::measure_tile(*p->desc, m, with_norm);
      }
  }
  if (measure) {
    device::Tiles now = device::known_tiles();
    known.insert(now.begin(), now.end());
    if (known.size() > before) write_cache(cache, known);
  }
  program.tiles_gpu = here.name;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const std::optional<Product> p = product(program, i);
    if (!p || !p->of_tokens) continue;
    for (int64_t m : device::tile_rows(most))
      for (bool with_norm : {false, true})
        if (auto found = known.find(device::tile_key(*p->desc, m, with_norm)); found != known.end())
          program.tiles.insert(*found);
  }
}

std::string tile_of(const Program& program, size_t step, int64_t batch, int64_t length) {
  const std::optional<Product> p = product(program, step);
  if (!p || !p->of_tokens || !device::find_device().present) return "";
  device::Tiles known = device::known_tiles();
  known.insert(program.tiles.begin(), program.tiles.end());
  auto name = [&](bool with_norm) {
    auto found = known.find(device::tile_key(*p->desc, batch * length, with_norm));
    return found == known.end() ? std::string() : found->second;
  };
  const std::string both = p->with_norm ? name(true) : "", alone = name(false);
  if (!both.empty() && both != "apart") return " + " + both;
  return alone.empty() ? "" : " " + alone;
}

}  // namespace octet
