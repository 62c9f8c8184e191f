// What this machine and this build can run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace octet {

/// One row of a kernel table.
struct KernelInfo {
  std::string table;  ///< "gemm", "attention", ...
  std::string name;
  std::string device;        ///< "cpu" or "cuda"
  bool usable = false;       ///< some shape or type of its table runs on it here
  std::string reason;        ///< why not, when it is not
  bool approximate = false;  ///< may differ from the reference by one step in rare cases
};

struct SystemInfo {
  std::string version;                ///< of octet
  std::string target;                 ///< CPU target that kernels are chosen for: "avx512vnni"; OCTET_TARGET forces one
  std::string cpu;                    ///< the processor's name, when the system tells it
  std::vector<std::string> features;  ///< "avx2", "avx512", ...
  int cpus = 0;                       ///< that this process may use
  bool cuda_build = false;            ///< whether CUDA kernels were compiled in
  std::string gpu;                    ///< its name; empty when there is none that octet can use
  std::string gpu_target;             ///< "sm90a"
  std::string gpu_reason;             ///< why there is none
  std::string driver;
  int64_t gpu_memory = 0;           ///< bytes
  std::vector<KernelInfo> kernels;  ///< table by table, best first
};

/// Throws unsupported or invalid_argument when OCTET_TARGET names what this CPU is not.
SystemInfo system_info();

}  // namespace octet
