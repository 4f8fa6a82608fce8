// How a matrix lies in memory: panels of eight rows, each a sequence of records.
//
// A record holds the weights of eight rows over the columns of one block of the file (32 or 256, or a single
// column of a float type), so that one stream of memory feeds eight lanes:
//
//     32-column types   d[8] half, (m[8] half), planes
//     256-column types  d[8] half, (m[8] half), scales[subs][8], (mins[subs][8]), 8 x planes
//     float types       w[8]
//
// `planes` are the integers of 32 columns, [column / 4][row][column % 4], cut into planes of 4, 2 and 1 bits
// (8-bit integers stay bytes). They take the bytes they take in the file; 256-column types grow by up to 4 %,
// for their 6-bit scales become bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nkat {

constexpr int kLanes = 8;

// Neighbouring panels that are multiplied together at the most.
constexpr int kPanels = 2;

// Numbers as in ggml's enum.
enum Type : int {
  F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8,
  Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23, BF16 = 30,
};

// What the kernels need to know of an integer type at compile time.
//
// Bits: of the stored integer. Signed: they are signed bytes (after a look-up for the IQ4 types); the others are
// unsigned, and their value is scale * q + min, with min = -offset * scale where the file stores none.
// Columns: of a record. Sub: columns that share a scale. Nibbles: scale and min share a byte (Q2_K).
template <Type T, int B, int FileBytes, int C, int S, bool Mins, int Offset, bool IsSigned, bool Lookup = false>
struct Integers {
  static constexpr Type type = T;
  static constexpr int bits = B, columns = C, sub = S, offset = Offset, file_bytes = FileBytes;
  static constexpr bool mins = Mins, is_signed = IsSigned, lookup = Lookup, nibbles = T == Q2_K;
  static constexpr int subs = C / S;
  static constexpr bool two_level = C == 256;
  static constexpr int planes = B * 32;  // bytes of 32 columns of eight rows
  static constexpr int scales_at = 2 * kLanes * (Mins ? 2 : 1);
  static constexpr int mins_at = scales_at + (two_level ? subs * kLanes : 0);
  static constexpr int planes_at = mins_at + (two_level && Mins && !nibbles ? subs * kLanes : 0);
  static constexpr int record = planes_at + planes * (C / 32);
};

using FormatQ4_0 = Integers<Q4_0, 4, 18, 32, 32, false, 8, false>;
using FormatQ4_1 = Integers<Q4_1, 4, 20, 32, 32, true, 0, false>;
using FormatQ5_0 = Integers<Q5_0, 5, 22, 32, 32, false, 16, false>;
using FormatQ5_1 = Integers<Q5_1, 5, 24, 32, 32, true, 0, false>;
using FormatQ8_0 = Integers<Q8_0, 8, 34, 32, 32, false, 0, true>;
using FormatQ2_K = Integers<Q2_K, 2, 84, 256, 16, true, 0, false>;
using FormatQ3_K = Integers<Q3_K, 3, 110, 256, 16, false, 4, false>;
using FormatQ4_K = Integers<Q4_K, 4, 144, 256, 32, true, 0, false>;
using FormatQ5_K = Integers<Q5_K, 5, 176, 256, 32, true, 0, false>;
using FormatQ6_K = Integers<Q6_K, 6, 210, 256, 16, false, 32, false>;
using FormatIQ4_NL = Integers<IQ4_NL, 4, 18, 32, 32, false, 0, true, true>;
using FormatIQ4_XS = Integers<IQ4_XS, 4, 136, 256, 32, false, 0, true, true>;

// Float types: a record is one column.
template <Type T, int Bytes>
struct Floats {
  static constexpr Type type = T;
  static constexpr int columns = 1, file_bytes = Bytes, record = Bytes * kLanes;
};
using FormatF32 = Floats<F32, 4>;
using FormatF16 = Floats<F16, 2>;
using FormatBF16 = Floats<BF16, 2>;

// Call `use(Format{})` with the format of a type; false for a type that has none.
template <class Use>
bool with_format(int type, Use&& use) {
  switch (type) {
    case F32: use(FormatF32{}); return true;
    case F16: use(FormatF16{}); return true;
    case BF16: use(FormatBF16{}); return true;
    case Q4_0: use(FormatQ4_0{}); return true;
    case Q4_1: use(FormatQ4_1{}); return true;
    case Q5_0: use(FormatQ5_0{}); return true;
    case Q5_1: use(FormatQ5_1{}); return true;
    case Q8_0: use(FormatQ8_0{}); return true;
    case Q2_K: use(FormatQ2_K{}); return true;
    case Q3_K: use(FormatQ3_K{}); return true;
    case Q4_K: use(FormatQ4_K{}); return true;
    case Q5_K: use(FormatQ5_K{}); return true;
    case Q6_K: use(FormatQ6_K{}); return true;
    case IQ4_NL: use(FormatIQ4_NL{}); return true;
    case IQ4_XS: use(FormatIQ4_XS{}); return true;
    default: return false;
  }
}

template <class F>
constexpr bool is_float = F::columns == 1;

// The codebook of the IQ4 types (ggml's kvalues_iq4nl).
constexpr int8_t kCodebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

}  // namespace nkat
