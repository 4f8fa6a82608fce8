// x86 with AVX2 and its VNNI: Intel since 2021, efficient cores included, AMD since 2024.
#define NKAT_ISA avxvnni
#include "kernels.h"

namespace nkat {
extern const Kernels kAvxVnniKernels = avxvnni::kernels("avxvnni");
}
