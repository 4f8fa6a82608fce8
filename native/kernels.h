// The kernels of the instruction set that this is compiled for.
#pragma once

#include "attention.h"
#include "feed_forward.h"

namespace nkat::NKAT_ISA {

constexpr Kernels kernels(const char* name) {
  return {name, linear, dequantize_row, self_attention, feed_forward};
}

}  // namespace nkat::NKAT_ISA
