// Eight lanes: what the kernels are written in. Compiled once for each instruction set, in its own namespace.
//
// Compilers lower the vector types to what the target has (SSE2, NEON, ...); only where that is slow is there
// another way, with intrinsics. FMA or not, the rounding may differ between instruction sets, never between
// two calls of one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "format.h"
#include "half.h"

// Four products of bytes added to each of eight sums, in the encoding that the processor has.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define NKAT_DPBUSD _mm256_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define NKAT_DPBUSD _mm256_dpbusd_avx_epi32
#endif

namespace nkat::NKAT_ISA {

using F8 = float __attribute__((vector_size(32)));
using I8 = int32_t __attribute__((vector_size(32)));
using B32 = uint8_t __attribute__((vector_size(32)));

inline F8 load(const float* p) {
  F8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, F8 v) { std::memcpy(p, &v, sizeof v); }

inline B32 load_bytes(const uint8_t* p) {
  B32 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline F8 splat(float x) { return F8{x, x, x, x, x, x, x, x}; }
inline F8 splat(float x, F8) { return splat(x); }  // for who is written for several widths

inline B32 splat_byte(uint8_t x) {
  return B32{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

inline F8 to_float(I8 v) { return __builtin_convertvector(v, F8); }

// a * b + c
inline F8 fma(F8 a, F8 b, F8 c) {
#if defined(__FMA__)
  return F8(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#else
  return a * b + c;
#endif
}

inline F8 max(F8 a, F8 b) { return a > b ? a : b; }
inline I8 larger(I8 a, I8 b) { return a > b ? a : b; }

// The integers in values that are whole; some integer where they are NaN.
inline I8 to_integers(F8 v) {
#if defined(__AVX2__)
  return I8(_mm256_cvttps_epi32(__m256(v)));
#else
  return __builtin_convertvector(v == v ? v : F8{}, I8);
#endif
}

inline float sum(F8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

inline float largest(F8 v) {
  float most = v[0];
  for (int i = 1; i < 8; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

inline int32_t largest(I8 v) {
  int32_t most = v[0];
  for (int i = 1; i < 8; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// The sums of eight vectors.
inline F8 sums(const F8* v) {
#if defined(__AVX2__)
  const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(__m256(v[0]), __m256(v[1])), _mm256_hadd_ps(__m256(v[2]), __m256(v[3])));
  const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(__m256(v[4]), __m256(v[5])), _mm256_hadd_ps(__m256(v[6]), __m256(v[7])));
  return F8(_mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
#else
  F8 result;
  for (int i = 0; i < 8; ++i) result[i] = sum(v[i]);
  return result;
#endif
}

// e^x to 2 units in the last place; 0 below -87, no more than e^88 above; NaN of NaN.
// Range reduction and minimax polynomial: Cephes, expf.c (S. Moshier).
inline F8 exp(F8 x) {
  const F8 low = splat(-87.0f), high = splat(88.0f);
  const I8 flushed = x < low;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const F8 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F8 n = fma(x, splat(1.44269504088896341f), magic) - magic;
  const F8 r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x));
  F8 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + splat(1.0f));
  // Of NaN the polynomial is NaN, whatever the power.
  const I8 power = (to_integers(n) + 127) << 23;
  return F8(I8(p * F8(power)) & ~flushed);
}

inline F8 silu(F8 x) { return x / (splat(1.0f) + exp(-x)); }

inline F8 load_half(const uint16_t* p) {
#if defined(__F16C__)
  return F8(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  // As half_to_float does it, which explains the steps.
  uint16_t __attribute__((vector_size(16))) words;
  std::memcpy(&words, p, sizeof words);
  const I8 h = __builtin_convertvector(words, I8);
  const I8 rest = (h & 0x7fff) << 13, special = (h & 0x7c00) == 0x7c00;
  const I8 finite = I8(F8(rest) * splat(0x1p112f));
  return F8(((h & 0x8000) << 16) | (special & (rest | 0x7f800000)) | (~special & finite));
#endif
}

inline F8 load_half(const uint8_t* p) { return load_half(reinterpret_cast<const uint16_t*>(p)); }

inline void store_half(uint16_t* p, F8 v) {
#if defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < 8; ++i) p[i] = float_to_half(v[i]);
#endif
}

inline F8 load_bfloat(const uint8_t* p) {
#if defined(__AVX2__)
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return F8(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
#else
  F8 v;
  for (int i = 0; i < 8; ++i) {
    uint16_t word;
    std::memcpy(&word, p + 2 * i, 2);
    v[i] = std::bit_cast<float>(uint32_t(word) << 16);
  }
  return v;
#endif
}

// Eight bytes as numbers.
template <class Byte>
inline F8 load_bytes_as_float(const void* from) {
  const uint8_t* p = static_cast<const uint8_t*>(from);
#if defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return F8(_mm256_cvtepi32_ps(Byte(-1) < 0 ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes)));
#else
  F8 v;
  for (int i = 0; i < 8; ++i) v[i] = float(Byte(p[i]));
  return v;
#endif
}

// Bits of each byte, moved right (left where negative), under a mask that drops what came from its neighbour.
template <int Right>
inline B32 bits(B32 v, uint8_t mask) {
  using Words = uint16_t __attribute__((vector_size(32)));
  Words words = Words(v);
  if constexpr (Right > 0) words >>= Right;
  if constexpr (Right < 0) words <<= -Right;
  return B32(words) & splat_byte(mask);
}

// codebook[q] for q below 16.
inline B32 look_up(B32 q) {
#if defined(__AVX2__)
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook)));
  return B32(_mm256_shuffle_epi8(table, __m256i(q)));
#else
  B32 v;
  for (int i = 0; i < 32; ++i) v[i] = uint8_t(kCodebook[q[i]]);
  return v;
#endif
}

// Products of integers: w[g], g < Groups, holds columns 4 g to 4 g + 3 of eight rows, a row four bytes, and x
// the activations of these columns, -127 to 127. A lane of the result is the sum over all columns of a row.
template <int Bits, bool Signed, int Groups>
inline I8 dot(const B32* w, const int8_t* x) {
#if defined(NKAT_DPBUSD)
  __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int g = 0; g < Groups; ++g) {
    int32_t four;
    std::memcpy(&four, x + 4 * g, 4);
    const __m256i wg = __m256i(w[g]), xg = _mm256_set1_epi32(four);
    // One side is unsigned: |w| times x with the sign of w.
    total = Signed ? NKAT_DPBUSD(total, _mm256_abs_epi8(wg), _mm256_sign_epi8(xg, wg)) : NKAT_DPBUSD(total, wg, xg);
  }
  return I8(total);
#elif defined(__AVX2__)
  const __m256i ones = _mm256_set1_epi16(1);
  const auto activations = [&](int g) {
    int32_t four;
    std::memcpy(&four, x + 4 * g, 4);
    return _mm256_set1_epi32(four);
  };
  if constexpr (Signed) {
    // maddubs wants one side unsigned: |w| times x with the sign of w. Two products of 128 * 127 still fit.
    __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int g = 0; g < Groups; ++g) {
      const __m256i wg = __m256i(w[g]);
      const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(wg), _mm256_sign_epi8(activations(g), wg));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(products, ones));
    }
    return I8(total);
  } else {
    // How many pairs of products fit into 16 bits: 32767 / (2 * 127 * largest integer).
    constexpr int run = Bits <= 4 ? 8 : Bits == 5 ? 4 : 2;
    static_assert(2 * 127 * ((1 << Bits) - 1) * run <= 32767);
    __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int first = 0; first < Groups; first += run) {
      __m256i partial = _mm256_maddubs_epi16(__m256i(w[first]), activations(first));
      for (int g = first + 1; g < first + run && g < Groups; ++g)
        partial = _mm256_add_epi16(partial, _mm256_maddubs_epi16(__m256i(w[g]), activations(g)));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(partial, ones));
    }
    return I8(total);
  }
#elif defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  const auto widened_low = [&](__m128i v, bool is_signed) {
    return is_signed ? _mm_srai_epi16(_mm_unpacklo_epi8(v, v), 8) : _mm_unpacklo_epi8(v, zero);
  };
  const auto widened_high = [&](__m128i v, bool is_signed) {
    return is_signed ? _mm_srai_epi16(_mm_unpackhi_epi8(v, v), 8) : _mm_unpackhi_epi8(v, zero);
  };
  __m128i total[4] = {zero, zero, zero, zero};  // two rows each, two sums a row
  for (int g = 0; g < Groups; ++g) {
    int32_t four;
    std::memcpy(&four, x + 4 * g, 4);
    const __m128i xs = widened_low(_mm_set1_epi32(four), true);
    for (int half = 0; half < 2; ++half) {
      __m128i rows;
      std::memcpy(&rows, reinterpret_cast<const uint8_t*>(w + g) + 16 * half, 16);
      total[2 * half] = _mm_add_epi32(total[2 * half], _mm_madd_epi16(widened_low(rows, Signed), xs));
      total[2 * half + 1] = _mm_add_epi32(total[2 * half + 1], _mm_madd_epi16(widened_high(rows, Signed), xs));
    }
  }
  I8 result;
  for (int half = 0; half < 2; ++half) {
    const __m128 a = _mm_castsi128_ps(total[2 * half]), b = _mm_castsi128_ps(total[2 * half + 1]);
    const __m128i even = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
    const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
    const __m128i sums = _mm_add_epi32(even, odd);
    std::memcpy(reinterpret_cast<int32_t*>(&result) + 4 * half, &sums, 16);
  }
  return result;
#else
  using Wide = int16_t __attribute__((vector_size(64)));
  using Pairs = int32_t __attribute__((vector_size(64)));
  using Signs = int8_t __attribute__((vector_size(32)));
  using Fours = int32_t __attribute__((vector_size(32)));
  Pairs total = {};
  for (int g = 0; g < Groups; ++g) {
    int32_t four;
    std::memcpy(&four, x + 4 * g, 4);
    const Fours fours = {four, four, four, four, four, four, four, four};
    const Wide xs = __builtin_convertvector(Signs(fours), Wide);
    // 255 * 127 fits into 16 bits.
    const Wide products = xs * (Signed ? __builtin_convertvector(Signs(w[g]), Wide) : __builtin_convertvector(w[g], Wide));
    const Pairs pairs = Pairs(products);
    total += (pairs >> 16) + ((pairs << 16) >> 16);
  }
  I8 result;
  for (int i = 0; i < 8; ++i) result[i] = total[2 * i] + total[2 * i + 1];
  return result;
#endif
}

// Two vectors side by side, where registers are wide enough for that.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define NKAT_WIDE
constexpr bool kWide = true;

using F8x2 = float __attribute__((vector_size(64)));
using I8x2 = int32_t __attribute__((vector_size(64)));
using B32x2 = uint8_t __attribute__((vector_size(64)));

inline F8x2 join(F8 a, F8 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
inline B32x2 join(B32 a, B32 b) { return B32x2(join(F8(a), F8(b))); }
inline F8 first_half(F8x2 v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
inline F8 second_half(F8x2 v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }

inline F8x2 splat(float x, F8x2) { return F8x2(_mm512_set1_ps(x)); }
inline F8x2 to_float(I8x2 v) { return __builtin_convertvector(v, F8x2); }
inline F8x2 fma(F8x2 a, F8x2 b, F8x2 c) { return F8x2(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c))); }

// The same for sixteen rows.
template <int Bits, bool Signed, int Groups>
inline I8x2 dot(const B32x2* w, const int8_t* x) {
  __m512i total = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int g = 0; g < Groups; ++g) {
    int32_t four;
    std::memcpy(&four, x + 4 * g, 4);
    __m512i wg = __m512i(w[g]), xg = _mm512_set1_epi32(four);
    if constexpr (Signed) {
      xg = _mm512_mask_sub_epi8(xg, _mm512_movepi8_mask(wg), _mm512_setzero_si512(), xg);
      wg = _mm512_abs_epi8(wg);
    }
    total = _mm512_dpbusd_epi32(total, wg, xg);
  }
  return I8x2(total);
}
#else
constexpr bool kWide = false;
#endif

}  // namespace nkat::NKAT_ISA
