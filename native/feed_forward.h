// The gated feed-forward half of a block.
#pragma once

#include "linear.h"

namespace nkat::NKAT_ISA {

inline void feed_forward(Context& context, const FeedForward& block, float* x, int64_t rows) {
  const Weight &gate = *block.gate, &up = *block.up, &down = *block.down;
  const Input in = prepare(context, x, rows, gate.columns, block.norm, block.epsilon, {&gate, &up});
  float* hidden = context.work.hidden.get(rows * gate.rows);
  context.expect({&down});
  context.pool.run(gate.panels(), [&](int first, int last, int thread) {
    uint8_t* own = context.scratch[thread].panel.get(0);
    Totals gates, ups;
    for (int64_t number = 0; number < tiles(rows); ++number) {
      const Tile tile = tile_of(in, number);
      const int64_t row = number * kTile;
      for (int panel = first, count; panel < last; panel += count) {
        count = panels_together(tile, last - panel);
        with_format(gate.type, [&](auto f) {
          finished_products<decltype(f)>(gate, panel, count, own, tile, in.thetas[0] + row * gate.rank, gates);
        });
        with_format(up.type, [&](auto f) {
          finished_products<decltype(f)>(up, panel, count, own, tile, in.thetas[1] + row * up.rank, ups);
        });
        for (int p = 0; p < count; ++p) {
          const int at = (panel + p) * kLanes;
          for (int i = 0; i < tile.rows; ++i) gates[p][i] = silu(gates[p][i]) * ups[p][i];
          write(hidden + row * gate.rows + at, gate.rows, gate.rows - at, gates[p], tile.rows, false);
        }
      }
    }
  });
  const Input out = prepare(context, hidden, rows, down.columns, nullptr, 0, {&down});
  context.expect_next();
  multiply_all(context, out, {{&down, out.thetas[0], x}}, true);
}

}  // namespace nkat::NKAT_ISA
