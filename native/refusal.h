// What a call is refused for, before any of its pointers is used.
#pragma once

namespace nkat {

struct Refusal {
  const char* reason;
};

// Throw a refusal unless something holds.
inline void require(bool holds, const char* reason) {
  if (!holds) [[unlikely]]
    throw Refusal{reason};
}

}  // namespace nkat
