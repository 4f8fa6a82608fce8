// Activations as the products of matrices want them: normalised, rounded to 8 bits, theta's projections ready.
#pragma once

#include <algorithm>
#include <atomic>
#include <initializer_list>

#include "context.h"
#include "simd.h"

namespace nkat::NKAT_ISA {

// Rows that a product takes at a time, so that their activations stay in the second level cache.
constexpr int kTile = 64;  // the bits of a word

// The inputs of one or several matrices with the same number of columns.
//
// Rows lie in tiles. In a tile of n rows, integers are [columns / 32][n][32], and scales [columns / 32][4][n]:
// the scale s of 32 integers, then the sum of the 32 rounded values, of the first and of the last sixteen. The
// sums carry what each 32 or 16 weights have in common (`min`) past the product of integers.
//
// Most of the error of rounding comes from the few blocks with large values. Blocks whose scale is above the root
// mean square of their row's, about one in five, are coarse: what rounding left over is rounded again, in steps of
// s / 254, to `rests`, laid out as the integers. A bit for each row of the tile, [columns / 32], says where.
// (SmolLM2: the divergence from exact activations falls to a fifth.) In a tile of one row, rests of the others are 0.
struct Input {
  int64_t rows, columns;
  const float* x;  // [rows][columns]
  int8_t *integers, *rests;
  float* scales;
  uint64_t* coarse;
  const float* thetas[3];  // [rows][rank] for each matrix, half_gamma and all scales included
};

struct Tile {
  int rows;
  int64_t columns;
  const float* x;
  int8_t *integers, *rests;
  float* scales;
  uint64_t* coarse;
};

inline int64_t tiles(int64_t rows) { return (rows + kTile - 1) / kTile; }

inline Tile tile_of(const Input& in, int64_t number) {
  const int64_t first = number * kTile;
  const int rows = int(in.rows - first < kTile ? in.rows - first : kTile);
  const int64_t blocks = in.columns / 32;
  return {rows,
          in.columns,
          in.x + first * in.columns,
          in.integers + first * in.columns,
          in.rests + first * in.columns,
          in.scales + first * blocks * 4,
          in.coarse + number * blocks};
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

constexpr float kFinite = 3.40282347e38f;  // the largest
constexpr uint32_t kNaN = 0x7fc00000;

constexpr float kRest = 1.0f / 254.0f;  // steps of the second rounding in those of the first

// Round 32 values times `inverse`, none of them beyond 127, to integers; the sums of the first and of the last sixteen.
inline void round_block(const F8* x, float inverse, int8_t* to, int32_t* halves) {
  using Bytes = int8_t __attribute__((vector_size(8)));
  const F8 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  for (int half = 0; half < 2; ++half) {
    I8 total = {};
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      const I8 whole = __builtin_convertvector(fma(x[i], splat(inverse), magic) - magic, I8);
      const Bytes bytes = __builtin_convertvector(whole, Bytes);
      std::memcpy(to + 8 * i, &bytes, 8);
      total += whole;
    }
    halves[half] = ((total[0] + total[4]) + (total[1] + total[5])) + ((total[2] + total[6]) + (total[3] + total[7]));
  }
}

// Round a row to its place in the tile. The largest of 32 becomes 127.
inline void round_row(const float* x, int64_t columns, int place, const Tile& tile) {
  const int64_t blocks = columns / 32, rows = tile.rows;
  float* scales = tile.scales + place;
  float highest = 0, squares = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    // By their bits, which keep the order of magnitudes and put infinity and NaN above all.
    I8 most = {};
    for (int i = 0; i < 32; i += 8) most = larger(most, I8(load(x + 32 * block + i)) & 0x7fffffff);
    const float top = std::bit_cast<float>(largest(most));
    // Below this the inverse times 254 would be infinite; what is so small is nothing. A block with a value that is
    // not finite has no scale, and so makes all products with it NaN.
    const float scale = top < 1e-33f ? 0.0f : top <= kFinite ? top / 127.0f : std::bit_cast<float>(kNaN);
    scales[block * 4 * rows] = scale;
    highest = scale > highest ? scale : highest;
  }
  for (int64_t block = 0; block < blocks && highest > 0; ++block) {
    const float ratio = scales[block * 4 * rows] / highest;  // the squares themselves might be infinite
    squares += ratio * ratio;
  }
  // A little more, so that rows whose blocks are all alike have no coarse ones.
  const float coarse = 1.001f * highest * std::sqrt(squares / float(blocks));
  for (int64_t block = 0; block < blocks; ++block, x += 32) {
    float* s = scales + block * 4 * rows;
    const float scale = s[0], inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const int64_t at = (block * rows + place) * 32;
    F8 values[4];
    for (int i = 0; i < 4; ++i) values[i] = load(x + 8 * i);
    if (scale != scale) [[unlikely]]  // what is no number has no integer either
      for (F8& value : values) value = F8{};
    int8_t* integers = tile.integers + at;
    int32_t halves[2];
    round_block(values, inverse, integers, halves);
    float first = scale * float(halves[0]), last = scale * float(halves[1]);
    if (scale > coarse) {
      for (int i = 0; i < 4; ++i)
        values[i] = fma(splat(-scale), load_bytes_as_float<int8_t>(integers + 8 * i), values[i]);
      round_block(values, 254.0f * inverse, tile.rests + at, halves);
      first += kRest * scale * float(halves[0]);
      last += kRest * scale * float(halves[1]);
      // Other threads write the bits of other rows.
      std::atomic_ref(tile.coarse[block]).fetch_or(uint64_t(1) << place, std::memory_order_relaxed);
    } else if (rows == 1) {
      std::memset(tile.rests + at, 0, 32);
    }
    s[rows] = first + last;
    s[2 * rows] = first;
    s[3 * rows] = last;
  }
}

// theta's x v^T for Rows rows x [Rows][columns]: out [Rows][rank].
template <int Rows>
inline void project(const float* x, const Weight& weight, float* out) {
  const int64_t columns = weight.columns;
  for (int j = 0; j < weight.rank; ++j) {
    const int8_t* v = weight.v.data() + j * columns;
    F8 even[Rows] = {}, odd[Rows] = {};
    int64_t i = 0;
    for (; i + 16 <= columns; i += 16) {
      const F8 v0 = load_bytes_as_float<int8_t>(v + i), v1 = load_bytes_as_float<int8_t>(v + i + 8);
      for (int r = 0; r < Rows; ++r) {
        even[r] = fma(load(x + r * columns + i), v0, even[r]);
        odd[r] = fma(load(x + r * columns + i + 8), v1, odd[r]);
      }
    }
    for (int r = 0; r < Rows; ++r) {
      float total = sum(even[r] + odd[r]);
      for (int64_t k = i; k < columns; ++k) total += x[r * columns + k] * float(v[k]);
      out[r * weight.rank + j] = total * weight.scales[j] * *weight.half_gamma;
    }
  }
}

inline void project_rows(const float* x, int64_t rows, const Weight& weight, float* out) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) project<4>(x + row * weight.columns, weight, out + row * weight.rank);
  for (; row < rows; ++row) project<1>(x + row * weight.columns, weight, out + row * weight.rank);
}

// work(first, last) for some rows at a time, by the caller alone when there are few.
template <class Work>
inline void for_rows(Context& context, int64_t rows, const Work& work) {
  constexpr int64_t few = 4;
  if (rows <= few)
    work(int64_t(0), rows);
  else
    context.pool.run(int(rows), [&](int first, int last, int) { work(int64_t(first), int64_t(last)); });
}

// The input of `weights` from x [rows][columns], behind a norm if there is one.
inline Input prepare(Context& context, const float* x, int64_t rows, int64_t columns, const float* norm, float epsilon,
                     std::initializer_list<const Weight*> weights) {
  Workspace& work = context.work;
  const int64_t blocks = columns / 32;
  Input in{rows,
           columns,
           x,
           work.integers.get(rows * columns),
           work.rests.get(rows * columns),
           work.scales.get(rows * (blocks + 1) * 4),
           work.coarse.get(tiles(rows) * (blocks + 1)),
           {}};
  std::fill(in.coarse, in.coarse + tiles(rows) * blocks, 0);
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
  for_rows(context, rows, [&](int64_t start, int64_t stop) {
    for (int64_t row = start; row < stop; ++row) {
      if (norm != nullptr) normalize(x + row * columns, columns, norm, epsilon, normed + row * columns);
      if (!integers) continue;
      round_row(in.x + row * columns, columns, int(row % kTile), tile_of(in, row / kTile));
    }
    int n = 0;
    for (const Weight* weight : weights) {
      if (weight->rank > 0)
        project_rows(in.x + start * columns, stop - start, *weight, thetas[n] + start * weight->rank);
      ++n;
    }
  });
  return in;
}

}  // namespace nkat::NKAT_ISA
