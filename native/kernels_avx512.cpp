// x86 with AVX-512 and its VNNI: Intel's servers since 2019, AMD since 2022.
#define NKAT_ISA avx512
#include "kernels.h"

namespace nkat {
extern const Kernels kAvx512Kernels = avx512::kernels("avx512");
}
