// Speed of every CPU row on model shapes: GMAC/s, GB/s of weights, share of the measured peak, INT8 against FP32.
//
// usage: bench_kernels [gemm|attention|rows] [--threads N] [--target NAME] [--ms N] [--row SUBSTRING] [--cold]
// --cold: every call of a GEMM finds other weights, 256 MB in turn, as in a model that no cache holds.
// Each figure is the best of repeated runs within the time given (default 60 ms): the machine may be shared. The peak
// is that of register-only loops of the same instruction, one thread each, measured first; 0 % where no such loop is
// known.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/threads.h"
#include "kernels/kernels.h"

namespace octet::kernels {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Options {
  std::string what = "all", row;
  Target target = detect_cpu();
  int threads = 1;
  double seconds = 0.06;
  bool cold = false;
};

// Best time of one call.
template <typename Fn>
double best_time(const Options& options, Fn fn) {
  fn();
  double best = 1e9, begin = now();
  do {
    double start = now();
    fn();
    best = std::min(best, now() - start);
  } while (now() - begin < options.seconds);
  return best;
}

// Multiply-adds a second of 12 independent accumulators held in registers: what the instruction can do at best.
#define OCTET_PEAK(name, features, vector, macs, body)        \
  __attribute__((target(features), noinline)) double name() { \
    vector a[12] = {}, x = {};                                \
    constexpr int64_t kRounds = 500'000;                      \
    __asm__ volatile("" : "+v"(x));                           \
    double start = now();                                     \
    for (int64_t i = 0; i < kRounds; ++i) {                   \
      _Pragma("GCC unroll 12") for (int j = 0; j < 12; ++j) { \
        __asm__ volatile("" : "+v"(x));                       \
        body;                                                 \
        __asm__ volatile("" : "+v"(a[j]));                    \
      }                                                       \
    }                                                         \
    return kRounds * 12 * macs / (now() - start);             \
  }
OCTET_PEAK(peak_vnni512, "avx512f,avx512vnni", __m512i, 64.0, a[j] = _mm512_dpbusd_epi32(a[j], x, x))
OCTET_PEAK(peak_madd512, "avx512f,avx512bw", __m512i, 32.0, a[j] = _mm512_add_epi32(a[j], _mm512_madd_epi16(x, x)))
OCTET_PEAK(peak_fma512, "avx512f", __m512, 16.0, a[j] = _mm512_fmadd_ps(x, x, a[j]))
OCTET_PEAK(peak_madd256, "avx2", __m256i, 16.0, a[j] = _mm256_add_epi32(a[j], _mm256_madd_epi16(x, x)))
// Two steps of vpmaddubsw added in 16 bits, then widened: 64 products in five instructions.
OCTET_PEAK(peak_ubs256, "avx2", __m256i, 64.0,
           a[j] = _mm256_add_epi32(
               a[j], _mm256_madd_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(x, x), _mm256_maddubs_epi16(x, a[j])), x)))
OCTET_PEAK(peak_fma256, "avx2,fma", __m256, 8.0, a[j] = _mm256_fmadd_ps(x, x, a[j]))
#undef OCTET_PEAK

// One thread's peak for a row, by its name; 0 where it is not known.
double peak_of(std::string_view row, const Target& here) {
  static std::map<std::string, double> known;
  auto best = [&](const char* name, bool has, double (*measure)()) {
    if (!has) return 0.0;
    double& peak = known[name];
    if (peak == 0.0)
      for (int i = 0; i < 20; ++i) peak = std::max(peak, measure());
    return peak;
  };
  auto contains = [&](const char* text) { return row.find(text) != std::string_view::npos; };
  if (contains("avx512vnni")) return best("vnni512", here.avx512_vnni, peak_vnni512);
  if (contains("s8_avx512")) return best("madd512", here.avx512, peak_madd512);
  if (contains("gemm_s8_avx2")) return best("ubs256", here.avx2, peak_ubs256);
  if (contains("s8_avx2")) return best("madd256", here.avx2, peak_madd256);
  if (contains("f32_avx512")) return best("fma512", here.avx512, peak_fma512);
  if (contains("f32_avx2")) return best("fma256", here.avx2, peak_fma256);
  return 0.0;
}

std::vector<unsigned char> random_bytes(int64_t bytes) {
  std::vector<unsigned char> data(static_cast<size_t>(bytes) + 64);
  for (auto& b : data) b = static_cast<unsigned char>(std::rand() >> 7);
  return data;
}
// Bell-shaped as trained weights are, the largest of hundreds at 127.
std::vector<unsigned char> random_weights(int64_t n) {
  std::vector<unsigned char> data(static_cast<size_t>(n) + 64);
  for (auto& w : data) {
    int sum = -510;
    for (int i = 0; i < 4; ++i) sum += std::rand() >> 7 & 255;
    w = static_cast<unsigned char>(std::clamp(sum * 10 / 37, -127, 127));
  }
  return data;
}
std::vector<float> random_floats(int64_t n) {
  std::vector<float> data(static_cast<size_t>(n));
  for (auto& x : data) x = static_cast<float>(std::rand()) / static_cast<float>(RAND_MAX) - 0.5f;
  return data;
}
template <typename T>
unsigned char* aligned(std::vector<T>& data) {
  return reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(data.data()) + 63) / 64 * 64);
}

bool skip(const Row& row, const Options& options) {
  if (row.device != DeviceKind::cpu || row.name.ends_with("_ref")) return true;
  return row.name.find(options.row) == std::string_view::npos;
}

double time_gemm(const GemmKernel& row, const GemmDesc& d, int64_t m, ThreadPool& pool, const Options& options) {
  bool ints = d.w == DType::s8;
  std::vector<float> xf = random_floats(ints ? 1 : m * d.k), wf = random_floats(ints ? 1 : d.n * d.k);
  std::vector<unsigned char> xi = random_bytes(ints ? m * d.k : 1), wi = random_weights(ints ? d.n * d.k : 1),
                             y = random_bytes(m * d.n * 4);
  int64_t packed_bytes = (row.packed_bytes(d) + 63) / 64 * 64,
          copies = options.cold ? (int64_t{256} << 20) / packed_bytes + 1 : 1;
  std::vector<unsigned char> packed(static_cast<size_t>(packed_bytes * copies) + 64);
  std::vector<float> scale(d.n, 1e-4f), bias(d.n, 0.1f), inv_scale(d.n, 20.0f);
  row.pack(d, ints ? static_cast<void*>(wi.data()) : wf.data(), aligned(packed));
  for (int64_t copy = 1; copy < copies; ++copy)
    std::memcpy(aligned(packed) + copy * packed_bytes, aligned(packed), packed_bytes);
  GemmArgs a;
  a.m = m;
  a.x = ints ? static_cast<void*>(xi.data()) : xf.data();
  a.ldx = d.k;
  a.packed = aligned(packed);
  a.scale = scale.data();
  a.bias = bias.data();
  a.requant.inv_scale = inv_scale.data();
  a.y = aligned(y);
  a.ldy = d.n;
  int64_t turn = 0;
  return best_time(options, [&] {
    a.packed = aligned(packed) + turn++ % copies * packed_bytes;
    row.run(d, a, {.pool = &pool});
  });
}

void bench_gemm(const Options& options) {
  ThreadPool pool(options.threads);
  struct Shape {
    const char* name;
    int64_t n, k;
    Activation activation;
  };
  const Shape shapes[] = {
      {"MiniLM q/k/v/o", 384, 384, Activation::none},         {"MiniLM ffn1+gelu", 1536, 384, Activation::gelu_erf},
      {"MiniLM ffn2", 384, 1536, Activation::none},           {"RoBERTa q/k/v/o", 768, 768, Activation::none},
      {"RoBERTa ffn1+gelu", 3072, 768, Activation::gelu_erf}, {"RoBERTa ffn2", 768, 3072, Activation::none}};
  std::printf("%-26s %-18s %5s %9s %8s %7s %6s %6s\n", "row", "shape", "m", "us", "GMAC/s", "w GB/s", "peak", "/f32");
  for (const Shape& shape : shapes)
    for (int64_t m : {1, 16, 128, 1024}) {
      double best_f32 = 0.0;
      for (bool ints : {false, true})
        for (const GemmKernel& row : gemm_kernels()) {
          GemmDesc d{.n = shape.n, .k = shape.k, .activation = shape.activation};
          if (ints) d.x = d.w = d.y = DType::s8;
          if (skip(row, options) || row.refuse(d, options.target) != nullptr) continue;
          double seconds = time_gemm(row, d, m, pool, options), work = static_cast<double>(m * d.n * d.k);
          double peak = peak_of(row.name, options.target);
          if (!ints) best_f32 = best_f32 == 0.0 ? seconds : std::min(best_f32, seconds);
          std::printf("%-26s %-18s %5ld %9.1f %8.1f %7.1f %5.0f%% %6.2f\n", std::string(row.name).c_str(), shape.name,
                      static_cast<long>(m), seconds * 1e6, work / seconds * 1e-9,
                      static_cast<double>(d.n * d.k * (ints ? 1 : 4)) / seconds * 1e-9,
                      peak > 0.0 ? 100.0 * work / seconds / (peak * options.threads) : 0.0, best_f32 / seconds);
          std::fflush(stdout);
        }
    }
}

void bench_attention(const Options& options) {
  ThreadPool pool(options.threads);
  struct Shape {
    int64_t rows, length, heads, head_dim;
  };
  const Shape shapes[] = {{1, 16, 12, 32},  {8, 128, 12, 32}, {1, 16, 12, 64},
                          {1, 128, 12, 64}, {8, 128, 12, 64}, {2, 512, 12, 64}};
  std::printf("%-32s %4s %5s %3s %4s %9s %8s %6s\n", "row", "rows", "len", "h", "d", "us", "GMAC/s", "/f32");
  for (const Shape& s : shapes) {
    double best_f32 = 0.0;
    for (int kind : {0, 1, 2})  // f32, s8, dynamic
      for (const AttentionKernel& row : attention_kernels()) {
        AttentionDesc d{.heads = s.heads, .head_dim = s.head_dim};
        if (kind > 0) d.p = DType::u8;
        if (kind == 1) d.qkv = d.y = DType::s8;
        d.dynamic = kind == 2;
        if (skip(row, options) || row.refuse(d, options.target) != nullptr) continue;
        int64_t width = s.heads * s.head_dim, tokens = s.rows * s.length;
        std::vector<float> floats = random_floats(tokens * width * 3);
        std::vector<unsigned char> bytes = random_bytes(tokens * width * 3), y = random_bytes(tokens * width * 4);
        std::vector<unsigned char> scratch =
            random_bytes(row.scratch_bytes(d, s.length, options.threads) +
                         (row.scratch_bytes_a_token != nullptr ? tokens * row.scratch_bytes_a_token(d) : 0));
        std::vector<int32_t> offsets;
        for (int64_t r = 0; r <= s.rows; ++r) offsets.push_back(static_cast<int32_t>(r * s.length));
        std::vector<float> score_scale(s.heads, kind == 1 ? 1e-4f : 0.2f), context_scale(width, 1e-3f),
            inv_scale(width, 20.0f);
        AttentionArgs a;
        a.rows = s.rows;
        a.offsets = offsets.data();
        a.tokens = tokens;
        a.max_length = s.length;
        int64_t size = kind == 1 ? 1 : 4;
        const unsigned char* x = kind == 1 ? bytes.data() : reinterpret_cast<unsigned char*>(floats.data());
        a.q = x;
        a.k = x + width * size;
        a.v = x + 2 * width * size;
        a.ldq = a.ldk = a.ldv = 3 * width;
        a.score_scale = score_scale.data();
        a.context_scale = context_scale.data();
        a.requant.inv_scale = inv_scale.data();
        a.y = aligned(y);
        a.ldy = width;
        a.scratch = aligned(scratch);
        double seconds = best_time(options, [&] { row.run(d, a, {.pool = &pool}); });
        if (kind == 0) best_f32 = best_f32 == 0.0 ? seconds : std::min(best_f32, seconds);
        double work = 2.0 * static_cast<double>(s.rows * s.heads * s.length * s.length * s.head_dim);
        std::printf("%-32s %4ld %5ld %3ld %4ld %9.1f %8.1f %6.2f%s\n", std::string(row.name).c_str(),
                    static_cast<long>(s.rows), static_cast<long>(s.length), static_cast<long>(s.heads),
                    static_cast<long>(s.head_dim), seconds * 1e6, work / seconds * 1e-9, best_f32 / seconds,
                    kind == 2 ? " dynamic" : "");
        std::fflush(stdout);
      }
  }
}

void bench_rows(const Options& options) {
  ThreadPool pool(options.threads);
  std::printf("%-32s %5s %5s %9s %8s\n", "row", "m", "n", "us", "ns/token");
  for (int64_t n : {384, 768})
    for (int64_t m : {16, 1024}) {
      std::vector<float> x = random_floats(m * n), gamma = random_floats(n), scale(n, 0.01f), inv_scale(n, 30.0f),
                         y(m * n), row_scale(m);
      std::vector<unsigned char> bytes = random_bytes(m * n);
      auto print = [&](std::string_view row, const char* what, double seconds) {
        std::printf("%-32s %5ld %5ld %9.1f %8.1f\n", (std::string(row) + " " + what).c_str(), static_cast<long>(m),
                    static_cast<long>(n), seconds * 1e6, seconds * 1e9 / static_cast<double>(m));
      };
      for (const NormKernel& row : norm_kernels())
        for (DType type : {DType::f32, DType::s8}) {
          NormDesc d{.n = n, .a = type, .residual = true, .b = type};
          d.y[0].dtype = type;
          if (skip(row, options) || row.refuse(d, options.target) != nullptr) continue;
          NormArgs a;
          a.m = m;
          a.a = a.b = type == DType::s8 ? static_cast<void*>(bytes.data()) : x.data();
          a.a_scale = a.b_scale = scale.data();
          a.gamma = a.beta = gamma.data();
          a.out[0].y = y.data();
          a.out[0].requant.inv_scale = inv_scale.data();
          print(row.name, type == DType::s8 ? "s8+s8->s8" : "f32+f32->f32",
                best_time(options, [&] { row.run(d, a, {.pool = &pool}); }));
        }
      for (const ElementwiseKernel& row : elementwise_kernels())
        for (auto [kind, what] : {std::pair{ElementwiseKind::quantize_token, "quantize_token"},
                                  {ElementwiseKind::activation, "gelu"},
                                  {ElementwiseKind::fake_quant, "fake_quant"}}) {
          ElementwiseDesc d{.kind = kind, .n = n, .activation = Activation::gelu_erf};
          if (kind == ElementwiseKind::quantize_token) d.y = DType::s8;
          if (skip(row, options) || row.refuse(d, options.target) != nullptr) continue;
          ElementwiseArgs a;
          a.m = m;
          a.x = x.data();
          a.scale = scale.data();
          a.requant.inv_scale = inv_scale.data();
          a.row_scale = row_scale.data();
          a.y = y.data();
          print(row.name, what, best_time(options, [&] { row.run(d, a, {.pool = &pool}); }));
        }
    }
}

int run(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (arg == "--threads") options.threads = std::max(1, std::atoi(value)), ++i;
    else if (arg == "--target") options.target = parse_target(value), ++i;
    else if (arg == "--ms") options.seconds = std::atof(value) / 1000, ++i;
    else if (arg == "--cold") options.cold = true;
    else if (arg == "--row") options.row = value, ++i;
    else options.what = arg;
  }
  std::printf("target %s, threads %d\n", name(options.target).c_str(), options.threads);
  bool all = options.what == "all";
  if (all || options.what == "gemm") bench_gemm(options);
  if (all || options.what == "attention") bench_attention(options);
  if (all || options.what == "rows") bench_rows(options);
  return 0;
}

}  // namespace
}  // namespace octet::kernels

int main(int argc, char** argv) { return octet::kernels::run(argc, argv); }
