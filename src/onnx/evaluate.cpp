// Arrays, and the table by name of the reference kernels of the ONNX operators that encoders are made of.
#include <algorithm>
#include <climits>

#include "core/aligned.h"
#include "core/error.h"
#include "onnx/array.h"
#include "onnx/call.h"

namespace octet::onnx {

namespace {
thread_local int64_t array_limit = kMaxArray * 8;  // bytes
thread_local int64_t work_left = INT64_MAX;
}  // namespace
ArrayLimit::ArrayLimit(int64_t bytes, int64_t work) : before_(array_limit), work_before_(work_left) {
  array_limit = std::min(bytes, kMaxArray * 8);
  work_left = std::min(work, work_left);
}
ArrayLimit::~ArrayLimit() { array_limit = before_, work_left = work_before_; }
bool ArrayLimit::fits(int64_t elements) noexcept { return elements >= 0 && elements <= array_limit / 8; }

Array Array::make(ElemType type, Shape shape, float** out) {
  std::shared_ptr<unsigned char> memory = allocate_zeroed(octet::count(shape) * 4);
  *out = reinterpret_cast<float*>(memory.get());
  return {type, std::move(shape), memory, *out, nullptr};
}
Array Array::make(ElemType type, Shape shape, int64_t** out) {
  std::shared_ptr<unsigned char> memory = allocate_zeroed(octet::count(shape) * 8);
  *out = reinterpret_cast<int64_t*>(memory.get());
  return {type, std::move(shape), memory, nullptr, *out};
}
Array Array::of(std::vector<int64_t> values) {
  int64_t* out = nullptr;
  Array a = make(ElemType::s64, {static_cast<int64_t>(values.size())}, &out);
  std::copy(values.begin(), values.end(), out);
  return a;
}
Array Array::of(const Tensor& deferred) {
  Array a{ElemType::f32, deferred.shape(), nullptr, Reals(deferred), nullptr};
  return a;
}
Array Array::scalar(float value) {
  float* out = nullptr;
  Array a = make(ElemType::f32, {}, &out);
  *out = value;
  return a;
}
Array Array::reshaped(Shape to) const {
  Array a = *this;
  a.shape = std::move(to);
  return a;
}

Array Array::from(const TensorData& t) {
  if (t.data.empty())
    fail(ErrorCode::unsupported, {.what = "cannot use tensor " + t.name, .expected = "it holds " + onnx::name(t.type)});
  const Tensor& d = t.data;
  if (d.dtype() == DType::f32 && t.type == ElemType::f32 && d.is_deferred()) return of(d);
  if (d.dtype() == DType::f32) {
    auto held = std::make_shared<Tensor>(d);
    return {t.type, d.shape(), held, reinterpret_cast<const float*>(d.data()), nullptr};
  }
  if (d.dtype() == DType::s64) {
    auto held = std::make_shared<Tensor>(d);
    return {t.type, d.shape(), held, nullptr, reinterpret_cast<const int64_t*>(d.data())};
  }
  if (is_float(t.type)) {
    auto values = std::make_shared<std::vector<float>>(d.to_f32());
    return {t.type, d.shape(), values, values->data(), nullptr};
  }
  int64_t* out = nullptr;
  Array a = make(t.type, d.shape(), &out);
  auto copy = [&]<typename T>(const T* from) { std::copy(from, from + d.elements(), out); };
  switch (d.dtype()) {
    case DType::s8: copy(reinterpret_cast<const int8_t*>(d.data())); break;
    case DType::u8:
    case DType::boolean: copy(reinterpret_cast<const uint8_t*>(d.data())); break;
    case DType::s16: copy(reinterpret_cast<const int16_t*>(d.data())); break;
    default: copy(reinterpret_cast<const int32_t*>(d.data())); break;
  }
  return a;
}

void Call::limit(const Shape& shape, int64_t bytes) const {
  int64_t n = 1;
  for (int64_t e : shape) {
    if (e < 0 || (e > 0 && n > array_limit / bytes / e))
      bad("expected a result of reasonable size, not " + to_string(shape));
    n *= e;
  }
  charge(n);
}
void Call::charge(int64_t steps) const {
  if (work_left == INT64_MAX) return;
  if (steps > work_left) bad("expected constants that are computed in reasonable time");
  work_left -= steps;
}

namespace {
const Kernels& table() {
  static const Kernels kernels = [] {
    Kernels t;
    add_elementwise(t);
    add_shaping(t);
    add_reductions(t);
    add_products(t);
    add_quantization(t);
    add_windows(t);
    return t;
  }();
  return kernels;
}
}  // namespace

Shape broadcast(const Shape& a, const Shape& b, const Node& node) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (size_t d = 0; d < out.size(); ++d) {
    int64_t x = d < a.size() ? a[a.size() - 1 - d] : 1, y = d < b.size() ? b[b.size() - 1 - d] : 1;
    if (x != y && x != 1 && y != 1)
      fail(ErrorCode::corrupt,
           {.what = "cannot compute " + node.label(),
            .expected = "expected shapes that broadcast, got " + to_string(a) + " and " + to_string(b)});
    out[out.size() - 1 - d] = x == 1 ? y : x;
  }
  return out;
}

bool can_evaluate(const Node& node) noexcept { return node.domain.empty() && table().contains(node.op); }

std::vector<Array> evaluate(const Node& node, const std::vector<Array>& inputs, int64_t opset) {
  auto found = table().find(node.op);
  if (!node.domain.empty() || found == table().end())
    fail(ErrorCode::unsupported, {.what = "cannot compute " + node.label()});
  // Kernels read numbers one by one: what is deferred is made before.
  if (std::none_of(inputs.begin(), inputs.end(), [](const Array& a) { return a.f.held() != nullptr; }))
    return found->second(Call{node, inputs, opset});
  std::vector<Array> made = inputs;
  for (Array& a : made)
    if (a.f.held() != nullptr) a.owner = std::make_shared<Tensor>(*a.f.held()), a.f = static_cast<const float*>(a.f);
  return found->second(Call{node, made, opset});
}

}  // namespace octet::onnx
