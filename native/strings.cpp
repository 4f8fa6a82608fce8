#include "strings.h"

#include <cstring>

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

int64_t join_strings(const Strings& strings, uint8_t* out) {
  uint8_t* at = out;
  for (int64_t i = 0; i < strings.count; ++i) {
    const uint8_t* from = strings.text + strings.starts[i];
    const size_t size = size_t(strings.ends[i] - strings.starts[i]);
    if (memchr(from, 0, size) != nullptr) return -1;
    *at++ = 0;
    memcpy(at, from, size);
    at += size;
  }
  return at - out;
}

}  // namespace nkat
