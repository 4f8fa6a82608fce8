#include "shortlist.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nkat {

namespace {

typedef float Floats __attribute__((vector_size(16), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(16)));
constexpr int kWidth = 4;
constexpr int kGroup = 4 * kWidth;

constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct Entry {
  float value;
  int32_t place;
};

bool better(const Entry& a, const Entry& b) {
  return a.value > b.value || (a.value == b.value && a.place < b.place);
}

bool any(const Mask& mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }

// A heap with the worst entry on top, which a better one replaces.
class Best {
 public:
  explicit Best(int64_t wanted) : wanted_(int(std::min<int64_t>(wanted, kMostWanted))) {}

  // What a value must exceed to come in; places rise, so that an equal value comes too late.
  float threshold() const { return size_ < wanted_ ? kLowest : entries_[0].value; }

  void add(float value, int64_t place) {
    if (!(value > threshold())) return;
    if (size_ == wanted_) std::pop_heap(entries_, entries_ + size_--, better);
    entries_[size_++] = {value, int32_t(place)};
    std::push_heap(entries_, entries_ + size_, better);
  }

  int64_t write(int64_t* places, float* largest) {
    std::sort_heap(entries_, entries_ + size_, better);
    for (int i = 0; i < size_; ++i) {
      places[i] = entries_[i].place;
      largest[i] = entries_[i].value;
    }
    return size_;
  }

 private:
  const int wanted_;
  int size_ = 0;
  Entry entries_[kMostWanted];
};

// exp(l - l_0) of each logit; their sum.
double softmax(const float* logits, int64_t count, double* odds) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += odds[i] = std::exp(double(logits[i] - logits[0]));
  return total;
}

// The first place at which the sum of probabilities reaches p; `count` if rounding leaves it below.
int64_t reaching(const double* odds, int64_t count, double total, double p) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum += odds[i] / total;
    if (sum >= p) return i;
  }
  return count;
}

}  // namespace

int64_t shortlist(const float* values, int64_t count, float limit, int64_t wanted, int64_t* places, float* largest) {
  if (wanted < 1) return 0;
  Best best(wanted);
  Mask whole = {-1, -1, -1, -1};
  int64_t at = 0;
  for (; at + kGroup <= count; at += kGroup) {
    const float threshold = best.threshold();
    Mask above = {};
    for (int part = 0; part < kGroup; part += kWidth) {
      const Floats four = *reinterpret_cast<const Floats*>(values + at + part);
      above |= four > threshold;
      whole &= four <= limit;
    }
    if (!any(above)) continue;
    for (int64_t place = at; place < at + kGroup; ++place) best.add(values[place], place);
  }
  for (; at < count; ++at) {
    if (!(values[at] <= limit)) return -1;
    best.add(values[at], at);
  }
  return any(~whole) ? -1 : best.write(places, largest);
}

int64_t draw(float* logits, int64_t count, const Tail& tail, int64_t* drawn) {
  double odds[kMostWanted];
  if (tail.top_p < 1) {
    const double total = softmax(logits, count, odds);
    count = std::min(count, reaching(odds, count, total, tail.top_p) + 1);
  }
  const float least = logits[0] - tail.distance;
  while (count > 1 && logits[count - 1] < least) --count;
  for (int64_t i = 0; i < count; ++i) logits[i] /= tail.temperature;
  const double total = softmax(logits, count, odds);
  *drawn = std::min(reaching(odds, count, total, tail.u), count - 1);
  return count;
}

}  // namespace nkat
