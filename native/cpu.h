// Which kernels this processor can run.
#pragma once

#include "context.h"

namespace nkat {

// The kernels of a name, or, without a name, the fastest that run here; nullptr where there are none.
const Kernels* find_kernels(const char* name);

}  // namespace nkat
