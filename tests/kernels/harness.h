// What kernel tests share: inputs that end at an unreadable page, outputs between canaries, seeded data, comparison
// with the reference.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/threads.h"
#include "kernels/kernels.h"

namespace octet::kernels {

/// Memory whose last byte lies before an unreadable page, and whose first lies after a canary.
class Guarded {
 public:
  explicit Guarded(int64_t bytes = 0) : bytes_(bytes) {
    int64_t body = (bytes + kCanary + kPage - 1) / kPage * kPage;
    size_ = body + kPage;
    void* p = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) std::abort();
    base_ = static_cast<unsigned char*>(p);
    ::mprotect(base_ + body, kPage, PROT_NONE);
    data_ = base_ + body - bytes;
    std::memset(base_, 0xa5, body);
  }
  Guarded(Guarded&& other) noexcept { *this = std::move(other); }
  Guarded& operator=(Guarded&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Guarded() {
    if (base_ != nullptr) ::munmap(base_, size_);
  }
  unsigned char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  bool canary_intact() const {
    for (const unsigned char* p = base_; p < data_; ++p)
      if (*p != 0xa5) return false;
    return true;
  }

 private:
  static constexpr int64_t kPage = 4096, kCanary = 64;
  unsigned char* base_ = nullptr;
  unsigned char* data_ = nullptr;
  size_t size_ = 0;
  int64_t bytes_ = 0;
};

/// Random data; the seed is part of each failure's trace.
class Data {
 public:
  explicit Data(uint32_t seed) : random_(seed) {}
  Guarded floats(int64_t n, float low = -1.0f, float high = 1.0f) {
    Guarded out(n * 4);
    std::uniform_real_distribution<float> in(low, high);
    for (int64_t i = 0; i < n; ++i) out.as<float>()[i] = in(random_);
    return out;
  }
  Guarded ints(int64_t n, int32_t low, int32_t high) {
    Guarded out(n * 4);
    std::uniform_int_distribution<int32_t> in(low, high);
    for (int64_t i = 0; i < n; ++i) out.as<int32_t>()[i] = in(random_);
    return out;
  }
  /// Values of a type: whole range for 8 bits, about -2..2 for floats.
  Guarded values(DType type, int64_t n) {
    Guarded out(n * size_of(type));
    std::uniform_real_distribution<float> in(-2.0f, 2.0f);
    for (int64_t i = 0; i < n; ++i) {
      switch (type) {
        case DType::f32: out.as<float>()[i] = in(random_); break;
        case DType::f16: out.as<uint16_t>()[i] = f16_from_f32(in(random_)); break;
        case DType::bf16: out.as<uint16_t>()[i] = bf16_from_f32(in(random_)); break;
        default: out.data()[i] = static_cast<unsigned char>(random_());
      }
    }
    return out;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }

 private:
  std::mt19937 random_;
};

inline float value_of(DType type, const unsigned char* p, int64_t i) {
  switch (type) {
    case DType::f32: return reinterpret_cast<const float*>(p)[i];
    case DType::f16: return f32_from_f16(reinterpret_cast<const uint16_t*>(p)[i]);
    case DType::bf16: return f32_from_bf16(reinterpret_cast<const uint16_t*>(p)[i]);
    case DType::u8: return p[i];
    default: return static_cast<float>(reinterpret_cast<const int8_t*>(p)[i]);
  }
}

/// Same bits, or within `tolerance` of the largest magnitude when it is above 0.
inline void expect_same(DType type, const Guarded& got, const Guarded& want, double tolerance = 0.0) {
  ASSERT_TRUE(got.canary_intact());
  ASSERT_EQ(got.bytes(), want.bytes());
  int64_t n = got.bytes() / size_of(type);
  double top = 1e-6;
  for (int64_t i = 0; i < n; ++i) top = std::max<double>(top, std::fabs(value_of(type, want.data(), i)));
  for (int64_t i = 0; i < n; ++i) {
    if (tolerance == 0.0) {
      ASSERT_EQ(std::memcmp(got.data() + i * size_of(type), want.data() + i * size_of(type), size_of(type)), 0)
          << "element " << i << " of " << n << ": " << value_of(type, got.data(), i) << " instead of "
          << value_of(type, want.data(), i);
    } else {
      ASSERT_NEAR(value_of(type, got.data(), i), value_of(type, want.data(), i), tolerance * top)
          << "element " << i << " of " << n;
    }
  }
}

inline ThreadPool& pool_of(int threads) {
  static ThreadPool one(1), two(2), three(3);
  return threads == 1 ? one : threads == 2 ? two : three;
}

/// Runs every CPU row of a table that this machine accepts, with 1, 2 and 3 threads: fn(row, launch). The reference is
/// the last.
template <typename Kernel>
const Kernel& reference_of(std::span<const Kernel> table, const typename Kernel::Desc& desc) {
  const Kernel* found = nullptr;
  for (const Kernel& row : table)
    if (row.device == DeviceKind::cpu && row.name.ends_with("_ref") && row.refuse(desc, Target{}) == nullptr)
      found = &row;
  if (found == nullptr) {
    ADD_FAILURE() << "the reference refuses";
    std::abort();
  }
  return *found;
}
template <typename Kernel, typename Fn>
void for_each_row(std::span<const Kernel> table, const typename Kernel::Desc& desc, Fn fn) {
  Target here = detect_cpu();
  for (const Kernel& row : table) {
    if (row.device != DeviceKind::cpu || row.name.ends_with("_ref") || row.refuse(desc, here) != nullptr) continue;
    for (int threads : {1, 2, 3}) {
      SCOPED_TRACE(std::string(row.name) + ", threads " + std::to_string(threads));
      fn(row, Launch{.pool = &pool_of(threads)});
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace octet::kernels
