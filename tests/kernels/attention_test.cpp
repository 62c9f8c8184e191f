// Attention rows, fused and one by one, against the reference, on ragged batches.
#include "kernels/harness.h"

namespace octet::kernels {
namespace {

/// With some seeds a bias by distance only, as short as it may be.
bool by_distance(uint32_t seed) { return seed / 3 % 2 == 1; }
int64_t bias_size(int64_t longest, uint32_t seed) { return by_distance(seed) ? 2 * longest - 1 : longest * longest; }
template <typename Args>
void set_bias(Args& args, const float* bias, int64_t longest, uint32_t seed) {
  args.bias = by_distance(seed) ? bias + longest - 1 : bias;
  args.bias_head_stride = bias_size(longest, seed);
  args.bias_query_stride = by_distance(seed) ? -1 : longest;
}

struct Problem {
  AttentionDesc d;
  uint32_t seed_;
  std::vector<int32_t> offsets{0};
  int64_t tokens, longest = 0, width, ld, ldy;
  Guarded q, k, v, score_scale, context_scale, bias, inv_scale;

  Problem(AttentionDesc desc, const std::vector<int>& lengths, uint32_t seed, bool strided) : d(desc), seed_(seed) {
    Data data(seed);
    for (int length : lengths) {
      offsets.push_back(offsets.back() + length);
      longest = std::max<int64_t>(longest, length);
    }
    tokens = offsets.back();
    width = d.heads * d.head_dim;
    ld = width + (strided ? 7 : 0);
    ldy = width + (strided ? 2 : 0);
    for (Guarded* x : {&q, &k, &v}) *x = data.values(d.qkv, (tokens - 1) * ld + width);
    float unit = (d.qkv == DType::s8 ? 1.0f / 2000.0f : 2.0f) / std::sqrt(static_cast<float>(d.head_dim));
    score_scale = data.floats(d.heads, 0.5f * unit, 2.0f * unit);
    context_scale = data.floats(width, 1e-4f, 4e-4f);
    bias = data.floats(d.heads * bias_size(longest, seed), -3.0f, 1.0f);
    inv_scale = data.floats(width, 20.0f, 90.0f);
  }

  AttentionArgs args() const {
    AttentionArgs a;
    a.rows = static_cast<int64_t>(offsets.size()) - 1;
    a.offsets = offsets.data();
    a.tokens = tokens;
    a.max_length = longest;
    a.q = q.data();
    a.k = k.data();
    a.v = v.data();
    a.ldq = a.ldk = a.ldv = ld;
    a.score_scale = score_scale.as<float>();
    if (d.bias) set_bias(a, bias.as<float>(), longest, seed_);
    if (d.p == DType::s8) a.p_inv_scale = 127.0f, a.p_hi = 127;
    a.context_scale = context_scale.as<float>();
    a.requant.inv_scale = inv_scale.as<float>();
    a.requant.lo = -127;
    a.ldy = ldy;
    return a;
  }

  Guarded run(const AttentionKernel& row, const Launch& launch) const {
    Guarded y(((tokens - 1) * ldy + width) * size_of(d.y));
    std::memset(y.data(), 0x5a, y.bytes());
    int64_t bytes = row.scratch_bytes(d, longest, launch.pool->threads());
    if (row.scratch_bytes_a_token != nullptr) bytes += tokens * row.scratch_bytes_a_token(d);
    Guarded scratch((bytes + 63) / 64 * 64);
    AttentionArgs a = args();
    a.y = y.data();
    a.scratch = scratch.data();
    row.run(d, a, launch);
    EXPECT_TRUE(scratch.canary_intact());
    return y;
  }

  void check() const {
    Guarded want = run(reference_of(attention_kernels(), d), {.pool = &pool_of(1)});
    for_each_row(attention_kernels(), d, [&](const AttentionKernel& row, const Launch& launch) {
      expect_same(d.y, run(row, launch), want, d.p == DType::f32 ? (size_of(d.y) == 1 ? 0.02 : 2e-5) : 0.0);
    });
  }
};

const std::vector<int> kRagged{1, 2, 3, 5, 13, 14, 15, 0, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129};

TEST(Attention, RowsEqualTheReference) {
  uint32_t seed = 1;
  for (DType qkv : {DType::s8, DType::f32})
    for (bool dynamic : {false, true})
      for (DType p : {DType::u8, DType::s8, DType::f32})
        for (DType y : {DType::s8, DType::f32})
          for (bool bias : {false, true}) {
            if (dynamic && (qkv != DType::f32 || p == DType::f32)) continue;
            if (!dynamic && (qkv == DType::s8) != (p != DType::f32)) continue;
            for (int64_t head_dim : {1, 32, 30, 64}) {
              SCOPED_TRACE(::testing::Message()
                           << name(qkv) << " p " << name(p) << " y " << name(y) << " bias " << bias << " dynamic "
                           << dynamic << " head_dim " << head_dim << " seed " << seed);
              Problem({.heads = 3, .head_dim = head_dim, .qkv = qkv, .p = p, .y = y, .bias = bias, .dynamic = dynamic},
                      kRagged, seed, seed % 2 == 0)
                  .check();
              ++seed;
              if (HasFatalFailure()) return;
            }
          }
}

TEST(Attention, LongRows) {
  uint32_t seed = 1000;
  for (std::vector<int> lengths : {std::vector<int>{255, 256, 257}, {384}, {511, 512, 513}, {1100}})
    for (bool dynamic : {false, true}) {
      AttentionDesc d{.heads = 2, .head_dim = 24, .qkv = DType::s8, .p = DType::u8, .y = DType::s8};
      if (dynamic) d.qkv = DType::f32, d.dynamic = true;
      SCOPED_TRACE(::testing::Message() << "length " << lengths.back() << " dynamic " << dynamic << " seed " << seed);
      Problem(d, lengths, seed++, false).check();
      if (HasFatalFailure()) return;
      Problem({.heads = 2, .head_dim = 24}, lengths, seed++, false).check();
      if (HasFatalFailure()) return;
    }
}

TEST(Attention, ExtremesAreExact) {
  Problem p({.heads = 1, .head_dim = 64, .qkv = DType::s8, .p = DType::u8, .y = DType::f32}, {300}, 3, false);
  for (Guarded* x : {&p.q, &p.k, &p.v}) std::memset(x->data(), -128, x->bytes());
  p.check();
}

// The first query of each row alone gives what it has among the others.
TEST(Attention, FirstQueriesAlone) {
  uint32_t seed = 50;
  for (bool dynamic : {false, true})
    for (DType p : {DType::u8, DType::f32}) {
      if (dynamic && p == DType::f32) continue;
      AttentionDesc d{.heads = 3, .head_dim = 30, .qkv = dynamic || p == DType::f32 ? DType::f32 : DType::s8, .p = p};
      d.dynamic = dynamic;
      Problem all(d, {5, 1, 14, 40, 129}, seed++, false);
      int64_t rows = static_cast<int64_t>(all.offsets.size()) - 1, bytes = all.width * size_of(d.qkv);
      for_each_row(attention_kernels(), d, [&](const AttentionKernel& row, const Launch& launch) {
        Guarded want = all.run(row, launch), q(rows * bytes), y(rows * all.width * 4);
        for (int64_t r = 0; r < rows; ++r)
          std::memcpy(q.as<char>() + r * bytes, all.q.as<char>() + all.offsets[static_cast<size_t>(r)] * bytes,
                      static_cast<size_t>(bytes));
        AttentionArgs a = all.args();
        a.q = q.data();
        a.y = y.data();
        a.first_query = true;
        int64_t scratch_bytes = row.scratch_bytes(d, all.longest, launch.pool->threads());
        if (row.scratch_bytes_a_token != nullptr) scratch_bytes += all.tokens * row.scratch_bytes_a_token(d);
        Guarded scratch((scratch_bytes + 63) / 64 * 64);
        a.scratch = scratch.data();
        row.run(d, a, launch);
        for (int64_t r = 0; r < rows; ++r)
          ASSERT_EQ(std::memcmp(y.as<float>() + r * all.width,
                                want.as<float>() + all.offsets[static_cast<size_t>(r)] * all.width,
                                static_cast<size_t>(all.width * 4)),
                    0);
      });
      if (HasFatalFailure()) return;
    }
}

// A row of the batch gives the same bits alone.
TEST(Attention, RowsDoNotDependOnTheBatch) {
  AttentionDesc d{.heads = 2, .head_dim = 32, .qkv = DType::f32, .p = DType::u8, .y = DType::f32, .dynamic = true};
  Problem p(d, {40, 50, 7}, 9, false);
  for_each_row(attention_kernels(), d, [&](const AttentionKernel& row, const Launch& launch) {
    Guarded all = p.run(row, launch);
    Problem one(d, {50}, 9, false);
    std::pair<Guarded*, const Guarded*> copies[] = {{&one.q, &p.q}, {&one.k, &p.k}, {&one.v, &p.v}};
    for (auto [to, from] : copies) std::memcpy(to->data(), from->as<float>() + 40 * p.width, 50 * p.width * 4);
    std::memcpy(one.score_scale.data(), p.score_scale.data(), p.score_scale.bytes());
    std::memcpy(one.context_scale.data(), p.context_scale.data(), p.context_scale.bytes());
    Guarded y = one.run(row, launch);
    ASSERT_EQ(std::memcmp(y.data(), all.as<float>() + 40 * p.width, 50 * p.width * 4), 0);
  });
}

TEST(Scores, RowsAgreeWithTheReference) {
  uint32_t seed = 1;
  std::vector<int32_t> offsets{0};
  int64_t squares = 0, longest = 0;
  for (int length : kRagged) {
    offsets.push_back(offsets.back() + length);
    squares += int64_t{length} * length;
    longest = std::max<int64_t>(longest, length);
  }
  for (ScoresKind kind : {ScoresKind::scores, ScoresKind::softmax, ScoresKind::context})
    for (int64_t head_dim : {8, 17, 32, 64})
      for (bool bias : {false, true}) {
        ScoresDesc d{.kind = kind, .heads = 2, .head_dim = head_dim, .bias = bias};
        SCOPED_TRACE(::testing::Message()
                     << "kind " << static_cast<int>(kind) << " head_dim " << head_dim << " seed " << seed);
        Data data(seed++);
        int64_t width = d.heads * head_dim, tokens = offsets.back();
        Guarded a = data.floats(kind == ScoresKind::scores ? tokens * width : d.heads * squares);
        Guarded b = data.floats(tokens * width), bias_values = data.floats(d.heads * bias_size(longest, seed));
        int64_t out = kind == ScoresKind::context ? tokens * width : d.heads * squares;
        auto run = [&](const ScoresKernel& row, const Launch& launch) {
          Guarded y(out * 4);
          ScoresArgs args;
          args.rows = static_cast<int64_t>(offsets.size()) - 1;
          args.offsets = offsets.data();
          args.a = a.as<float>();
          args.b = b.as<float>();
          args.scale = 0.3f;
          if (bias) set_bias(args, bias_values.as<float>(), longest, seed);
          args.y = y.as<float>();
          row.run(d, args, launch);
          return y;
        };
        Guarded want = run(reference_of(scores_kernels(), d), {.pool = &pool_of(1)});
        for_each_row(scores_kernels(), d, [&](const ScoresKernel& row, const Launch& launch) {
          expect_same(DType::f32, run(row, launch), want, kind == ScoresKind::softmax ? 0.0 : 2e-5);
        });
        if (HasFatalFailure()) return;
      }
}

}  // namespace
}  // namespace octet::kernels
