// One panel of eight rows times one tile of activations.
#pragma once

#include "input.h"

namespace nkat::NKAT_ISA {

// How far ahead in its stream memory is asked for. Left to the processor, which looks ahead by instructions, it
// comes too late: a token of SmolLM2 takes a quarter longer.
constexpr int kAhead = 2048;

// The integers of 32 columns of eight rows out of their planes.
template <class F>
inline void unpack(const uint8_t* planes, B32* w) {
  if constexpr (F::bits == 8) {
    for (int g = 0; g < 8; ++g) w[g] = load_bytes(planes + 32 * g);
  } else if constexpr (F::bits >= 4) {
    for (int g = 0; g < 4; ++g) {
      const B32 pair = load_bytes(planes + 32 * g);
      w[g] = bits<0>(pair, 15);
      w[g + 4] = bits<4>(pair, 15);
    }
    if constexpr (F::bits == 5) {
      const B32 high = load_bytes(planes + 128);
      w[0] |= bits<-4>(high, 16), w[1] |= bits<-3>(high, 16), w[2] |= bits<-2>(high, 16), w[3] |= bits<-1>(high, 16);
      w[4] |= bits<0>(high, 16), w[5] |= bits<1>(high, 16), w[6] |= bits<2>(high, 16), w[7] |= bits<3>(high, 16);
    }
    if constexpr (F::bits == 6)
      for (int g = 0; g < 2; ++g) {
        const B32 high = load_bytes(planes + 128 + 32 * g);
        w[g] |= bits<-4>(high, 48), w[g + 2] |= bits<-2>(high, 48);
        w[g + 4] |= bits<0>(high, 48), w[g + 6] |= bits<2>(high, 48);
      }
    if constexpr (F::lookup)
      for (int g = 0; g < 8; ++g) w[g] = look_up(w[g]);
  } else {
    for (int g = 0; g < 2; ++g) {
      const B32 four = load_bytes(planes + 32 * g);
      w[g] = bits<0>(four, 3), w[g + 2] = bits<2>(four, 3), w[g + 4] = bits<4>(four, 3), w[g + 6] = bits<6>(four, 3);
    }
    if constexpr (F::bits == 3) {
      const B32 high = load_bytes(planes + 64);
      w[0] |= bits<-2>(high, 4), w[1] |= bits<-1>(high, 4), w[2] |= bits<0>(high, 4), w[3] |= bits<1>(high, 4);
      w[4] |= bits<2>(high, 4), w[5] |= bits<3>(high, 4), w[6] |= bits<4>(high, 4), w[7] |= bits<5>(high, 4);
    }
  }
}

// The scale and the min of eight rows for sub-block `sub` of a record.
template <class F>
inline void scale_and_min(const uint8_t* record, int sub, F8& scale, F8& min) {
  scale = load_half(record);
  min = F::mins ? load_half(record + 2 * kLanes) : splat(float(-F::offset)) * scale;
  if constexpr (F::nibbles) {
    const F8 both = load_bytes_as_float<uint8_t>(record + F::scales_at + sub * kLanes);
    const F8 high = to_float(__builtin_convertvector(both, I8) >> 4);
    scale *= both - high * splat(16.0f);
    min *= -high;
  } else if constexpr (F::two_level) {
    // Q4_K and Q5_K have unsigned 6-bit scales, the others signed ones of up to 8 bits.
    const F8 level = load_bytes_as_float<int8_t>(record + F::scales_at + sub * kLanes);
    scale *= level;
    if constexpr (F::mins)
      min *= -load_bytes_as_float<uint8_t>(record + F::mins_at + sub * kLanes);
    else
      min *= level;
  }
}

// One or two scales of 32 columns of eight rows, or of twice eight, with their mins.
template <class F, class V = F8>
struct Scales {
  V scale, min, scale2, min2;

  Scales(const uint8_t* record, int part) {
    if constexpr (F::sub == 32) {
      scale_and_min<F>(record, part, scale, min);
    } else {
      scale_and_min<F>(record, 2 * part, scale, min);
      scale_and_min<F>(record, 2 * part + 1, scale2, min2);
    }
  }

  Scales(const Scales<F>& one, const Scales<F>& two) : scale(join(one.scale, two.scale)), min(join(one.min, two.min)) {
    if constexpr (F::sub != 32) scale2 = join(one.scale2, two.scale2), min2 = join(one.min2, two.min2);
  }

  // sum + weights times 32 integers of scale s.
  template <class Bytes>
  V add_product(const Bytes* w, const int8_t* x, float s, V sum) const {
    const V each = splat(s, V{});
    if constexpr (F::sub == 32) return fma(to_float(dot<F::bits, F::is_signed, 8>(w, x)), scale * each, sum);
    sum = fma(to_float(dot<F::bits, F::is_signed, 4>(w, x)), scale * each, sum);
    return fma(to_float(dot<F::bits, F::is_signed, 4>(w + 4, x + 16)), scale2 * each, sum);
  }

  // sum + mins times the activations' sums, s [4][n].
  V add_mins(const float* s, int n, V sum) const {
    if constexpr (F::is_signed) return sum;
    if constexpr (F::sub == 32) return fma(min, splat(s[n], V{}), sum);
    return fma(min2, splat(s[3 * n], V{}), fma(min, splat(s[2 * n], V{}), sum));
  }
};

// total[i] += weights times 32 integers of row i of the tile.
template <class F, class V, class Bytes>
inline void add_rows(const Bytes* w, const Scales<F, V>& scales, const int8_t* x, const int8_t* rests, const float* s,
                     uint64_t coarse, int n, V* total) {
  for (int i = 0; i < n; ++i)
    total[i] = scales.add_mins(s + i, n, scales.add_product(w, x + 32 * i, s[i], total[i]));
  for (uint64_t left = coarse; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    total[i] = scales.add_product(w, rests + 32 * i, kRest * s[i], total[i]);
  }
}

// Ask for the memory that follows the integers of 32 columns at some distance.
template <class F>
inline void ask_ahead(const uint8_t* planes) {
  for (int line = 0; line < F::record / (F::columns / 32); line += 64) __builtin_prefetch(planes + kAhead + line);
}

// total[i] += panel times row i of the tile, lane by lane; Rows is 1, or 0 for as many as the tile has. A row's
// result does not depend on how many there are.
template <class F, int Rows>
inline void integer_product(const uint8_t* record, const Tile& tile, F8* total) {
  const int n = Rows == 0 ? tile.rows : Rows;
  const int8_t *x = tile.integers, *rests = tile.rests;
  const float* s = tile.scales;
  const uint64_t* coarse = tile.coarse;
  F8 single = Rows == 1 ? total[0] : F8{};
  for (int64_t columns = 0; columns < tile.columns; columns += F::columns, record += F::record) {
    for (int part = 0; part < F::columns / 32; ++part, x += 32 * n, rests += 32 * n, s += 4 * n, ++coarse) {
      const uint8_t* planes = record + F::planes_at + F::planes * part;
      ask_ahead<F>(planes);
      B32 w[8];
      unpack<F>(planes, w);
      const Scales<F> scales(record, part);
      if constexpr (Rows == 1) {
        single = scales.add_mins(s, 1, scales.add_product(w, x, s[0], single));
        // A branch that nobody can foretell costs more here than the products, for which memory leaves time.
        single = scales.add_product(w, rests, kRest * s[0], single);
      } else {
        add_rows(w, scales, x, rests, s, *coarse, n, total);
      }
    }
  }
  if constexpr (Rows == 1) total[0] = single;
}

#if defined(NKAT_WIDE)
// The same for two panels side by side, of as many rows as the tile has: to read the activations takes the time.
template <class F>
inline void wide_product(const uint8_t* one, const uint8_t* two, const Tile& tile, F8* total, F8* total2) {
  const int n = tile.rows;
  const int8_t *x = tile.integers, *rests = tile.rests;
  const float* s = tile.scales;
  const uint64_t* coarse = tile.coarse;
  F8x2 sums[kTile];
  for (int i = 0; i < n; ++i) sums[i] = join(total[i], total2[i]);
  for (int64_t columns = 0; columns < tile.columns; columns += F::columns, one += F::record, two += F::record) {
    for (int part = 0; part < F::columns / 32; ++part, x += 32 * n, rests += 32 * n, s += 4 * n, ++coarse) {
      const int at = F::planes_at + F::planes * part;
      ask_ahead<F>(one + at);
      ask_ahead<F>(two + at);
      B32 w[8], w2[8];
      unpack<F>(one + at, w);
      unpack<F>(two + at, w2);
      B32x2 both[8];
      for (int g = 0; g < 8; ++g) both[g] = join(w[g], w2[g]);
      add_rows(both, Scales<F, F8x2>(Scales<F>(one, part), Scales<F>(two, part)), x, rests, s, *coarse, n, sums);
    }
  }
  for (int i = 0; i < n; ++i) total[i] = first_half(sums[i]), total2[i] = second_half(sums[i]);
}
#endif

template <class F>
inline F8 load_column(const uint8_t* record) {
  if constexpr (F::type == F16) return load_half(record);
  if constexpr (F::type == BF16) return load_bfloat(record);
  return load(reinterpret_cast<const float*>(record));
}

// The same for float types, with the activations as they are.
template <class F, int Rows>
inline void float_product(const uint8_t* panel, const Tile& tile, int first, F8* total) {
  F8 even[Rows] = {}, odd[Rows] = {};
  const float* x = tile.x + first * tile.columns;
  int64_t column = 0;
  for (; column + 2 <= tile.columns; column += 2) {
    const F8 w0 = load_column<F>(panel + column * F::record), w1 = load_column<F>(panel + (column + 1) * F::record);
    __builtin_prefetch(panel + column * F::record + kAhead);
    for (int i = 0; i < Rows; ++i) {
      even[i] = fma(w0, splat(x[i * tile.columns + column]), even[i]);
      odd[i] = fma(w1, splat(x[i * tile.columns + column + 1]), odd[i]);
    }
  }
  if (column < tile.columns)
    for (int i = 0; i < Rows; ++i)
      even[i] = fma(load_column<F>(panel + column * F::record), splat(x[i * tile.columns + column]), even[i]);
  for (int i = 0; i < Rows; ++i) total[first + i] += even[i] + odd[i];
}

template <class F>
inline void product(const uint8_t* panel, const Tile& tile, F8* total) {
  if constexpr (is_float<F>) {
    int row = 0;
    for (; row + 4 <= tile.rows; row += 4) float_product<F, 4>(panel, tile, row, total);
    for (; row < tile.rows; ++row) float_product<F, 1>(panel, tile, row, total);
  } else if (tile.rows == 1) {
    integer_product<F, 1>(panel, tile, total);
  } else {
    integer_product<F, 0>(panel, tile, total);
  }
}

// A panel, from where it was packed; one that is not yet is packed to `own`.
inline const uint8_t* packed_panel(const Weight& weight, int panel, uint8_t* own) {
  if (weight.is_packed(panel)) return weight.data + panel * weight.panel_bytes;
  pack_panels(weight, panel, panel + 1, own);
  return own;
}

// One row of a matrix, dequantised: out [columns].
inline void dequantize_row(const Weight& weight, int64_t row, uint8_t* own, float* out) {
  const uint8_t* record = packed_panel(weight, int(row / kLanes), own);
  const int lane = int(row % kLanes);
  with_format(weight.type, [&](auto f) {
    using F = decltype(f);
    for (int column = 0; column < weight.columns; column += F::columns, record += F::record) {
      if constexpr (is_float<F>) {
        out[column] = load_column<F>(record)[lane];
      } else {
        for (int sub = 0; sub < F::subs; ++sub) {
          B32 w[8];
          unpack<F>(record + F::planes_at + F::planes * (sub * F::sub / 32), w);
          F8 scale, min;
          scale_and_min<F>(record, sub, scale, min);
          for (int i = 0; i < F::sub; ++i) {
            const int within = (sub * F::sub + i) % 32;
            const uint8_t q = w[within / 4][4 * lane + within % 4];
            out[column + sub * F::sub + i] =
                F::is_signed ? scale[lane] * float(int8_t(q)) : scale[lane] * float(q) + min[lane];
          }
        }
      }
    }
  });
}

}  // namespace nkat::NKAT_ISA
