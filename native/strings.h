// Where the strings of a GGUF header lie: a vocabulary has hundreds of thousands, and Python takes longer to go from one
// to the next than the engine for half of what it loads.
#pragma once

#include <cstdint>

namespace nkat {

// Finds `count` strings in `size` bytes, each behind its length in 8 bytes, and where each begins and ends. Returns how
// many bytes they take, or -1 if they go beyond the end.
int64_t find_strings(const uint8_t* text, int64_t size, int64_t count, int64_t* starts, int64_t* ends);

// Writes the strings end to end, a NUL in front of each and, where they are to be `halved`, in place of the only space
// that each must have, with something before and behind it. Returns the bytes written, at most those of `text` that
// the strings and their lengths take; -1 if a string has a NUL or cannot be halved.
int64_t join_strings(const uint8_t* text, const int64_t* starts, const int64_t* ends, int64_t count, bool halved,
                     uint8_t* out);

}  // namespace nkat
