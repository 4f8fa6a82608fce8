// The attention half of a block: projections, rotary embedding, cache, attention over pages, projection back.
#pragma once

#include <algorithm>

#include "linear.h"

namespace nkat::NKAT_ISA {

// Turn neighbouring pairs of a head (RoFormer, Su et al. 2021).
inline void rotate(float* head, const float* cos, const float* sin, int64_t rotated) {
  for (int64_t i = 0; i < rotated / 2; ++i) {
    const float even = head[2 * i], odd = head[2 * i + 1];
    head[2 * i] = even * cos[i] - odd * sin[i];
    head[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
}

inline void to_half(const float* x, int64_t count, uint16_t* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) store_half(out + i, load(x + i));
  for (; i < count; ++i) out[i] = float_to_half(x[i]);
}

// What one call of the attention looks at. Rows of q and out are [kv_heads][group][dim].
struct Heads {
  int64_t kv_heads, group, key_dim, value_dim;  // `group` query heads read one KV head
  float scale;
  const float* q;
  float* out;
  const uint16_t *keys, *values;

  const uint16_t* key(int64_t slot, int64_t head) const { return keys + (slot * kv_heads + head) * key_dim; }
  const uint16_t* value(int64_t slot, int64_t head) const { return values + (slot * kv_heads + head) * value_dim; }
};

constexpr int64_t kKeysAtOnce = 64;

// Keys and values of some neighbours in a context, for one KV head: where they lie in the cache, ...
struct Pages {
  const uint16_t *keys[kKeysAtOnce], *values[kKeysAtOnce];

  F8 key(int64_t at, int64_t d) const { return load_half(keys[at] + d); }
  F8 value(int64_t at, int64_t d) const { return load_half(values[at] + d); }
};

// ... or a copy in float32, rows filled up with zeros to whole vectors.
struct Copies {
  float *keys, *values;
  int64_t key_width, value_width;

  F8 key(int64_t at, int64_t d) const { return load(keys + at * key_width + d); }
  F8 value(int64_t at, int64_t d) const { return load(values + at * value_width + d); }
};

inline void from_half(const uint16_t* x, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) store(out + i, load_half(x + i));
  for (; i < count; ++i) out[i] = half_to_float(x[i]);
}

// scores [Rows][kKeysAtOnce] = queries [Rows][width] times all keys of the tile.
template <int Rows, class Keys>
inline void score(const Keys& keys, const float* queries, int64_t width, float* scores) {
  for (int64_t at = 0; at < kKeysAtOnce; at += 8) {
    F8 products[Rows][8];
#pragma GCC unroll 2
    for (int half = 0; half < 8; half += 4) {
      F8 total[Rows][4] = {};
      for (int64_t d = 0; d < width; d += 8) {
        F8 q[Rows];
        for (int r = 0; r < Rows; ++r) q[r] = load(queries + r * width + d);
        for (int i = 0; i < 4; ++i) {
          const F8 key = keys.key(at + half + i, d);
          for (int r = 0; r < Rows; ++r) total[r][i] = fma(key, q[r], total[r][i]);
        }
      }
      for (int r = 0; r < Rows; ++r)
        for (int i = 0; i < 4; ++i) products[r][half + i] = total[r][i];
    }
    for (int r = 0; r < Rows; ++r) store(scores + r * kKeysAtOnce + at, sums(products[r]));
  }
}

// out [Rows][width] += odds [Rows][kKeysAtOnce] times all values of the tile, Vectors of eight columns.
template <int Rows, int Vectors, class Values>
inline void mix(const Values& values, const float* odds, int64_t count, int64_t d, int64_t width, float* out) {
  F8 total[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Vectors; ++c) total[r][c] = load(out + r * width + d + 8 * c);
  for (int64_t at = 0; at < count; ++at) {
    F8 value[Vectors];
    for (int c = 0; c < Vectors; ++c) value[c] = values.value(at, d + 8 * c);
    for (int r = 0; r < Rows; ++r) {
      const F8 share = splat(odds[r * kKeysAtOnce + at]);
      for (int c = 0; c < Vectors; ++c) total[r][c] = fma(value[c], share, total[r][c]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Vectors; ++c) store(out + r * width + d + 8 * c, total[r][c]);
}

template <int Rows, class Values>
inline void mix_all(const Values& values, const float* odds, int64_t count, int64_t width, float* out) {
  int64_t d = 0;
  for (; d + 32 <= width; d += 32) mix<Rows, 4>(values, odds, count, d, width, out);
  for (; d < width; d += 8) mix<Rows, 1>(values, odds, count, d, width, out);
}

// Some rows of one span and one KV head, a tile of keys at a time with a running maximum (FlashAttention, Dao et
// al. 2022). The query heads of the group are rows like any other, `m` in all. A row's result depends on its own
// context alone: tiles begin at the same keys for all, and what a row must not see has odds of exactly 0.
struct Softmax {
  int64_t m, key_width, value_width;
  float *queries, *scores, *out, *top, *total;

  // Take in one tile: its first `count` keys, of which row r sees `visible(r)`.
  template <class Tile, class Visible>
  void add(const Tile& tile, int64_t count, const Visible& visible) {
    int64_t row = 0;
    for (; row + 3 <= m; row += 3) score<3>(tile, queries + row * key_width, key_width, scores + row * kKeysAtOnce);
    for (; row < m; ++row) score<1>(tile, queries + row * key_width, key_width, scores + row * kKeysAtOnce);
    for (row = 0; row < m; ++row) weigh(row, std::clamp<int64_t>(visible(row), 0, count));
    for (row = 0; row + 3 <= m; row += 3)
      mix_all<3>(tile, scores + row * kKeysAtOnce, count, value_width, out + row * value_width);
    for (; row < m; ++row)
      mix_all<1>(tile, scores + row * kKeysAtOnce, count, value_width, out + row * value_width);
  }

 private:
  // Scores of a row to odds against the largest so far, and what was summed before brought down to it.
  void weigh(int64_t row, int64_t visible) {
    float* s = scores + row * kKeysAtOnce;
    for (int64_t i = visible; i < kKeysAtOnce; ++i) s[i] = -INFINITY;
    if (visible == 0) {  // all odds are 0, and there may be no maximum yet
      std::fill(s, s + kKeysAtOnce, 0.0f);
      return;
    }
    F8 most = load(s);
    for (int64_t i = 8; i < kKeysAtOnce; i += 8) most = max(most, load(s + i));
    const float now = std::max(top[row], largest(most)), kept = std::exp(top[row] - now);
    F8 all = {};
    for (int64_t i = 0; i < kKeysAtOnce; i += 8) {
      const F8 odds = exp(load(s + i) - splat(now));
      store(s + i, odds);
      all += odds;
    }
    total[row] = total[row] * kept + sum(all);
    top[row] = now;
    if (kept != 1.0f)
      for (int64_t d = 0; d < value_width; d += 8)
        store(out + row * value_width + d, load(out + row * value_width + d) * splat(kept));
  }
};

// Rows `first` to `last` of a span, all query heads of one KV head.
inline void attend_rows(Scratch& scratch, const Heads& h, const Span& span, int64_t first, int64_t last,
                        int64_t kv_head) {
  const int64_t m = (last - first) * h.group;
  const int64_t before = span.context - span.stop;  // row + before: its position
  const auto whole = [](int64_t width) { return (width + 7) / 8 * 8; };
  const int64_t key_width = whole(h.key_dim), value_width = whole(h.value_dim);
  float* state = scratch.state.get(2 * m);
  Softmax softmax{m, key_width, value_width, scratch.queries.get(m * key_width), scratch.scores.get(m * kKeysAtOnce),
                  scratch.out.get(m * value_width), state, state + m};
  std::fill(softmax.queries, softmax.queries + m * key_width, 0.0f);
  std::fill(softmax.out, softmax.out + m * value_width, 0.0f);
  std::fill(softmax.top, softmax.top + m, -INFINITY);
  std::fill(softmax.total, softmax.total + m, 0.0f);
  for (int64_t row = 0; row < m; ++row) {
    const int64_t head = ((first + row / h.group) * h.kv_heads + kv_head) * h.group + row % h.group;
    for (int64_t d = 0; d < h.key_dim; ++d) softmax.queries[row * key_width + d] = h.q[head * h.key_dim + d] * h.scale;
  }
  // A copy pays when several rows read it, and fills up heads that are not whole vectors.
  const bool copied = last - first > 1 || key_width != h.key_dim || value_width != h.value_dim;
  Copies copies{nullptr, nullptr, key_width, value_width};
  if (copied) {
    copies.keys = scratch.keys.get(kKeysAtOnce * key_width);
    copies.values = scratch.values.get(kKeysAtOnce * value_width);
    std::fill(copies.keys, copies.keys + kKeysAtOnce * key_width, 0.0f);
    std::fill(copies.values, copies.values + kKeysAtOnce * value_width, 0.0f);
  }
  const int64_t seen = last + before;  // keys that the last row sees
  for (int64_t start = 0; start < seen; start += kKeysAtOnce) {
    const int64_t count = std::min(kKeysAtOnce, seen - start);
    const auto visible = [&](int64_t row) { return first + row / h.group + before + 1 - start; };
    Pages pages;
    for (int64_t at = 0; at < kKeysAtOnce; ++at) {
      const int64_t slot = span.slots[start + std::min(at, count - 1)];
      pages.keys[at] = h.key(slot, kv_head);
      pages.values[at] = h.value(slot, kv_head);
    }
    if (copied) {
      for (int64_t at = 0; at < count; ++at) {
        from_half(pages.keys[at], h.key_dim, copies.keys + at * key_width);
        from_half(pages.values[at], h.value_dim, copies.values + at * value_width);
      }
      softmax.add(copies, count, visible);
    } else {
      softmax.add(pages, count, visible);
    }
  }
  for (int64_t row = 0; row < m; ++row) {
    const int64_t head = ((first + row / h.group) * h.kv_heads + kv_head) * h.group + row % h.group;
    const float share = 1.0f / softmax.total[row];
    for (int64_t d = 0; d < h.value_dim; ++d)
      h.out[head * h.value_dim + d] = softmax.out[row * value_width + d] * share;
  }
}

inline void attend(Context& context, const Heads& h, const Batch& batch) {
  // Below this many multiplications the hand-over to other threads costs more than it saves.
  constexpr int64_t few = 1 << 16;
  const int64_t rows_at_once = std::max<int64_t>(1, 48 / h.group);
  std::vector<Piece>& pieces = context.pieces;
  pieces.clear();
  int64_t work = 0;
  for (int64_t number = 0; number < batch.span_count; ++number) {
    const Span& span = batch.spans[number];
    work += (span.stop - span.start) * span.context * h.kv_heads * h.group * (h.key_dim + h.value_dim);
    // Late rows see more keys: they come first, so that no thread is left alone with a long one.
    for (int64_t last = span.stop; last > span.start; last -= rows_at_once)
      for (int64_t head = 0; head < h.kv_heads; ++head)
        pieces.push_back({&span, std::max(span.start, last - rows_at_once), last, head});
  }
  const auto some = [&](int first, int last, int thread) {
    for (int number = first; number < last; ++number) {
      const Piece& piece = pieces[number];
      attend_rows(context.scratch[thread], h, *piece.span, piece.first, piece.last, piece.kv_head);
    }
  };
  if (work <= few)
    some(0, int(pieces.size()), 0);
  else
    context.pool.run(int(pieces.size()), some);
}

inline void self_attention(Context& context, const SelfAttention& block, float* x, const Batch& batch,
                           const Cache& cache) {
  const Weight &q = *block.q, &k = *block.k, &v = *block.v, &out = *block.out;
  Workspace& work = context.work;
  const int64_t rows = batch.rows, kv_heads = k.rows / block.key_dim, heads = q.rows / block.key_dim;
  uint16_t *keys = cache.keys + block.cache * cache.key_stride, *values = cache.values + block.cache * cache.value_stride;
  float *qs = work.q.get(rows * q.rows), *ks = work.k.get(rows * k.rows), *vs = work.v.get(rows * v.rows);
  float* mixed = work.mixed.get(rows * out.columns);

  const Input in = prepare(context, x, rows, q.columns, block.norm, block.epsilon, {&q, &k, &v});
  context.expect({&out});
  multiply_all(context, in, {{&q, in.thetas[0], qs}, {&k, in.thetas[1], ks}, {&v, in.thetas[2], vs}}, false);
  for_rows(context, rows, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = batch.positions[row] * (block.rotated / 2);
      for (int64_t head = 0; head < heads; ++head)
        rotate(qs + row * q.rows + head * block.key_dim, block.cos + at, block.sin + at, block.rotated);
      for (int64_t head = 0; head < kv_heads; ++head)
        rotate(ks + row * k.rows + head * block.key_dim, block.cos + at, block.sin + at, block.rotated);
      to_half(ks + row * k.rows, k.rows, keys + batch.slots[row] * k.rows);
      to_half(vs + row * v.rows, v.rows, values + batch.slots[row] * v.rows);
    }
  });
  attend(context, {kv_heads, heads / kv_heads, block.key_dim, block.value_dim, block.scale, qs, mixed, keys, values}, batch);
  const Input back = prepare(context, mixed, rows, out.columns, nullptr, 0, {&out});
  context.expect_next();
  multiply_all(context, back, {{&out, back.thetas[0], x}}, true);
}

}  // namespace nkat::NKAT_ISA
