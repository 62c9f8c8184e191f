// Grouping the rows of a batch by length, and the gathers between flat tokens and padded groups.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "train/interpreter.h"

namespace octet::train {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// A group costs a handful of launches, padding costs arithmetic: a GPU wants few groups, a CPU little padding.
constexpr int64_t kGroupCostGpu = 64 * 1024, kGroupCostCpu = 512;

/// Ends of the groups of rows sorted by falling length: the least sum of places squared and a price a group.
std::vector<int64_t> split(const std::vector<int64_t>& lengths, int64_t price) {
  const auto n = static_cast<int64_t>(lengths.size());
  std::vector<int64_t> best(static_cast<size_t>(n + 1), INT64_MAX), from(static_cast<size_t>(n + 1), 0);
  best[0] = 0;
  for (int64_t begin = 0; begin < n; ++begin) {
    const int64_t length = lengths[static_cast<size_t>(begin)];
    for (int64_t end = begin + 1; end <= n; ++end) {
      // Scores are length^2; packing and the rest of attention about 64 times a place.
      int64_t cost = best[static_cast<size_t>(begin)] + price + (end - begin) * length * (length + 64);
      if (cost < best[static_cast<size_t>(end)])
        best[static_cast<size_t>(end)] = cost, from[static_cast<size_t>(end)] = begin;
    }
  }
  std::vector<int64_t> ends;
  for (int64_t at = n; at > 0; at = from[static_cast<size_t>(at)]) ends.push_back(at);
  std::reverse(ends.begin(), ends.end());
  return ends;
}

at::Tensor to_device(const std::vector<int64_t>& values, const at::Device& device) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  if (!values.empty()) std::memcpy(host.mutable_data_ptr(), values.data(), values.size() * 8);
  return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

struct Gather : torch::autograd::Function<Gather> {
  // forward_index: which row of x each row of y is. backward_index: the same for dx in terms of dy with a zero row at
  // its end where `zero_row`.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& forward_index,
                            const at::Tensor& backward_index, bool zero_row_forward, bool zero_row_backward) {
    context->saved_data["zero"] = zero_row_backward;
    context->save_for_backward({backward_index});
    return at::index_select(zero_row_forward ? at::constant_pad_nd(x, {0, 0, 0, 1}) : x, 0, forward_index);
  }
  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    at::Tensor dy = gradients[0];
    if (context->saved_data["zero"].toBool()) dy = at::constant_pad_nd(dy, {0, 0, 0, 1});
    return {at::index_select(dy, 0, context->get_saved_variables()[0]), at::Tensor(), at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

void Rows::add(std::span<const int32_t> row, std::span<const int32_t> types) {
  ids.insert(ids.end(), row.begin(), row.end());
  if (types.empty()) type_ids.insert(type_ids.end(), row.size(), 0);
  else type_ids.insert(type_ids.end(), types.begin(), types.end());
  offsets.push_back(static_cast<int32_t>(ids.size()));
}

Batch::Batch(const Rows& from, const at::Device& on) : host(from), device(on) {
  rows = host.rows();
  tokens = static_cast<int64_t>(host.ids.size());
  OCTET_CHECK(rows > 0 && tokens > 0, "a batch with tokens");
  auto length_of = [&](int64_t r) {
    return static_cast<int64_t>(host.offsets[static_cast<size_t>(r + 1)] - host.offsets[static_cast<size_t>(r)]);
  };
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length_of(a) > length_of(b); });
  std::vector<int64_t> lengths;
  for (int64_t r : order) lengths.push_back(length_of(r));
  straight = lengths.front() == lengths.back();

  std::vector<int64_t> packed, packed_none, places(static_cast<size_t>(tokens)), row_at(static_cast<size_t>(rows));
  int64_t begin = 0;
  for (int64_t end :
       straight ? std::vector<int64_t>{rows} : split(lengths, device.is_cpu() ? kGroupCostCpu : kGroupCostGpu)) {
    Group group;
    group.length = lengths[static_cast<size_t>(begin)];
    group.rows = end - begin;
    const bool full = lengths[static_cast<size_t>(end - 1)] == group.length;
    at::Tensor keep = full ? at::Tensor() : at::zeros({group.rows, group.length}, at::kBool);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = order[static_cast<size_t>(i)], start = host.offsets[static_cast<size_t>(row)];
      group.members.push_back(row);
      row_at[static_cast<size_t>(row)] = i;
      for (int64_t t = 0; t < group.length; ++t) {
        const bool real = t < lengths[static_cast<size_t>(i)];
        if (real) places[static_cast<size_t>(start + t)] = static_cast<int64_t>(packed.size());
        if (real && !full) keep.mutable_data_ptr<bool>()[(i - begin) * group.length + t] = true;
        packed.push_back(real ? start + t : 0);
        packed_none.push_back(real ? start + t : tokens);
      }
    }
    if (keep.defined()) group.keep = keep.to(device, true);
    groups.push_back(std::move(group));
    begin = end;
  }
  ids = to_device({host.ids.begin(), host.ids.end()}, device);
  type_ids = to_device({host.type_ids.begin(), host.type_ids.end()}, device);
  first = to_device({host.offsets.begin(), host.offsets.end() - 1}, device);
  if (!straight) {
    pack = to_device(packed, device);
    pack_or_none = to_device(packed_none, device);
    place = to_device(places, device);
    row_place = to_device(row_at, device);
  }
}

// Padding repeats token 0. Its gradient is exactly zero: keys there are masked, probabilities there are 0, and what
// queries there give is dropped. So the way back gathers the real places and leaves the others.
at::Tensor pack(const at::Tensor& flat, const Batch& batch) {
  return batch.straight ? flat : Gather::apply(flat, batch.pack, batch.place, false, false);
}

at::Tensor unpack(const at::Tensor& places, const Batch& batch) {
  return batch.straight ? places : Gather::apply(places, batch.place, batch.pack_or_none, false, true);
}

}  // namespace octet::train
