// Statistics of a calibration pass on a GPU: kept there while the pass runs, read once at its end.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "kernels/device.h"
#include "plan/executor.h"

namespace octet {

/// The GPU of this machine; throws device where there is none.
Target gpu_target();

class DeviceObserver {
 public:
  /// Adds a tapped f32 value (its data is on the device), of `channels` channels.
  void collect(const std::string& tensor, const TapView& view, int64_t channels);
  /// Waits, and hands over what was collected, by tensor.
  std::map<std::string, kernels::device::HistogramValues> read();

 private:
  struct Release {
    void operator()(kernels::device::Histogram* histogram) const { kernels::device::destroy_histogram(histogram); }
  };
  std::map<std::string, std::unique_ptr<kernels::device::Histogram, Release>> histograms_;
  void* stream_ = nullptr;
};

}  // namespace octet
