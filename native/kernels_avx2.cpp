// x86 with AVX2, FMA and F16C: Intel since 2013, AMD since 2015.
#define NKAT_ISA avx2
#include "kernels.h"

namespace nkat {
extern const Kernels kAvx2Kernels = avx2::kernels("avx2");
}
