#include "cpu.h"

#include <cstring>

namespace nkat {

#ifdef NKAT_X86
namespace {

struct Offer {
  const Kernels& kernels;
  unsigned needed;
};

const Offer kOffers[] = {{kAvx512Kernels, kAvx512}, {kAvxVnniKernels, kAvxVnni}, {kAvx2Kernels, kAvx2}};

}  // namespace
#endif

unsigned features() {
  unsigned found = 0;
#ifdef NKAT_X86
  // The compiler's run-time checks also ask whether the operating system saves the registers.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    found |= kAvx2;
    if (__builtin_cpu_supports("avxvnni")) found |= kAvxVnni;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
      found |= kAvx512;
  }
#endif
  return found;
}

const Kernels* find_kernels(const char* name, [[maybe_unused]] unsigned features) {
#ifdef NKAT_X86
  for (const Offer& offer : kOffers)
    if ((features & offer.needed) != 0 && std::strcmp(name, offer.kernels.name) == 0) return &offer.kernels;
#endif
  return std::strcmp(name, kPortableKernels.name) == 0 ? &kPortableKernels : nullptr;
}

}  // namespace nkat
