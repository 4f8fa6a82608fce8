// Matrices times batches of rows, shared among threads by panels.
#pragma once

#include "product.h"

namespace nkat::NKAT_ISA {

// total [rows] += Count components of theta: u [Count][8] times theta [rows][stride].
template <int Count>
inline void add_theta(const int8_t* us, const float* theta, int stride, int rows, F8* total) {
  F8 u[Count];
  for (int j = 0; j < Count; ++j) u[j] = load_bytes_as_float<int8_t>(us + j * kLanes);
  for (int i = 0; i < rows; ++i, theta += stride) {
    F8 sum = total[i];
    for (int j = 0; j < Count; ++j) sum = fma(u[j], splat(theta[j]), sum);
    total[i] = sum;
  }
}

// total [tile rows] += bias and theta.
inline void finish(const Weight& weight, int panel, const Tile& tile, const float* theta, F8* total) {
  if (weight.bias != nullptr) {
    F8 bias = {};
    for (int r = 0; r < kLanes && panel * kLanes + r < weight.rows; ++r) bias[r] = weight.bias[panel * kLanes + r];
    for (int i = 0; i < tile.rows; ++i) total[i] += bias;
  }
  const int8_t* us = weight.u.data() + size_t(panel) * weight.rank * kLanes;
  int j = 0;
  for (; j + 4 <= weight.rank; j += 4) add_theta<4>(us + j * kLanes, theta + j, weight.rank, tile.rows, total);
  for (; j < weight.rank; ++j) add_theta<1>(us + j * kLanes, theta + j, weight.rank, tile.rows, total);
}

// Totals of neighbouring panels that are computed together.
using Totals = F8[kPanels][kTile];

// How many of the panels that are left are the next to be computed together.
inline int panels_together(const Tile& tile, int left) { return kWide && tile.rows > 1 && left > 1 ? 2 : 1; }

// total [count][tile rows] = panels times tile, plus bias and theta. `own`: as by `packed_panel`.
template <class F>
inline void finished_products(const Weight& weight, int panel, int count, uint8_t* own, const Tile& tile,
                              const float* theta, Totals& total) {
  const uint8_t* panels[kPanels];
  for (int p = 0; p < count; ++p) {
    panels[p] = packed_panel(weight, panel + p, own + p * weight.panel_bytes);
    const int8_t* us = weight.u.data() + size_t(panel + p) * weight.rank * kLanes;
    // Asked for here, theta's factors have come when the product is done.
    for (int j = 0; j < weight.rank; j += 8) __builtin_prefetch(us + j * kLanes);
    for (int i = 0; i < tile.rows; ++i) total[p][i] = F8{};
  }
  int done = 0;
#if defined(NKAT_WIDE)
  if constexpr (!is_float<F>)
    if (count == 2) wide_product<F>(panels[0], panels[1], tile, total[0], total[1]), done = 2;
#endif
  for (int p = done; p < count; ++p) product<F>(panels[p], tile, total[p]);
  for (int p = 0; p < count; ++p) finish(weight, panel + p, tile, theta, total[p]);
}

inline void write(float* y, int64_t stride, int rows_left, const F8* total, int n, bool add) {
  if (rows_left >= kLanes) {
    for (int i = 0; i < n; ++i, y += stride) store(y, add ? load(y) + total[i] : total[i]);
  } else {
    for (int i = 0; i < n; ++i, y += stride)
      for (int r = 0; r < rows_left; ++r) y[r] = add ? y[r] + total[i][r] : total[i][r];
  }
}

// A product and where it goes: y [rows][weight.rows].
struct Product {
  const Weight* weight;
  const float* theta;
  float* y;
};

// Some panels of a product over all tiles.
inline void multiply(const Input& in, const Product& product, int first, int last, uint8_t* own, bool add) {
  const Weight& weight = *product.weight;
  with_format(weight.type, [&](auto f) {
    Totals total;
    for (int64_t number = 0; number < tiles(in.rows); ++number) {
      const Tile tile = tile_of(in, number);
      const int64_t row = number * kTile;
      for (int panel = first, count; panel < last; panel += count) {
        count = panels_together(tile, last - panel);
        finished_products<decltype(f)>(weight, panel, count, own, tile, product.theta + row * weight.rank, total);
        for (int p = 0; p < count; ++p) {
          const int at = (panel + p) * kLanes;
          write(product.y + row * weight.rows + at, weight.rows, weight.rows - at, total[p], tile.rows, add);
        }
      }
    }
  });
}

// Products of one input, together: y = or, with `add`, y += .
inline void multiply_all(Context& context, const Input& in, std::initializer_list<Product> products, bool add) {
  int panels = 0;
  for (const Product& product : products) panels += product.weight->panels();
  context.pool.run(panels, [&](int first, int last, int thread) {
    uint8_t* panel = context.scratch[thread].panel.get(0);
    for (const Product& product : products) {
      const int own = product.weight->panels();
      if (first < own && last > 0) multiply(in, product, first > 0 ? first : 0, last < own ? last : own, panel, add);
      first -= own;
      last -= own;
    }
  });
}

inline void linear(Context& context, const Weight& weight, const float* norm, float epsilon, const float* x,
                   int64_t rows, float* y) {
  const Input in = prepare(context, x, rows, weight.columns, norm, epsilon, {&weight});
  multiply_all(context, in, {{&weight, in.thetas[0], y}}, false);
}

}  // namespace nkat::NKAT_ISA
