#include "simd/levels.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace dimo {
namespace {

enum Level { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };
constexpr const char* kLevelNames[] = {"baseline", "avx2", "avx512"};

Level BestLevel() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kBaseline;
}

}  // namespace

Kernels ChooseKernels() {
  const Level best = BestLevel();
  Level level = best;
  const char* wanted = std::getenv("DIMO_JAX_SIMD");
  if (wanted != nullptr && *wanted != '\0') {
    int named = 0;
    while (named <= kAvx512 && std::strcmp(wanted, kLevelNames[named]) != 0) ++named;
    if (named > best) {
      throw std::invalid_argument(std::string("DIMO_JAX_SIMD: found '") + wanted +
                                  "', expected baseline, avx2 or avx512, at most " + kLevelNames[best] +
                                  " on this processor");
    }
    level = static_cast<Level>(named);
  }
  return level == kAvx512 ? Avx512Kernels() : level == kAvx2 ? Avx2Kernels() : BaselineKernels();
}

const char* BestLevelName() { return kLevelNames[BestLevel()]; }

}  // namespace dimo

#pragma GCC visibility push(default)  // all else is hidden

// The widest instruction set of this processor that the kernels know, under its name in DIMO_JAX_SIMD.
extern "C" const char* DimoBestSimd() { return dimo::BestLevelName(); }

#pragma GCC visibility pop
