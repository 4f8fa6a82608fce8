// Keeps the process alive where a mapped file loses its end, or its disk, while somebody reads it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nkat {

// From now on a read of this memory that the system answers with SIGBUS finds zeros, whoever reads: all from the page
// that failed to the end of the mapping becomes zero. `file`: the mapped file's descriptor, which is not kept. Returns a
// number for the functions below, or -1 where too many mappings are guarded already or the signal cannot be caught; then
// the memory is as unguarded as before.
int64_t guard_mapping(const uint8_t* start, size_t bytes, int file);

// Note for all guarded mappings whether their file has become too short. A file that ends within the last page of its
// mapping raises no signal.
void look_at_mappings();

// Whether a read of a guarded mapping has failed, or its file was too short when it was looked at.
bool has_failed(int64_t number);

// Let go of a mapping; to be called before it is unmapped.
void unguard_mapping(int64_t number);

}  // namespace nkat
