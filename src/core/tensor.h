// Shapes and tensors: a dtype, a shape, and shared immutable bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace octet {

using Shape = std::vector<int64_t>;

/// Number of elements; 1 for an empty shape (a scalar).
int64_t count(const Shape& shape) noexcept;
/// "[2, 3]".
std::string to_string(const Shape& shape);

/// A dense row-major array. Copies share the bytes, which may live on the heap or in a mapped file and do not change
/// after the tensor is built. Safe to read from many threads.
class Tensor {
 public:
  Tensor() = default;
  /// A view of `bytes` kept alive by `owner`; the size must match the shape.
  Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const std::byte* bytes);

  /// Writes rows [begin, end), counted along the first axis, to `out`; called from any thread, again and again.
  using Rows = std::function<void(int64_t begin, int64_t end, std::byte* out)>;
  /// A tensor that is made when it is first read, perhaps never.
  static Tensor deferred(DType dtype, Shape shape, Rows rows);
  /// The same of `bytes` that do not lie where the type may: a view when they do.
  static Tensor unaligned(DType dtype, Shape shape, std::shared_ptr<const void> owner, const std::byte* bytes);

  /// A zero-filled heap tensor and the pointer to fill it through before it is shared.
  static Tensor allocate(DType dtype, Shape shape, std::byte** bytes);
  /// A heap copy of `values`.
  static Tensor from(std::span<const float> values, Shape shape);
  static Tensor from(std::span<const int8_t> values, Shape shape);
  static Tensor from(std::span<const int32_t> values, Shape shape);
  static Tensor scalar(float value);

  DType dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  int64_t dim(size_t axis) const { return shape_.at(axis); }
  int64_t elements() const noexcept { return count(shape_); }
  int64_t bytes() const noexcept { return elements() * size_of(dtype_); }
  /// Makes a deferred tensor, once; throws std::bad_alloc.
  const std::byte* data() const { return data_ != nullptr || deferred_ == nullptr ? data_ : made(); }
  bool empty() const noexcept { return data_ == nullptr && deferred_ == nullptr; }
  /// Whether data() would have to make the tensor, or made it.
  bool is_deferred() const noexcept { return deferred_ != nullptr; }
  /// Equal for tensors that share their bytes.
  const void* identity() const noexcept;
  /// Rows [begin, end) along the first axis at any address: where they lie, or written to `scratch` by a tensor that is
  /// not made yet, which it stays.
  const std::byte* rows(int64_t begin, int64_t end, std::byte* scratch) const;

  /// The elements as `T`; the dtype must match (checked).
  template <typename T>
  std::span<const T> as() const;

  /// The elements as f32, converted from f32, f16, bf16 or f64; other dtypes throw `unsupported`.
  std::vector<float> to_f32() const;
  /// This tensor itself when it already is f32, else a converted copy.
  Tensor as_f32() const;
  /// The same bytes under another shape with the same number of elements.
  Tensor reshape(Shape shape) const;

 private:
  struct Deferred;
  const std::byte* made() const;

  DType dtype_ = DType::f32;
  Shape shape_;
  std::shared_ptr<const void> owner_;
  const std::byte* data_ = nullptr;
  std::shared_ptr<Deferred> deferred_;
};

}  // namespace octet
