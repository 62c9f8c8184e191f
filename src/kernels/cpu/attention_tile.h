// Attention of one head on register tiles: s = q k^T, softmax in 16 lanes, p quantized, y = p v. Include after tile.h.
//
// K of the head is packed as the weights of a GEMM with n = length, k = head_dim (panels [step][columns][values of a
// step], each after its compensation), V as one with n = head_dim, k = length (groups of tokens side by side). A tile
// of queries runs over all keys into an f32 buffer [rows][padded length], so any length works; its probabilities go
// into slabs. Dot::kGroup == 1 is f32 throughout.
#pragma once

namespace octet::kernels {
namespace {

inline int64_t pad_to(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// One head's places in the scratch of a thread; also what scratch_bytes adds up.
template <class Dot>
struct HeadBuffers {
  static constexpr int64_t kColumns = Dot::kVectors * 16, kGroupBytes = Dot::kGroup == 1 ? 4 : 1;
  int64_t k_steps, v_steps, k_panel, v_panel, padded;
  unsigned char *k, *v, *q_slabs, *p_slabs;
  float *scores, *channels;  // channels: dynamic: v's amax, inv_scale and scale
  int8_t* rows;              // dynamic: up to four quantized rows
  int64_t bytes;

  HeadBuffers(int64_t length, int64_t head_dim, unsigned char* scratch) {
    k_steps = steps_of<Dot>(head_dim);
    v_steps = steps_of<Dot>(length);
    k_panel = (k_steps * Dot::kWeightBytes + 4) * kColumns;
    v_panel = v_steps * kColumns * Dot::kWeightBytes;
    padded = pad_to(length, kColumns);
    int64_t at = 0;
    auto take = [&](int64_t size) {
      unsigned char* p = scratch == nullptr ? nullptr : scratch + at;  // null when only `bytes` is wanted
      at += pad_to(size, 64);
      return p;
    };
    k = take(padded / kColumns * k_panel);
    v = take(pad_to(head_dim, kColumns) / kColumns * v_panel);
    q_slabs = take(pad_to(k_steps * 4, cpu::kChunk) / cpu::kChunk * Dot::kRows * cpu::kStride);
    p_slabs = take(pad_to(v_steps * 4, cpu::kChunk) / cpu::kChunk * Dot::kRows * cpu::kStride);
    scores = (float*)take(Dot::kRows * padded * 4);
    channels = (float*)take(3 * head_dim * 4);
    rows = (int8_t*)take(4 * pad_to(head_dim, 16));
    bytes = at;
  }
};

// One key into its column of a panel.
template <class Dot>
void pack_key(const void* key, int64_t head_dim, unsigned char* panel, int64_t column) {
  constexpr int64_t C = Dot::kVectors * 16;
  constexpr int64_t kStep = C * Dot::kWeightBytes;
  unsigned char* to = panel + C * 4 + column * Dot::kWeightBytes;
  if constexpr (Dot::kGroup == 1) {
    for (int64_t c = 0; c < head_dim; ++c) memcpy(to + c * kStep, (const float*)key + c, 4);
  } else if constexpr (Dot::kGroup == 2) {
    const int8_t* row = (const int8_t*)key;
    for (int64_t c = 0; c < head_dim; ++c) to[c / 2 * kStep + c % 2] = (unsigned char)row[c];
  } else {
    const int8_t* row = (const int8_t*)key;
    int32_t sum = 0;
    for (int64_t c = 0; c < head_dim; ++c) sum += row[c];
    sum *= -128;
    memcpy(panel + column * 4, &sum, 4);
    int64_t whole = head_dim / 4;
    for (int64_t s = 0; s < whole; ++s) memcpy(to + s * kStep, row + s * 4, 4);
    for (int64_t c = whole * 4; c < head_dim; ++c) to[whole * kStep + c % 4] = (unsigned char)row[c];
  }
}

// kGroup tokens of V into one step of every panel; rows past the end are null.
template <class Dot>
void pack_values(const void* const* row, int64_t head_dim, unsigned char* v, int64_t v_panel, int64_t step) {
  constexpr int64_t C = Dot::kVectors * 16;
  by_lanes(head_dim, [&](int64_t c, auto lanes) {
    unsigned char* to = v + c / C * v_panel + (step * C + c % C) * Dot::kWeightBytes;
    if constexpr (Dot::kGroup == 1) {
      store((float*)to, load((const float*)row[0] + c, lanes), Whole{});
    } else {
      __m128i x[Dot::kGroup];
      for (int t = 0; t < Dot::kGroup; ++t)
        x[t] = row[t] != nullptr ? load_bytes((const int8_t*)row[t] + c, lanes) : _mm_setzero_si128();
      if constexpr (Dot::kGroup == 2) {
        _mm_storeu_si128((__m128i*)to, _mm_unpacklo_epi8(x[0], x[1]));
        _mm_storeu_si128((__m128i*)(to + 16), _mm_unpackhi_epi8(x[0], x[1]));
      } else {
        __m128i low01 = _mm_unpacklo_epi8(x[0], x[1]), low23 = _mm_unpacklo_epi8(x[2], x[3]);
        __m128i high01 = _mm_unpackhi_epi8(x[0], x[1]), high23 = _mm_unpackhi_epi8(x[2], x[3]);
        _mm_storeu_si128((__m128i*)to, _mm_unpacklo_epi16(low01, low23));
        _mm_storeu_si128((__m128i*)(to + 16), _mm_unpackhi_epi16(low01, low23));
        _mm_storeu_si128((__m128i*)(to + 32), _mm_unpacklo_epi16(high01, high23));
        _mm_storeu_si128((__m128i*)(to + 48), _mm_unpackhi_epi16(high01, high23));
      }
    }
  });
}

#ifdef __AVX512VNNI__
// Sixteen keys into as many columns of a panel, by transposing blocks of 4 bytes; null keys are zeros.
inline void pack_sixteen_keys(const void* const* key, int64_t head_dim, unsigned char* panel, int64_t columns,
                              int64_t column) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t c = 0; c < head_dim; c += 64) {
    __mmask64 bytes = head_dim - c >= 64 ? ~(uint64_t)0 : ~(uint64_t)0 >> (64 - (head_dim - c));
    __m512i x[16], y[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      x[i] = key[i] == nullptr ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi8(bytes, (const int8_t*)key[i] + c);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        x[i + 2 * h] = _mm512_unpacklo_epi64(y[i + h], y[i + 2 + h]);
        x[i + 2 * h + 1] = _mm512_unpackhi_epi64(y[i + h], y[i + 2 + h]);
      }
      // x[4 q + s]: step 4 l + s of keys 4 q .. 4 q + 3 in its 128-bit lane l.
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) {
      __m512i low01 = _mm512_shuffle_i32x4(x[s], x[4 + s], 0x88), odd01 = _mm512_shuffle_i32x4(x[s], x[4 + s], 0xdd);
      __m512i low23 = _mm512_shuffle_i32x4(x[8 + s], x[12 + s], 0x88);
      __m512i odd23 = _mm512_shuffle_i32x4(x[8 + s], x[12 + s], 0xdd);
      y[s] = _mm512_shuffle_i32x4(low01, low23, 0x88);
      y[8 + s] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
      y[4 + s] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
      y[12 + s] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
    }
    int64_t steps = head_dim - c >= 64 ? 16 : (head_dim - c + 3) / 4;
    unsigned char* to = panel + columns * 4 + (c / 4 * columns + column) * 4;
    for (int64_t s = 0; s < steps; ++s) {
      sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), y[s]);
      _mm512_storeu_si512(to + s * columns * 4, y[s]);
    }
  }
  _mm512_storeu_si512(panel + column * 4, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128)));
}
#endif

// All keys and values of the head. key(j) and value(j) give a row of head_dim values; value's result lives until kGroup
// calls later.
template <class Dot, class Key>
void pack_keys(const HeadBuffers<Dot>& at, int64_t length, int64_t head_dim, Key key) {
  constexpr int64_t C = Dot::kVectors * 16;
#ifdef __AVX512VNNI__
  if constexpr (Dot::kGroup == 4) {
    for (int64_t j = 0; j < at.padded; j += 16) {
      const void* keys[16];
      for (int64_t i = 0; i < 16; ++i) keys[i] = j + i < length ? key(j + i) : nullptr;
      unsigned char* panel = at.k + j / C * at.k_panel;
      int64_t whole = (head_dim + 3) / 4;
      for (int64_t s = whole; s < at.k_steps; ++s) memset(panel + C * 4 + (s * C + j % C) * 4, 0, 64);
      pack_sixteen_keys(keys, head_dim, panel, C, j % C);
    }
    return;
  }
#endif
  // Columns without a key and the rest of the last group must hold zeros.
  if (length % C != 0) memset(at.k + length / C * at.k_panel, 0, (size_t)at.k_panel);
  for (int64_t j = 0; j < length; ++j) {
    unsigned char* panel = at.k + j / C * at.k_panel;
    constexpr int64_t kStep = C * Dot::kWeightBytes;
    int64_t whole = head_dim / Dot::kGroup;
    if (j % C == 0 && j + C <= length && whole < at.k_steps)
      memset(panel + C * 4 + whole * kStep, 0, (size_t)((at.k_steps - whole) * kStep));
    if (Dot::kGroup == 2 && j % C == 0) memset(panel, 0, (size_t)C * 4);  // no compensation
    pack_key<Dot>(key(j), head_dim, panel, j % C);
  }
}
template <class Dot, class Value>
void pack_all_values(const HeadBuffers<Dot>& at, int64_t length, int64_t head_dim, Value value) {
  constexpr int64_t C = Dot::kVectors * 16;
  if (head_dim % C != 0 && at.v_panel > 0) memset(at.v + head_dim / C * at.v_panel, 0, (size_t)at.v_panel);
  for (int64_t step = 0; step < at.v_steps; ++step) {
    const void* rows[Dot::kGroup];
    for (int t = 0; t < Dot::kGroup; ++t) {
      int64_t j = step * Dot::kGroup + t;
      rows[t] = j < length ? value(j) : nullptr;
    }
    pack_values<Dot>(rows, head_dim, at.v, at.v_panel, step);
  }
}

/// Rows of exp(s - max) in place, and the factor that makes them probabilities. `tops`: the maxima, by lane, of all
/// whole groups of sixteen.
inline float softmax_exp(float* s, int64_t n, const float* tops) {
  float most = fold_max(load(tops, Whole{}));
  for (int64_t j = n / int8::kLanes * int8::kLanes; j < n; ++j) most = s[j] > most ? s[j] : most;
  if (s[0] != s[0]) most = s[0];  // a maximum begun with NaN stays NaN
  F m = set1(most), sum = zero();
  by_lanes(n, [&](int64_t j, auto lanes) {
    F e = keep(exp_negative(sub(load(s + j, Whole{}), m)), lanes);
    store(s + j, e, Whole{});
    sum = add(sum, e);
  });
  return 1.0f / fold(sum);
}

// Scores of a tile of queries: s[r][j] = fma(acc (* q_scale[r]), scale (* k_scale[j]), bias[r][j]), and the maxima of
// each row's whole groups of sixteen, by lane.
template <class Dot>
void tile_scores(const HeadBuffers<Dot>& at, int64_t length, int rows, float scale, const float* bias,
                 int64_t bias_stride, const float* q_scale, const float* k_scale, float* tops) {
  constexpr int64_t C = HeadBuffers<Dot>::kColumns;
  alignas(64) int32_t c[Dot::kRows * C];
  for (int r = 0; r < rows; ++r) store(tops + r * int8::kLanes, set1(-INFINITY), Whole{});
  F scales[Dot::kVectors];
  auto score = [&](int r, int v, int64_t j, auto lanes) __attribute__((always_inline)) {
    F acc;
    if constexpr (Dot::kGroup == 1) acc = load((const float*)c + r * C + v * 16, Whole{});
    else acc = to_float(load(c + r * C + v * 16, Whole{}));
    if (q_scale != nullptr) acc = mul(acc, set1(q_scale[r]));
    F add_to = bias != nullptr ? load(bias + r * bias_stride + j + v * 16, lanes) : zero();
    F s = fma(acc, scales[v], add_to);
    store(at.scores + r * at.padded + j + v * 16, s, Whole{});
    return s;
  };
  for (int64_t j = 0; j < length; j += C) {
    const unsigned char* panel = at.k + j / C * at.k_panel;
    const int32_t* init = Dot::kGroup == 1 ? nullptr : (const int32_t*)panel;
    accumulate_rows<Dot>(rows, at.q_slabs, at.k_steps, panel + C * 4, init, c);
    int whole = (int)(length - j < C ? (length - j) / 16 : Dot::kVectors);
    for (int v = 0; v < whole; ++v) {
      scales[v] = set1(scale);
      if (k_scale != nullptr) scales[v] = mul(load(k_scale + j + v * 16, Whole{}), scales[v]);
    }
    auto scale_rows = [&](int vectors) __attribute__((always_inline)) {
      for (int r = 0; r < rows; ++r) {
        F top = load(tops + r * int8::kLanes, Whole{});
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) top = max(score(r, v, j, Whole{}), top);
        store(tops + r * int8::kLanes, top, Whole{});
      }
    };
    if (whole == Dot::kVectors) {
      scale_rows(Dot::kVectors);
      continue;
    }
    scale_rows(whole);
    int left = (int)(length - j) - whole * 16;
    if (left == 0) continue;
    Part lanes{left};
    scales[whole] = set1(scale);
    if (k_scale != nullptr) scales[whole] = mul(load(k_scale + j + whole * 16, lanes), scales[whole]);
    for (int r = 0; r < rows; ++r) score(r, whole, j, lanes);
  }
}

// Probabilities of one row of scores into its slabs.
template <class Dot>
void store_probabilities(const AttentionArgs& a, const float* s, float inverse, int64_t length, int rows,
                         unsigned char* slabs) {
  F factor = set1(inverse), inv_scale = set1(a.p_inv_scale);
  Limits limits(0, a.p_lo, a.p_hi);
  const bool packs = Dot::kGroup == 4 && packs_whole_range(0, a.p_lo, a.p_hi, true);
  by_chunks(length, rows, 4 / Dot::kGroup, [&](int64_t at, int64_t first, int64_t values) {
    int64_t j = 0;
    if (packs) {
      constexpr int64_t kValues = kPackVectors * int8::kLanes;
      for (; j + kValues <= values; j += kValues) {
        I q[kPackVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kPackVectors; ++v)
          q[v] = quantize_to_pack(mul(load(s + first + j + v * int8::kLanes, Whole{}), factor), inv_scale, limits.hi);
        store(slabs + at + j, pack_8<true>(q));
      }
    }
    for (; j < values; j += int8::kLanes) {
      F p = mul(load(s + first + j, Whole{}), factor);
      unsigned char* to = slabs + at + j * (4 / Dot::kGroup);
      if constexpr (Dot::kGroup == 1) {
        store((float*)to, p, Whole{});
      } else {
        I q = quantize(p, inv_scale, limits);
        if constexpr (Dot::kGroup == 4) {
          store_8(to, q, Whole{});
        } else {
          store_16(to, q);
        }
      }
    }
  });
}

template <class Dot>
void tile_context(const AttentionDesc& d, const AttentionArgs& a, const HeadBuffers<Dot>& at, int64_t token, int rows,
                  int64_t column) {
  constexpr int64_t C = HeadBuffers<Dot>::kColumns;
  alignas(64) int32_t c[Dot::kRows * C];
  int64_t bytes = bytes_of(d.y), line = a.ldy * bytes;
  Output out(d.y, a.requant);
  for (int64_t j = 0; j < d.head_dim; j += C) {
    accumulate_rows<Dot>(rows, at.p_slabs, at.v_steps, at.v + j / C * at.v_panel, nullptr, c);
    int64_t left = d.head_dim - j;
    by_lanes(left < C ? left : C, [&](int64_t l, auto lanes) {
      char* y = (char*)a.y + token * line + (column + j + l) * bytes;
      out.channels(column + j + l, lanes);
      F scale = zero();
      if constexpr (Dot::kGroup != 1) {
        scale = load(a.context_scale + column + j + l, lanes);
        if (d.dynamic) scale = mul(scale, load(at.channels + 2 * d.head_dim + j + l, lanes));
      }
      for (int r = 0; r < rows; ++r, y += line) {
        F context;
        if constexpr (Dot::kGroup == 1) context = load((const float*)c + r * C + l, Whole{});
        else context = mul(to_float(load(c + r * C + l, Whole{})), scale);
        out.store(y, context, lanes);
      }
    });
  }
}

// Largest magnitudes of 16 * kVectors channels over the row's tokens.
template <int kVectors>
inline void channel_amax(const float* v, int64_t ld, int64_t length, float* top) {
  F most[kVectors];
#pragma GCC unroll 4
  for (int l = 0; l < kVectors; ++l) most[l] = zero();
  for (int64_t j = 0; j < length; ++j, v += ld)
#pragma GCC unroll 4
    for (int l = 0; l < kVectors; ++l) most[l] = max(abs(load(v + l * 16, Whole{})), most[l]);
#pragma GCC unroll 4
  for (int l = 0; l < kVectors; ++l) store(top + l * 16, most[l], Whole{});
}

// amax, inv_scale and scale of V's channels over the row's tokens.
inline void value_ranges(const float* v, int64_t ld, int64_t length, int64_t head_dim, float* channels) {
  int64_t c = 0;
  for (; c + 64 <= head_dim; c += 64) channel_amax<4>(v + c, ld, length, channels + c);
  for (; c + 16 <= head_dim; c += 16) channel_amax<1>(v + c, ld, length, channels + c);
  for (int64_t rest = c; rest < head_dim; ++rest) channels[rest] = 0.0f;
  if (c < head_dim)
    for (int64_t j = 0; j < length; ++j) {
      Part lanes{(int)(head_dim - c)};
      store(channels + c, max(abs(load(v + j * ld + c, lanes)), load(channels + c, lanes)), lanes);
    }
  for (int64_t c = 0; c < head_dim; ++c) {
    bool tiny = channels[c] <= int8::kTinyAmax;
    channels[head_dim + c] = tiny ? 0.0f : 127.0f / channels[c];
    channels[2 * head_dim + c] = tiny ? 0.0f : channels[c] / 127.0f;
  }
}
inline void quantize_values(const float* x, int64_t n, const float* inv_scale, int8_t* y) {
  quantize_covered(x, n, y, [&](int64_t c, auto lanes) { return load(inv_scale + c, lanes); });
}

template <class Dot>
int64_t attention_scratch(const AttentionDesc& d, int64_t max_length) {
  return HeadBuffers<Dot>(max_length, d.head_dim, nullptr).bytes;
}

template <class Dot>
void attention_head(const AttentionDesc& d, const AttentionArgs& a, const cpu::HeadWork& work, unsigned char* scratch) {
  int64_t length = work.length, head_dim = d.head_dim, column = work.head * head_dim;
  HeadBuffers<Dot> at(length, head_dim, scratch);
  auto row = [&](const void* x, int64_t ld, int64_t j, int64_t bytes) {
    return (const unsigned char*)x + ((work.first + j) * ld + column) * bytes;
  };
  int64_t width = d.heads * head_dim, row_stride = pad_to(head_dim, 16);
  constexpr int64_t kBytes = HeadBuffers<Dot>::kGroupBytes;
  auto key = [&](int64_t j) { return d.dynamic ? row(work.k, width, j, 1) : row(a.k, a.ldk, j, kBytes); };
  auto query = [&](int64_t i) {
    i += work.query_first - work.first;
    return d.dynamic ? row(work.q, width, i, 1) : row(a.q, a.ldq, i, kBytes);
  };
  pack_keys<Dot>(at, length, head_dim, key);
  if (d.dynamic) value_ranges((const float*)row(a.v, a.ldv, 0, 4), a.ldv, length, head_dim, at.channels);
  pack_all_values<Dot>(at, length, head_dim, [&](int64_t j) -> const void* {
    if (!d.dynamic) return row(a.v, a.ldv, j, kBytes);
    int8_t* to = at.rows + j % Dot::kGroup * row_stride;
    quantize_values((const float*)row(a.v, a.ldv, j, 4), head_dim, at.channels + head_dim, to);
    return to;
  });
  int64_t queries = work.query_end - work.query_begin, tiles = (queries + Dot::kRows - 1) / Dot::kRows;
  alignas(64) float tops[Dot::kRows * int8::kLanes];
  for (int64_t t = 0; t < tiles; ++t) {
    int64_t begin = work.query_begin + queries * t / tiles, end = work.query_begin + queries * (t + 1) / tiles;
    int rows = (int)(end - begin);
    for (int r = 0; r < rows; ++r) copy_row<Dot>(query(begin + r), head_dim, true, rows, at.q_slabs + r * cpu::kStride);
    const float* bias = d.bias ? a.bias + work.head * a.bias_head_stride + begin * a.bias_query_stride : nullptr;
    tile_scores<Dot>(at, length, rows, a.score_scale[work.head], bias, a.bias_query_stride,
                     d.dynamic ? work.q_scale + work.query_first + begin : nullptr,
                     d.dynamic ? work.k_scale + work.first : nullptr, tops);
    // Two loops: a row's sum is a chain of additions, which the next row's exponentials hide.
    float inverse[Dot::kRows];
    for (int r = 0; r < rows; ++r) inverse[r] = softmax_exp(at.scores + r * at.padded, length, tops + r * int8::kLanes);
    for (int r = 0; r < rows; ++r)
      store_probabilities<Dot>(a, at.scores + r * at.padded, inverse[r], length, rows, at.p_slabs + r * cpu::kStride);
    tile_context<Dot>(d, a, at, work.query_first + begin, rows, column);
  }
}

template <class Dot>
constexpr cpu::AttentionTile attention_tile() {
  return {attention_scratch<Dot>, attention_head<Dot>};
}

}  // namespace
}  // namespace octet::kernels
