// GEMMs with residual add and LayerNorm in their epilogue: every tile has the bits of the two kernels it stands for.
#include "kernels/gpu_harness.h"
#include "kernels/tiles.h"

namespace octet::kernels {
namespace {

class GpuGemmNorm : public testing::Test {
 protected:
  void SetUp() override {
    OCTET_NEEDS_GPU();
    if (device::find_device().target.sm != 90) GTEST_SKIP() << "the fused kernels are for compute capability 9.0";
  }
};

struct NormTileCase {
  const char* tile;
  int64_t n;
};
const NormTileCase kNormTileCases[] = {{"norm_s8_128x384_c2", 768}, {"norm_s8_64x384_c2", 768},
                                       {"norm_s8_64x192_c4", 768},  {"norm_s8_few_c6", 768},
                                       {"norm_s8_few_c8", 768},     {"norm_s8_few_1024_c8", 1024}};
const int64_t kNormK[] = {64, 144, 768, 1024, 3072, 4096};
const int64_t kNormM[] = {1, 63, 64, 65, 127, 257, 521, 1024, 2048, 2111};

TEST_F(GpuGemmNorm, SameBitsAsTwoKernels) {
  uint32_t seed = run_seed() + 9000;
  for (int64_t n : {768, 1024})
    for (int64_t k : kNormK)
      for (int64_t m : kNormM) {
        ++seed;
        SCOPED_TRACE(::testing::Message() << "m " << m << " n " << n << " k " << k << " seed " << seed);
        const GemmDesc gemm_desc{.n = n, .k = k, .x = DType::s8, .w = DType::s8, .y = DType::s8, .bias = seed % 4 != 0};
        NormDesc norm_desc{.n = n, .a = DType::s8, .residual = true, .b = DType::s8, .outputs = 1};
        norm_desc.y[0] = {DType::s8};
        const GemmKernel* gemm = nullptr;
        for (const GemmKernel& row : gemm_kernels())
          if (row.run_with_norm != nullptr) gemm = &row;
        ASSERT_NE(gemm, nullptr);
        const NormKernel* norm = nullptr;
        for (const NormKernel& row : norm_kernels())
          if (row.name == "norm_cuda") norm = &row;
        ASSERT_NE(norm, nullptr);
        ASSERT_EQ(gemm->refuse_with_norm(gemm_desc, norm_desc), nullptr);

        Data data(seed);
        const float unit = 1.0f / (2000.0f * std::sqrt(static_cast<float>(k)));
        Guarded x = data.values(DType::s8, m * k), w = data.values(DType::s8, n * k),
                residual = data.values(DType::s8, m * n), scale = data.floats(n, 0.5f * unit, 1.5f * unit),
                bias = data.floats(n, -1.0f, 1.0f), inv = data.floats(n, 20.0f, 90.0f),
                q_scale = data.floats(n, 0.001f, 0.02f), residual_scale = data.floats(n, 0.001f, 0.02f),
                gamma = data.floats(n, 0.5f, 2.0f), beta = data.floats(n), out_inv = data.floats(n, 10.0f, 90.0f);
        Guarded packed(gemm->packed_bytes(gemm_desc)), empty(m * n);
        gemm->pack(gemm_desc, w.data(), packed.data());
        OnDevice dx(x), dw(packed), dr(residual), ds(scale), db(bias), di(inv), dqs(q_scale), drs(residual_scale),
            dg(gamma), dbeta(beta), dout(out_inv), dq(empty), dwant(empty);
        GemmArgs a;
        a.m = m, a.x = dx.data(), a.ldx = k, a.packed = dw.as<unsigned char>(), a.scale = ds.as<float>();
        a.bias = gemm_desc.bias ? db.as<float>() : nullptr, a.requant = {di.as<float>(), 0, -128, 127};
        a.y = dq.data(), a.ldy = n;
        NormArgs b;
        b.m = m, b.a = dq.data(), b.a_scale = dqs.as<float>(), b.b = dr.data(), b.b_scale = drs.as<float>();
        b.gamma = dg.as<float>(), b.beta = dbeta.as<float>(), b.epsilon = 1e-5f;
        b.out[0].y = dwant.data(), b.out[0].requant = {dout.as<float>(), 0, -128, 127};
        gemm->run(gemm_desc, a, {.stream = test_stream()});
        norm->run(norm_desc, b, {.stream = test_stream()});
        finish_launch(*norm);
        Guarded want = dwant.read(test_stream());
        if (m <= 65) {  // and these are right, given the integers of the GEMM
          Guarded q = dq.read(test_stream()), reference(m * n);
          NormArgs host = b;
          host.a = q.data(), host.b = residual.data(), host.a_scale = q_scale.as<float>(),
          host.b_scale = residual_scale.as<float>(), host.gamma = gamma.as<float>(), host.beta = beta.as<float>();
          host.out[0].y = reference.data(), host.out[0].requant.inv_scale = out_inv.as<float>();
          reference_of(norm_kernels(), norm_desc).run(norm_desc, host, {.pool = &pool_of(2)});
          expect_close(*norm, DType::s8, want, reference, 0);
        }
        for (const NormTileCase& c : kNormTileCases) {
          if (c.n != n) continue;
          SCOPED_TRACE(c.tile);
          const std::string key = device::tile_key(gemm_desc, m, true);
          device::remember_tiles({{key, c.tile}});
          ASSERT_EQ(device::known_tiles()[key], c.tile);
          OnDevice dy(empty);
          b.out[0].y = dy.data();
          ASSERT_TRUE(gemm->run_with_norm(gemm_desc, a, b, {.stream = test_stream()}));
          finish_launch(*gemm);
          const Guarded y = dy.read(test_stream());
          int64_t different = 0, first = -1;
          for (int64_t i = 0; i < m * n; ++i)
            if (y.data()[i] != want.data()[i]) {
              if (first < 0) first = i;
              ++different;
            }
          ASSERT_EQ(different, 0) << "of " << m * n << ", the first at row " << first / n << " column " << first % n;
        }
      }
}

}  // namespace
}  // namespace octet::kernels
