// The border to Python: a plain C interface. Handles are opaque; sizes were checked by the caller in Python, who
// also keeps alive what is passed as a pointer. Functions return 0, or -1 for want of memory.
#include <exception>
#include <new>

#include "cpu.h"
#include "merges.h"
#include "packer.h"
#include "shortlist.h"
#include "strings.h"

#define NKAT_API extern "C" __attribute__((visibility("default")))

using namespace nkat;

namespace {

struct Engine {
  Engine(const Kernels& kernels, int threads) : kernels(kernels), context(threads), packer(threads) {}

  const Kernels& kernels;
  Context context;
  Packer packer;
};

// More rows than a matrix that is being packed can be used for: each of its panels is packed for every call, and
// every tile.
constexpr int64_t kFewRows = 32;

template <class Work>
int guarded(Engine* engine, const Work& work, int64_t rows = 0) {
  const std::lock_guard<std::mutex> alone(engine->context.busy);
  if (rows > kFewRows) engine->packer.settle();
  const Packer::Rest rest(engine->packer);
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

}  // namespace

// Number of this interface; Python refuses a library of another one.
NKAT_API int nkat_version() { return 5; }

// What this processor offers, as `Feature` numbers it.
NKAT_API unsigned nkat_features() { return features(); }

// Whether a processor with these features can run the kernels of a name.
NKAT_API int nkat_can_run(const char* kernels, unsigned features) { return find_kernels(kernels, features) != nullptr; }

// An engine of its own threads and memory; null where the kernels cannot run.
NKAT_API Engine* nkat_open(const char* kernels, int threads) {
  const Kernels* found = find_kernels(kernels, features());
  return found == nullptr ? nullptr : new (std::nothrow) Engine(*found, threads);
}

NKAT_API void nkat_close(Engine* engine) { delete engine; }

// Pack a matrix from the file's rows; null for a type or a width that cannot be packed, or for want of memory.
// Goes on behind the caller's back, who may use the matrix: `file` must stay until `nkat_settled`. The matrix lives
// as long as the engine, its handle until `nkat_forget`.
NKAT_API Weight* nkat_pack(Engine* engine, int type, int64_t rows, int64_t columns, const uint8_t* file,
                           const float* bias) {
  const size_t bytes = panel_bytes(type, int(columns));
  Weight* weight = bytes == 0 ? nullptr : new (std::nothrow) Weight;
  if (weight == nullptr) return nullptr;
  weight->type = type;
  weight->rows = int(rows);
  weight->columns = int(columns);
  weight->file = file;
  weight->panel_bytes = bytes;
  weight->bias = bias;
  const std::lock_guard<std::mutex> alone(engine->context.busy);
  try {
    for (Scratch& scratch : engine->context.scratch) scratch.panel.get(kPanels * bytes);
    weight->data = engine->context.arena.take(bytes * weight->panels());
    if (weight->data == nullptr) throw std::bad_alloc();
    engine->packer.add(*weight);
    return weight;
  } catch (const std::bad_alloc&) {
    engine->packer.drop(*weight);
    delete weight;
    return nullptr;
  }
}

// Wait until all matrices are packed.
NKAT_API void nkat_settle(Engine* engine) { engine->packer.settle(); }

// Whether all are.
NKAT_API int nkat_settled(Engine* engine) { return engine->packer.settled(); }

// Let go of the handle of a matrix that no layer uses any more.
NKAT_API void nkat_forget(Engine* engine, Weight* weight) {
  engine->packer.drop(*weight);
  delete weight;
}

NKAT_API int nkat_set_theta(Engine* engine, Weight* weight, int rank, const float* u, const float* v,
                            const float* half_gamma) {
  return guarded(engine, [&] { set_theta(*weight, rank, u, v, half_gamma); });
}

NKAT_API void nkat_use_theta(Engine* engine, Weight* weight, int use) {
  const std::lock_guard<std::mutex> alone(engine->context.busy);
  use_theta(*weight, use != 0);
}

// `norm` may be null.
NKAT_API int nkat_linear(Engine* engine, const Weight* weight, const float* norm, float epsilon, const float* x,
                         int64_t rows, float* y) {
  return guarded(engine, [&] { engine->kernels.linear(engine->context, *weight, norm, epsilon, x, rows, y); }, rows);
}

NKAT_API int nkat_embed(Engine* engine, const Weight* weight, const int64_t* ids, int64_t count, float* out) {
  return guarded(
      engine,
      [&] {
        uint8_t* own = engine->context.scratch[0].panel.get(0);
        for (int64_t i = 0; i < count; ++i) engine->kernels.row(*weight, ids[i], own, out + i * weight->columns);
      },
      count);
}

// The layers in turn, on x [rows of the batch][width] in place.
NKAT_API int nkat_forward(Engine* engine, const Layer* layers, int64_t count, float* x, const Batch* batch,
                          const Cache* cache) {
  return guarded(engine, [&] {
    for (const Layer* layer = layers; layer < layers + count; ++layer) {
      engine->context.next = layer + 1 < layers + count ? layer + 1 : nullptr;
      if (layer->attention != nullptr)
        engine->kernels.self_attention(engine->context, *layer->attention, x, *batch, *cache);
      else
        engine->kernels.feed_forward(engine->context, *layer->feed_forward, x, batch->rows);
    }
  }, batch->rows);
}

// The largest of a row of logits, as shortlist.h has it.
NKAT_API int64_t nkat_shortlist(const float* values, int64_t count, float limit, int64_t wanted, int64_t* places,
                                float* largest) {
  return shortlist(values, count, limit, wanted, places, largest);
}

// A shortlist, and the draw from it.
NKAT_API int64_t nkat_draw(const float* values, int64_t count, float limit, int64_t wanted, const Tail* tail,
                           int64_t* places, float* largest, int64_t* drawn) {
  const int64_t found = shortlist(values, count, limit, wanted, places, largest);
  return found < 1 ? found : draw(largest, found, *tail, drawn);
}

// Where the strings of a header lie, as strings.h has it.
NKAT_API int64_t nkat_find_strings(const uint8_t* text, int64_t size, int64_t count, int64_t* starts, int64_t* ends) {
  return find_strings(text, size, count, starts, ends);
}

NKAT_API int64_t nkat_join_strings(const Strings* strings, uint8_t* out) { return join_strings(*strings, out); }

// The merges of byte pair encoding, as merges.h has it.
NKAT_API int64_t nkat_find_merges(const Strings* tokens, const Strings* merges, int32_t* left, int32_t* right) {
  try {
    return find_merges(*tokens, *merges, left, right);
  } catch (const std::exception&) {
    return -1;
  }
}
