// A build without CUDA has no rows for GPUs.
#include "core/error.h"
#include "kernels/device.h"
#include "kernels/rows.h"

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
void* allocate(int64_t) { absent(); }
void release(void*) noexcept {}
void* allocate_pinned(int64_t) { absent(); }
void release_pinned(void*) noexcept {}
void* create_stream() { absent(); }
void destroy_stream(void*) noexcept {}
void synchronize(void*) { absent(); }
void to_device(void*, const void*, int64_t, void*) { absent(); }
void to_host(void*, const void*, int64_t, void*) { absent(); }
void transfer(void*, const void*, int64_t, void*) { absent(); }
void* capture(void*, const std::function<void()>&) { absent(); }
void launch(void*, void*) { absent(); }
void destroy_graph(void*) noexcept {}
double time_ms(void*, const std::function<void()>&) { absent(); }
void check_launch(const std::string&) { absent(); }
void note_failure(int, const char*) noexcept {}

}  // namespace octet::kernels::device
