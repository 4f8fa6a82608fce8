// Which kernels this processor can run.
#pragma once

#include "context.h"

namespace nkat {

// What this processor, and its operating system, offer beyond the least of their kind: bits.
enum Feature : unsigned {
  kAvx2 = 1,     // AVX2, FMA and F16C
  kAvxVnni = 2,  // and AVX-VNNI
  kAvx512 = 4,   // and AVX-512 F, BW, DQ, VL and VNNI
};
unsigned features();

// The kernels of a name, if a processor with these features can run them; else nullptr.
const Kernels* find_kernels(const char* name, unsigned features);

}  // namespace nkat
