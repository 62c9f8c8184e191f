// Laboratory of the attention, LayerNorm, embedding and pooling kernels: random checks against f64 references, then
// graph-replay timings.
//
//   lab_attention check [seed]     every kernel against its reference; ragged lengths, guards around every output, bits
//   of a row alone lab_attention small            a few small cases, for compute-sanitizer lab_attention profile | rows
//   one shape of attention; the row-wise kernels lab_attention time             medians of graph replays; "hot" repeats
//   one input set (as after the GEMM that wrote it), "rot" rotates four
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/pool.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

using namespace octet;
using namespace octet::kernels::cuda;

#define CUDA(x)                                                                      \
  do {                                                                               \
    cudaError_t e_ = (x);                                                            \
    if (e_ != cudaSuccess) {                                                         \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e_)); \
      std::exit(1);                                                                  \
    }                                                                                \
  } while (0)

namespace {

std::mt19937 rng;
int failures = 0;
int uniform(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); }
float real(float lo, float hi) { return std::uniform_real_distribution<float>(lo, hi)(rng); }

template <typename T>
struct Device {
  T* p = nullptr;
  size_t n = 0;
  Device() = default;
  explicit Device(size_t count) : n(count) { CUDA(cudaMalloc(&p, std::max<size_t>(n, 1) * sizeof(T))); }
  explicit Device(const std::vector<T>& v) : Device(v.size()) {
    CUDA(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
  }
  Device(Device&& o) noexcept : p(o.p), n(o.n) { o.p = nullptr; }
  Device& operator=(Device&& o) noexcept {
    std::swap(p, o.p), std::swap(n, o.n);
    return *this;
  }
  ~Device() { cudaFree(p); }
  std::vector<T> host() const {
    std::vector<T> v(n);
    CUDA(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
};

std::vector<int8_t> random_s8(size_t n) {
  std::vector<int8_t> v(n);
  for (auto& x : v) x = int8_t(int(rng() >> 8) % 256 - 128);
  return v;
}
std::vector<float> random_f32(size_t n, float lo, float hi) {
  std::vector<float> v(n);
  for (auto& x : v) x = lo + (hi - lo) * float(rng() >> 8) * 0x1p-24f;
  return v;
}

float value_of(DType type, const void* p, size_t i) {
  switch (type) {
    case DType::s8: return float(static_cast<const int8_t*>(p)[i]);
    case DType::f16: return __half2float(static_cast<const __half*>(p)[i]);
    case DType::bf16: return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
    default: return static_cast<const float*>(p)[i];
  }
}
const char* type_name(DType t) {
  return t == DType::s8 ? "s8" : t == DType::f16 ? "f16" : t == DType::bf16 ? "bf16" : "f32";
}

/// A random matrix of some type with its values; rows have a stride larger than their width.
struct Matrix {
  DType type;
  int64_t rows, columns, ld;
  std::vector<uint8_t> bytes;
  std::vector<float> values;  // real values [rows, columns]
  std::vector<float> scale;
  Device<uint8_t> device;
  Device<float> device_scale;
  Matrix(DType t, int64_t r, int64_t c, float range = 2.0f) : type(t), rows(r), columns(c), ld(c + 16) {
    const size_t n = size_t(rows) * ld;
    bytes.resize(n * size_of(type));
    scale = random_f32(c, 0.005f, 0.03f);
    values.resize(rows * columns);
    std::vector<float> f = random_f32(n, -range, range);
    const std::vector<int8_t> q = random_s8(n);
    for (size_t i = 0; i < n; ++i) {
      if (type == DType::s8) bytes[i] = uint8_t(q[i]);
      else if (type == DType::f32) std::memcpy(&bytes[i * 4], &f[i], 4);
      else if (type == DType::f16) {
        __half h(f[i]);
        std::memcpy(&bytes[i * 2], &h, 2);
      } else {
        __nv_bfloat16 h(f[i]);
        std::memcpy(&bytes[i * 2], &h, 2);
      }
    }
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        values[i * columns + j] = value_of(type, bytes.data(), i * ld + j) * (type == DType::s8 ? scale[j] : 1.0f);
    device = Device<uint8_t>(bytes);
    device_scale = Device<float>(scale);
  }
  MatrixIn in() const { return {device.p, type, ld, device_scale.p}; }
};

/// A guarded output [rows, columns]: 256 rows of guard before and after, guard columns beside.
struct Guarded {
  DType type;
  int64_t rows, columns, ld;
  std::vector<float> inv;
  Device<uint8_t> device;
  Device<float> device_inv;
  static constexpr int kGuard = 64;
  Guarded(DType t, int64_t r, int64_t c)
      : type(t), rows(r), columns(c), ld(c + 16), device(size_t(r + 2 * kGuard) * (c + 16) * size_of(t)) {
    CUDA(cudaMemset(device.p, 0x7B, device.n));
    inv = random_f32(c, 20.0f, 60.0f);
    device_inv = Device<float>(inv);
  }
  void* data() const { return device.p + kGuard * ld * size_of(type); }
  MatrixOut out() const { return {data(), type, ld, device_inv.p, nullptr}; }
  std::vector<float> read(const char* what) const {
    const std::vector<uint8_t> all = device.host();
    std::vector<float> v(rows * columns);
    const size_t unit = size_of(type);
    bool broken = false;
    for (int64_t i = 0; i < rows + 2 * kGuard; ++i)
      for (int64_t j = 0; j < ld; ++j) {
        const int64_t r = i - kGuard;
        if (r >= 0 && r < rows && j < columns) v[r * columns + j] = value_of(type, all.data(), i * ld + j);
        else
          for (size_t b = 0; b < unit; ++b) broken |= all[(i * ld + j) * unit + b] != 0x7B;
      }
    if (broken) std::printf("FAIL %s: wrote outside its output\n", what), ++failures;
    return v;
  }
};

/// Compares with expected real values. s8: at most `steps` steps away and at most `fraction` of all differ; floats:
/// relative to the range.
void compare(const std::string& what, DType type, const std::vector<float>& got, const std::vector<double>& want,
             const std::vector<float>& inv, int64_t columns, double tolerance, double fraction = 0.01, int steps = 1,
             bool flips = false) {
  double worst = 0, range = 0;
  size_t off = 0, bad = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (type == DType::s8) {
      const double q = std::clamp(std::nearbyint(want[i] * inv[i % columns]), -128.0, 127.0);
      const double d = std::fabs(q - got[i]);
      off += d > 0, bad += !(d <= steps);
      worst = std::max(worst, d);
    } else {
      range = std::max(range, std::fabs(want[i]));
      const double d = std::fabs(want[i] - got[i]);
      if (!(d <= 1e30)) bad++;
      off += d > tolerance * 3.0;
      worst = std::max(worst, d);
    }
  }
  bool ok = bad == 0;
  if (type == DType::s8) ok = ok && double(off) <= fraction * double(got.size()) + 2;
  else if (flips)
    ok = ok && worst <= 10 * tolerance * range + 1e-6 &&
         double(off) <= 0.002 * double(got.size()) + 2;  // a probability may fall to the other side
  else ok = ok && worst <= tolerance * range + 1e-6;
  if (!ok) ++failures;
  if (!ok || std::getenv("VERBOSE"))
    std::printf("%s %s %s: worst %.4g of range %.4g, off %.4f %%, bad %zu\n", ok ? "ok  " : "FAIL", what.c_str(),
                type_name(type), worst, range, 100.0 * double(off) / double(got.size()), bad);
}

// ---- attention
// -------------------------------------------------------------------------------------------------------------

struct ReferenceArgs {
  const int8_t *q, *k, *v;
  int64_t ld;
  const int32_t* offsets;
  const int32_t* row_of_token;
  const float *score_scale, *bias;
  int64_t bias_head_stride, bias_ld;
  double prob_inv_scale;
  int prob_hi;
  const float* context_scale;
  double* out;
  double* scratch;
  int heads, head_dim, tokens, scratch_ld;
};

__device__ double block_reduce(double x, bool is_max) {
  __shared__ double s[128];
  s[threadIdx.x] = x;
  __syncthreads();
  for (int n = 64; n > 0; n /= 2) {
    if (threadIdx.x < n)
      s[threadIdx.x] = is_max ? fmax(s[threadIdx.x], s[threadIdx.x + n]) : s[threadIdx.x] + s[threadIdx.x + n];
    __syncthreads();
  }
  const double r = s[0];
  __syncthreads();
  return r;
}

template <typename T>
__device__ double load(const T* p, int64_t i) {
  return double(float(p[i]));
}

template <typename T>
__global__ __launch_bounds__(128) void reference_attention(ReferenceArgs a, bool quantize) {
  double* p = a.scratch + int64_t(blockIdx.x) * a.scratch_ld;
  const T *q = reinterpret_cast<const T*>(a.q), *k = reinterpret_cast<const T*>(a.k),
          *v = reinterpret_cast<const T*>(a.v);
  for (int item = blockIdx.x; item < a.tokens * a.heads; item += gridDim.x) {
    const int token = item / a.heads, head = item % a.heads, row = a.row_of_token[token];
    const int begin = a.offsets[row], length = a.offsets[row + 1] - begin;
    double top = -INFINITY;
    for (int j = threadIdx.x; j < length; j += 128) {
      double dot = 0;
      for (int d = 0; d < a.head_dim; ++d)
        dot += load(q, token * a.ld + head * a.head_dim + d) * load(k, (begin + j) * a.ld + head * a.head_dim + d);
      dot *= double(a.score_scale[head]);
      if (a.bias) dot += double(a.bias[head * a.bias_head_stride + (token - begin) * a.bias_ld + j]);
      p[j] = dot;
      top = fmax(top, dot);
    }
    top = block_reduce(top, true);
    double sum = 0;
    for (int j = threadIdx.x; j < length; j += 128) sum += p[j] = exp(p[j] - top);
    sum = block_reduce(sum, false);
    for (int j = threadIdx.x; j < length; j += 128) {
      p[j] /= sum;
      if (quantize) p[j] = fmin(rint(p[j] * a.prob_inv_scale), double(a.prob_hi));
    }
    __syncthreads();
    for (int d = threadIdx.x; d < a.head_dim; d += 128) {
      double acc = 0;
      for (int j = 0; j < length; ++j) acc += p[j] * load(v, (begin + j) * a.ld + head * a.head_dim + d);
      const int channel = head * a.head_dim + d;
      a.out[int64_t(token) * a.heads * a.head_dim + channel] = quantize ? acc * double(a.context_scale[channel]) : acc;
    }
    __syncthreads();
  }
}

struct Batch {
  std::vector<int> lengths;
  std::vector<int32_t> offsets, row_of_token;
  int tokens = 0, max_length = 0;
  Device<int32_t> device_offsets, device_rows;
  explicit Batch(std::vector<int> l) : lengths(std::move(l)) {
    offsets.push_back(0);
    for (size_t r = 0; r < lengths.size(); ++r) {
      tokens += lengths[r], max_length = std::max(max_length, lengths[r]);
      offsets.push_back(tokens);
      for (int i = 0; i < lengths[r]; ++i) row_of_token.push_back(int(r));
    }
    device_offsets = Device<int32_t>(offsets), device_rows = Device<int32_t>(row_of_token);
  }
};

void check_attention_s8(const Batch& batch, int heads, int d, DType out_type, float sharpness, bool bias,
                        float prob_inv, int prob_hi, int pieces) {
  const int hidden = heads * d;
  const int64_t ld = 3 * hidden + 16;
  Device<int8_t> qkv(random_s8(size_t(batch.tokens) * ld));
  std::vector<float> ss(heads);
  for (auto& s : ss) s = sharpness * real(0.5f, 1.0f) / (float(d) * 40.0f * std::sqrt(float(d)));
  Device<float> score_scale(ss);
  std::vector<float> cs = random_f32(hidden, 0.5f, 1.5f);
  for (auto& c : cs) c /= prob_inv * 60.0f;
  Device<float> context_scale(cs);
  Device<float> bias_values(bias ? random_f32(size_t(heads) * batch.max_length * (batch.max_length + 3), -3.0f, 3.0f)
                                 : std::vector<float>(1));
  Guarded out(out_type, batch.tokens, hidden);
  AttentionS8Args a;
  a.q = qkv.p, a.k = qkv.p + hidden, a.v = qkv.p + 2 * hidden;
  a.q_ld = a.k_ld = a.v_ld = ld;
  a.offsets = batch.device_offsets.p;
  a.score_scale = score_scale.p;
  if (bias) a.bias = bias_values.p, a.bias_ld = batch.max_length + 3, a.bias_head_stride = a.bias_ld * batch.max_length;
  a.prob_inv_scale = prob_inv, a.prob_hi = prob_hi;
  a.context_scale = context_scale.p, a.out_inv_scale = out.device_inv.p;
  a.out = out.data(), a.out_ld = out.ld, a.out_type = out_type;
  a.rows = int(batch.lengths.size()), a.heads = heads, a.head_dim = d, a.max_length = batch.max_length,
  a.queries_per_block = pieces;
  CUDA(attention_s8(a, nullptr));
  CUDA(cudaDeviceSynchronize());
  char what[200];
  std::snprintf(what, sizeof what, "%s d%d heads %d max %d sharp %g bias %d prob %g/%d pieces %d",
                attention_s8_kernel(a), d, heads, batch.max_length, sharpness, bias, prob_inv, prob_hi, pieces);
  const std::vector<float> got = out.read(what);
  const int blocks = 528;
  Device<double> want(size_t(batch.tokens) * hidden), scratch(size_t(blocks) * batch.max_length);
  ReferenceArgs r{a.q,
                  a.k,
                  a.v,
                  ld,
                  a.offsets,
                  batch.device_rows.p,
                  a.score_scale,
                  a.bias,
                  a.bias_head_stride,
                  a.bias_ld,
                  prob_inv,
                  prob_hi,
                  a.context_scale,
                  want.p,
                  scratch.p,
                  heads,
                  d,
                  batch.tokens,
                  batch.max_length};
  reference_attention<int8_t><<<blocks, 128>>>(r, true);
  CUDA(cudaDeviceSynchronize());
  // A probability on the edge between two steps may fall on the other side: one value of V away.
  compare(what, out_type, got, want.host(), out.inv, hidden, out_type == DType::bf16 ? 6e-3 : 4e-3, 0.01, 1, true);
  // The same bits again, and for single rows alone (another kernel when shorter).
  CUDA(cudaMemset(out.device.p, 0x7B, out.device.n));
  CUDA(attention_s8(a, nullptr));
  if (out.read(what) != got) std::printf("FAIL %s: two runs differ\n", what), ++failures;
  if (!bias)
    for (int n = 0; n < 3; ++n) {
      const int row = uniform(0, a.rows - 1);
      Guarded alone(out_type, batch.lengths[row], hidden);
      AttentionS8Args b = a;
      const int begin = batch.offsets[row];
      Device<int32_t> offsets(std::vector<int32_t>{0, batch.lengths[row]});
      b.q += begin * ld, b.k += begin * ld, b.v += begin * ld,
          b.offsets = offsets.p, b.rows = 1, b.max_length = batch.lengths[row], b.queries_per_block = 0;
      b.out = alone.data(), b.out_ld = alone.ld;
      CUDA(attention_s8(b, nullptr));
      const std::vector<float> v = alone.read(what);
      if (!std::equal(v.begin(), v.end(), got.begin() + size_t(begin) * hidden))
        std::printf("FAIL %s: row of %d tokens has other bits alone (%s)\n", what, batch.lengths[row],
                    attention_s8_kernel(b)),
            ++failures;
    }
}

void check_attention_half(const Batch& batch, int heads, int d, DType type, bool bias) {
  const int hidden = heads * d;
  Matrix qkv(type, batch.tokens, 3 * hidden, 3.0f);
  Guarded out(type, batch.tokens, hidden);
  Device<float> bias_values(bias ? random_f32(size_t(heads) * batch.max_length * batch.max_length, -3.0f, 3.0f)
                                 : std::vector<float>(1));
  AttentionHalfArgs a;
  a.q = qkv.device.p, a.k = qkv.device.p + 2 * hidden, a.v = qkv.device.p + 4 * hidden;
  a.q_ld = a.k_ld = a.v_ld = qkv.ld;
  a.offsets = batch.device_offsets.p, a.score_scale = 1.0f / std::sqrt(float(d));
  if (bias)
    a.bias = bias_values.p, a.bias_ld = batch.max_length,
    a.bias_head_stride = int64_t(batch.max_length) * batch.max_length;
  a.out = out.data(), a.out_ld = out.ld, a.type = type;
  a.rows = int(batch.lengths.size()), a.heads = heads, a.head_dim = d, a.max_length = batch.max_length;
  CUDA(attention_half(a, nullptr));
  CUDA(cudaDeviceSynchronize());
  char what[120];
  std::snprintf(what, sizeof what, "attention_half d%d max %d bias %d", d, batch.max_length, bias);
  const std::vector<float> got = out.read(what);
  const int blocks = 528;
  Device<double> want(size_t(batch.tokens) * hidden), scratch(size_t(blocks) * batch.max_length);
  Device<float> scale(std::vector<float>(heads, a.score_scale));
  ReferenceArgs r{static_cast<const int8_t*>(a.q),
                  static_cast<const int8_t*>(a.k),
                  static_cast<const int8_t*>(a.v),
                  qkv.ld,
                  a.offsets,
                  batch.device_rows.p,
                  scale.p,
                  a.bias,
                  a.bias_head_stride,
                  a.bias_ld,
                  1,
                  1,
                  nullptr,
                  want.p,
                  scratch.p,
                  heads,
                  d,
                  batch.tokens,
                  batch.max_length};
  if (type == DType::f16) reference_attention<__half><<<blocks, 128>>>(r, false);
  else reference_attention<__nv_bfloat16><<<blocks, 128>>>(r, false);
  CUDA(cudaDeviceSynchronize());
  compare(what, type, got, want.host(), {}, hidden, type == DType::f16 ? 2e-3 : 1.5e-2);
}

// ---- row-wise kernels
// ------------------------------------------------------------------------------------------------------

std::vector<double> reference_norm(std::vector<double> x, int64_t rows, int hidden, const std::vector<float>& gamma,
                                   const std::vector<float>& beta, double eps) {
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0, var = 0;
    double* p = &x[r * hidden];
    for (int i = 0; i < hidden; ++i) mean += p[i] / hidden;
    for (int i = 0; i < hidden; ++i) var += (p[i] - mean) * (p[i] - mean) / hidden;
    for (int i = 0; i < hidden; ++i) p[i] = (p[i] - mean) / std::sqrt(var + eps) * gamma[i] + beta[i];
  }
  return x;
}

void check_norm(int tokens, int hidden, DType ta, DType tb, bool with_b, DType to0, DType to1, int rows_per_warp) {
  Matrix a(ta, tokens, hidden), b(tb, tokens, hidden);
  const std::vector<float> gamma = random_f32(hidden, 0.5f, 1.5f), beta = random_f32(hidden, -0.5f, 0.5f);
  Device<float> dg(gamma), db(beta);
  Guarded o0(to0, tokens, hidden), o1(to1, tokens, hidden);
  NormArgs n;
  n.a = a.in();
  if (with_b) n.b = b.in();
  n.gamma = dg.p, n.beta = db.p, n.eps = 1e-5f, n.out[0] = o0.out(), n.out[1] = o1.out(), n.tokens = tokens,
  n.hidden = hidden, n.rows_per_warp = rows_per_warp;
  CUDA(add_norm(n, nullptr));
  CUDA(cudaDeviceSynchronize());
  std::vector<double> x(a.values.begin(), a.values.end());
  if (with_b)
    for (size_t i = 0; i < x.size(); ++i) x[i] += b.values[i];
  const auto want = reference_norm(x, tokens, hidden, gamma, beta, n.eps);
  char what[120];
  std::snprintf(what, sizeof what, "add_norm %dx%d %s+%s rows/warp %d", tokens, hidden, type_name(ta),
                with_b ? type_name(tb) : "-", rows_per_warp);
  const auto got = o0.read(what);
  compare(what, to0, got, want, o0.inv, hidden, to0 == DType::f32 ? 1e-5 : to0 == DType::f16 ? 1e-3 : 8e-3, 0.002);
  compare(what, to1, o1.read(what), want, o1.inv, hidden,
          to1 == DType::f32   ? 1e-5
          : to1 == DType::f16 ? 1e-3
                              : 8e-3,
          0.002);
  n.rows_per_warp = rows_per_warp == 1 ? 2 : 1;  // the same bits
  CUDA(cudaMemset(o0.device.p, 0x7B, o0.device.n));
  CUDA(add_norm(n, nullptr));
  if (o0.read(what) != got) std::printf("FAIL %s: bits depend on rows per warp\n", what), ++failures;
  if (to0 == DType::s8) {  // the row's own scale
    Device<float> scales(tokens);
    n.out[0].row_scale = scales.p, n.out[1].data = nullptr;
    CUDA(add_norm(n, nullptr));
    const auto q = o0.read(what);
    const auto s = scales.host();
    n.out[0].row_scale = nullptr, n.rows_per_warp = rows_per_warp;  // one s8 output: another kernel
    CUDA(cudaMemset(o0.device.p, 0x7B, o0.device.n));
    CUDA(add_norm(n, nullptr));
    compare(std::string(what) + " alone", to0, o0.read(what), want, o0.inv, hidden, 8e-3, 0.002);
    double worst = 0;
    for (int64_t r = 0; r < tokens; ++r)
      for (int i = 0; i < hidden; ++i)
        worst = std::max(worst, std::fabs(q[r * hidden + i] - want[r * hidden + i] / s[r]));
    if (!(worst < 0.51)) std::printf("FAIL %s: row scale, worst %.3f\n", what, worst), ++failures;
  }
}

void check_embed(const Batch& batch, int hidden, DType type, Positions mode) {
  const int words = 500, places = batch.max_length + 4, pad = 1;
  struct Table {
    std::vector<float> values;
    std::vector<uint8_t> bytes;
    std::vector<float> scale;
    Device<uint8_t> device;
    Device<float> device_scale;
    DType type;
    Table(DType t, int entries, int hidden) : type(t) {
      Matrix m(t, entries, hidden);  // its stride is dropped
      scale = random_f32(entries, 0.005f, 0.02f);
      for (int i = 0; i < entries; ++i)
        for (int j = 0; j < hidden; ++j) {
          const size_t unit = size_of(t);
          bytes.insert(bytes.end(), &m.bytes[(i * m.ld + j) * unit], &m.bytes[(i * m.ld + j) * unit] + unit);
          values.push_back(t == DType::s8 ? float(int8_t(m.bytes[i * m.ld + j])) * scale[i] : m.values[i * hidden + j]);
        }
      device = Device<uint8_t>(bytes), device_scale = Device<float>(scale);
    }
    EmbeddingTable table() const { return {device.p, type, device_scale.p}; }
  };
  Table word(type, words, hidden), place(type, places, hidden), kind(type, 2, hidden);
  std::vector<int32_t> ids(batch.tokens), types(batch.tokens), positions(batch.tokens);
  for (auto& i : ids) i = uniform(0, 9) == 0 ? pad : uniform(0, words - 1);
  for (auto& i : types) i = uniform(0, 1);
  for (size_t r = 0; r < batch.lengths.size(); ++r)
    for (int i = 0, count = 0; i < batch.lengths[r]; ++i) {
      const int t = batch.offsets[r] + i;
      count += ids[t] != pad;
      positions[t] = mode == Positions::sequential ? 2 + i
                     : mode == Positions::given    ? uniform(0, places - 1)
                     : ids[t] == pad               ? pad
                                                   : pad + count;
    }
  Device<int32_t> d_ids(ids), d_types(types), d_positions(positions);
  const std::vector<float> gamma = random_f32(hidden, 0.5f, 1.5f), beta = random_f32(hidden, -0.5f, 0.5f);
  Device<float> dg(gamma), db(beta);
  Guarded o0(DType::s8, batch.tokens, hidden), o1(DType::f32, batch.tokens, hidden);
  EmbedArgs e;
  e.ids = d_ids.p, e.type_ids = d_types.p, e.positions = mode == Positions::given ? d_positions.p : nullptr,
  e.offsets = batch.device_offsets.p;
  e.word = word.table(), e.position = place.table(), e.type = kind.table(), e.position_mode = mode,
  e.position_start = 2, e.pad_id = pad;
  e.gamma = dg.p, e.beta = db.p, e.eps = 1e-5f, e.out[0] = o0.out(), e.out[1] = o1.out();
  e.tokens = batch.tokens, e.rows = int(batch.lengths.size()), e.hidden = hidden;
  CUDA(embed(e, nullptr));
  CUDA(cudaDeviceSynchronize());
  std::vector<double> x(size_t(batch.tokens) * hidden);
  for (int t = 0; t < batch.tokens; ++t)
    for (int j = 0; j < hidden; ++j)
      x[size_t(t) * hidden + j] = double(word.values[ids[t] * hidden + j]) + place.values[positions[t] * hidden + j] +
                                  kind.values[types[t] * hidden + j];
  const auto want = reference_norm(x, batch.tokens, hidden, gamma, beta, e.eps);
  char what[120];
  std::snprintf(what, sizeof what, "embed %s %d positions %d", type_name(type), hidden, int(mode));
  compare(what, DType::s8, o0.read(what), want, o0.inv, hidden, 0, 0.002);
  compare(what, DType::f32, o1.read(what), want, o1.inv, hidden, 1e-5);
}

void check_pool(const Batch& batch, int columns, DType type, Pooling pooling, bool normalize) {
  Matrix in(type, batch.tokens, columns);
  const int rows = int(batch.lengths.size());
  Guarded out(DType::f32, rows, columns);
  PoolArgs p;
  p.in = in.in(), p.offsets = batch.device_offsets.p, p.out = out.out(), p.pooling = pooling, p.normalize = normalize,
  p.rows = rows, p.columns = columns;
  CUDA(pool(p, nullptr));
  CUDA(cudaDeviceSynchronize());
  std::vector<double> want(size_t(rows) * columns);
  for (int r = 0; r < rows; ++r) {
    double squares = 0;
    for (int c = 0; c < columns; ++c) {
      double v = pooling == Pooling::max ? -INFINITY : 0;
      for (int i = 0; i < batch.lengths[r]; ++i) {
        const double x = in.values[size_t(batch.offsets[r] + i) * columns + c];
        if (pooling == Pooling::first) v = i == 0 ? x : v;
        else v = pooling == Pooling::max ? std::max(v, x) : v + x / batch.lengths[r];
      }
      want[r * columns + c] = v, squares += v * v;
    }
    if (normalize)
      for (int c = 0; c < columns; ++c) want[r * columns + c] /= std::max(std::sqrt(squares), 1e-12);
  }
  char what[120];
  std::snprintf(what, sizeof what, "pool %s %d mode %d normalize %d", type_name(type), columns, int(pooling),
                normalize);
  compare(what, DType::f32, out.read(what), want, {}, columns, 1e-5);
}

void check_dense(int rows, int inputs, int outputs, DType tx, DType tw, Unary op) {
  Matrix x(tx, rows, inputs), w(tw, outputs, inputs, 0.1f);
  std::vector<uint8_t> packed;
  for (int i = 0; i < outputs; ++i)
    packed.insert(packed.end(), &w.bytes[i * w.ld * size_of(tw)],
                  &w.bytes[i * w.ld * size_of(tw)] + inputs * size_of(tw));
  Device<uint8_t> dw(packed);
  const std::vector<float> bias = random_f32(outputs, -1, 1), ws = random_f32(outputs, 0.0005f, 0.002f);
  Device<float> db(bias), dws(ws);
  Guarded out(DType::f32, rows, outputs);
  DenseArgs a;
  a.in = x.in(), a.weight = dw.p, a.weight_type = tw, a.weight_scale = dws.p, a.bias = db.p, a.activation = op,
  a.out = out.out(), a.rows = rows, a.inputs = inputs, a.outputs = outputs;
  CUDA(dense(a, nullptr));
  CUDA(cudaDeviceSynchronize());
  std::vector<double> want(size_t(rows) * outputs);
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < outputs; ++o) {
      double v = 0;
      for (int i = 0; i < inputs; ++i)
        v += double(x.values[r * inputs + i]) * value_of(tw, packed.data(), size_t(o) * inputs + i);
      v = (tw == DType::s8 ? v * ws[o] : v) + bias[o];
      want[r * outputs + o] = op == Unary::tanh   ? std::tanh(v)
                              : op == Unary::relu ? std::max(v, 0.0)
                              : op == Unary::none ? v
                                                  : v / 2 * (1 + std::erf(v / std::sqrt(2.0)));
    }
  compare("dense " + std::to_string(rows) + "x" + std::to_string(inputs) + "x" + std::to_string(outputs) + " " +
              type_name(tx) + " " + type_name(tw),
          DType::f32, out.read("dense"), want, {}, outputs, 2e-5);
}

void check_elementwise(int rows, int columns, DType ta, bool with_b, DType to, Unary op) {
  Matrix a(ta, rows, columns), b(DType::f16, rows, columns);
  Guarded out(to, rows, columns);
  ElementwiseArgs e;
  e.a = a.in();
  if (with_b) e.b = b.in();
  e.activation = op, e.out = out.out(), e.rows = rows, e.columns = columns;
  CUDA(elementwise(e, nullptr));
  CUDA(cudaDeviceSynchronize());
  std::vector<double> want(size_t(rows) * columns);
  for (size_t i = 0; i < want.size(); ++i) {
    const double v = a.values[i] + (with_b ? double(b.values[i]) : 0.0);
    want[i] = op == Unary::tanh       ? std::tanh(v)
              : op == Unary::relu     ? std::max(v, 0.0)
              : op == Unary::none     ? v
              : op == Unary::gelu_erf ? v / 2 * (1 + std::erf(v / std::sqrt(2.0)))
                                      : v / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
  }
  compare(std::string("elementwise ") + type_name(ta) + " op " + std::to_string(int(op)), to, out.read("elementwise"),
          want, out.inv, columns,
          to == DType::f32   ? 2e-6
          : to == DType::f16 ? 6e-4
                             : 5e-3,
          0.002);
}

int check(bool small) {
  const std::vector<std::vector<int>> batches = {{1},
                                                 {16, 1, 15, 17, 63, 64, 40, 33},
                                                 {127, 128, 65, 1, 64, 31, 100},
                                                 {129, 255, 256, 1, 17, 200, 128, 32},
                                                 {257, 512, 300, 64, 1, 256, 448},
                                                 {1000, 513, 8192, 5, 512, 256, 2049}};
  int cases = 0;
  for (size_t n = 0; n < batches.size(); ++n) {
    if (small && n == 5) continue;
    const Batch batch(batches[n]);
    for (int d : {32, 64, 128}) {
      const int heads = n == 5 ? 1 : 3;
      check_attention_s8(batch, heads, d, DType::s8, 1.0f, false, 255.0f, 255, 0), ++cases;
      if (small) continue;
      check_attention_s8(batch, heads, d, DType::s8, 5.0f, false, 255.0f, 255, 64), ++cases;
      check_attention_s8(batch, heads, d, DType::f32, 300.0f, false, 255.0f, 255, 0),
          ++cases;  // leaves the range: the exact maximum
      check_attention_s8(batch, heads, d, DType::f16, 3.0f, false, 127.0f, 127, 128), ++cases;
      check_attention_s8(batch, heads, d, DType::bf16, 3.0f, false, 900.0f, 255, 0),
          ++cases;  // saturating probabilities
      if (n < 5) check_attention_s8(batch, heads, d, DType::s8, 2.0f, true, 255.0f, 255, 0), ++cases;
      if (n < 5) check_attention_s8(batch, heads, d, DType::f32, 400.0f, true, 255.0f, 255, 0), ++cases;
    }
    for (int d : {32, 64, 128})
      for (DType t : {DType::f16, DType::bf16}) {
        if (small && t == DType::bf16) continue;
        check_attention_half(batch, n == 5 ? 1 : 3, d, t, false), ++cases;
        if (n < 5 && !small) check_attention_half(batch, 2, d, t, true), ++cases;
      }
  }
  const Batch ragged({5, 1, 64, 33, 200});
  for (int hidden : {16, 128, 144, 256, 384, 512, 768, 1024, 1536, 2048, 4096}) {
    for (int rpw : {0, 1, 2})
      check_norm(small ? 5 : 37, hidden, DType::s8, DType::s8, true, DType::s8, DType::f16, rpw), ++cases;
    if (small) continue;
    check_norm(13, hidden, DType::f16, DType::f16, true, DType::f16, DType::s8, 2), ++cases;
    check_norm(13, hidden, DType::f32, DType::s8, true, DType::f32, DType::bf16, 1), ++cases;
    check_norm(13, hidden, DType::bf16, DType::s8, false, DType::s8, DType::f32, 4), ++cases;
    for (DType t : {DType::s8, DType::f16, DType::f32})
      for (Positions m : {Positions::given, Positions::sequential, Positions::non_pad})
        check_embed(ragged, hidden, t, m), ++cases;
    for (DType t : {DType::s8, DType::f16, DType::bf16, DType::f32})
      for (Pooling p : {Pooling::first, Pooling::mean, Pooling::max})
        check_pool(ragged, hidden, t, p, uniform(0, 1)), ++cases;
  }
  for (int rows : {1, 8, 33})
    for (DType t : {DType::f32, DType::f16, DType::s8}) {
      check_dense(rows, 768, 768, t, DType::f16, Unary::tanh), ++cases;
      check_dense(rows, 384, 3, t, DType::f32, Unary::none), ++cases;
      check_dense(rows, 256, 17, t, DType::s8, Unary::relu), ++cases;
    }
  for (DType t : {DType::s8, DType::f16, DType::bf16, DType::f32})
    for (DType o : {DType::s8, DType::f16, DType::bf16, DType::f32})
      for (Unary u : {Unary::none, Unary::relu, Unary::tanh, Unary::gelu_erf, Unary::gelu_tanh})
        check_elementwise(19, 3072, t, uniform(0, 1), o, u), ++cases;
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures != 0;
}

// ---- timing
// ----------------------------------------------------------------------------------------------------------------

/// Median microseconds of one launch: `per_graph` launches in a graph, replayed for about `seconds`.
double time_graph(const std::function<void(cudaStream_t, int)>& launch, int per_graph = 24, double seconds = 0.04) {
  cudaStream_t stream;
  CUDA(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < per_graph; ++i) launch(stream, i);
  CUDA(cudaStreamEndCapture(stream, &graph));
  CUDA(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<cudaEvent_t> events;
  const auto replay = [&](int n) {
    while (int(events.size()) < n + 1) {
      events.emplace_back();
      CUDA(cudaEventCreate(&events.back()));
    }
    CUDA(cudaEventRecord(events[0], stream));
    for (int i = 0; i < n; ++i) {
      CUDA(cudaGraphLaunch(exec, stream));
      CUDA(cudaEventRecord(events[i + 1], stream));
    }
    CUDA(cudaStreamSynchronize(stream));
    std::vector<float> us;
    for (int i = 0; i < n; ++i) {
      float ms;
      CUDA(cudaEventElapsedTime(&ms, events[i], events[i + 1]));
      us.push_back(ms * 1000 / per_graph);
    }
    std::sort(us.begin(), us.end());
    return us[us.size() / 2];
  };
  const double first = replay(5);
  const double us = replay(std::clamp(int(seconds * 1e6 / (first * per_graph)), 9, 200));
  for (auto& e : events) CUDA(cudaEventDestroy(e));
  CUDA(cudaGraphExecDestroy(exec));
  CUDA(cudaGraphDestroy(graph));
  CUDA(cudaStreamDestroy(stream));
  return us;
}

struct AttentionSet {
  Device<int8_t> qkv, out;
};

void time_attention_s8(const char* name, const std::vector<int>& lengths, int heads, int d,
                       const std::vector<int>& pieces, int max_length = 0) {
  const Batch batch(lengths);
  const int hidden = heads * d;
  std::vector<AttentionSet> sets(4);
  for (auto& s : sets)
    s.qkv = Device<int8_t>(random_s8(size_t(batch.tokens) * 3 * hidden)),
    s.out = Device<int8_t>(size_t(batch.tokens) * hidden);
  Device<float> score_scale(std::vector<float>(heads, 1.0f / (float(d) * 40.0f * std::sqrt(float(d))))),
      context_scale(random_f32(hidden, 1e-4f, 2e-4f)), inv(random_f32(hidden, 20, 60));
  double ops = 0;
  for (int l : lengths) ops += 4.0 * l * l * hidden;
  for (int p : pieces) {
    AttentionS8Args a;
    a.q_ld = a.k_ld = a.v_ld = 3 * hidden;
    a.offsets = batch.device_offsets.p, a.score_scale = score_scale.p, a.context_scale = context_scale.p,
    a.out_inv_scale = inv.p, a.out_ld = hidden;
    a.rows = int(lengths.size()), a.heads = heads, a.head_dim = d,
    a.max_length = std::max(max_length, batch.max_length), a.queries_per_block = p;
    const auto run = [&](bool rotate, bool dependent) {
      return time_graph([&](cudaStream_t s, int i) {
        const AttentionSet& set = sets[rotate ? i % 4 : 0];
        a.q = set.qkv.p, a.k = a.q + hidden, a.v = a.q + 2 * hidden, a.out = set.out.p, a.dependent_launch = dependent;
        CUDA(attention_s8(a, s));
      });
    };
    const double hot = run(false, false), dep = run(false, true), rot = run(true, true);
    std::printf("attention_s8 %-14s d%-3d %-28s pieces %-4d hot %7.2f  hot,pdl %7.2f  rot,pdl %7.2f us  %6.0f TOPS\n",
                name, d, attention_s8_kernel(a), p, hot, dep, rot, ops / dep * 1e-6);
  }
}

void time_attention_half(const char* name, const std::vector<int>& lengths, int heads, int d) {
  const Batch batch(lengths);
  const int hidden = heads * d;
  Device<__half> qkv(size_t(batch.tokens) * 3 * hidden), out(size_t(batch.tokens) * hidden);
  {
    std::vector<__half> h(qkv.n);
    for (auto& x : h) x = __half(real(-2, 2));
    qkv = Device<__half>(h);
  }
  AttentionHalfArgs a;
  a.q = qkv.p, a.k = qkv.p + hidden, a.v = qkv.p + 2 * hidden, a.q_ld = a.k_ld = a.v_ld = 3 * hidden;
  a.offsets = batch.device_offsets.p, a.score_scale = 1 / std::sqrt(float(d)), a.out = out.p, a.out_ld = hidden;
  a.rows = int(lengths.size()), a.heads = heads, a.head_dim = d, a.max_length = batch.max_length,
  a.dependent_launch = true;
  double ops = 0;
  for (int l : lengths) ops += 4.0 * l * l * hidden;
  const double us = time_graph([&](cudaStream_t s, int) { CUDA(attention_half(a, s)); });
  std::printf("attention_f16 %-13s d%-3d hot,pdl %7.2f us  %6.0f TFLOPS\n", name, d, us, ops / us * 1e-6);
}

void time_norm(int tokens, int hidden, DType type) {
  struct Set {
    Device<uint8_t> a, b, o;
  };
  std::vector<Set> sets(4);
  const size_t n = size_t(tokens) * hidden, unit = size_of(type);
  for (auto& s : sets) {
    const auto bytes = random_s8(n * unit);
    std::vector<uint8_t> v(bytes.begin(), bytes.end());
    if (type == DType::f16)
      for (size_t i = 1; i < v.size(); i += 2) v[i] &= 0xBB;  // finite
    s.a = Device<uint8_t>(v), s.b = Device<uint8_t>(v), s.o = Device<uint8_t>(n * unit);
  }
  Device<float> one(random_f32(hidden, 0.01f, 0.02f)), inv(random_f32(hidden, 20, 60));
  for (int rpw : {0, 1, 2}) {
    const auto run = [&](bool rotate) {
      return time_graph([&](cudaStream_t s, int i) {
        const Set& set = sets[rotate ? i % 4 : 0];
        NormArgs a;
        a.a = {set.a.p, type, hidden, one.p}, a.b = {set.b.p, type, hidden, one.p}, a.gamma = one.p, a.beta = one.p;
        a.out[0] = {set.o.p, type, hidden, inv.p, nullptr}, a.tokens = tokens, a.hidden = hidden, a.rows_per_warp = rpw,
        a.dependent_launch = true;
        CUDA(add_norm(a, s));
      });
    };
    const double hot = run(false), rot = run(true);
    std::printf("add_norm %5dx%-4d %s rows/warp %d  hot %6.2f us %5.0f GB/s  rot %6.2f us %5.0f GB/s\n", tokens, hidden,
                type_name(type), rpw, hot, 3.0 * double(n) * unit / hot * 1e-3, rot,
                3.0 * double(n) * unit / rot * 1e-3);
  }
}

void time_rest() {
  const int hidden = 768, words = 50265, tokens = 8192, rows = 32;
  Device<int8_t> table(random_s8(size_t(words) * hidden)), places(random_s8(514 * hidden)),
      out(size_t(tokens) * hidden);
  Device<float> scale(random_f32(words, 0.001f, 0.002f)), vec(random_f32(hidden, 0.5f, 1.5f));
  std::vector<int32_t> ids(tokens), offsets(rows + 1);
  for (auto& i : ids) i = uniform(2, words - 1);
  for (int r = 0; r <= rows; ++r) offsets[r] = r * 256;
  Device<int32_t> d_ids(ids), d_offsets(offsets);
  for (Positions mode : {Positions::sequential, Positions::non_pad}) {
    const double us = time_graph([&](cudaStream_t s, int) {
      EmbedArgs e;
      e.ids = d_ids.p, e.offsets = d_offsets.p, e.word = {table.p, DType::s8, scale.p},
      e.position = {places.p, DType::s8, scale.p}, e.type = {places.p, DType::s8, scale.p};
      e.position_mode = mode, e.pad_id = 1, e.gamma = vec.p, e.beta = vec.p,
      e.out[0] = {out.p, DType::s8, hidden, vec.p, nullptr};
      e.tokens = tokens, e.rows = rows, e.hidden = hidden, e.dependent_launch = true;
      CUDA(embed(e, s));
    });
    std::printf("embed 8192x768 s8 positions %d  %6.2f us\n", int(mode), us);
  }
  Device<float> pooled(size_t(rows) * hidden);
  for (Pooling mode : {Pooling::first, Pooling::mean}) {
    const double us = time_graph([&](cudaStream_t s, int) {
      PoolArgs p;
      p.in = {out.p, DType::s8, hidden, vec.p}, p.offsets = d_offsets.p, p.out = {pooled.p, DType::f32, hidden},
      p.pooling = mode, p.normalize = true, p.rows = rows, p.columns = hidden;
      p.dependent_launch = true;
      CUDA(pool(p, s));
    });
    std::printf("pool 32x256x768 s8 mode %d  %6.2f us\n", int(mode), us);
  }
  Device<uint8_t> weight(size_t(768) * 768 * 2);
  CUDA(cudaMemset(weight.p, 0x11, weight.n));
  Device<float> result(size_t(rows) * 768);
  for (int outputs : {768, 3})
    for (int r : {32, 1}) {
      const double us = time_graph([&](cudaStream_t s, int) {
        DenseArgs a;
        a.in = {out.p, DType::s8, hidden, vec.p}, a.offsets = d_offsets.p, a.weight = weight.p,
        a.weight_type = DType::f16, a.bias = vec.p, a.activation = Unary::tanh;
        a.out = {result.p, DType::f32, outputs}, a.rows = r, a.inputs = 768, a.outputs = outputs,
        a.dependent_launch = true;
        CUDA(dense(a, s));
      });
      std::printf("dense %dx768x%d f16 weights  %6.2f us\n", r, outputs, us);
    }
}

int time_rows() {
  for (int hidden : {768, 384, 1024}) time_norm(8192, hidden, DType::s8);
  time_norm(8192, 768, DType::f16);
  for (int tokens : {4096, 1024, 512, 128, 16}) time_norm(tokens, 768, DType::s8);
  time_rest();
  return 0;
}

int time_all() {
  cudaDeviceProp prop;
  CUDA(cudaGetDeviceProperties(&prop, 0));
  std::printf("%s, %d SMs\n", prop.name, prop.multiProcessorCount);
  std::vector<int> mnli(205);
  for (auto& l : mnli) l = std::clamp(int(-28.0f * std::log(real(1e-6f, 1.0f))) + 12, 8, 128);
  time_attention_s8("32x256", std::vector<int>(32, 256), 12, 64, {0, 64, 128, 256});
  time_attention_s8("32x128", std::vector<int>(32, 128), 12, 64, {64, 128});
  time_attention_s8("128x128", std::vector<int>(128, 128), 12, 64, {64, 128});
  time_attention_s8("8x128", std::vector<int>(8, 128), 12, 64, {0, 64});
  time_attention_s8("1x16", {16}, 12, 64, {0});
  time_attention_s8("1x128", {128}, 12, 64, {0, 64});
  time_attention_s8("1x512", {512}, 12, 64, {0});
  time_attention_s8("32x512", std::vector<int>(32, 512), 12, 64, {0, 128, 256, 512});
  time_attention_s8("32x64", std::vector<int>(32, 64), 12, 64, {0});
  time_attention_s8("mnli 205", mnli, 12, 64, {0});
  time_attention_s8("mnli 205/256", mnli, 12, 64, {0}, 256);
  time_attention_s8("mnli 32", std::vector<int>(mnli.begin(), mnli.begin() + 32), 12, 64, {0});
  time_attention_s8("8x1024", std::vector<int>(8, 1024), 12, 64, {0, 256});
  time_attention_s8("1x8192", {8192}, 12, 64, {0});
  time_attention_s8("32x256", std::vector<int>(32, 256), 12, 32, {0});
  time_attention_s8("32x256", std::vector<int>(32, 256), 6, 128, {0, 64, 128});
  for (int l : {128, 256, 512})
    time_attention_half(("32x" + std::to_string(l)).c_str(), std::vector<int>(32, l), 12, 64);
  time_attention_half("1x128", {128}, 12, 64);
  time_attention_half("8x1024", std::vector<int>(8, 1024), 12, 64);
  return time_rows();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "check";
  const unsigned seed = argc > 2 ? unsigned(std::atoi(argv[2])) : std::random_device{}();
  rng.seed(seed);
  std::printf("seed %u\n", seed);
  if (mode == "time") return time_all();
  if (mode == "rows") return time_rows();
  if (mode == "profile")
    return time_attention_s8("32x256", std::vector<int>(32, 256), 12, 64, {256}), 0;  // for a profiler
  return check(mode == "small");
}
