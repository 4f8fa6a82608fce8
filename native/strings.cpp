#include "strings.h"

#include <cstring>

#include "refusal.h"

namespace nkat {

int64_t find_strings(const uint8_t* text, int64_t size, int64_t count, int64_t* starts, int64_t* ends) {
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t length;
    if (size - at < int64_t(sizeof length)) return -1;
    memcpy(&length, text + at, sizeof length);
    at += sizeof length;
    if (length > uint64_t(size - at)) return -1;
    starts[i] = at;
    at += int64_t(length);
    ends[i] = at;
  }
  return at;
}

void check_strings(const Strings& strings) {
  require(strings.count >= 0 && strings.count <= INT32_MAX, "too many strings");
  bool outside = false;
  for (int64_t i = 0; i < strings.count; ++i)
    outside |= strings.starts[i] < 0 || strings.starts[i] > strings.ends[i] || strings.ends[i] > strings.size;
  require(!outside, "a string outside its text");
}

int64_t join_strings(const Strings& strings, uint8_t* out, int64_t room) {
  uint8_t* at = out;
  for (int64_t i = 0; i < strings.count; ++i) {
    const uint8_t* from = strings.text + strings.starts[i];
    const size_t size = size_t(strings.ends[i] - strings.starts[i]);
    if (memchr(from, 0, size) != nullptr || int64_t(size) >= room - (at - out)) return -1;
    *at++ = 0;
    memcpy(at, from, size);
    at += size;
  }
  return at - out;
}

}  // namespace nkat
