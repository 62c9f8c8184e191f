// Tensor construction and conversion to f32.
#include "core/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

#include "core/aligned.h"
#include "core/error.h"
#include "core/file.h"

namespace octet {

int64_t count(const Shape& shape) noexcept {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  return elements;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const std::byte* bytes)
    : dtype_(dtype), shape_(std::move(shape)), owner_(std::move(owner)), data_(bytes) {}

Tensor Tensor::allocate(DType dtype, Shape shape, std::byte** bytes) {
  // 64-byte alignment serves every vector width.
  std::shared_ptr<unsigned char> owner = allocate_zeroed(count(shape) * size_of(dtype));
  auto* memory = reinterpret_cast<std::byte*>(owner.get());
  *bytes = memory;
  return Tensor(dtype, std::move(shape), std::move(owner), memory);
}

struct Tensor::Deferred {
  int64_t count = 0, bytes = 0;
  Rows rows;
  std::shared_ptr<const void> owner;  // of `raw`, which has the elements in order at any address
  const std::byte* raw = nullptr;
  std::once_flag once;
  AlignedBytes memory;
  std::atomic<const std::byte*> made = nullptr;
};

Tensor Tensor::deferred(DType dtype, Shape shape, Rows rows) {
  OCTET_CHECK(!shape.empty() && octet::count(shape) > 0, "a deferred tensor has no rows");
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  tensor.deferred_ = std::make_shared<Deferred>();
  tensor.deferred_->count = tensor.shape_[0];
  tensor.deferred_->bytes = tensor.bytes();
  tensor.deferred_->rows = std::move(rows);
  return tensor;
}

Tensor Tensor::unaligned(DType dtype, Shape shape, std::shared_ptr<const void> owner, const std::byte* bytes) {
  if (shape.empty() || octet::count(shape) == 0 ||
      reinterpret_cast<uintptr_t>(bytes) % static_cast<uintptr_t>(size_of(dtype)) == 0)
    return Tensor(dtype, std::move(shape), std::move(owner), bytes);
  const int64_t size = octet::count(shape) * size_of(dtype);
  Tensor tensor = deferred(dtype, std::move(shape), [bytes, size](int64_t, int64_t, std::byte* out) {
    std::memcpy(out, bytes, static_cast<size_t>(size));
    release_pages(bytes, static_cast<size_t>(size));
  });
  tensor.deferred_->owner = std::move(owner);
  tensor.deferred_->raw = bytes;
  return tensor;
}

const void* Tensor::identity() const noexcept {
  if (data_ != nullptr || deferred_ == nullptr) return data_;
  return deferred_->raw != nullptr ? static_cast<const void*>(deferred_->raw) : deferred_.get();
}

const std::byte* Tensor::made() const {
  Deferred& d = *deferred_;
  std::call_once(d.once, [&d] {
    d.memory = allocate_aligned(d.bytes);
    auto* out = reinterpret_cast<std::byte*>(d.memory.get());
    d.rows(0, d.count, out);
    d.made.store(out, std::memory_order_release);
  });
  return d.made.load(std::memory_order_acquire);
}

const std::byte* Tensor::rows(int64_t begin, int64_t end, std::byte* scratch) const {
  const std::byte* all = data_;
  if (all == nullptr && deferred_ != nullptr) all = deferred_->made.load(std::memory_order_acquire);
  if (all == nullptr && deferred_ != nullptr) all = deferred_->raw;
  if (all != nullptr) return shape_.empty() ? all : all + begin * (bytes() / std::max<int64_t>(1, shape_[0]));
  if (empty()) return nullptr;
  if (shape_[0] != deferred_->count) return data() + begin * (bytes() / shape_[0]);
  deferred_->rows(begin, end, scratch);
  return scratch;
}

namespace {
template <typename T>
Tensor copy_of(DType dtype, std::span<const T> values, Shape shape) {
  OCTET_CHECK(count(shape) == static_cast<int64_t>(values.size()), "tensor shape does not match its values");
  std::byte* bytes = nullptr;
  Tensor tensor = Tensor::allocate(dtype, std::move(shape), &bytes);
  if (!values.empty()) std::memcpy(bytes, values.data(), values.size_bytes());
  return tensor;
}
}  // namespace

Tensor Tensor::from(std::span<const float> values, Shape shape) {
  return copy_of(DType::f32, values, std::move(shape));
}
Tensor Tensor::from(std::span<const int8_t> values, Shape shape) {
  return copy_of(DType::s8, values, std::move(shape));
}
Tensor Tensor::from(std::span<const int32_t> values, Shape shape) {
  return copy_of(DType::s32, values, std::move(shape));
}
Tensor Tensor::scalar(float value) { return from(std::span(&value, 1), Shape{}); }

namespace {
template <typename T>
constexpr bool kHolds(DType) {
  return false;
}
template <>
constexpr bool kHolds<float>(DType t) {
  return t == DType::f32;
}
template <>
constexpr bool kHolds<double>(DType t) {
  return t == DType::f64;
}
template <>
constexpr bool kHolds<int8_t>(DType t) {
  return t == DType::s8;
}
template <>
constexpr bool kHolds<uint8_t>(DType t) {
  return t == DType::u8 || t == DType::boolean;
}
template <>
constexpr bool kHolds<uint16_t>(DType t) {
  return t == DType::f16 || t == DType::bf16;
}
template <>
constexpr bool kHolds<int32_t>(DType t) {
  return t == DType::s32;
}
template <>
constexpr bool kHolds<int64_t>(DType t) {
  return t == DType::s64;
}
}  // namespace

template <typename T>
std::span<const T> Tensor::as() const {
  OCTET_CHECK(kHolds<T>(dtype_), "tensor of " + std::string(name(dtype_)) + " read as another type");
  return {reinterpret_cast<const T*>(data()), static_cast<size_t>(elements())};
}
template std::span<const float> Tensor::as<float>() const;
template std::span<const double> Tensor::as<double>() const;
template std::span<const int8_t> Tensor::as<int8_t>() const;
template std::span<const uint8_t> Tensor::as<uint8_t>() const;
template std::span<const uint16_t> Tensor::as<uint16_t>() const;
template std::span<const int32_t> Tensor::as<int32_t>() const;
template std::span<const int64_t> Tensor::as<int64_t>() const;

std::vector<float> Tensor::to_f32() const {
  std::vector<float> values(static_cast<size_t>(elements()));
  const std::byte* from = data();
  // Mapped files do not promise alignment, so elements are read by memcpy.
  auto convert = [&]<typename T>(T, auto&& widen) {
    for (size_t i = 0; i < values.size(); ++i) {
      T raw;
      std::memcpy(&raw, from + i * sizeof(T), sizeof(T));
      values[i] = widen(raw);
    }
  };
  switch (dtype_) {
    case DType::f32:
      if (!values.empty()) std::memcpy(values.data(), from, values.size() * 4);
      break;
    case DType::f16: convert(uint16_t{}, [](uint16_t b) { return f32_from_f16(b); }); break;
    case DType::bf16: convert(uint16_t{}, [](uint16_t b) { return f32_from_bf16(b); }); break;
    case DType::f64: convert(double{}, [](double d) { return static_cast<float>(d); }); break;
    default:
      fail(ErrorCode::unsupported, {.what = "cannot read a tensor of " + std::string(name(dtype_)) + " as f32",
                                    .expected = "expected f32, f16, bf16 or f64"});
  }
  return values;
}

Tensor Tensor::as_f32() const {
  if (dtype_ == DType::f32 && (data_ == nullptr || reinterpret_cast<uintptr_t>(data_) % alignof(float) == 0))
    return *this;
  return from(to_f32(), shape_);
}

Tensor Tensor::reshape(Shape shape) const {
  OCTET_CHECK(count(shape) == elements(), "reshape changes the number of elements");
  Tensor same = *this;
  same.shape_ = std::move(shape);
  return same;
}

}  // namespace octet
