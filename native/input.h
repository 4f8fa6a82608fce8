// Activations as the products of matrices want them: normalised, rounded to 8 bits, theta's projections ready.
#pragma once

#include <initializer_list>

#include "context.h"
#include "simd.h"

namespace nkat::NKAT_ISA {

// Rows that a product takes at a time, so that their activations stay in the second level cache.
constexpr int kTile = 64;

// The inputs of one or several matrices with the same number of columns.
//
// Rows lie in tiles. In a tile of n rows, integers are [columns / 32][n][32], and scales [columns / 32][4][n]:
// the scale s of 32 integers, then s times their sum, s times the sum of the first and of the last sixteen. The
// sums carry what each 32 or 16 weights have in common (`min`) past the product of integers.
struct Input {
  int64_t rows, columns;
  const float* x;  // [rows][columns]
  int8_t* integers;
  float* scales;
  const float* thetas[3];  // [rows][rank] for each matrix, half_gamma and all scales included
};

struct Tile {
  int rows;
  int64_t columns;
  const float* x;
  const int8_t* integers;
  const float* scales;
};

inline int64_t tiles(int64_t rows) { return (rows + kTile - 1) / kTile; }

inline Tile tile_of(const Input& in, int64_t number) {
  const int64_t first = number * kTile;
  const int rows = int(in.rows - first < kTile ? in.rows - first : kTile);
  return {rows, in.columns, in.x + first * in.columns, in.integers + first * in.columns,
          in.scales + first * (in.columns / 32) * 4};
}

inline void normalize(const float* x, int64_t columns, const float* weight, float epsilon, float* y) {
  F8 squares = {};
  int64_t i = 0;
  for (; i + 8 <= columns; i += 8) squares = fma(load(x + i), load(x + i), squares);
  float square = sum(squares);
  for (; i < columns; ++i) square += x[i] * x[i];
  const float factor = 1.0f / std::sqrt(square / float(columns) + epsilon);
  for (i = 0; i + 8 <= columns; i += 8) store(y + i, load(x + i) * splat(factor) * load(weight + i));
  for (; i < columns; ++i) y[i] = x[i] * factor * weight[i];
}

// Round a row to its place in the tile. The largest of 32 becomes 127.
inline void round_row(const float* x, int64_t columns, int place, int rows, int8_t* integers, float* scales) {
  using Bytes = int8_t __attribute__((vector_size(8)));
  const F8 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  for (int64_t block = 0; block < columns / 32; ++block, x += 32) {
    F8 most = {};
    for (int i = 0; i < 32; i += 8) most = max(most, F8(I8(load(x + i)) & 0x7fffffff));
    // Below this the inverse would be infinite; what is so small is nothing.
    const float top = largest(most), scale = top < 1e-35f ? 0.0f : top / 127.0f;
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    int8_t* to = integers + (block * rows + place) * 32;
    int32_t halves[2];
    for (int half = 0; half < 2; ++half) {
      I8 total = {};
      for (int i = 16 * half; i < 16 * half + 16; i += 8) {
        const F8 rounded = fma(load(x + i), splat(inverse), magic) - magic;
        const I8 whole = __builtin_convertvector(rounded, I8);
        const Bytes bytes = __builtin_convertvector(whole, Bytes);
        std::memcpy(to + i, &bytes, 8);
        total += whole;
      }
      halves[half] = ((total[0] + total[4]) + (total[1] + total[5])) + ((total[2] + total[6]) + (total[3] + total[7]));
    }
    float* s = scales + block * 4 * rows + place;
    s[0] = scale;
    s[rows] = scale * float(halves[0] + halves[1]);
    s[2 * rows] = scale * float(halves[0]);
    s[3 * rows] = scale * float(halves[1]);
  }
}

// theta's x v^T for one row.
inline void project(const float* x, const Weight& weight, float* out) {
  for (int j = 0; j < weight.rank; ++j) {
    const uint16_t* v = weight.v.data() + size_t(j) * weight.columns;
    F8 first = {}, second = {};
    int i = 0;
    for (; i + 16 <= weight.columns; i += 16) {
      first = fma(load(x + i), load_half(v + i), first);
      second = fma(load(x + i + 8), load_half(v + i + 8), second);
    }
    float total = sum(first + second);
    for (; i < weight.columns; ++i) total += x[i] * half_to_float(v[i]);
    out[j] = total * weight.scales[j] * *weight.half_gamma;
  }
}

// Work of some rows at a time, by the caller alone when there are few.
template <class Work>
inline void for_rows(Context& context, int64_t rows, const Work& work) {
  constexpr int64_t few = 4, at_once = 8;
  if (rows <= few) {
    for (int64_t row = 0; row < rows; ++row) work(row);
    return;
  }
  const int64_t step = rows < at_once * 2 * context.pool.threads() ? 1 : at_once;
  context.pool.run(int((rows + step - 1) / step), [&](int chunk, int) {
    for (int64_t row = chunk * step; row < rows && row < (chunk + 1) * step; ++row) work(row);
  });
}

// The input of `weights` from x [rows][columns], behind a norm if there is one.
inline Input prepare(Context& context, const float* x, int64_t rows, int64_t columns, const float* norm, float epsilon,
                     std::initializer_list<const Weight*> weights) {
  Workspace& work = context.work;
  Input in{rows, columns, x, work.integers.get(rows * columns), work.scales.get(rows * (columns / 32 + 1) * 4), {}};
  float* normed = norm == nullptr ? nullptr : work.normed.get(rows * columns);
  if (norm != nullptr) in.x = normed;
  bool integers = false;
  float* thetas[3] = {};
  int number = 0;
  for (const Weight* weight : weights) {
    integers = integers || (weight->type != F32 && weight->type != F16 && weight->type != BF16);
    if (weight->rank > 0) thetas[number] = work.thetas[number].get(rows * weight->rank);
    in.thetas[number] = thetas[number];
    ++number;
  }
  for_rows(context, rows, [&](int64_t row) {
    if (norm != nullptr) normalize(x + row * columns, columns, norm, epsilon, normed + row * columns);
    const float* from = in.x + row * columns;
    if (integers) {
      const int64_t first = row / kTile * kTile;
      const int in_tile = int(rows - first < kTile ? rows - first : kTile);
      round_row(from, columns, int(row - first), in_tile, in.integers + first * columns,
                in.scales + first * (columns / 32) * 4);
    }
    int n = 0;
    for (const Weight* weight : weights) {
      if (weight->rank > 0) project(from, *weight, thetas[n] + row * weight->rank);
      ++n;
    }
  });
  return in;
}

}  // namespace nkat::NKAT_ISA
