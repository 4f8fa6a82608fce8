// What all calls of one engine share: threads, memory, and the shapes that cross the border to Python.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <mutex>
#include <new>
#include <vector>

#include "pool.h"
#include "weight.h"

namespace nkat {

// Memory that grows to the largest size it was asked for, and is not initialised.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  ~Buffer() { std::free(data_); }

  T* get(size_t count) {
    if (count > size_) {
      std::free(data_);
      data_ = static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64));
      size_ = data_ == nullptr ? 0 : count;
      if (data_ == nullptr) throw std::bad_alloc();
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Buffers of activations between two phases of a block, whole batches of rows.
struct Workspace {
  Buffer<float> normed, q, k, v, mixed, hidden, thetas[3];
  Buffer<int8_t> integers, rests;
  Buffer<float> scales;
  Buffer<uint64_t> coarse;
};

// Buffers of one thread.
struct Scratch {
  Buffer<float> queries, keys, values, scores, out, state;
  Buffer<uint8_t> panel;  // room for kPanels of any matrix
};

// The rows of one sequence in a batch, and the cache slots of its whole context, their own included.
struct Span {
  int64_t start, stop, context;
  const int64_t* slots;  // [context]
};

// A part of the attention that a thread does alone: some rows of a span, one KV head.
struct Piece {
  const Span* span;
  int64_t first, last, kv_head;
};

// Its spans lie end to end and have all rows.
struct Batch {
  int64_t rows, position_count;
  const int64_t* positions;  // [position_count], one for each row
  const int64_t* slots;      // [rows], where each row's key and value go
  int64_t span_count;
  const Span* spans;
};

// x + out(attention(norm(x))), rotary embedding and cache included.
struct SelfAttention {
  const float* norm;  // [norm_count], the width
  int64_t norm_count;
  float epsilon, scale;
  const Weight *q, *k, *v, *out;
  int64_t cache;  // its layer of the cache
  int64_t key_dim, value_dim, rotated;  // the first `rotated` elements of a head are turned, in pairs
  const float *cos, *sin;               // [positions][rotated / 2]
  int64_t positions;
};

// x + down(silu(gate(norm(x))) * up(norm(x))).
struct FeedForward {
  const float* norm;  // [norm_count], the width
  int64_t norm_count;
  float epsilon;
  const Weight *gate, *up, *down;
};

// One of the two.
struct Layer {
  const SelfAttention* attention;
  const FeedForward* feed_forward;
};

// Keys and values of all layers: half [layers][slots][width], the width being that of all KV heads.
struct Cache {
  uint16_t *keys, *values;
  int64_t key_stride, value_stride;  // elements from one layer to the next
  int64_t layers, slots, key_width, value_width;
};

struct Context {
  explicit Context(int threads) : pool(threads), scratch(threads) {}

  // The matrices that the job after the present one will read, while that one keeps memory busy: workers that
  // have nothing to do fetch the beginning, and the caller theta's projections, which he alone computes with.
  void expect(std::initializer_list<const Weight*> weights) {
    const Weight& first = **weights.begin();
    pool.expect(first.data, first.panel_bytes * first.panels());
    for (const Weight* weight : weights) {
      if (weight->rank > 0) __builtin_prefetch(weight->scales.data());
      for (int at = 0; at < weight->rank * weight->columns; at += 64) __builtin_prefetch(weight->v.data() + at, 0, 2);
    }
  }
  void expect_next() {
    if (next == nullptr) return;
    if (next->attention != nullptr)
      expect({next->attention->q, next->attention->k, next->attention->v});
    else
      expect({next->feed_forward->gate, next->feed_forward->up});
  }

  Pool pool;
  Arena arena;
  Workspace work;
  std::vector<Scratch> scratch;
  std::vector<Piece> pieces;    // of the attention under way
  const Layer* next = nullptr;  // the one after the present one, if any
  std::mutex busy;              // one call at a time: the pool and the buffers are shared
};

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  // x [rows][columns], behind a norm unless it is null, to y [rows][weight.rows].
  void (*linear)(Context&, const Weight&, const float* norm, float epsilon, const float* x, int64_t rows, float* y);
  // One row of the matrix, dequantised: out [columns]; `own` as by `packed_panel`.
  void (*row)(const Weight&, int64_t row, uint8_t* own, float* out);
  // Both change x [rows][width] in place.
  void (*self_attention)(Context&, const SelfAttention&, float* x, const Batch&, const Cache&);
  void (*feed_forward)(Context&, const FeedForward&, float* x, int64_t rows);
};

extern const Kernels kPortableKernels;
#ifdef NKAT_X86
extern const Kernels kAvx2Kernels, kAvxVnniKernels, kAvx512Kernels;
#endif

}  // namespace nkat
