#include "cpu.h"

#include <cstring>

namespace nkat {

unsigned features() {
#ifdef NKAT_HAS_AVX2
  // The compiler's run-time check also asks whether the operating system saves the registers.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return kAvx2;
#endif
  return 0;
}

const Kernels* find_kernels(const char* name, [[maybe_unused]] unsigned features) {
#ifdef NKAT_HAS_AVX2
  if ((features & kAvx2) != 0 && std::strcmp(name, kAvx2Kernels.name) == 0) return &kAvx2Kernels;
#endif
  return std::strcmp(name, kPortableKernels.name) == 0 ? &kPortableKernels : nullptr;
}

}  // namespace nkat
