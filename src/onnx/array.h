// Dense tensors of the interpreter: numbers are f32 or s64 in memory, whatever type the file gives them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "onnx/file.h"

namespace octet::onnx {

/// Where float numbers lie: an address, or a tensor that is made when they are first read.
class Reals {
 public:
  Reals(const float* at = nullptr) : at_(at) {}
  explicit Reals(Tensor tensor) : held_(std::make_shared<const Tensor>(std::move(tensor))) {}
  operator const float*() const { return data(); }
  const float* data() const {
    return at_ != nullptr || held_ == nullptr ? at_ : reinterpret_cast<const float*>(held_->data());
  }
  /// The tensor that is not made yet; null when the numbers have an address.
  const Tensor* held() const noexcept { return held_.get(); }

 private:
  const float* at_ = nullptr;
  std::shared_ptr<const Tensor> held_;
};

struct Array {
  ElemType type = ElemType::none;
  Shape shape;
  std::shared_ptr<const void> owner;
  Reals f;                     ///< of float types
  const int64_t* i = nullptr;  ///< of integers and booleans

  bool real() const noexcept { return is_float(type); }
  bool empty() const noexcept { return type == ElemType::none; }
  int64_t count() const noexcept { return octet::count(shape); }
  int64_t rank() const noexcept { return static_cast<int64_t>(shape.size()); }
  std::span<const float> reals() const { return {static_cast<const float*>(f), static_cast<size_t>(count())}; }
  std::span<const int64_t> integers() const noexcept { return {i, static_cast<size_t>(count())}; }
  double at(int64_t index) const { return real() ? f[index] : static_cast<double>(i[index]); }

  /// Zero-filled, and the pointer to fill it through.
  static Array make(ElemType type, Shape shape, float** out);
  static Array make(ElemType type, Shape shape, int64_t** out);
  static Array of(std::vector<int64_t> values);
  static Array scalar(float value);
  /// A view where the file's type is f32 or int64, else converted.
  static Array from(const TensorData& tensor);
  /// Of a deferred f32 tensor; evaluate() makes it.
  static Array of(const Tensor& deferred);
  /// The same elements under another shape.
  Array reshaped(Shape to) const;
};

/// Most elements that one result may have.
constexpr int64_t kMaxArray = int64_t{1} << 31;

/// While it lives, this thread's results take at most `bytes` each and at most `work` steps together: for folding the
/// constants of a file that is not trusted.
class ArrayLimit {
 public:
  ArrayLimit(int64_t bytes, int64_t work);
  ~ArrayLimit();
  ArrayLimit(const ArrayLimit&) = delete;
  ArrayLimit& operator=(const ArrayLimit&) = delete;
  /// Whether a result of so many elements of 8 bytes may be.
  static bool fits(int64_t elements) noexcept;

 private:
  int64_t before_, work_before_;
};

/// The results of one node. `where` leads the messages. Throws unsupported (an operator or a variant of it) and corrupt
/// (inputs that do not fit).
std::vector<Array> evaluate(const Node& node, const std::vector<Array>& inputs, int64_t opset);
/// Whether `evaluate` has the operator.
bool can_evaluate(const Node& node) noexcept;

/// Numpy's rule; throws corrupt naming `node`.
Shape broadcast(const Shape& a, const Shape& b, const Node& node);

}  // namespace octet::onnx
