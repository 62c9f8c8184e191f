// CPU detection and the names of targets.
#include "core/target.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <utility>

#include "core/error.h"

namespace octet {

namespace {

uint64_t xgetbv0() noexcept {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Linux hands out the AMX tile registers only on request (arch_prctl ARCH_REQ_XCOMP_PERM, feature 18).
bool request_amx() noexcept {
  constexpr long kRequestPermission = 0x1023;
  return ::syscall(SYS_arch_prctl, kRequestPermission, 18) == 0;
}

}  // namespace

Target detect_cpu() noexcept {
  Target target;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return target;
  bool osxsave = c & (1u << 27), fma = c & (1u << 12), f16c = c & (1u << 29), avx = c & (1u << 28);
  if (!osxsave || !avx) return target;
  uint64_t enabled = xgetbv0();
  bool ymm = (enabled & 0x6) == 0x6, zmm = (enabled & 0xe6) == 0xe6, tiles = (enabled & 0x60000) == 0x60000;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return target;
  target.avx2 = ymm && fma && f16c && (b & (1u << 5));
  target.avx512 = target.avx2 && zmm && (b & (1u << 16)) && (b & (1u << 17)) && (b & (1u << 30)) && (b & (1u << 31));
  target.avx512_vnni = target.avx512 && (c & (1u << 11));
  bool amx = tiles && (d & (1u << 24)) && target.avx512_vnni;
  target.amx_int8 = amx && (d & (1u << 25)) && request_amx();
  target.amx_bf16 = target.amx_int8 && (d & (1u << 22));
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) target.avx_vnni = target.avx2 && (a & (1u << 4));
  return target;
}

namespace {

struct Named {
  const char* name;
  Target target;
};

Target cpu(int level) {
  return {.avx2 = level >= 1,
          .avx_vnni = level == 2,
          .avx512 = level >= 3,
          .avx512_vnni = level >= 4,
          .amx_int8 = level >= 5,
          .amx_bf16 = level >= 5};
}

Target gpu(int sm, int count, int64_t shared) {
  return {.device = DeviceKind::cuda, .sm = sm, .sm_count = count, .shared_bytes = shared};
}

const std::array<Named, 12>& named_targets() {
  static const std::array<Named, 12> targets{{{"scalar", cpu(0)},
                                              {"avx2", cpu(1)},
                                              {"avxvnni", cpu(2)},
                                              {"avx512", cpu(3)},
                                              {"avx512vnni", cpu(4)},
                                              {"amx", cpu(5)},
                                              {"sm80", gpu(80, 108, 166912)},
                                              {"sm86", gpu(86, 82, 101376)},
                                              {"sm89", gpu(89, 142, 101376)},
                                              {"sm90", gpu(90, 132, 232448)},
                                              {"sm90a", gpu(90, 132, 232448)},
                                              {"sm120", gpu(120, 188, 101376)}}};
  return targets;
}

}  // namespace

Target parse_target(std::string_view text) {
  std::string known;
  for (const Named& entry : named_targets()) {
    if (text == entry.name) return entry.target;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fail(ErrorCode::invalid_argument,
       {.what = "unknown target '" + std::string(text) + "'", .expected = "expected one of " + known});
}

Target host_target() {
  Target here = detect_cpu();
  const char* forced = std::getenv("OCTET_TARGET");
  if (forced == nullptr || *forced == 0) return here;
  Target wanted = parse_target(forced);
  if (wanted.device != DeviceKind::cpu) return here;
  bool lacking = (wanted.avx2 && !here.avx2) || (wanted.avx_vnni && !here.avx_vnni) ||
                 (wanted.avx512 && !here.avx512) || (wanted.avx512_vnni && !here.avx512_vnni) ||
                 (wanted.amx_int8 && !here.amx_int8);
  if (lacking)
    fail(ErrorCode::unsupported, {.what = "cannot run kernels for '" + std::string(forced) + "' on this machine",
                                  .expected = "this CPU offers " + name(here),
                                  .where = "in the environment variable OCTET_TARGET",
                                  .hint = "unset OCTET_TARGET or name a lower target"});
  return wanted;
}

std::string name(const Target& target) {
  if (target.device == DeviceKind::cuda) return "sm" + std::to_string(target.sm) + (target.sm == 90 ? "a" : "");
  if (target.amx_int8) return "amx";
  if (target.avx512_vnni) return "avx512vnni";
  if (target.avx512) return "avx512";
  if (target.avx_vnni) return "avxvnni";
  if (target.avx2) return "avx2";
  return "scalar";
}

}  // namespace octet
