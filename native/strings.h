// Where the strings of a GGUF header lie: a vocabulary has hundreds of thousands, and Python takes longer to go from one
// to the next than the engine for half of what it loads.
#pragma once

#include <cstdint>

namespace nkat {

// Finds `count` strings in `size` bytes, each behind its length in 8 bytes, and where each begins and ends. Returns how
// many bytes they take, or -1 if they go beyond the end.
int64_t find_strings(const uint8_t* text, int64_t size, int64_t count, int64_t* starts, int64_t* ends);

// Strings at places of one text.
struct Strings {
  const uint8_t* text;
  int64_t size;                  // bytes of the text
  const int64_t *starts, *ends;  // [count]
  int64_t count;
};

// Throws a `Refusal` where one lies outside its text.
void check_strings(const Strings& strings);

// Writes the strings end to end, a NUL in front of each. Returns the bytes written; -1 if a string has a NUL, or if there
// is no room for all of them.
int64_t join_strings(const Strings& strings, uint8_t* out, int64_t room);

}  // namespace nkat
