// Running rows of a GPU in tests: copies of buffers on the device between canaries, and the reason when there is none.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "core/error.h"
#include "kernels/device.h"
#include "kernels/harness.h"

namespace octet::kernels {

/// For SetUp: skips where there is no GPU, and says why.
#define OCTET_NEEDS_GPU() \
  if (!octet::kernels::device::find_device().present) GTEST_SKIP() << octet::kernels::device::find_device().reason

/// A seed of this run: OCTET_TEST_SEED, or the clock; printed, so that a failure can be repeated.
inline uint32_t run_seed() {
  static const uint32_t seed = [] {
    const char* given = std::getenv("OCTET_TEST_SEED");
    uint32_t value = given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10))
                                      : static_cast<uint32_t>(time(nullptr));
    std::printf("OCTET_TEST_SEED=%u\n", value);
    return value;
  }();
  return seed;
}

/// A copy of host memory on the device, with a canary behind it; 256 readable bytes follow, as in an arena.
class OnDevice {
 public:
  explicit OnDevice(const Guarded& host) : bytes_(host.bytes()) {
    memory_ = static_cast<unsigned char*>(device::allocate(bytes_ + kSlack));
    std::vector<unsigned char> content(static_cast<size_t>(bytes_ + kSlack), kCanary);
    if (bytes_ > 0) std::memcpy(content.data(), host.data(), static_cast<size_t>(bytes_));
    device::to_device(memory_, content.data(), bytes_ + kSlack, nullptr);
    device::synchronize(nullptr);
  }
  OnDevice(const OnDevice&) = delete;
  ~OnDevice() { device::release(memory_, generation_); }
  void* data() const { return memory_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(memory_);
  }
  /// Back on the host; what lies behind must be untouched.
  Guarded read(void* stream) const {
    std::vector<unsigned char> content(static_cast<size_t>(bytes_ + kSlack));
    device::to_host(content.data(), memory_, bytes_ + kSlack, stream);
    device::synchronize(stream);
    for (int64_t i = bytes_; i < bytes_ + kSlack; ++i)
      EXPECT_EQ(content[static_cast<size_t>(i)], kCanary) << "written " << i - bytes_ << " bytes behind the end";
    Guarded host(bytes_);
    std::memcpy(host.data(), content.data(), static_cast<size_t>(bytes_));
    return host;
  }

 private:
  static constexpr int64_t kSlack = 256;
  static constexpr unsigned char kCanary = 0xa5;
  uint64_t generation_ = device::generation();
  int64_t bytes_;
  unsigned char* memory_ = nullptr;
};

/// The stream of all tests.
inline void* test_stream() {
  static void* stream = device::create_stream();
  return stream;
}

/// What an approximate row may differ by (docs/numerics.md): 8-bit outputs by one step in at most 1 % of the elements,
/// floats by `tolerance` of the largest magnitude. Exact rows: 8-bit and float outputs of 8-bit inputs bit for bit.
inline void expect_close(const Row& row, DType type, const Guarded& got, const Guarded& want, double tolerance,
                         bool bits = false) {
  int64_t n = got.bytes() / size_of(type);
  ASSERT_EQ(got.bytes(), want.bytes());
  double top = 1e-6;
  int64_t apart = 0;
  for (int64_t i = 0; i < n; ++i) top = std::max<double>(top, std::fabs(value_of(type, want.data(), i)));
  for (int64_t i = 0; i < n; ++i) {
    float x = value_of(type, got.data(), i), y = value_of(type, want.data(), i);
    if (!row.approximate && bits) {
      ASSERT_EQ(x, y) << row.name << " promises the same bits; element " << i << " of " << n;
    } else if (size_of(type) == 1) {
      ASSERT_NEAR(x, y, 1) << row.name << " element " << i << " of " << n;
      apart += x != y;
    } else {
      ASSERT_NEAR(x, y, tolerance * top) << row.name << " element " << i << " of " << n;
    }
  }
  if (size_of(type) == 1) {
    EXPECT_LE(apart, std::max<int64_t>(2, n / 100)) << row.name << " of " << n;
  }
}

/// Runs every row of the GPU that accepts, for the GPU that is here and for the targets below it: fn(row).
template <typename Kernel, typename Fn>
void for_each_gpu_row(std::span<const Kernel> table, const typename Kernel::Desc& desc, bool symmetric, Fn fn) {
  const Target& here = device::find_device().target;
  int rows = 0;
  for (const Kernel& row : table) {
    if (row.device != DeviceKind::cuda || refuse(row, desc, here, symmetric) != nullptr) continue;
    ++rows;
    SCOPED_TRACE(std::string(row.name));
    fn(row);
    if (::testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(rows, 0) << "no row of the GPU accepts";
}

inline void finish_launch(const Row& row) {
  device::check_launch(std::string(row.name));
  device::synchronize(test_stream());
}

}  // namespace octet::kernels
