// Attention rows of the GPU, fused and one by one, against the scalar reference on ragged batches.
#include "kernels/gpu_harness.h"

namespace octet::kernels {
namespace {

class GpuAttention : public testing::Test {
 protected:
  void SetUp() override { OCTET_NEEDS_GPU(); }
};

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
  int64_t tokens, longest = 0, width;
  Guarded q, k, v, score_scale, context_scale, bias, inv_scale, starts;

  Problem(AttentionDesc desc, const std::vector<int>& lengths, uint32_t seed) : d(desc), seed_(seed) {
    Data data(seed);
    for (int length : lengths) {
      offsets.push_back(offsets.back() + length);
      longest = std::max<int64_t>(longest, length);
    }
    tokens = offsets.back();
    width = d.heads * d.head_dim;
    for (Guarded* x : {&q, &k, &v}) *x = data.values(d.qkv, tokens * width);
    float unit = (d.qkv == DType::s8 ? 1.0f / 2000.0f : 2.0f) / std::sqrt(static_cast<float>(d.head_dim));
    score_scale = data.floats(d.heads, unit, unit);
    context_scale = data.floats(width, 1e-4f, 4e-4f);
    bias = data.floats(d.heads * bias_size(longest, seed), -3.0f, 1.0f);
    // A probability that rounds the other way moves the output by at most 127 * 4e-4 * 18 = 0.91 steps.
    inv_scale = data.floats(width, 5.0f, 18.0f);
    starts = Guarded(static_cast<int64_t>(offsets.size()) * 4);
    std::memcpy(starts.data(), offsets.data(), static_cast<size_t>(starts.bytes()));
  }

  AttentionArgs args() const {
    AttentionArgs a;
    a.rows = static_cast<int64_t>(offsets.size()) - 1;
    a.tokens = tokens;
    a.max_length = longest;
    a.ldq = a.ldk = a.ldv = a.ldy = width;
    if (d.p == DType::s8) a.p_inv_scale = 127.0f, a.p_hi = 127;
    a.float_scale = score_scale.as<float>()[0];
    return a;
  }
  Guarded reference() const {
    Guarded y(tokens * width * size_of(d.y));
    AttentionArgs a = args();
    a.offsets = offsets.data();
    a.q = q.data(), a.k = k.data(), a.v = v.data(), a.y = y.data();
    a.score_scale = score_scale.as<float>();
    if (d.bias) set_bias(a, bias.as<float>(), longest, seed_);
    a.context_scale = context_scale.as<float>();
    a.requant.inv_scale = inv_scale.as<float>();
    reference_of(attention_kernels(), d).run(d, a, {.pool = &pool_of(2)});
    return y;
  }
  Guarded run(const AttentionKernel& row) const {
    Guarded y(tokens * width * size_of(d.y));
    std::memset(y.data(), 0x5a, static_cast<size_t>(y.bytes()));
    int64_t bytes = row.scratch_bytes(d, longest, 1) + 64;
    if (row.scratch_bytes_a_token != nullptr) bytes += tokens * row.scratch_bytes_a_token(d);
    Guarded scratch(bytes);
    OnDevice dq(q), dk(k), dv(v), ds(score_scale), dc(context_scale), db(bias), di(inv_scale), dst(starts), dy(y),
        dscratch(scratch);
    AttentionArgs a = args();
    a.offsets = dst.as<int32_t>();
    a.q = dq.data(), a.k = dk.data(), a.v = dv.data(), a.y = dy.data();
    a.score_scale = ds.as<float>();
    if (d.bias) set_bias(a, db.as<float>(), longest, seed_);
    a.context_scale = dc.as<float>();
    a.requant.inv_scale = di.as<float>();
    a.scratch = dscratch.as<unsigned char>();
    row.run(d, a, {.stream = test_stream()});
    finish_launch(row);
    dscratch.read(test_stream());
    return dy.read(test_stream());
  }
  void check() const {
    Guarded want = reference();
    double tolerance = d.qkv == DType::bf16                       ? 2e-2
                       : d.qkv == DType::f16 || size_of(d.y) == 2 ? 8e-3
                       : d.p == DType::u8 && d.qkv != DType::f32  ? 1e-2
                                                                  : 1e-4;
    for_each_gpu_row(attention_kernels(), d, true, [&](const AttentionKernel& row) {
      expect_close(row, d.y, run(row), want, tolerance, d.p != DType::f32);
    });
  }
};

const std::vector<int> kRagged{1, 2, 3, 5, 13, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129};

TEST_F(GpuAttention, RowsAgreeWithTheReference) {
  uint32_t seed = run_seed() + 3000;
  for (DType qkv : {DType::s8, DType::f32, DType::f16, DType::bf16})
    for (bool dynamic : {false, true})
      for (DType p : {DType::u8, DType::s8, DType::f32})
        for (DType y : {DType::s8, DType::f32, DType::f16, DType::bf16})
          for (bool bias : {false, true}) {
            if (dynamic && (qkv != DType::f32 || p == DType::f32)) continue;
            if (!dynamic && (qkv == DType::s8) != (p != DType::f32)) continue;
            if (qkv != DType::s8 && y == DType::s8) continue;  // no plan asks for it
            for (int64_t head_dim : {30, 32, 64, 128}) {
              if (head_dim != 64 && seed % 3 != 0) {
                ++seed;
                continue;
              }
              SCOPED_TRACE(::testing::Message()
                           << name(qkv) << " p " << name(p) << " y " << name(y) << " bias " << bias << " dynamic "
                           << dynamic << " head_dim " << head_dim << " seed " << seed);
              Problem({.heads = 3, .head_dim = head_dim, .qkv = qkv, .p = p, .y = y, .bias = bias, .dynamic = dynamic},
                      kRagged, seed)
                  .check();
              ++seed;
              if (HasFatalFailure()) return;
            }
          }
}

TEST_F(GpuAttention, LongRows) {
  uint32_t seed = run_seed() + 4000;
  for (std::vector<int> lengths : {std::vector<int>{255, 256, 257}, {384}, {511, 512, 513}, {1100}, {1, 2053}})
    for (bool dynamic : {false, true}) {
      AttentionDesc d{.heads = 2, .head_dim = 64, .qkv = DType::s8, .p = DType::u8, .y = DType::s8};
      if (dynamic) d.qkv = DType::f32, d.dynamic = true, d.y = DType::f32;
      SCOPED_TRACE(::testing::Message() << "length " << lengths.back() << " dynamic " << dynamic << " seed " << seed);
      Problem(d, lengths, seed++).check();
      if (HasFatalFailure()) return;
    }
}

// So many short rows that kernels change how they share a block.
TEST_F(GpuAttention, ManyShortRows) {
  uint32_t seed = run_seed() + 4500;
  for (int64_t head_dim : {32, 64, 128})
    for (DType qkv : {DType::s8, DType::f16}) {
      std::vector<int> lengths;
      Data data(seed);
      for (int r = 0; r < 120; ++r) lengths.push_back(1 + static_cast<int>(data.below(64)));
      bool ints = qkv == DType::s8;
      SCOPED_TRACE(::testing::Message() << name(qkv) << " head_dim " << head_dim << " seed " << seed);
      Problem({.heads = 11, .head_dim = head_dim, .qkv = qkv, .p = ints ? DType::u8 : DType::f32, .y = qkv}, lengths,
              seed++)
          .check();
      if (HasFatalFailure()) return;
    }
}

// A row of the batch gives the same bits alone.
TEST_F(GpuAttention, RowsDoNotDependOnTheBatch) {
  AttentionDesc d{.heads = 2, .head_dim = 64, .qkv = DType::s8, .p = DType::u8, .y = DType::s8};
  Problem p(d, {40, 50, 7, 300, 64}, 9);
  for_each_gpu_row(attention_kernels(), d, true, [&](const AttentionKernel& row) {
    Guarded all = p.run(row);
    for (size_t r = 0; r + 1 < p.offsets.size(); ++r) {
      int64_t first = p.offsets[r], length = p.offsets[r + 1] - first;
      Problem one(d, {static_cast<int>(length)}, 9);
      std::pair<Guarded*, const Guarded*> copies[] = {{&one.q, &p.q}, {&one.k, &p.k}, {&one.v, &p.v}};
      for (auto [to, from] : copies)
        std::memcpy(to->data(), from->data() + first * p.width, static_cast<size_t>(length * p.width));
      for (auto [to, from] : {std::pair{&one.score_scale, &p.score_scale},
                              {&one.context_scale, &p.context_scale},
                              {&one.inv_scale, &p.inv_scale}})
        std::memcpy(to->data(), from->data(), static_cast<size_t>(from->bytes()));
      Guarded y = one.run(row);
      ASSERT_EQ(std::memcmp(y.data(), all.data() + first * p.width, static_cast<size_t>(length * p.width)), 0)
          << "row " << r;
    }
  });
}

TEST_F(GpuAttention, OneByOne) {
  uint32_t seed = run_seed() + 5000;
  Guarded starts((static_cast<int64_t>(kRagged.size()) + 1) * 4);
  int64_t squares = 0, longest = 0;
  starts.as<int32_t>()[0] = 0;
  for (size_t r = 0; r < kRagged.size(); ++r) {
    starts.as<int32_t>()[r + 1] = starts.as<int32_t>()[r] + kRagged[r];
    squares += int64_t{kRagged[r]} * kRagged[r];
    longest = std::max<int64_t>(longest, kRagged[r]);
  }
  int64_t tokens = starts.as<int32_t>()[kRagged.size()];
  for (ScoresKind kind : {ScoresKind::scores, ScoresKind::softmax, ScoresKind::context})
    for (int64_t head_dim : {8, 17, 32, 64})
      for (bool bias : {false, true}) {
        ScoresDesc d{.kind = kind, .heads = 2, .head_dim = head_dim, .bias = bias};
        SCOPED_TRACE(::testing::Message()
                     << "kind " << static_cast<int>(kind) << " head_dim " << head_dim << " seed " << seed);
        Data data(seed++);
        int64_t width = d.heads * head_dim;
        Guarded a = data.floats(kind == ScoresKind::scores ? tokens * width : d.heads * squares);
        Guarded b = data.floats(tokens * width), bias_values = data.floats(d.heads * bias_size(longest, seed));
        Guarded y((kind == ScoresKind::context ? tokens * width : d.heads * squares) * 4), want(y.bytes());
        ScoresArgs args{.rows = static_cast<int64_t>(kRagged.size()),
                        .offsets = starts.as<int32_t>(),
                        .a = a.as<float>(),
                        .b = b.as<float>(),
                        .scale = 0.3f,
                        .y = want.as<float>()};
        if (bias) set_bias(args, bias_values.as<float>(), longest, seed);
        reference_of(scores_kernels(), d).run(d, args, {.pool = &pool_of(2)});
        for_each_gpu_row(scores_kernels(), d, true, [&](const ScoresKernel& row) {
          OnDevice da(a), db(b), dbias(bias_values), ds(starts), dy(y);
          ScoresArgs on = args;
          on.offsets = ds.as<int32_t>();
          on.a = da.as<float>(), on.b = db.as<float>(), on.y = dy.as<float>();
          if (bias) set_bias(on, dbias.as<float>(), longest, seed);
          row.run(d, on, {.stream = test_stream()});
          finish_launch(row);
          expect_close(row, DType::f32, dy.read(test_stream()), want, 2e-5, kind == ScoresKind::softmax);
        });
        if (HasFatalFailure()) return;
      }
}

}  // namespace
}  // namespace octet::kernels
