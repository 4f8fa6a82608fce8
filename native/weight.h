// A packed matrix, the bias of its products, and theta's correction of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "format.h"

namespace nkat {

// Memory of packed matrices: large pieces, on huge pages where the system has them.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  ~Arena();
  // Zeroed, aligned to a cache line; nullptr when the system has no more.
  uint8_t* take(size_t bytes);

 private:
  struct Piece {
    uint8_t* start;
    size_t bytes, used;
  };
  std::vector<Piece> pieces_;
};

// y = A x + bias + half_gamma (x v^T) u.
struct Weight {
  int type = 0;
  int rows = 0, columns = 0;
  const uint8_t* file = nullptr;  // [rows][bytes of a row], while not all is packed
  uint8_t* data = nullptr;        // [panels][records]
  size_t panel_bytes = 0;
  int part_bits = 0;                            // parts of 2^part_bits panels are packed at a time
  std::unique_ptr<std::atomic<bool>[]> packed;  // [parts]
  mutable std::atomic<bool> damaged{false};  // what was packed so far holds a value that is not finite
  const float* bias = nullptr;               // [rows], or none; the caller keeps it

  int rank = 0;                       // of theta where it counts; 0 without
  const float* half_gamma = nullptr;  // read at every product; the caller keeps it
  std::vector<int8_t> u;              // [panels][rank][8], each rank's largest 127
  std::vector<int8_t> v;              // [rank][columns], each rank's largest 127
  std::vector<float> scales;          // [rank], what both were divided by

  int panels() const { return (rows + kLanes - 1) / kLanes; }
  int parts() const { return ((panels() - 1) >> part_bits) + 1; }
  bool is_packed(int panel) const { return packed[panel >> part_bits].load(std::memory_order_acquire); }
};

// Packs some panels of the file's rows to `out`; notes whether all scales and floats among them are finite.
void pack_panels(const Weight& weight, int first, int last, uint8_t* out);

// Bytes of one packed panel, and of one row in the file; 0 for a type or a width that cannot be.
size_t panel_bytes(int type, int columns);
size_t row_bytes(int type, int columns);

// Factors float32 u [rank][rows], v [rank][columns], rounded to the 8 bits that they have in files: those that
// reach 127 there lose nothing. They count from now on.
void set_theta(Weight& weight, int rank, const float* u, const float* v, const float* half_gamma);

// Let the factors count, or compute without them.
void use_theta(Weight& weight, bool use);

}  // namespace nkat
