// IEEE half precision, for machines and moments without an instruction for it.
#pragma once

#include <bit>
#include <cstdint>

namespace nkat {

inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t rest = uint32_t(h & 0x7fff) << 13;
  if ((h & 0x7c00) == 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | rest);
  // 2^112 moves the exponent's bias from 15 to 127, and normalises what is subnormal.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(rest) * 0x1p112f));
}

// Rounds to nearest, ties to even; too large becomes infinite.
inline uint16_t float_to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffff);
  if (magnitude != magnitude) return sign | 0x7e00;
  if (magnitude >= 65520.0f) return sign | 0x7c00;
  if (magnitude < 0x1p-14f) {
    // The sum's last bit is worth 2^-24, the step of subnormal halves: the addition rounds.
    return sign | uint16_t(std::bit_cast<uint32_t>(magnitude + 0.5f) - std::bit_cast<uint32_t>(0.5f));
  }
  const uint32_t m = bits & 0x7fffffff;
  return sign | uint16_t((m + 0xfff + ((m >> 13) & 1) - (112u << 23)) >> 13);
}

}  // namespace nkat
