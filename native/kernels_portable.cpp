// Any processor: what the compiler makes of the vector types.
#define NKAT_ISA portable
#include "kernels.h"

namespace nkat {
extern const Kernels kPortableKernels = portable::kernels("portable");
}
