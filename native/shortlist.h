// What the sampler asks of a row of logits, in one pass: behind the matrices of a token nothing of the row is in the
// caches any more, and every further pass costs as much as all the arithmetic.
#pragma once

#include <cstdint>

namespace nkat {

constexpr int kMostWanted = 512;

// The `wanted` largest of `count` values, at most kMostWanted, largest first and equal ones by rising place; minus
// infinity is none. Returns how many there are, or -1 if a value is NaN or above `limit`.
int64_t shortlist(const float* values, int64_t count, float limit, int64_t wanted, int64_t* places, float* largest);

// The usual end of a chain of samplers: top-p, then min-p, then the temperature, then the draw.
struct Tail {
  double top_p;      // 1 and above: off
  float distance;    // how far below the largest a logit may be: min-p's; infinity: off; minus infinity: none
  float temperature; // above 0
  double u;          // the random number, in [0, 1)
};

// Carries out the tail on `count` >= 1 candidates, largest first, in place: `logits` are divided by the temperature.
// Returns how many are left, and in `drawn` which of them was drawn.
int64_t draw(float* logits, int64_t count, const Tail& tail, int64_t* drawn);

}  // namespace nkat
