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
    F8 gates[kTile], ups[kTile];
    for (int64_t number = 0; number < tiles(rows); ++number) {
      const Tile tile = tile_of(in, number);
      const int64_t row = number * kTile;
      for (int panel = first; panel < last; ++panel) {
        with_format(gate.type, [&](auto f) {
          finished_product<decltype(f)>(gate, panel, own, tile, in.thetas[0] + row * gate.rank, gates);
        });
        with_format(up.type, [&](auto f) {
          finished_product<decltype(f)>(up, panel, own, tile, in.thetas[1] + row * up.rank, ups);
        });
        for (int i = 0; i < tile.rows; ++i) gates[i] = silu(gates[i]) * ups[i];
        write(hidden + row * gate.rows + panel * kLanes, gate.rows, gate.rows - panel * kLanes, gates, tile.rows, false);
      }
    }
  });
  const Input out = prepare(context, hidden, rows, down.columns, nullptr, 0, {&down});
  context.expect_next();
  multiply_all(context, out, {{&down, out.thetas[0], x}}, true);
}

}  // namespace nkat::NKAT_ISA
