// A build without CUDA has no rows for GPUs.
#include "core/error.h"
#include "kernels/device.h"
#include "kernels/rows.h"
#include "kernels/tiles.h"

namespace octet::kernels::cuda {

std::span<const GemmKernel> gemm_rows() noexcept { return {}; }
std::span<const AttentionKernel> attention_rows() noexcept { return {}; }
std::span<const NormKernel> norm_rows() noexcept { return {}; }
std::span<const EmbedKernel> embed_rows() noexcept { return {}; }
std::span<const PoolKernel> pool_rows() noexcept { return {}; }
std::span<const ElementwiseKernel> elementwise_rows() noexcept { return {}; }
std::span<const ScoresKernel> scores_rows() noexcept { return {}; }

}  // namespace octet::kernels::cuda

namespace octet::kernels::device {

namespace {
[[noreturn]] void absent() {
  fail(ErrorCode::device, {.what = "this build of octet has no CUDA engine", .hint = "build with the preset cuda"});
}
}  // namespace

const Info& find_device() {
  static const Info info{.present = false, .reason = "this build of octet has no CUDA engine (preset cuda)"};
  return info;
}
uint64_t generation() noexcept { return 0; }
void recover() { absent(); }
int64_t free_memory() { absent(); }
void* allocate(int64_t) { absent(); }
void release(void*, uint64_t) noexcept {}
void* allocate_pinned(int64_t) { absent(); }
void release_pinned(void*, uint64_t) noexcept {}
void* create_stream() { absent(); }
void destroy_stream(void*) noexcept {}
void synchronize(void*) { absent(); }
void to_device(void*, const void*, int64_t, void*) { absent(); }
void to_host(void*, const void*, int64_t, void*) { absent(); }
void transfer(void*, const void*, int64_t, void*) { absent(); }
void on_device(void*, const void*, int64_t, void*) { absent(); }
void clear(void*, int64_t, void*) { absent(); }
void stage_batch(const BatchStage&, void*) { absent(); }
void positions(const int32_t*, const int32_t*, int64_t, int32_t, int32_t, int32_t*, void*) { absent(); }
Histogram* create_histogram(int64_t) { absent(); }
void destroy_histogram(Histogram*) noexcept {}
void collect(Histogram*, const float*, int64_t, void*) { absent(); }
HistogramValues read(Histogram*, void*) { absent(); }
void* capture(void*, const std::function<void()>&) { absent(); }
void launch(void*, void*) { absent(); }
void destroy_graph(void*) noexcept {}
double time_ms(void*, const std::function<void()>&) { absent(); }
void check_launch(const std::string&) { absent(); }
void note_failure(int, const char*) noexcept {}
std::vector<int64_t> tile_rows(int64_t) { return {}; }
std::string tile_key(const GemmDesc&, int64_t, bool) { return {}; }
void measure_tile(const GemmDesc&, int64_t, bool) {}
void remember_tiles(const Tiles&) {}
Tiles known_tiles() { return {}; }

}  // namespace octet::kernels::device
