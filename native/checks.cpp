#include "checks.h"

#include <algorithm>
#include <bit>
#include <climits>

#include "refusal.h"

namespace nkat {
namespace {

// Rows and columns of a matrix, and rows of a batch: products of two of them and an element's size fit 64 bits.
constexpr int64_t kMost = int64_t(1) << 28;

// Whether all values lie within [0, limit). One branch for all: as unsigned numbers, negative ones are large.
bool all_below(const int64_t* values, int64_t count, int64_t limit) {
  uint64_t outside = 0;
  for (int64_t i = 0; i < count; ++i) outside |= uint64_t(values[i]) >= uint64_t(limit);
  return outside == 0;
}

bool all_finite(const float* values, int64_t count) {
  uint32_t special = 0;
  for (int64_t i = 0; i < count; ++i) special |= (std::bit_cast<uint32_t>(values[i]) & 0x7f800000) == 0x7f800000;
  return special == 0;
}

void check_rows(int64_t rows) { require(rows >= 0 && rows <= kMost, "a batch of too many rows"); }

void check_attention(const SelfAttention& layer, int64_t width, const Cache* cache) {
  require(layer.q != nullptr && layer.k != nullptr && layer.v != nullptr && layer.out != nullptr,
          "an attention lacks a matrix");
  const Weight &q = *layer.q, &k = *layer.k, &v = *layer.v, &out = *layer.out;
  require(layer.norm != nullptr && layer.norm_count == width, "the norm of an attention has another width");
  require(q.columns == width && k.columns == width && v.columns == width && out.rows == width,
          "the matrices of an attention have another width");
  const int64_t key_dim = layer.key_dim, value_dim = layer.value_dim;
  require(key_dim > 0 && value_dim > 0 && k.rows % key_dim == 0 && q.rows % key_dim == 0,
          "the heads of an attention have another size");
  const int64_t kv_heads = k.rows / key_dim, heads = q.rows / key_dim;
  require(heads % kv_heads == 0 && value_dim <= kMost && v.rows == kv_heads * value_dim &&
              out.columns == heads * value_dim,
          "the heads of an attention do not fit each other");
  require(layer.rotated >= 0 && layer.rotated <= key_dim && layer.rotated % 2 == 0,
          "the rotation of an attention has another size");
  require(layer.cos != nullptr && layer.sin != nullptr && layer.positions >= 0, "an attention lacks its rotation");
  require(cache != nullptr && cache->keys != nullptr && cache->values != nullptr, "an attention lacks a cache");
  require(layer.cache >= 0 && layer.cache < cache->layers, "the cache lacks the layer of an attention");
  require(cache->key_width == k.rows && cache->value_width == v.rows, "the cache is made for other heads");
  require(cache->key_stride >= 0 && cache->value_stride >= 0 && cache->slots >= 0, "the cache has a wrong shape");
}

void check_feed_forward(const FeedForward& layer, int64_t width) {
  require(layer.gate != nullptr && layer.up != nullptr && layer.down != nullptr, "a feed-forward lacks a matrix");
  require(layer.norm != nullptr && layer.norm_count == width, "the norm of a feed-forward has another width");
  require(layer.gate->columns == width && layer.up->columns == width && layer.down->rows == width,
          "the matrices of a feed-forward have another width");
  require(layer.gate->rows == layer.up->rows && layer.gate->rows == layer.down->columns,
          "the matrices of a feed-forward do not fit each other");
}

void check_batch(const Batch& batch) {
  require(batch.position_count == batch.rows, "a batch has as many positions as rows");
  require(batch.span_count >= 0 && (batch.span_count == 0 || batch.spans != nullptr), "a batch lacks its spans");
  int64_t row = 0;
  for (int64_t number = 0; number < batch.span_count; ++number) {
    const Span& span = batch.spans[number];
    require(span.start == row && span.stop >= span.start && span.stop <= batch.rows,
            "the spans of a batch do not lie end to end");
    require(span.context >= span.stop - span.start, "the context of a span lacks its own rows");
    row = span.stop;
  }
  require(row == batch.rows, "a batch has rows in no span");
}

}  // namespace

void check_matrix(int type, int64_t rows, int64_t columns, int64_t file_bytes, bool has_bias, int64_t bias_count) {
  require(rows > 0 && rows <= kMost && columns > 0 && columns <= kMost, "a matrix of an impossible shape");
  const size_t row = row_bytes(type, int(columns));
  require(row > 0, "a matrix of a type or width that cannot be packed");
  require(file_bytes >= 0 && uint64_t(file_bytes) == row * uint64_t(rows), "a matrix with too few or too many bytes");
  require(!has_bias || bias_count == rows, "a bias with more or fewer values than its matrix has rows");
}

void check_theta(const Weight& weight, int64_t rank, const float* u, int64_t u_count, const float* v, int64_t v_count) {
  // The offsets of v are counted in 32 bits.
  require(rank >= 0 && rank <= INT_MAX / std::max(weight.rows + kLanes, weight.columns), "theta of an impossible rank");
  require(u_count == rank * weight.rows && v_count == rank * weight.columns, "theta does not fit its matrix");
  require(all_finite(u, u_count) && all_finite(v, v_count), "theta holds values that are not finite");
}

void check_linear(const Weight& weight, const float* norm, int64_t norm_count, int64_t x_count, int64_t rows,
                  int64_t y_count) {
  check_rows(rows);
  require(norm == nullptr || norm_count == weight.columns, "a norm has another width than its matrix");
  require(x_count == rows * weight.columns, "the input of a product has another width than its matrix");
  require(y_count == rows * weight.rows, "the output of a product has another width than its matrix");
}

void check_embed(const Weight& weight, const int64_t* ids, int64_t count, int64_t out_count) {
  check_rows(count);
  require(all_below(ids, count, weight.rows), "a row that the matrix does not have");
  require(out_count == count * weight.columns, "the output of rows has another width than their matrix");
}

void check_forward(const Layer* layers, int64_t count, int64_t x_count, const Batch& batch, const Cache* cache) {
  check_rows(batch.rows);
  check_batch(batch);
  require(count >= 0, "less than no layer");
  const int64_t width = batch.rows > 0 ? x_count / batch.rows : 0;
  require(x_count == batch.rows * width, "the input is not whole rows");
  int64_t positions = INT64_MAX;
  for (const Layer* layer = layers; layer < layers + count; ++layer) {
    require((layer->attention != nullptr) != (layer->feed_forward != nullptr), "a layer is one of two kinds");
    // Without rows nothing is read or written, and the width is not known.
    if (batch.rows == 0) continue;
    if (layer->attention == nullptr) {
      check_feed_forward(*layer->feed_forward, width);
      continue;
    }
    check_attention(*layer->attention, width, cache);
    positions = std::min(positions, layer->attention->positions);
  }
  if (positions == INT64_MAX) return;
  require(all_below(batch.positions, batch.rows, positions), "a position beyond the rotation's table");
  require(all_below(batch.slots, batch.rows, cache->slots), "a slot that the cache does not have");
  for (int64_t number = 0; number < batch.span_count; ++number) {
    const Span& span = batch.spans[number];
    require(all_below(span.slots, span.context, cache->slots), "a context in a slot that the cache does not have");
  }
}

}  // namespace nkat
