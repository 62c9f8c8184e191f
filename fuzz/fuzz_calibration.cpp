// Calibration files: metadata, statistics and ranges; then what a summary and a merge make of them.
#include "quant/calibration_state.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return octet::fuzz::expect_polite([&] {
    octet::Calibration calibration(octet::parse_calibration(octet::fuzz::file(data, size), "input"));
    double sum = 0.0;
    for (const octet::Calibration::Range& range : calibration.ranges()) sum += range.hi;
    for (const auto& [name, statistics] : calibration.state().statistics.tensors())
      if (statistics.elements() > 0) sum += statistics.percentile(99.9) + statistics.least_error({}, 2.0);
    static volatile double sink;
    sink = sum;
    octet::Calibration::merge(calibration, calibration);
  });
}
