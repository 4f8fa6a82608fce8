#include "cpu.h"

#include <cstring>

namespace nkat {
namespace {

#ifdef NKAT_HAS_AVX2
bool has_avx2() {
  // The compiler's run-time check also asks whether the operating system saves the registers.
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#endif

}  // namespace

const Kernels* find_kernels(const char* name) {
#ifdef NKAT_HAS_AVX2
  if ((name == nullptr || std::strcmp(name, kAvx2Kernels.name) == 0) && has_avx2()) return &kAvx2Kernels;
#endif
  if (name == nullptr || std::strcmp(name, kPortableKernels.name) == 0) return &kPortableKernels;
  return nullptr;
}

}  // namespace nkat
