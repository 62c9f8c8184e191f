// The observer of a calibration pass on a GPU.
#include "plan/device_observer.h"

#include "core/error.h"

namespace octet {

using namespace kernels;

Target gpu_target() {
  const device::Info& here = device::find_device();
  if (!here.present)
    fail(ErrorCode::device, {.what = "cannot use the GPU of this machine",
                             .expected = here.reason,
                             .hint = "use --device cpu, or run it where the GPU is"});
  return here.target;
}

void DeviceObserver::collect(const std::string& tensor, const TapView& view, int64_t channels) {
  auto& histogram = histograms_[tensor];
  if (!histogram) histogram.reset(device::create_histogram(channels));
  stream_ = view.stream;
  device::collect(histogram.get(), static_cast<const float*>(view.data), view.elements, view.stream);
}

std::map<std::string, device::HistogramValues> DeviceObserver::read() {
  std::map<std::string, device::HistogramValues> values;
  for (auto& [tensor, histogram] : histograms_) values.emplace(tensor, device::read(histogram.get(), stream_));
  return values;
}

}  // namespace octet
