// The merges of byte pair encoding as numbers of tokens.
#pragma once

#include "strings.h"

namespace nkat {

// The tokens left and right of the first space behind the first character of each merge; of equal merges only the
// first is told of. Returns how many there are, -1 if one has no such tokens. `left`, `right`: [merges.count].
int64_t find_merges(const Strings& tokens, const Strings& merges, int32_t* left, int32_t* right);

}  // namespace nkat
