// The machine that kernels are chosen for, as plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace octet {

enum class DeviceKind : uint8_t { cpu, cuda };

/// Selection is a pure function of a Target, so it can be tested for machines that are not here.
struct Target {
  DeviceKind device = DeviceKind::cpu;
  // CPU instruction sets.
  bool avx2 = false;      ///< AVX2, FMA and F16C
  bool avx_vnni = false;  ///< 256-bit vpdpbusd
  bool avx512 = false;    ///< F, BW, DQ, VL
  bool avx512_vnni = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
  // CUDA.
  int sm = 0;  ///< 90 for compute capability 9.0; 0 on a CPU
  int sm_count = 0;
  int64_t shared_bytes = 0;  ///< shared memory a block may use

  bool operator==(const Target&) const = default;
};

/// The CPU of this process (cpuid and the operating system's consent).
Target detect_cpu() noexcept;

/// A target by name: "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "sm80", "sm90a" ...; unknown names
/// throw invalid_argument with the known ones. CPU names mean "this and everything below it".
Target parse_target(std::string_view text);

/// `parse_target(OCTET_TARGET)` when that environment variable is set and names a CPU (asking for what this CPU lacks
/// throws unsupported), else detect_cpu().
Target host_target();

/// "avx512vnni": the best name that describes it.
std::string name(const Target& target);

}  // namespace octet
