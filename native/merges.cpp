#include "merges.h"

#include <bit>
#include <cstring>
#include <random>
#include <vector>

namespace nkat {
namespace {

// Numbers by hash: linear probing in a table that is at most half full.
class Table {
 public:
  explicit Table(int64_t count) : slots_(std::bit_ceil(uint64_t(2 * count + 1)), -1) {}

  // The number that is `same` among those of this hash; -1 without one, and then `added` takes its place.
  template <class Same>
  int32_t find(uint64_t hash, int32_t added, const Same& same) {
    const uint64_t mask = slots_.size() - 1;
    for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
      if (slots_[at] < 0) {
        slots_[at] = added;
        return -1;
      }
      if (same(slots_[at])) return slots_[at];
    }
  }

 private:
  std::vector<int32_t> slots_;
};

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio

uint64_t mixed(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * kOdd;
  return hash ^ hash >> 32;
}

// `seed`: so that no file can be made whose strings all meet in one place.
uint64_t hash_of(const uint8_t* text, size_t size, uint64_t seed) {
  uint64_t hash = mixed(seed, size);
  for (; size > 8; text += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, text, 8);
    hash = mixed(hash, word);
  }
  uint64_t word = 0;
  std::memcpy(&word, text, size);
  return mixed(hash, word);
}

}  // namespace

int64_t find_merges(const Strings& tokens, const Strings& merges, int32_t* left, int32_t* right) {
  std::random_device random;
  const uint64_t seed = uint64_t(random()) << 32 | random();
  Table ids(tokens.count);
  const auto id_of = [&](const uint8_t* text, size_t size, int32_t added) {
    return ids.find(hash_of(text, size, seed), added, [&](int32_t id) {
      return size_t(tokens.ends[id] - tokens.starts[id]) == size &&
             std::memcmp(tokens.text + tokens.starts[id], text, size) == 0;
    });
  };
  for (int32_t id = 0; id < tokens.count; ++id)
    id_of(tokens.text + tokens.starts[id], size_t(tokens.ends[id] - tokens.starts[id]), id);

  Table pairs(merges.count);
  int32_t found = 0;
  for (int64_t i = 0; i < merges.count; ++i) {
    const uint8_t *text = merges.text + merges.starts[i], *end = merges.text + merges.ends[i];
    if (end - text < 3) return -1;
    const uint8_t* space = static_cast<const uint8_t*>(std::memchr(text + 1, ' ', size_t(end - text - 1)));
    if (space == nullptr || space + 1 == end) return -1;
    // A place that is looked for and free would be taken by -1, which is as free as before.
    left[found] = id_of(text, size_t(space - text), -1);
    right[found] = id_of(space + 1, size_t(end - space - 1), -1);
    if (left[found] < 0 || right[found] < 0) return -1;
    const uint64_t pair = uint64_t(left[found]) << 32 | uint32_t(right[found]);
    const int32_t known = pairs.find(mixed(seed, pair), found, [&](int32_t other) {
      return left[other] == left[found] && right[other] == right[found];
    });
    if (known < 0) ++found;
  }
  return found;
}

}  // namespace nkat
