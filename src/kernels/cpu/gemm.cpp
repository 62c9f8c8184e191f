// GEMM on register tiles: y[m,n] = act(x[m,k] . w[n,k]^T * scale[n] (* row_scale[m]) + bias[n]), requantized when y is
// 8-bit.
//
// Packed weights: panels of `columns` rows of w, each [step][columns][4 s8 | 2 s8 | 1 f32], zeros where n or k end;
// a panel of 8-bit weights starts with [columns] s32: -128 * sum_k w where s8 x is stored as u8 + 128, else 0, and on
// AVX2 ends in what weights shed (ExcessHeader). k is not blocked: a tile keeps its accumulators in registers over all
// of k, so a row's result depends on nothing but its own values. Work is split into blocks of tiles x groups of panels;
// a block copies its rows of x once (cpu/isa.h, slabs).
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/cpu/split.h"

namespace octet::kernels::cpu {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t steps_of(const GemmTile& tile, const GemmDesc& d) {
  return divide_up(divide_up(d.k, tile.group), tile.step_multiple) * tile.step_multiple;
}
int64_t excess_offset(const GemmTile& tile, const GemmDesc& d) {
  return (steps_of(tile, d) * tile.weight_bytes + (d.w == DType::s8 ? 4 : 0)) * tile.columns;
}
int64_t excess_bytes(int64_t steps) {
  return static_cast<int64_t>(sizeof(ExcessHeader)) + divide_up(most_excess(steps) * 8, 64) * 64;
}
int64_t panel_bytes(const GemmTile& tile, const GemmDesc& d) {
  return excess_offset(tile, d) + (tile.correct != nullptr ? excess_bytes(steps_of(tile, d)) : 0);
}

template <const GemmTile& tile>
int64_t packed_bytes(const GemmDesc& d) noexcept {
  return divide_up(d.n, tile.columns) * panel_bytes(tile, d);
}

// Makes |weights| of one sign among values[index[0 .. n)] add up to kMostInSum at most; what they lose goes to `shed`.
template <typename Shed>
void shed_excess(int8_t* values, const int64_t* index, int n, int sign, Shed shed) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += std::max(0, sign * values[index[i]]);
  while (sum > kMostInSum) {
    int64_t most = index[0];
    for (int i = 1; i < n; ++i)
      if (sign * values[index[i]] > sign * values[most]) most = index[i];
    int excess = std::min(sum - kMostInSum, sign * values[most]);
    values[most] = static_cast<int8_t>(values[most] - sign * excess);
    sum -= excess;
    shed(most, sign * excess);
  }
}

// Whether among eight values any quad's (or pair's) sum of one sign is above kMostInSum; the masks keep sums apart in
// 16 bits.
bool exceeds(const int8_t* eight, bool quads) {
  uint64_t w, low = 0x00ff00ff00ff00ff;
  std::memcpy(&w, eight, 8);
  uint64_t ones = w >> 7 & 0x0101010101010101, negative = ones * 255;
  uint64_t up = w & ~negative, down = (~w & negative) + ones;
  up = (up & low) + (up >> 8 & low);
  down = (down & low) + (down >> 8 & low);
  if (quads) up = (up + (up >> 32)) & 0xffffffff, down = (down + (down >> 32)) & 0xffffffff;
  constexpr uint64_t kTest = (0x7fff - kMostInSum) * 0x0001000100010001;
  return (((up + kTest) | (down + kTest)) & 0x8000800080008000) != 0;
}

// One column so that quads (or pairs) fit. False where `room` places for what it sheds are too few.
bool shed_column(int8_t* values, int64_t padded, bool quads, Excess* out, int64_t room, int64_t* used, int32_t* total) {
  int64_t count = 0;
  *total = 0;
  auto shed = [&](int64_t k, int weight) {
    *total += weight;
    if (count / 2 < room) {
      if (count % 2 == 0) out[count / 2] = {{static_cast<uint16_t>(k), static_cast<uint16_t>(k)}, {0, 0}};
      out[count / 2].k[count % 2] = static_cast<uint16_t>(k);
      out[count / 2].weight[count % 2] = static_cast<int16_t>(weight);
    }
    ++count;
  };
  for (int64_t k = 0; k < padded; k += 8) {
    if (!exceeds(values + k, quads)) continue;
    for (int64_t at = k; at < k + 8; at += quads ? 8 : 4)
      for (int64_t half = at; half < at + 4; half += 2) {
        const int64_t index[4] = {half, half + 1, half + 4, half + 5};
        for (int sign : {1, -1}) shed_excess(values, index, quads ? 4 : 2, sign, shed);
      }
    if (count > 2 * room) return false;
  }
  *used = (count + 1) / 2;
  return true;
}

// The panel's weights with what they shed behind them; `w`: [columns][k].
void pack_excess(const GemmTile& tile, const GemmDesc& d, const int8_t* w, int64_t columns, unsigned char* panel) {
  int64_t steps = steps_of(tile, d), padded = steps * 4;
  auto* header = reinterpret_cast<ExcessHeader*>(panel + excess_offset(tile, d));
  auto* entries = reinterpret_cast<Excess*>(header + 1);
  std::vector<int8_t> values(static_cast<size_t>(padded));
  for (int32_t mode : {ExcessHeader::quads, ExcessHeader::pairs, ExcessHeader::none}) {
    int64_t used = 0;
    bool fits = true;
    header->mode = mode;
    for (int64_t j = 0; j < tile.columns && fits; ++j) {
      header->begin[j] = static_cast<int32_t>(used);
      if (j >= columns) continue;
      const int8_t* row = w + j * d.k;
      std::memcpy(values.data(), row, static_cast<size_t>(d.k));
      int64_t count = 0;
      int32_t shed = 0, whole = 0;
      if (mode != ExcessHeader::none)
        fits = shed_column(values.data(), padded, mode == ExcessHeader::quads, entries + used,
                           most_excess(steps) - used, &count, &shed);
      used += count;
      for (int64_t k = 0; k < d.k; ++k) whole += row[k];
      // `correct` takes u8 x less 128 as well.
      int32_t compensation = d.x == DType::s8 ? -128 * (whole - shed) : 128 * shed;
      std::memcpy(panel + j * 4, &compensation, 4);
      unsigned char* to = panel + tile.columns * 4 + j * 4;
      for (int64_t s = 0; s < steps; ++s) std::memcpy(to + s * tile.columns * 4, values.data() + s * 4, 4);
    }
    header->begin[16] = static_cast<int32_t>(used);
    if (fits) return;
  }
}

void pack_s8_panel(const GemmTile& tile, const GemmDesc& d, const int8_t* w, int64_t columns, unsigned char* panel) {
  std::memset(panel, 0, static_cast<size_t>(panel_bytes(tile, d)));
  if (tile.correct != nullptr) return pack_excess(tile, d, w, columns, panel);
  unsigned char* to = panel + tile.columns * 4;
  for (int64_t j = 0; j < columns; ++j) {
    const int8_t* row = w + j * d.k;
    int32_t sum = 0;
    for (int64_t i = 0; i < d.k; ++i) sum += row[i];
    int32_t compensation = tile.offset_x && d.x == DType::s8 ? -128 * sum : 0;
    std::memcpy(panel + j * 4, &compensation, 4);
    if (tile.group == 4) {
      int64_t whole = d.k / 4;
      for (int64_t s = 0; s < whole; ++s) std::memcpy(to + (s * tile.columns + j) * 4, row + s * 4, 4);
      if (whole * 4 < d.k)
        std::memcpy(to + (whole * tile.columns + j) * 4, row + whole * 4, static_cast<size_t>(d.k - whole * 4));
    } else {
      for (int64_t i = 0; i < d.k; ++i) to[(i / 2 * tile.columns + j) * 2 + i % 2] = static_cast<unsigned char>(row[i]);
    }
  }
}

void pack_f32_panel(const GemmTile& tile, const GemmDesc& d, const float* w, int64_t columns, unsigned char* panel) {
  if (columns < tile.columns) std::memset(panel, 0, static_cast<size_t>(panel_bytes(tile, d)));
  float* to = reinterpret_cast<float*>(panel);
  constexpr int64_t kBlock = 16;  // so that a line of `to` is filled while it is in the cache
  for (int64_t begin = 0; begin < d.k; begin += kBlock)
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = begin; i < std::min(d.k, begin + kBlock); ++i) to[i * tile.columns + j] = w[j * d.k + i];
}

template <const GemmTile& tile>
void pack(const GemmDesc& d, const void* w, unsigned char* packed) noexcept {
  int64_t bytes = panel_bytes(tile, d);
  for (int64_t j = 0; j < d.n; j += tile.columns, packed += bytes) {
    int64_t columns = std::min<int64_t>(tile.columns, d.n - j);
    if (d.w == DType::s8) pack_s8_panel(tile, d, static_cast<const int8_t*>(w) + j * d.k, columns, packed);
    else pack_f32_panel(tile, d, static_cast<const float*>(w) + j * d.k, columns, packed);
  }
}

// How the work is cut: tiles into blocks, panels into groups. One block after the other goes to whichever thread is
// free; blocks b * threads .. are as many pieces, equally large, of the threads' equal parts of the tiles, so that all
// threads end together: a tile more is 3 % of a thread's 37 at 1024 rows.
struct Split {
  int64_t tiles, panels, blocks, groups, threads;
  int64_t first_tile(int64_t b) const {
    if (blocks % threads != 0) return tiles * b / blocks;
    int64_t part = b % threads, begin = tiles * part / threads, end = tiles * (part + 1) / threads;
    return begin + (end - begin) * (b / threads) / (blocks / threads);
  }
  int64_t end_tile(int64_t b) const {
    if (blocks % threads != 0) return tiles * (b + 1) / blocks;
    if (b + threads < blocks) return first_tile(b + threads);
    return tiles * (b % threads + 1) / threads;
  }
  int64_t first_panel(int64_t g) const { return panels * g / groups; }
  int64_t most_tiles() const {
    int64_t most = 0;
    for (int64_t b = 0; b < blocks; ++b) most = std::max(most, end_tile(b) - first_tile(b));
    return most;
  }
};

Split split(const GemmTile& tile, const GemmDesc& d, int64_t m, int threads) {
  constexpr int64_t kBlockBytes = 192 * 1024;  // of x, to stay in the second-level cache beside a panel
  int64_t row_bytes = steps_of(tile, d) * 4;
  Split s{divide_up(m, tile.rows), divide_up(d.n, tile.columns), 1, 1, threads};
  if (s.tiles >= 4 * threads) s.tiles = divide_up(s.tiles, threads) * threads;
  int64_t block = std::clamp<int64_t>(kBlockBytes / (tile.rows * row_bytes), 1, 16);
  s.blocks = divide_up(s.tiles, block);
  if (threads == 1) return s;
  // Each block reads all weights of its group and each group copies all rows of its block: several tiles a block,
  // unless so many threads share few rows that the copies would cost more.
  const int64_t wanted = 6 * threads, least = std::clamp(56 / tile.rows, 1, 4);
  int64_t blocks = std::max<int64_t>(s.tiles / least, 1);
  while (blocks < s.tiles && blocks * blocks * d.n < wanted * m) ++blocks;
  s.blocks = std::max(s.blocks, std::min(blocks, wanted));
  if (s.blocks >= threads) s.blocks = std::min(s.tiles, divide_up(s.blocks, threads) * threads);
  if (s.blocks < wanted) s.groups = std::min(s.panels, divide_up(wanted, s.blocks));
  return s;
}

// Blocks of whole rows whose results stay in the second-level cache until `finish` has read them. False where that
// would leave too few blocks for the threads.
bool split_by_rows(const GemmTile& tile, int64_t row_bytes, int threads, Split* s) {
  constexpr int64_t kResultBytes = 512 * 1024;
  if (threads > 1 && s->tiles < 2 * threads) return false;
  int64_t block = std::max<int64_t>(kResultBytes / (tile.rows * row_bytes), 1);
  int64_t blocks = std::max(s->blocks, divide_up(s->tiles, block));
  if (threads > 1) blocks = std::max<int64_t>(blocks, 2 * threads);
  s->blocks = std::min(s->tiles, divide_up(blocks, threads) * threads);
  s->groups = 1;
  return true;
}

template <const GemmTile& tile>
void run(const GemmDesc& d, const GemmArgs& a, const Launch& launch) noexcept {
  Split s = split(tile, d, a.m, threads_of(launch));
  int64_t chunks = divide_up(steps_of(tile, d) * 4, kChunk), tile_bytes = chunks * tile.rows * kStride;
  int64_t bytes = panel_bytes(tile, d), x_bytes = size_of(d.x), y_bytes = size_of(d.y);
  auto first_row = [&](int64_t t) { return a.m * t / s.tiles; };
  bool by_rows = a.finish != nullptr && split_by_rows(tile, d.n * y_bytes, threads_of(launch), &s);
  int64_t most = s.most_tiles(), slab_bytes = most * tile_bytes + 64,
          result_bytes = by_rows ? most * tile.rows * d.n * y_bytes + 64 : 0;
  // Rows of a block transposed, and what a panel's shed weights make of them.
  int64_t stride = divide_up(most * tile.rows, 16) * 16;
  int64_t transposed_bytes = tile.correct != nullptr ? stride * d.k + 64 : 0,
          correction_bytes = tile.correct != nullptr ? stride * tile.columns * 4 : 0;
  transposed_bytes = divide_up(transposed_bytes, 64) * 64;
  slab_bytes = divide_up(slab_bytes, 64) * 64;
  parallel(launch, s.blocks * s.groups, 1, [&](int64_t begin, int64_t end) {
    unsigned char* slabs = thread_memory(slab_bytes + transposed_bytes + correction_bytes + result_bytes, Use::gemm);
    auto* transposed = reinterpret_cast<signed char*>(slabs + slab_bytes);
    auto* correction = reinterpret_cast<int32_t*>(slabs + slab_bytes + transposed_bytes);
    unsigned char* results = slabs + slab_bytes + transposed_bytes + correction_bytes;
    GemmArgs here = a;
    for (int64_t item = begin; item < end; ++item) {
      int64_t block = item % s.blocks, group = item / s.blocks;
      int64_t first = s.first_tile(block), last = s.end_tile(block), row = first_row(first);
      int64_t panel = s.first_panel(group), panel_end = s.first_panel(group + 1);
      if (by_rows) here.y = results - row * a.ldy * y_bytes;
      for (int64_t t = first; t < last; ++t)
        tile.copy(d, static_cast<const unsigned char*>(a.x) + first_row(t) * a.ldx * x_bytes, a.ldx,
                  static_cast<int>(first_row(t + 1) - first_row(t)), slabs + (t - first) * tile_bytes);
      int rows = static_cast<int>(first_row(last) - row);
      if (tile.correct != nullptr)
        tile.transpose(d, static_cast<const unsigned char*>(a.x) + row * a.ldx * x_bytes, a.ldx, rows, transposed);
      for (; panel < panel_end; ++panel) {
        const unsigned char* packed = a.packed + panel * bytes;
        bool corrects = tile.correct != nullptr &&
                        tile.correct(*reinterpret_cast<const ExcessHeader*>(packed + excess_offset(tile, d)),
                                     transposed, divide_up(rows, 16) * 16, correction);
        for (int64_t t = first; t < last; ++t) {
          int64_t seen = (t - first) * steps_of(tile, d) * 64;
          bool more = panel + 1 < panel_end && seen < bytes;
          tile.run(d, here, slabs + (t - first) * tile_bytes, packed, first_row(t),
                   static_cast<int>(first_row(t + 1) - first_row(t)), panel * tile.columns,
                   more ? packed + bytes + seen : nullptr,
                   corrects ? correction + (first_row(t) - row) * tile.columns : nullptr);
        }
      }
      if (by_rows) a.finish(a.finish_context, row, rows, results);
    }
  });
  if (a.finish == nullptr || by_rows) return;
  parallel(launch, a.m, token_grain(launch, a.m, d.n), [&](int64_t begin, int64_t end) {
    a.finish(a.finish_context, begin, end - begin, static_cast<const unsigned char*>(a.y) + begin * a.ldy * y_bytes);
  });
}

template <Isa isa>
const char* refuse_int(const GemmDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (!is_8bit(d.x) || d.w != DType::s8) return "needs an 8-bit x and s8 weights";
  if (d.k > 65536) return "k above 65536 could overflow 32 bits";
  return nullptr;
}
template <Isa isa>
const char* refuse_f32(const GemmDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(isa, target)) return reason;
  if (d.x != DType::f32 || d.w != DType::f32) return "needs f32 x and weights";
  if (d.row_scale || d.column_offset) return "row_scale and column_offset belong to 8-bit x";
  if (d.exact) return "sums in f32";
  return nullptr;
}

// ---------------------------------------------------------------- sums in f64
// Panels of 16 columns, [k][16], padded with zeros. For the simulated graph: its sums must not add rounding that
// quantizers turn into steps.
constexpr int64_t kExactColumns = 16;

const char* refuse_exact(const GemmDesc& d, const Target& target) noexcept {
  if (const char* reason = lacks(Isa::avx2, target)) return reason;
  if (!d.exact) return "sums in f64, which nobody asked for";
  if (d.x != DType::f32 || d.w != DType::f32 || d.y != DType::f32) return "needs f32 x, weights and y";
  if (d.activation != Activation::none) return "has no activation";
  return nullptr;
}
int64_t packed_bytes_exact(const GemmDesc& d) noexcept {
  return divide_up(d.n, kExactColumns) * kExactColumns * d.k * 4;
}
void pack_exact(const GemmDesc& d, const void* w, unsigned char* packed) noexcept {
  auto* out = reinterpret_cast<float*>(packed);
  for (int64_t j = 0; j < d.n; j += kExactColumns)
    for (int64_t c = 0; c < d.k; ++c)
      for (int64_t l = 0; l < kExactColumns; ++l)
        *out++ = j + l < d.n ? static_cast<const float*>(w)[(j + l) * d.k + c] : 0.0f;
}
void run_exact(const GemmDesc& d, const GemmArgs& a, const Launch& launch) noexcept {
  int64_t pairs = divide_up(a.m, 2);
  parallel(launch, pairs, 1, [&](int64_t begin, int64_t end) {
    double sums[2 * kExactColumns];
    for (int64_t j = 0; j < d.n; j += kExactColumns)
      for (int64_t pair = begin; pair < end; ++pair) {
        int64_t i = 2 * pair;
        const float* x = static_cast<const float*>(a.x) + i * a.ldx;
        int rows = i + 1 < a.m ? 2 : 1;
        avx2::dot_f64(x, rows == 2 ? x + a.ldx : x, reinterpret_cast<const float*>(a.packed) + j * d.k, d.k, sums);
        for (int r = 0; r < rows; ++r)
          for (int64_t l = 0; l < std::min(kExactColumns, d.n - j); ++l)
            static_cast<float*>(a.y)[(i + r) * a.ldy + j + l] =
                static_cast<float>(sums[r * kExactColumns + l] + (d.bias ? a.bias[j + l] : 0.0f));
      }
  });
}

template <Isa isa, const GemmTile& tile>
constexpr GemmKernel int_row(std::string_view name) {
  return {{name}, refuse_int<isa>, packed_bytes<tile>, pack<tile>, run<tile>, true};
}
template <Isa isa, const GemmTile& tile>
constexpr GemmKernel f32_row(std::string_view name) {
  return {{name}, refuse_f32<isa>, packed_bytes<tile>, pack<tile>, run<tile>, true};
}

const GemmKernel kRows[] = {
    int_row<Isa::amx, amx::kGemmS8>("gemm_s8_amx_32x32"),
    int_row<Isa::avx512vnni, avx512vnni::kGemmS8>("gemm_s8_avx512vnni_14x32"),
    int_row<Isa::avxvnni, avxvnni::kGemmS8>("gemm_s8_avxvnni_6x16"),
    int_row<Isa::avx512, avx512::kGemmS8>("gemm_s8_avx512_12x32"),
    int_row<Isa::avx2, avx2::kGemmS8>("gemm_s8_avx2_6x16"),
    f32_row<Isa::avx512, avx512::kGemmF32>("gemm_f32_avx512_14x32"),
    f32_row<Isa::avx2, avx2::kGemmF32>("gemm_f32_avx2_6x16"),
    {{"gemm_f64sum_avx2_2x16"}, refuse_exact, packed_bytes_exact, pack_exact, run_exact},
};

}  // namespace

std::span<const GemmKernel> gemm_rows() noexcept { return kRows; }

}  // namespace octet::kernels::cpu
