// The border to Python: a plain C interface. Handles are opaque; the caller in Python keeps alive what is passed as a
// pointer, and says how long it is. Whether all lengths fit each other is checked here, before anything is read.
// Functions return 0, kNoMemory, or kRefused, of which `nkat_refusal` tells the reason.
#include <exception>
#include <new>

#include "checks.h"
#include "cpu.h"
#include "guard.h"
#include "merges.h"
#include "packer.h"
#include "refusal.h"
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

constexpr int kNoMemory = -1, kRefused = -2;

thread_local const char* refusal = "";

// The result of some work; no exception crosses the border.
template <class Work>
int outcome(const Work& work) noexcept {
  try {
    work();
    return 0;
  } catch (const Refusal& found) {
    refusal = found.reason;
    return kRefused;
  } catch (...) {  // std::bad_alloc, or std::system_error for want of threads
    return kNoMemory;
  }
}

constexpr int kMostThreads = 4096;

// More rows than a matrix that is being packed can be used for: each of its panels is packed for every call, and
// every tile.
constexpr int64_t kFewRows = 32;

// Work of which `check` says whether it can be done.
template <class Check, class Work>
int guarded(Engine* engine, const Check& check, const Work& work, int64_t rows = 0) noexcept {
  return outcome([&] {
    const std::lock_guard<std::mutex> alone(engine->context.busy);
    check();
    if (rows > kFewRows) engine->packer.settle();
    const Packer::Rest rest(engine->packer);
    work();
  });
}

}  // namespace

// Number of this interface; Python refuses a library of another one.
NKAT_API int nkat_version() { return 6; }

// Why the last call of this thread that was refused was.
NKAT_API const char* nkat_refusal() { return refusal; }

// What this processor offers, as `Feature` numbers it.
NKAT_API unsigned nkat_features() { return features(); }

// Whether a processor with these features can run the kernels of a name.
NKAT_API int nkat_can_run(const char* kernels, unsigned features) { return find_kernels(kernels, features) != nullptr; }

// An engine of its own threads and memory; null where the kernels cannot run, or for want of memory.
NKAT_API Engine* nkat_open(const char* kernels, int threads) {
  const Kernels* found = find_kernels(kernels, features());
  if (found == nullptr || threads < 1 || threads > kMostThreads) return nullptr;
  Engine* engine = nullptr;
  outcome([&] { engine = new Engine(*found, threads); });
  return engine;
}

NKAT_API void nkat_close(Engine* engine) { delete engine; }

// Pack a matrix from the file's rows; `packed` is null unless 0 is returned.
// Goes on behind the caller's back, who may use the matrix: `file` must stay until `nkat_settled`. The matrix lives
// as long as the engine, its handle until `nkat_forget`.
NKAT_API int nkat_pack(Engine* engine, int type, int64_t rows, int64_t columns, const uint8_t* file,
                       int64_t file_bytes, const float* bias, int64_t bias_count, Weight** packed) {
  *packed = nullptr;
  return outcome([&] {
    check_matrix(type, rows, columns, file_bytes, bias != nullptr, bias_count);
    const size_t bytes = panel_bytes(type, int(columns));
    auto weight = std::make_unique<Weight>();
    weight->type = type;
    weight->rows = int(rows);
    weight->columns = int(columns);
    weight->file = file;
    weight->panel_bytes = bytes;
    weight->bias = bias;
    const std::lock_guard<std::mutex> alone(engine->context.busy);
    for (Scratch& scratch : engine->context.scratch) scratch.panel.get(kPanels * bytes);
    weight->data = engine->context.arena.take(bytes * weight->panels());
    if (weight->data == nullptr) throw std::bad_alloc();
    try {
      engine->packer.add(*weight);
    } catch (...) {
      engine->packer.drop(*weight);
      throw;
    }
    *packed = weight.release();
  });
}

// Whether a part of a matrix that has been read so far holds a scale or a weight that is not finite.
NKAT_API int nkat_damaged(const Weight* weight) { return weight->damaged.load(); }

// Wait until all matrices are packed.
NKAT_API void nkat_settle(Engine* engine) { engine->packer.settle(); }

// Whether all are.
NKAT_API int nkat_settled(Engine* engine) { return engine->packer.settled(); }

// Let go of the handle of a matrix that no layer uses any more.
NKAT_API void nkat_forget(Engine* engine, Weight* weight) {
  engine->packer.drop(*weight);
  delete weight;
}

NKAT_API int nkat_set_theta(Engine* engine, Weight* weight, int64_t rank, const float* u, int64_t u_count,
                            const float* v, int64_t v_count, const float* half_gamma) {
  return guarded(
      engine, [&] { check_theta(*weight, rank, u, u_count, v, v_count); },
      [&] { set_theta(*weight, int(rank), u, v, half_gamma); });
}

NKAT_API void nkat_use_theta(Engine* engine, Weight* weight, int use) {
  const std::lock_guard<std::mutex> alone(engine->context.busy);
  use_theta(*weight, use != 0);
}

// `norm` may be null.
NKAT_API int nkat_linear(Engine* engine, const Weight* weight, const float* norm, int64_t norm_count, float epsilon,
                         const float* x, int64_t x_count, int64_t rows, float* y, int64_t y_count) {
  return guarded(
      engine, [&] { check_linear(*weight, norm, norm_count, x_count, rows, y_count); },
      [&] { engine->kernels.linear(engine->context, *weight, norm, epsilon, x, rows, y); }, rows);
}

NKAT_API int nkat_embed(Engine* engine, const Weight* weight, const int64_t* ids, int64_t count, float* out,
                        int64_t out_count) {
  return guarded(
      engine, [&] { check_embed(*weight, ids, count, out_count); },
      [&] {
        uint8_t* own = engine->context.scratch[0].panel.get(0);
        for (int64_t i = 0; i < count; ++i) engine->kernels.row(*weight, ids[i], own, out + i * weight->columns);
      },
      count);
}

// The layers in turn, on x [rows of the batch][width] in place.
NKAT_API int nkat_forward(Engine* engine, const Layer* layers, int64_t count, float* x, int64_t x_count,
                          const Batch* batch, const Cache* cache) {
  return guarded(
      engine, [&] { check_forward(layers, count, x_count, *batch, cache); },
      [&] {
        for (const Layer* layer = layers; layer < layers + count; ++layer) {
          engine->context.next = layer + 1 < layers + count ? layer + 1 : nullptr;
          if (layer->attention != nullptr)
            engine->kernels.self_attention(engine->context, *layer->attention, x, *batch, *cache);
          else
            engine->kernels.feed_forward(engine->context, *layer->feed_forward, x, batch->rows);
        }
      },
      batch->rows);
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

NKAT_API int64_t nkat_join_strings(const Strings* strings, uint8_t* out, int64_t room) {
  int64_t written = 0;
  const int result = outcome([&] {
    check_strings(*strings);
    written = join_strings(*strings, out, room);
  });
  return result == 0 ? written : result;
}

// The merges of byte pair encoding, as merges.h has it. `left`, `right`: [merges.count].
NKAT_API int64_t nkat_find_merges(const Strings* tokens, const Strings* merges, int32_t* left, int32_t* right) {
  int64_t found = 0;
  const int result = outcome([&] {
    check_strings(*tokens);
    check_strings(*merges);
    found = find_merges(*tokens, *merges, left, right);
  });
  return result == 0 ? found : result;
}

// Mappings whose files may be cut, as guard.h has it.
NKAT_API int64_t nkat_guard(const uint8_t* start, int64_t bytes, int file) {
  return guard_mapping(start, size_t(bytes), file);
}

NKAT_API void nkat_look_at_mappings() { look_at_mappings(); }

NKAT_API int nkat_guard_failed(int64_t number) { return has_failed(number); }

NKAT_API void nkat_unguard(int64_t number) { unguard_mapping(number); }
