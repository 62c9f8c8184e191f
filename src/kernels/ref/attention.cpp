// Scalar attention: for each row of the batch, head and query i, P = softmax(q_i . k_j * score_scale[head] + bias), y_i
// = P v.
//
// s8: s = fma(acc, score_scale, bias) with bias 0 where there is none; softmax of int8.h; p is quantized with
// p_inv_scale;
//   context = acc * context_scale[channel].
// dynamic: q and k are quantized per token over heads * head_dim values, v per row of the batch and channel;
//   s = fma(acc * q_scale[i], k_scale[j] * score_scale, bias); context = acc * (context_scale[channel] *
//   v_scale[channel]).
// float: products and sums in f32, free order.
// Work is split over rows of the batch. Scratch is not used: the row's buffers come from the heap.
#include <vector>

#include "kernels/ref/scalar.h"
#include "kernels/rows.h"

namespace octet::kernels::ref {
namespace {

const char* refuse(const AttentionDesc& d, const Target&) noexcept {
  if (!is_float(d.y) && d.y != DType::s8) return "type of y";
  if (d.dynamic)
    return d.qkv == DType::f32 && is_8bit(d.p) ? nullptr : "dynamic needs f32 inputs and 8-bit probabilities";
  if (d.qkv == DType::s8) return is_8bit(d.p) ? nullptr : "s8 inputs need 8-bit probabilities";
  return is_float(d.qkv) && is_float(d.p) ? nullptr : "float inputs need float probabilities";
}

int64_t scratch_bytes(const AttentionDesc&, int64_t, int) noexcept { return 0; }

// The integers of one row of the batch, [length, width] each, and their scales.
struct Integers {
  std::vector<int32_t> q, k, v;
  std::vector<float> q_scale, k_scale, v_scale;  // dynamic only: [length], [length], [width]
};

void quantize_tokens(const float* x, int64_t ld, int64_t length, int64_t width, std::vector<int32_t>& out,
                     std::vector<float>& scale) {
  scale.resize(length);
  for (int64_t i = 0; i < length; ++i) {
    DynamicRange range = dynamic_range(row_amax(x + i * ld, width));
    scale[i] = range.scale;
    for (int64_t c = 0; c < width; ++c)
      out[i * width + c] = int8::quantize(x[i * ld + c], range.inv_scale, 0, -127, 127);
  }
}

void quantize_channels(const float* x, int64_t ld, int64_t length, int64_t width, std::vector<int32_t>& out,
                       std::vector<float>& scale) {
  scale.resize(width);
  for (int64_t c = 0; c < width; ++c) {
    float amax = 0.0f;
    for (int64_t i = 0; i < length; ++i) {
      float magnitude = fabsf(x[i * ld + c]);
      amax = magnitude > amax ? magnitude : amax;
    }
    DynamicRange range = dynamic_range(amax);
    scale[c] = range.scale;
    for (int64_t i = 0; i < length; ++i)
      out[i * width + c] = int8::quantize(x[i * ld + c], range.inv_scale, 0, -127, 127);
  }
}

// The row's queries, and the row of q and y that the first of them has.
struct Queries {
  int64_t first, count;
};

Integers integers_of_row(const AttentionDesc& d, const AttentionArgs& a, Queries queries, int64_t first,
                         int64_t length) {
  int64_t width = d.heads * d.head_dim;
  Integers x;
  for (auto* values : {&x.q, &x.k, &x.v}) values->resize(length * width);
  if (d.dynamic) {
    quantize_tokens(static_cast<const float*>(a.q) + queries.first * a.ldq, a.ldq, queries.count, width, x.q,
                    x.q_scale);
    quantize_tokens(static_cast<const float*>(a.k) + first * a.ldk, a.ldk, length, width, x.k, x.k_scale);
    quantize_channels(static_cast<const float*>(a.v) + first * a.ldv, a.ldv, length, width, x.v, x.v_scale);
    return x;
  }
  for (int64_t i = 0; i < length; ++i)
    for (int64_t c = 0; c < width; ++c) {
      if (i < queries.count) x.q[i * width + c] = load_int(a.q, d.qkv, (queries.first + i) * a.ldq + c);
      x.k[i * width + c] = load_int(a.k, d.qkv, (first + i) * a.ldk + c);
      x.v[i * width + c] = load_int(a.v, d.qkv, (first + i) * a.ldv + c);
    }
  return x;
}

float bias_at(const AttentionDesc& d, const AttentionArgs& a, int64_t head, int64_t i, int64_t j) noexcept {
  return d.bias ? a.bias[head * a.bias_head_stride + i * a.bias_query_stride + j] : 0.0f;
}

void run_int_row(const AttentionDesc& d, const AttentionArgs& a, Queries queries, int64_t first, int64_t length) {
  int64_t width = d.heads * d.head_dim;
  Integers x = integers_of_row(d, a, queries, first, length);
  std::vector<float> s(length);
  std::vector<int32_t> p(length);
  for (int64_t head = 0; head < d.heads; ++head)
    for (int64_t i = 0; i < queries.count; ++i) {
      for (int64_t j = 0; j < length; ++j) {
        int32_t acc = 0;
        for (int64_t c = head * d.head_dim; c < (head + 1) * d.head_dim; ++c)
          acc += x.q[i * width + c] * x.k[j * width + c];
        float scale = a.score_scale[head], bias = bias_at(d, a, head, i, j);
        s[j] = d.dynamic ? int8::rescale_row(acc, x.q_scale[i], x.k_scale[j] * scale, bias)
                         : int8::rescale(acc, scale, bias);
      }
      softmax(s.data(), length);
      for (int64_t j = 0; j < length; ++j) p[j] = int8::quantize(s[j], a.p_inv_scale, 0, a.p_lo, a.p_hi);
      for (int64_t c = head * d.head_dim; c < (head + 1) * d.head_dim; ++c) {
        int32_t acc = 0;
        for (int64_t j = 0; j < length; ++j) acc += p[j] * x.v[j * width + c];
        float scale = d.dynamic ? a.context_scale[c] * x.v_scale[c] : a.context_scale[c];
        store(a.y, d.y, (queries.first + i) * a.ldy + c, static_cast<float>(acc) * scale, a.requant, c);
      }
    }
}

void run_float_row(const AttentionDesc& d, const AttentionArgs& a, Queries queries, int64_t first, int64_t length) {
  std::vector<float> s(length), y(d.head_dim);
  for (int64_t head = 0; head < d.heads; ++head)
    for (int64_t i = queries.first; i < queries.first + queries.count; ++i) {
      int64_t column = head * d.head_dim;
      for (int64_t j = 0; j < length; ++j) {
        float sum = 0.0f;
        for (int64_t c = column; c < column + d.head_dim; ++c)
          sum += load(a.q, d.qkv, i * a.ldq + c) * load(a.k, d.qkv, (first + j) * a.ldk + c);
        s[j] = fmaf(sum, a.score_scale[head], bias_at(d, a, head, i - queries.first, j));
      }
      softmax(s.data(), length);
      for (float& value : y) value = 0.0f;
      for (int64_t j = 0; j < length; ++j)
        for (int64_t c = 0; c < d.head_dim; ++c) y[c] += s[j] * load(a.v, d.qkv, (first + j) * a.ldv + column + c);
      for (int64_t c = 0; c < d.head_dim; ++c) store(a.y, d.y, i * a.ldy + column + c, y[c], a.requant, column + c);
    }
}

void run(const AttentionDesc& d, const AttentionArgs& a, const Launch& launch) noexcept {
  parallel(launch, a.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t first = a.offsets[row], length = a.offsets[row + 1] - first;
      if (length == 0) continue;
      Queries queries = a.first_query ? Queries{row, 1} : Queries{first, length};
      if (is_8bit(d.p)) run_int_row(d, a, queries, first, length);
      else run_float_row(d, a, queries, first, length);
    }
  });
}

const AttentionKernel kRows[] = {{{"attention_ref"}, refuse, scratch_bytes, run}};

}  // namespace

std::span<const AttentionKernel> attention_rows() noexcept { return kRows; }

}  // namespace octet::kernels::ref
